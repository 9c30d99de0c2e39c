"""What a mirror does, whatever it is made of.

Owns the contract between the proxy and the place where patched images live. References passed in are names in the
mirror (`Naming.name_for`); methods say whether they look at the tag or the digest of one.
"""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Protocol

from proxy.oci.digest import Digest
from proxy.oci.manifest import Descriptor, Index, Manifest
from proxy.oci.reference import ImageRef


class Mirror(Protocol):
    """Patched images, their signatures and the records about them, by name, tag and digest."""

    def name_for(self, upstream: ImageRef) -> ImageRef:
        """Return the mirror's name of an upstream image, with the same tag and digest."""
        ...

    def original_of(self, ref: ImageRef) -> ImageRef | None:
        """Return the upstream name of a reference into the mirror; None when it points elsewhere."""
        ...

    async def get_manifest(self, ref: ImageRef) -> Manifest | Index | None:
        """Return what the digest of `ref`, or else its tag, names; None when it is not there."""
        ...

    async def read_blob(self, ref: ImageRef, descriptor: Descriptor, *, limit: int) -> bytes:
        """Return a small blob, checked; raises TrustFailure when it is not what the descriptor says or over `limit`."""
        ...

    async def put_image(
        self,
        ref: ImageRef,
        top: Manifest | Index,
        children: Sequence[Manifest],
        blobs: Mapping[Digest, Path],
        *,
        tags: Sequence[str] = (),
    ) -> None:
        """Put a patched image: blobs, then children, then `top`, then its immutable tag and `tags`.

        Args:
            ref: the name; its tag and digest are those of the original and not used.
            top: what the patched reference names.
            children: of an index, its manifests.
            blobs: files that nobody writes to any more; what the mirror already has may be missing.
            tags: further tags for `top`.

        Raises:
            TrustFailure: a file is not what its digest says.
            MalformedInput: something is referenced that is neither in `blobs` nor in the mirror.
            ResourceExhausted: it does not fit; nothing of it is visible.
        """
        ...

    async def put_artifact(self, ref: ImageRef, manifest: Manifest, blobs: Mapping[Digest, bytes]) -> None:
        """Put a small artifact (signature, record) under the tag of `ref`, or by digest alone when it has none."""
        ...

    async def tags(self, ref: ImageRef) -> tuple[str, ...]:
        """Return the tags of a name, in order."""
        ...

    async def delete(self, ref: ImageRef) -> bool:
        """Remove a tag, or with a digest the manifest and all its tags; False when it was not there.

        Raises Unsupported when the registry does not delete.
        """
        ...

    async def referrers(self, ref: ImageRef, artifact_type: str = "") -> tuple[Descriptor, ...]:
        """Return the manifests whose subject is the digest of `ref`, of one artifact type when given."""
        ...

    async def move_tag(self, ref: ImageRef, digest: Digest) -> None:
        """Point the tag of `ref` at a digest that the mirror has under this name.

        The digest that it pointed at before is marked as superseded when it was a `src-` tag.
        """
        ...

    async def exchange_tag(self, ref: ImageRef, digest: Digest, expected: Digest | None) -> bool:
        """Move the tag of `ref` if it points at `expected` (None: if it is not there) and return whether it moved.

        Who gets False reads again.
        """
        ...

    async def retain(self, seconds: float, in_use: AbstractSet[Digest]) -> tuple[Digest, ...]:
        """Remove patched images that were superseded `seconds` ago and are not in use; returns their digests."""
        ...

    async def close(self) -> None:
        """Finish writing and let go of the storage."""
        ...
