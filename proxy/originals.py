"""Blobs of original images, for pulls through the mirror: what they are, and their bytes while they come.

Owns which blobs of which repository are known from manifests that were handed through; what is not known (after a
restart, at another replica) is asked of the upstream, which answers for its own repository only. Who may have a blob is
who may have the manifest that named it, or else whom the upstream gives it to (`entrance`). A blob is fetched once
however many pull it, goes on when they leave, and is handed out while it comes, since clients give up on an answer that
does not begin; its last piece only once size and digest are right.
"""

import asyncio
import contextlib
import os
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from pathlib import Path

from proxy.entrance import Asker, Entrance
from proxy.errors import AdmendError, ResourceExhausted, UpstreamUnavailable
from proxy.flight import SingleFlight
from proxy.images import RegistryImage
from proxy.layers import MAX_LAYER, Layers
from proxy.oci.digest import Digest
from proxy.oci.manifest import Descriptor, Index, Manifest
from proxy.oci.reference import ImageRef

MAX_SEEN = 10_000  # blobs of originals whose descriptors are remembered
RETRY_AFTER = 5.0
PIECE = 256 << 10  # bytes
HELD_BACK = 1  # bytes that nobody gets before the whole is checked


@dataclass(slots=True)
class _Progress:
    """A blob on its way: where its bytes are gathered, and a signal for more."""

    path: Path | None = None
    moved: asyncio.Event = field(default_factory=asyncio.Event)

    def tell(self, path: Path, _written: int) -> None:
        """Take note of where the bytes are, and wake all who wait for more; the next wait is for the next signal."""
        self.path = path
        self.moved.set()
        self.moved = asyncio.Event()


class Coming:
    """A blob that is not here yet: its size, and its bytes while they are fetched.

    Args:
        size: of the blob.
        start: starts the fetch, or joins the one that runs.
    """

    def __init__(self, size: int, start: Callable[[], tuple[asyncio.Task[Path], _Progress]]) -> None:
        self.size, self._start = size, start
        self._fetch: tuple[asyncio.Task[Path], _Progress] | None = None

    async def begin(self) -> None:
        """Have it fetched, and return when the first bytes are there; raises what the fetch failed with."""
        self._fetch = self._fetch or self._start()
        task, progress = self._fetch
        while progress.path is None and not task.done():
            await _next(task, progress)
        if task.done():
            task.result()

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """Yield the bytes as they come; raises what the fetch failed with, before the last of them."""
        await self.begin()
        task, progress = self._fetch or self._start()
        handle = await _open(task, progress)
        try:
            given = 0
            while given < self.size:
                whole = task.done() and bool(task.result())
                wanted = min(PIECE, self.size - given - (0 if whole else HELD_BACK))
                piece = await asyncio.to_thread(os.pread, handle, wanted, given)
                if piece:
                    given += len(piece)
                    yield piece
                elif whole:
                    raise ResourceExhausted(f"{task.result()}: shorter than the {self.size} bytes that it had")
                elif not task.done():
                    await _next(task, progress)
        finally:
            os.close(handle)


async def _open(task: asyncio.Task[Path], progress: _Progress) -> int:
    """Open what is there of a blob: the file that is written, or what became of it."""
    if progress.path is not None:
        with contextlib.suppress(FileNotFoundError):
            return os.open(progress.path, os.O_RDONLY | os.O_CLOEXEC)
    return os.open(await asyncio.shield(task), os.O_RDONLY | os.O_CLOEXEC)


async def _next(task: asyncio.Task[Path], progress: _Progress) -> None:
    """Wait for more bytes, or for the end."""
    signal = asyncio.ensure_future(progress.moved.wait())
    try:
        await asyncio.wait((task, signal), return_when=asyncio.FIRST_COMPLETED)
    finally:
        signal.cancel()


@dataclass(frozen=True, slots=True)
class _Seen:
    """What is known of a blob: its size, and the manifest that named it; None where the upstream said it is public."""

    descriptor: Descriptor
    manifest: ImageRef | None = None


