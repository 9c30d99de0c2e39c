"""The mirror in a registry of the operator's own.

Owns the order of writing there, which is the embedded mirror's: blobs, child manifests, the manifest, tags. A registry
has no compare-and-set: `exchange_tag` reads before and after it writes, so of two writers at the same moment both may
believe that they won; what the tag points at is a complete image either way, and the next refresh puts it right.
Retention covers the names that this process has used since it started, and needs a registry that deletes by digest.
"""

import asyncio
import io
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path
from typing import BinaryIO, TypeVar

from proxy.errors import MalformedInput, TrustFailure, Unsupported, UpstreamRefused
from proxy.mirror.collect import content
from proxy.mirror.tags import (
    companion_tags,
    is_immutable,
    is_source,
    patched_tag,
    plan_retention,
    superseded_tag,
)
from proxy.oci.digest import Digest, DigestCheck
from proxy.oci.manifest import Descriptor, Index, Manifest
from proxy.oci.naming import Naming, is_internal
from proxy.oci.reference import ImageRef
from proxy.registry import Registry

MAX_KNOWN = 10_000  # blobs whose repository, and names, are remembered
PUSHES = 4  # blobs pushed side by side, as clients commonly do

K = TypeVar("K")
V = TypeVar("V")

_log = logging.getLogger(__name__)


