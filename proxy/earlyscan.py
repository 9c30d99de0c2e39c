"""A scan that begins while the layer is still being pulled.

Owns when it begins and what becomes of it. What it left behind is taken under the layer's name only after the blob
store has checked the layer's digest; before that it lies under a name that nobody reads. A slow pull starts none, so
that no worker waits long: the layer is then scanned when it is there.
"""

import asyncio
import time
import uuid
from pathlib import Path

from proxy.codec import decode
from proxy.errors import AdmendError
from proxy.jobs import Scanned
from proxy.oci.manifest import Descriptor
from proxy.pool import WorkerPool

SMALLEST = 4 << 20  # bytes of a layer; smaller ones are scanned in a moment
SHARE = 0.5  # of the layer must be there
SOON = 1.0  # seconds in which the rest must come, by the pace so far
SUFFIXES = (".index", ".captures")


class EarlyScan:
    """The scan of one layer on its way; `watch` is told of every piece.

    Args:
        pool: runs it.
        root: the cache folder.
        descriptor: the layer.
        final: where the layer will be.
        name: what its scan is called.
        needed: whether there is none of that name yet.
    """

    def __init__(
        self, pool: WorkerPool, root: Path, descriptor: Descriptor, final: Path, name: str, *, needed: bool
    ) -> None:
        self._pool, self._root, self._descriptor = pool, root, descriptor
        self._final, self._name, self._needed = final, name, needed
        self._out = f"{name}-{uuid.uuid4().hex}"
        self._begin = time.monotonic()
        self._task: asyncio.Task[object] | None = None

    def watch(self, partial: Path, seen: int) -> None:
        """Begin the scan when most of the layer is there."""
        size = self._descriptor.size
        if not self._needed or self._task is not None or size < SMALLEST or seen < size * SHARE:
            return
        elapsed = time.monotonic() - self._begin
        if (size - seen) * elapsed <= seen * SOON:
            self._task = asyncio.ensure_future(self._scan(partial))
            self._task.add_done_callback(_heed)

    async def _scan(self, partial: Path) -> object:
        return await self._pool.run(
            "scan_early",
            root=str(self._root),
            layer=str(self._final),
            partial=str(partial),
            size=self._descriptor.size,
            media_type=self._descriptor.media_type,
            where=f"layer {self._descriptor.digest}",
            name=self._name,
            out=self._out,
        )

    async def take(self) -> Scanned | None:
        """Return the scan of the layer, whose digest was checked meanwhile; None where there is none to be had."""
        if self._task is None:
            return None
        try:
            answer = await self._task
        except AdmendError:
            return None  # if it is the layer's fault, the ordinary scan finds it again
        if answer is None:
            return None
        scanned = decode(Scanned, answer, "scan_early")
        await asyncio.to_thread(self._rename)
        self._task = None
        return scanned

    def _rename(self) -> None:
        for suffix in SUFFIXES:
            (self._root / f"{self._out}{suffix}").rename(self._root / f"{self._name}{suffix}")

    def close(self) -> None:
        """Forget a scan that was not taken: its layer did not come, was a wrong one, or was scanned before."""
        if self._task is None:
            return
        if self._task.done():
            self._remove(self._task)
        else:
            self._task.add_done_callback(self._remove)

    def _remove(self, _: "asyncio.Task[object]") -> None:
        for suffix in SUFFIXES:
            (self._root / f"{self._out}{suffix}").unlink(missing_ok=True)


def _heed(task: "asyncio.Task[object]") -> None:
    if not task.cancelled():
        task.exception()  # nobody may be waiting for it any more