class Originals:
    """Finds originals and their blobs.

    Args:
        entrance: says who may have which, and opens them.
        layers: the cache of blobs.
        patience: seconds that an upstream has to say whether somebody may have an image.
    """

    def __init__(self, entrance: Entrance, layers: Layers, patience: float) -> None:
        self._entrance, self._layers, self._patience = entrance, layers, patience
        self._seen: OrderedDict[tuple[str, Digest], _Seen] = OrderedDict()
        self._flights: SingleFlight[tuple[str, Digest], Path] = SingleFlight()
        self._progress: dict[tuple[str, Digest], _Progress] = {}

    async def manifest(self, original: ImageRef, asker: Asker) -> Manifest | Index:
        """Return a manifest that the asker may have, and take note of its blobs.

        Raises:
            UpstreamRefused: the asker may not have it, or it is not there.
            UpstreamUnavailable: the upstream did not answer in time.
        """
        source = await self._open(original, asker)
        manifest = await source.get_manifest()
        if isinstance(manifest, Manifest):
            for descriptor in (manifest.config, *manifest.layers):
                self._note(original, _Seen(descriptor, original))
        return manifest

    async def blob(self, original: ImageRef, asker: Asker) -> Path | Coming | None:
        """Return the blob that `original` names by digest: a file, or its bytes as they come; None if there is none.

        Raises what the upstream's repository answers instead.
        """
        if original.digest is None:
            return None
        seen = self._seen.get((original.name, original.digest))
        if seen is None:
            found = await self._entrance.find_blob(original, asker)
            if found is None:
                return None
            descriptor = Descriptor("application/octet-stream", original.digest, found.size)
            source = RegistryImage(found.registry, original, private=found.private)
            if not found.private:
                self._note(original, _Seen(descriptor))
        else:
            descriptor, source = seen.descriptor, await self._open_seen(original, seen, asker)
        if descriptor.size > MAX_LAYER:
            raise ResourceExhausted(f"{original}: a blob of {descriptor.size} bytes; {MAX_LAYER} are handed through")
        here = self._layers.find(source, descriptor)
        return here or Coming(descriptor.size, lambda: self._start(source, descriptor))

    async def close(self) -> None:
        """End all fetches."""
        await self._flights.close()

    async def _open(self, original: ImageRef, asker: Asker) -> RegistryImage:
        """Return an original that the asker may have, opened."""
        entry = await self._entrance.enter(original, asker, deadline=time.monotonic() + self._patience)
        if entry is None:
            raise UpstreamUnavailable(f"{original}: its registry has not answered yet", retry_after=RETRY_AFTER)
        registry = await self._entrance.connect(original, asker, private=entry.private)
        return RegistryImage(registry, original, private=entry.private)

    async def _open_seen(self, original: ImageRef, seen: _Seen, asker: Asker) -> RegistryImage:
        if seen.manifest is not None:
            return await self._open(seen.manifest, asker)
        return RegistryImage(await self._entrance.connect(original, asker, private=False), original)

    def _note(self, name: ImageRef, seen: _Seen) -> None:
        self._seen[name.name, seen.descriptor.digest] = seen
        while len(self._seen) > MAX_SEEN:
            self._seen.popitem(last=False)

    def _start(self, source: RegistryImage, descriptor: Descriptor) -> tuple[asyncio.Task[Path], _Progress]:
        key = (source.place, descriptor.digest)
        progress = self._progress.setdefault(key, _Progress())
        return self._flights.start(key, lambda: self._fetch(source, descriptor, progress)), progress

    async def _fetch(self, source: RegistryImage, descriptor: Descriptor, progress: _Progress) -> Path:
        key = (source.place, descriptor.digest)
        try:
            return await self._layers.pull(source, descriptor, progress.tell)
        except AdmendError:
            self._seen.pop(key, None)  # its size, maybe, was not true
            raise
        finally:
            self._progress.pop(key, None)