class ExternalMirror:
    """Any registry.

    Args:
        registry: its client, with the credentials that may push.
        naming: host as nodes write it, prefix and style of names.
        address: host and port that the proxy itself asks; empty when it is the nodes' one.
    """

    def __init__(self, registry: Registry, naming: Naming, *, address: str = "") -> None:
        self._registry, self.naming = registry, naming
        self._address = address or naming.host
        self._homes: OrderedDict[Digest, ImageRef] = OrderedDict()  # where a blob is known to be, for mounts
        self._names: OrderedDict[str, ImageRef] = OrderedDict()
        self._pushes = asyncio.Semaphore(PUSHES)

    async def close(self) -> None:
        """Do nothing: the registry's client belongs to whoever made it."""

    def name_for(self, upstream: ImageRef) -> ImageRef:
        """Return the mirror's name of an upstream image, with the same tag and digest."""
        return self.naming.name_for(upstream)

    def original_of(self, ref: ImageRef) -> ImageRef | None:
        """Return the upstream name of a reference into the mirror; None when it points elsewhere."""
        return self.naming.original_of(ref)

    def _there(self, ref: ImageRef) -> ImageRef:
        """Return the reference as the proxy asks for it."""
        there = replace(ref, host=self._address)
        _remember(self._names, there.name, ImageRef(there.host, there.repository))
        return there

    async def get_manifest(self, ref: ImageRef) -> Manifest | Index | None:
        """Return what the digest of `ref`, or else its tag, names; None when it is not there."""
        return await self._get(self._there(ref))

    async def _get(self, there: ImageRef) -> Manifest | Index | None:
        try:
            return await self._registry.get_manifest(there)
        except UpstreamRefused as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return None
            raise

    async def read_blob(self, ref: ImageRef, descriptor: Descriptor, *, limit: int) -> bytes:
        """Return a small blob, checked."""
        where = f"{ref.name} blob {descriptor.digest}"
        if descriptor.size > limit:
            raise TrustFailure(f"{where}: over the {limit} bytes it may have; refused")
        check = DigestCheck(descriptor.digest, size=descriptor.size, limit=limit, where=where)
        pieces = []
        async for piece in self._registry.stream_blob(self._there(ref), descriptor):
            check.update(piece)
            pieces.append(piece)
        check.finish()
        return b"".join(pieces)

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
        there = self._there(ref)
        wanted = {item.digest: item for manifest in (*children, top) for item in content(manifest)}
        opens = {digest: _opener(path) for digest, path in blobs.items()}
        await self._push_blobs(there, wanted.values(), opens)
        for child in children:
            await self._registry.push_manifest(there.with_digest(child.digest), child)
        for tag in (patched_tag(top.digest), *tags):
            await self._registry.push_manifest(there.with_tag(tag), top)

    async def put_artifact(self, ref: ImageRef, manifest: Manifest, blobs: Mapping[Digest, bytes]) -> None:
        """Put a small artifact under the tag of `ref`, or by digest alone; see Mirror."""
        there = self._there(ref)
        opens = {digest: _memory(data) for digest, data in blobs.items()}
        wanted = {item.digest: item for item in content(manifest)}
        await self._push_blobs(there, wanted.values(), opens)
        if ref.tag is not None:
            await self._registry.push_manifest(there.with_tag(ref.tag), manifest)
        elif manifest.subject is not None:
            await self._registry.push_referrer(there.with_digest(manifest.digest), manifest)
        else:
            await self._registry.push_manifest(there.with_digest(manifest.digest), manifest)

    async def _push_blobs(
        self, there: ImageRef, wanted: Iterable[Descriptor], opens: Mapping[Digest, Callable[[], BinaryIO]]
    ) -> None:
        async def one(item: Descriptor) -> None:
            async with self._pushes:
                await self._push_blob(there, item, opens.get(item.digest))

        try:
            async with asyncio.TaskGroup() as group:
                for item in wanted:
                    group.create_task(one(item))
        except ExceptionGroup as several:
            raise several.exceptions[0] from several

    async def _push_blob(self, there: ImageRef, item: Descriptor, opener: Callable[[], BinaryIO] | None) -> None:
        if not await self._registry.has_blob(there, item.digest) and not await self._mounted(there, item.digest):
            if opener is None:
                raise MalformedInput(f"blob {item.digest} is neither given nor in the mirror", file=there.name)
            await self._registry.push_blob(there, item, opener)
        _remember(self._homes, item.digest, ImageRef(there.host, there.repository))

    async def _mounted(self, there: ImageRef, digest: Digest) -> bool:
        home = self._homes.get(digest)
        if home is None or home.name == there.name:
            return False
        return await self._registry.mount_blob(there, digest, home.repository)

    async def tags(self, ref: ImageRef) -> tuple[str, ...]:
        """Return the tags of a name, in order."""
        return await self._registry.list_tags(self._there(ref))

    async def delete(self, ref: ImageRef) -> bool:
        """Remove a tag, or with a digest the manifest; Unsupported when the registry does not delete that."""
        return await self._registry.delete_manifest(self._there(ref))

    async def referrers(self, ref: ImageRef, artifact_type: str = "") -> tuple[Descriptor, ...]:
        """Return the manifests whose subject is the digest of `ref`, of one artifact type when given."""
        if ref.digest is None:
            return ()
        return await self._registry.referrers(self._there(ref), ref.digest, artifact_type)

    async def move_tag(self, ref: ImageRef, digest: Digest) -> None:
        """Point the tag of `ref` at a digest of the same name; see Mirror."""
        await self._move(ref, digest, await self._points_at(ref))

    async def exchange_tag(self, ref: ImageRef, digest: Digest, expected: Digest | None) -> bool:
        """Move the tag of `ref` if it points at `expected`; best effort, as the module says."""
        if await self._points_at(ref) != expected:
            return False
        await self._move(ref, digest, expected)
        return await self._points_at(ref) == digest

    async def _points_at(self, ref: ImageRef) -> Digest | None:
        if ref.tag is None:
            raise MalformedInput("a tag is moved by name, this reference has none", text=str(ref))
        descriptor = await self._registry.head_manifest(self._there(ref).with_tag(ref.tag))
        return descriptor.digest if descriptor else None

    async def _move(self, ref: ImageRef, digest: Digest, current: Digest | None) -> None:
        tag, there = ref.tag or "latest", self._there(ref)
        if is_immutable(tag) and tag != patched_tag(digest):
            raise MalformedInput(f"this tag can only ever point at the digest it names, not at {digest}", text=tag)
        if current == digest:
            return
        manifest = await self.get_manifest(ref.with_digest(digest))
        if manifest is None:
            raise MalformedInput(f"tag {tag} cannot point at {digest}, which is not there", file=ref.name)
        await self._registry.push_manifest(there.with_tag(tag), manifest)
        if current is not None and is_source(tag):
            await self._supersede(there, current)

    async def _supersede(self, there: ImageRef, digest: Digest) -> None:
        manifest = await self._get(there.with_tag(patched_tag(digest)))
        if manifest is not None:
            await self._registry.push_manifest(there.with_tag(superseded_tag(digest, time.time())), manifest)

    async def retain(self, seconds: float, in_use: AbstractSet[Digest]) -> tuple[Digest, ...]:
        """Remove what was superseded `seconds` ago and is not in use; its blobs are the registry's to collect."""
        dropped: list[Digest] = []
        for there in tuple(self._names.values()):
            try:
                dropped += await self._retain_name(there, seconds, in_use)
            except Unsupported as error:
                _log.warning("nothing can be removed from %s: %s", there.name, error)
        return tuple(dropped)

    async def _retain_name(self, there: ImageRef, seconds: float, in_use: AbstractSet[Digest]) -> list[Digest]:
        names = await self.tags(there)
        tags: dict[str, Digest] = {}
        for tag in names:
            if is_immutable(tag):
                algorithm, _, text = tag.removesuffix(".patched").partition("-")
                tags[tag] = Digest(algorithm, text)
            elif is_source(tag) or not is_internal(tag):
                digest = await self._points_at(there.with_tag(tag))
                if digest is not None:
                    tags[tag] = digest
            else:
                tags[tag] = Digest("sha256", "0" * 64)  # only the name counts
        named = {digest for tag, digest in tags.items() if is_source(tag) or not is_internal(tag)}
        parts: dict[Digest, AbstractSet[Digest]] = {}
        for digest in {digest for tag, digest in tags.items() if is_immutable(tag)} - named:
            manifest = await self.get_manifest(there.with_digest(digest))
            if isinstance(manifest, Index):
                parts[digest] = {item.digest for item in manifest.manifests}
        decided = plan_retention(tags, parts, in_use=in_use, now=time.time(), retain=seconds)
        for digest in decided.mark:
            await self._supersede(there, digest)
        for digest in decided.drop:
            await self._drop(there, digest, parts.get(digest, set()), frozenset(names))
        return list(decided.drop)

    async def _drop(self, there: ImageRef, digest: Digest, parts: AbstractSet[Digest], names: AbstractSet[str]) -> None:
        """Remove an image, then its platforms, then their signatures."""
        for part in (digest, *sorted(parts)):
            await self.delete(there.with_digest(part))
        for part in (digest, *sorted(parts)):
            for tag in companion_tags(part):
                if tag in names and not is_immutable(tag):
                    signature = await self._points_at(there.with_tag(tag))
                    if signature is not None:
                        await self.delete(there.with_digest(signature))


def _remember(known: OrderedDict[K, V], key: K, value: V) -> None:
    known[key] = value
    known.move_to_end(key)
    while len(known) > MAX_KNOWN:
        known.popitem(last=False)


def _opener(path: Path) -> Callable[[], BinaryIO]:
    return lambda: path.open("rb")


def _memory(data: bytes) -> Callable[[], BinaryIO]:
    return lambda: io.BytesIO(data)
