"""The mirror on this machine's disk: an OCI image layout, served by the proxy itself on /v2/.

Owns the order of writing: blobs, child manifests, the manifest, tags, each complete and flushed before the next, so
that whatever is visible is whole at any moment at which the process may be killed. One writer at a time changes
manifests and tags; blobs come in side by side. Refuses what does not fit into its bound before it writes.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from pathlib import Path
from typing import Literal

from proxy.blobs import BlobStore
from proxy.errors import AdmendError, MalformedInput, TrustFailure
from proxy.mirror.collect import GRACE, content, expire, plan, retire, sweep_manifests, unneeded
from proxy.mirror.holdings import Holdings
from proxy.mirror.layout import Layout, Visibility
from proxy.mirror.tags import is_immutable, is_source, patched_tag, superseded_tag
from proxy.oci.digest import Digest
from proxy.oci.manifest import Descriptor, Index, Manifest, parse_manifest
from proxy.oci.naming import Naming
from proxy.oci.reference import ImageRef
from proxy.partial import in_thread

_log = logging.getLogger(__name__)


class EmbeddedMirror:
    """An OCI image layout in `root`.

    Args:
        root: the folder; one process at a time.
        naming: host, prefix and style of names.
        max_bytes: the most that all blobs together may take.
        cache: a store whose files are known to be what their names say: they are linked in without hashing.
        grace: seconds for which a blob without a manifest, or a manifest without a tag, is taken for a push under way.
    """

    def __init__(
        self, root: Path, naming: Naming, max_bytes: int, *, cache: BlobStore | None = None, grace: float = GRACE
    ) -> None:
        self.naming, self._cache, self._grace = naming, cache, grace
        self.layout = Layout(root)
        try:
            self.blobs = BlobStore(root, max_bytes, evict=False)
        except BaseException:
            self.layout.close()
            raise
        self._holdings = Holdings(self.layout, self.blobs)
        self._looking, self._writing = asyncio.Lock(), asyncio.Lock()
        self._rendering: asyncio.Task[None] | None = None
        self._stale = False
        self._policy: tuple[float, AbstractSet[Digest]] | None = None

    async def close(self) -> None:
        """Write index.json if it lags behind; let go of the folder."""
        if self._rendering is not None:
            self._rendering.cancel()
            await asyncio.wait({self._rendering})
        async with self._writing:
            try:
                if self._stale:
                    await in_thread(self.layout.render_index)
            finally:
                self.layout.close()

    def name_for(self, upstream: ImageRef) -> ImageRef:
        """Return the mirror's name of an upstream image, with the same tag and digest."""
        return self.naming.name_for(upstream)

    def original_of(self, ref: ImageRef) -> ImageRef | None:
        """Return the upstream name of a reference into the mirror; None when it points elsewhere."""
        return self.naming.original_of(ref)

    async def holds(self, ref: ImageRef) -> bool:
        """Say whether a manifest of the name references the blob that the digest of `ref` names."""
        digest = ref.digest
        if digest is None:
            return False
        async with self._looking:
            return await asyncio.to_thread(lambda: self._holdings.has(ref.repository, digest))

    def visibility(self, repository: str) -> Visibility:
        """Return whether a repository is public or private; "" as long as nothing is known."""
        return self.layout.visibility(repository)

    async def set_visibility(self, repository: str, visibility: Literal["public", "private"]) -> None:
        """Note that a repository is public or private."""
        if self.layout.visibility(repository) != visibility:
            async with self._writing:
                await in_thread(lambda: self.layout.set_visibility(repository, visibility))

    def resolve(self, ref: ImageRef) -> Descriptor | None:
        """Return the descriptor of what the digest of `ref`, or else its tag, names."""
        if ref.digest is not None:
            return self.layout.descriptor(ref.repository, ref.digest)
        return self.layout.tags(ref.repository).get(ref.tag or "latest")

    async def get_manifest(self, ref: ImageRef) -> Manifest | Index | None:
        """Return what the digest of `ref`, or else its tag, names; None when it is not there."""
        descriptor = self.resolve(ref)
        if descriptor is None:
            return None
        path = self.blobs.path(descriptor.digest)
        try:
            raw = await asyncio.to_thread(path.read_bytes)
        except FileNotFoundError:
            return None
        if Digest.of(raw) != descriptor.digest:
            raise TrustFailure(f"{path}: damaged on disk, its digest is {Digest.of(raw)}; remove it and push it again")
        return parse_manifest(raw, descriptor.media_type, where=str(path))

    async def read_blob(self, ref: ImageRef, descriptor: Descriptor, *, limit: int) -> bytes:
        """Return a small blob, checked."""
        path = self.blobs.path(descriptor.digest)
        if descriptor.size > limit:
            raise TrustFailure(f"{ref.name}: blob {descriptor.digest} is over the {limit} bytes it may have; refused")
        if not self.blobs.has(descriptor.digest, descriptor.size):
            raise TrustFailure(f"{path}: missing, or not of {descriptor.size} bytes; refused")
        raw = await asyncio.to_thread(path.read_bytes)
        if Digest.of(raw) != descriptor.digest:
            raise TrustFailure(f"{path}: damaged on disk; refused")
        return raw

    async def put_image(
        self,
        ref: ImageRef,
        top: Manifest | Index,
        children: Sequence[Manifest],
        blobs: Mapping[Digest, Path],
        *,
        tags: Sequence[str] = (),
    ) -> None:
        """Put a patched image; see Mirror."""
        manifests = (*children, top)
        wanted = [item for manifest in manifests for item in content(manifest)]
        with self.blobs.pin([*(item.digest for item in wanted), *(manifest.digest for manifest in manifests)]):
            missing = {item.digest: item for item in wanted if not self.blobs.has(item.digest, item.size)}
            await self._make_room(sum(item.size for item in missing.values()) + sum(len(m.raw) for m in manifests))
            for digest, item in missing.items():
                if digest not in blobs:
                    raise MalformedInput(f"blob {digest} is neither given nor in the mirror", file=ref.name)
                known = self._cache is not None and blobs[digest] == self._cache.final(digest)
                await self.blobs.link_file(blobs[digest], digest, item.size, verify=not known)
            for manifest in manifests:
                await self.put_manifest(ref.repository, manifest)
            for tag in (patched_tag(top.digest), *tags):
                await self.move_tag(ref.with_tag(tag), top.digest)

    async def put_artifact(self, ref: ImageRef, manifest: Manifest, blobs: Mapping[Digest, bytes]) -> None:
        """Put a small artifact; see Mirror."""
        with self.blobs.pin([*blobs, manifest.digest]):
            await self._make_room(sum(len(data) for data in blobs.values()) + len(manifest.raw))
            for data in blobs.values():
                await self.blobs.put_bytes(data)
            await self.put_manifest(ref.repository, manifest)
            if ref.tag is not None:
                await self.move_tag(ref, manifest.digest)

    async def put_manifest(self, repository: str, manifest: Manifest | Index) -> None:
        """Make a manifest visible by its digest; raises MalformedInput when something it references is not there."""
        with self.blobs.pin([manifest.digest]):
            await self._make_room(len(manifest.raw))
            await self.blobs.put_bytes(manifest.raw)
            async with self._writing:
                missing = self.missing(repository, manifest)
                if missing:
                    raise MalformedInput(f"references {missing[0]}, which is not in the mirror", file=repository)
                await in_thread(lambda: self.layout.add_manifest(repository, manifest))

    def missing(self, repository: str, manifest: Manifest | Index) -> tuple[Digest, ...]:
        """Return what a manifest references and the repository does not have."""
        if isinstance(manifest, Index):
            return tuple(
                item.digest for item in manifest.manifests if self.layout.descriptor(repository, item.digest) is None
            )
        return tuple(item.digest for item in content(manifest) if not self.blobs.has(item.digest, item.size))

    async def tags(self, ref: ImageRef) -> tuple[str, ...]:
        """Return the tags of a name, in order."""
        return tuple(sorted(self.layout.tags(ref.repository)))

    async def referrers(self, ref: ImageRef, artifact_type: str = "") -> tuple[Descriptor, ...]:
        """Return the manifests whose subject is the digest of `ref`, of one artifact type when given."""
        subject = ref.digest
        if subject is None:
            return ()
        found = await asyncio.to_thread(lambda: self.layout.referrers(ref.repository, subject))
        return tuple(item for item in found if not artifact_type or item.artifact_type == artifact_type)

    async def move_tag(self, ref: ImageRef, digest: Digest) -> None:
        """Point the tag of `ref` at a digest of the same name; see Mirror."""
        await self._point(ref, digest, lambda _: True)

    async def exchange_tag(self, ref: ImageRef, digest: Digest, expected: Digest | None) -> bool:
        """Move the tag of `ref` if it points at `expected` and return whether it moved; see Mirror."""
        return await self._point(ref, digest, lambda current: current == expected)

    async def _point(self, ref: ImageRef, digest: Digest, allowed: Callable[[Digest | None], bool]) -> bool:
        repository, tag = ref.repository, ref.tag
        if tag is None:
            raise MalformedInput("a tag is moved by name, this reference has none", text=str(ref))
        if is_immutable(tag) and tag != patched_tag(digest):
            raise MalformedInput(f"this tag can only ever point at the digest it names, not at {digest}", text=tag)
        async with self._writing:
            descriptor = self.layout.descriptor(repository, digest)
            if descriptor is None:
                raise MalformedInput(f"tag {tag} cannot point at {digest}, which is not there", file=ref.name)
            known = self.layout.tags(repository).get(tag)
            current = known.digest if known else None
            if not allowed(current):
                return False
            await in_thread(lambda: self.layout.set_tag(repository, tag, descriptor))
            if current is not None and current != digest and is_source(tag):
                await in_thread(lambda: self._supersede(repository, current))
        await self._publish()
        return True

    def _supersede(self, repository: str, digest: Digest) -> None:
        tags = self.layout.tags(repository)
        newest = any(is_source(tag) and item.digest == digest for tag, item in tags.items())
        if not newest and patched_tag(digest) in tags:
            self.layout.set_tag(repository, superseded_tag(digest, time.time()), tags[patched_tag(digest)])

    async def delete(self, ref: ImageRef) -> bool:
        """Remove a tag, or with a digest the manifest and all its tags; False when it was not there.

        Raises MalformedInput for a manifest that an index of the same name still lists.
        """
        descriptor = self.resolve(ref)
        if descriptor is None:
            return False
        async with self._writing:
            if ref.digest is None:
                await in_thread(lambda: self.layout.drop_tags(ref.repository, [ref.tag or "latest"]))
            else:
                await in_thread(lambda: retire(self.layout, self.blobs, ref.repository, descriptor.digest))
        await self._publish()
        return True

    async def retain(self, seconds: float, in_use: AbstractSet[Digest]) -> tuple[Digest, ...]:
        """Remove what was superseded `seconds` ago and is not in use, then all that nothing needs any more."""
        self._policy = (seconds, frozenset(in_use))
        dropped: list[Digest] = []
        async with self._writing:
            for repository in self.layout.repositories():
                dropped += await in_thread(partial(self._retire_old, repository, seconds, in_use))
            await self._sweep(in_use)
        await self._publish()
        return tuple(dropped)

    def _retire_old(self, repository: str, seconds: float, in_use: AbstractSet[Digest]) -> tuple[Digest, ...]:
        decided = plan(self.layout, self.blobs, repository, in_use=in_use, retain=seconds)
        for digest in decided.mark:
            self._supersede(repository, digest)
        for digest in decided.drop:
            expire(self.layout, self.blobs, repository, digest)
        return decided.drop

    async def _sweep(self, in_use: AbstractSet[Digest]) -> None:
        needed = await in_thread(lambda: sweep_manifests(self.layout, self.blobs, in_use=in_use, grace=self._grace))
        candidates = tuple(self.blobs)
        for digest in await in_thread(lambda: unneeded(self.blobs, candidates, needed, grace=self._grace)):
            if self.blobs.last_used(digest) <= time.time() - self._grace:  # a push may have asked for it just now
                self.blobs.remove(digest)

    async def _make_room(self, size: int) -> None:
        """Collect garbage when `size` more bytes do not fit; raises ResourceExhausted when they still do not."""
        if self.blobs.room_for(size) > 0:
            if self._policy is not None:
                await self.retain(*self._policy)
            else:
                async with self._writing:
                    await self._sweep(frozenset())
        self.blobs.reserve(size)
        self.blobs.release(size)

    async def _publish(self) -> None:
        """Render index.json now, or a little later when it was just rendered: many tags make it slow to write."""
        self._stale = True
        if self._rendering is None:
            self._rendering = asyncio.create_task(self._render())

    async def _render(self) -> None:
        try:
            while self._stale:
                start = time.perf_counter()
                async with self._writing:
                    await in_thread(self.layout.render_index)
                    self._stale = False
                await asyncio.sleep(20 * (time.perf_counter() - start))
        except (AdmendError, OSError) as error:  # the tags are safe; the next change, or start, renders it again
            _log.warning("index.json lags behind: %s", error)
        finally:
            self._rendering = None
