"""`Registry`: every operation on any OCI registry, in one place.

Owns nothing but the list of what can be asked; all of it goes out through `Egress`.
"""

from collections.abc import AsyncGenerator

from proxy.credentials import Credentials
from proxy.egress import Egress
from proxy.oci.digest import Digest
from proxy.oci.manifest import Descriptor, Index, Manifest
from proxy.oci.reference import ImageRef
from proxy.registry import pull, push
from proxy.registry.push import OpenFile
from proxy.registry.referrers import Referrers
from proxy.registry.session import Session


class Registry:
    """A client of all registries; names say which one is meant.

    Every method raises UpstreamRefused (401, 403, 404 and the like), UpstreamUnavailable (no answer, 429, 5xx),
    TrustFailure (a digest, or an address that is not allowed) and MalformedInput, and says which.

    Args:
        egress: the way out.
        credentials: logins by registry; by default none.
    """

    def __init__(self, egress: Egress, credentials: Credentials | None = None) -> None:
        self._session = Session(egress, Credentials() if credentials is None else credentials)
        self._referrers = Referrers(self._session)

    async def get_manifest(self, ref: ImageRef) -> Manifest | Index:
        """Return what the digest of `ref`, or else its tag, names; checked against the digest."""
        return await pull.get_manifest(self._session, ref)

    async def head_manifest(self, ref: ImageRef) -> Descriptor | None:
        """Return the descriptor of what `ref` names, or None; asks by GET where HEAD says too little."""
        return await pull.head_manifest(self._session, ref)

    def stream_blob(
        self, name: ImageRef, descriptor: Descriptor, *, hashed: bool = True
    ) -> AsyncGenerator[bytes, None]:
        """Yield a blob's bytes; the size is never exceeded, and the digest holds when the stream ends without error.

        Without `hashed` the digest is the caller's to check.
        """
        return pull.stream_blob(self._session, name, descriptor, hashed=hashed)

    async def has_blob(self, name: ImageRef, digest: Digest) -> bool:
        """Say whether the repository has a blob."""
        return await pull.has_blob(self._session, name, digest)

    async def blob_size(self, name: ImageRef, digest: Digest) -> int | None:
        """Return the size of a blob that the repository has, or None when it does not have it."""
        return await pull.blob_size(self._session, name, digest)

    async def list_tags(self, name: ImageRef) -> tuple[str, ...]:
        """Return the tags of a repository, in order; empty when it does not exist."""
        return await pull.list_tags(self._session, name)

    async def mount_blob(self, name: ImageRef, digest: Digest, source_repository: str) -> bool:
        """Take a blob over from another repository of the same registry; False when the registry does not."""
        started = await push.start_upload(self._session, name, mount=digest, mount_from=source_repository)
        return started is None

    async def push_blob(
        self,
        name: ImageRef,
        descriptor: Descriptor,
        open_file: OpenFile,
        *,
        mount_from: str = "",
        chunk: int | None = None,
    ) -> None:
        """Upload a blob, unless the repository has it.

        Args:
            name: the repository.
            descriptor: digest and size.
            open_file: opens the content, which is read from its start, perhaps several times.
            mount_from: another repository of this registry that probably has the blob.
            chunk: bytes of one chunk; by default the blob goes in one piece, and in chunks only if that is refused.
        """
        await push.push_blob(self._session, name, descriptor, open_file, mount_from=mount_from, chunk=chunk)

    async def push_manifest(self, ref: ImageRef, manifest: Manifest | Index) -> Digest:
        """Upload a manifest under the tag of `ref`, or its digest; returns the manifest's digest."""
        await push.push_manifest(self._session, ref, manifest)
        return manifest.digest

    async def delete_manifest(self, ref: ImageRef) -> bool:
        """Delete a manifest by digest, or a tag; False when it was not there, Unsupported when the registry won't."""
        return await push.delete_manifest(self._session, ref)

    async def referrers(self, name: ImageRef, digest: Digest, artifact_type: str = "") -> tuple[Descriptor, ...]:
        """Return the manifests whose subject is `digest`, from the referrers API or the fallback tag."""
        return await self._referrers.find(name, digest, artifact_type)

    async def push_referrer(self, ref: ImageRef, manifest: Manifest | Index) -> None:
        """Push a manifest with a subject under the tag of `ref` or its own digest, and see that it is listed."""
        await self._referrers.push(ref, manifest)
