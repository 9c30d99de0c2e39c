"""An image's blobs on this machine: pulled into the blob store, its layers scanned once each.

Owns the pairing of pull and scan. A layer's scan is cached by its digest, since base layers are shared; it is done
in a worker, if the pull is fast while it goes on (see `earlyscan`), and checked against the config's diff_id on every
use. Of all images together `PULLS` blobs are pulled at once: each holds some memory, whatever an image's layers are.
"""

import asyncio
import contextlib
import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from proxy.blobs import BlobStore
from proxy.codec import decode, encode
from proxy.derived import mark_used
from proxy.earlyscan import EarlyScan
from proxy.engine.image import ImageConfig, parse_config
from proxy.errors import MalformedInput, TrustFailure
from proxy.files import writing
from proxy.flight import SingleFlight, gather_all
from proxy.images import ImageSource
from proxy.jobs import EPOCH, LayerFile, Scanned
from proxy.oci.digest import Digest
from proxy.oci.manifest import Descriptor, Manifest
from proxy.origins import Delivery, Origins, drain
from proxy.phases import Phases
from proxy.pool import WorkerPool

MAX_CONFIG = 8 << 20  # bytes; containerd reads at most as much
PULLS = 4
MAX_LAYER = 32 << 30  # bytes of one compressed layer

Watch = Callable[[Path, int], None]


class Layers:
    """Pulls and scans; shared by all patches of a process."""

    def __init__(self, root: Path, store: BlobStore, pool: WorkerPool) -> None:
        self._root, self._store, self._pool = root, store, pool
        self._origins = Origins(store)
        self._pulls = asyncio.Semaphore(PULLS)
        self._scans: SingleFlight[Digest, Scanned] = SingleFlight()
        self.lookups = Counter[str]()  # scans that were there (hit) or were made (miss)

    async def read_config(self, source: ImageSource, manifest: Manifest) -> tuple[bytes, ImageConfig]:
        """Return the image config's bytes and its parsed form."""
        descriptor = manifest.config
        if descriptor.size > MAX_CONFIG:
            raise MalformedInput(f"an image config of {descriptor.size} bytes, {MAX_CONFIG} at the most")
        path = await self.pull(source, descriptor)
        raw = path.read_bytes()
        return raw, parse_config(raw)

    async def scan_all(
        self, source: ImageSource, manifest: Manifest, config: ImageConfig, phases: Phases
    ) -> tuple[LayerFile, ...]:
        """Pull and scan every layer side by side; returns them with the bottom layer first.

        Raises TrustFailure when a layer is not what the config's diff_ids say.
        """
        if len(config.diff_ids) != len(manifest.layers):
            counts = f"{len(manifest.layers)} layers, but the config has {len(config.diff_ids)} diff_ids"
            raise MalformedInput(f"the manifest has {counts}", file=str(manifest.digest))
        phases.begin("pull")
        start = pulled = time.perf_counter()

        async def one(descriptor: Descriptor, diff_id: Digest) -> LayerFile:
            nonlocal pulled
            with contextlib.closing(self._early_scan(descriptor)) as early:
                path = await self.pull(source, descriptor, early.watch)
                pulled = time.perf_counter()
                scanned = await self._scans.run(descriptor.digest, lambda: self._scan(descriptor, path, early))
            if scanned.diff_id != str(diff_id):
                message = f"uncompressed it is {scanned.diff_id}, the image's config says {diff_id}"
                raise TrustFailure(f"layer {descriptor.digest}: {message}; refused")
            return LayerFile(_name(descriptor.digest), str(path), descriptor.media_type)

        files = await gather_all(one(*pair) for pair in zip(manifest.layers, config.diff_ids, strict=True))
        phases.add("pull", start, pulled)
        phases.add("index", pulled, time.perf_counter())
        return tuple(files)

    def _early_scan(self, descriptor: Descriptor) -> EarlyScan:
        name, final = _name(descriptor.digest), self._store.final(descriptor.digest)
        return EarlyScan(self._pool, self._root, descriptor, final, name, needed=not self._known(name).exists())

    def _known(self, name: str) -> Path:
        return self._root / f"{name}.json"

    def find(self, source: ImageSource, descriptor: Descriptor) -> Path | None:
        """Return the local file of a blob that the source may have; None where it is not here."""
        digest = descriptor.digest
        if self._store.has(digest, descriptor.size) and self._origins.admits(digest, source.place):
            return self._store.path(digest)
        return None

    async def pull(self, source: ImageSource, descriptor: Descriptor, watch: Watch | None = None) -> Path:
        """Return the local file of a blob, pulled first unless it is here; the store checks digest and size.

        `watch` is told of its bytes while they come, as `BlobStore.ingest` tells. A blob that came with credentials is
        pulled again for another repository, which must have it too (see `origins`).
        """
        digest, store, origins = descriptor.digest, self._store, self._origins
        here = self.find(source, descriptor)
        if here is not None:
            return here
        delivery = Delivery(source.stream_blob(descriptor))
        async with self._pulls:
            if not store.has(digest, descriptor.size):
                if source.private:
                    origins.close(digest)
                await store.ingest(digest, descriptor.size, delivery.pieces(), f"blob {digest}", MAX_LAYER, watch=watch)
            if not delivery.whole and not origins.admits(digest, source.place):
                await drain(source.stream_blob(descriptor), descriptor, f"blob {digest} of {source.place}")
                delivery.whole = True
        if delivery.whole:
            origins.admit(digest, source.place, private=source.private)
        return store.path(digest)

    async def _scan(self, descriptor: Descriptor, path: Path, early: EarlyScan) -> Scanned:
        name = _name(descriptor.digest)
        known = self._known(name)
        there = mark_used(known)
        self.lookups["hit" if there else "miss"] += 1
        if there:
            return decode(Scanned, json.loads(known.read_bytes()), str(known))
        scanned = await early.take()
        if scanned is None:
            answer = await self._pool.run(
                "scan",
                root=str(self._root),
                layer=str(path),
                media_type=descriptor.media_type,
                where=f"layer {descriptor.digest}",
                name=name,
            )
            scanned = decode(Scanned, answer, "scan")
        with writing(known) as out:
            out.write(json.dumps(encode(scanned)).encode())
        return scanned


def _name(digest: Digest) -> str:
    return f"layers/{EPOCH}/{digest.hex}"
