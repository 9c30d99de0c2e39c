"""Upkeep: what a proxy that runs for months removes, again and again.

Owns when that is and what happens when it fails: a pass that fails is logged, and the next one comes as if it had not.
What goes is decided by the mirror (superseded images) and by `derived` (scans, unpacked packages, indexes).
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from collections.abc import Set as AbstractSet
from typing import Self

from proxy.derived import Derived
from proxy.mirror import Mirror
from proxy.oci.digest import Digest

FIRST = 60.0  # seconds after the start at the most: a proxy that is restarted often cleans up too

_log = logging.getLogger(__name__)


class Upkeep:
    """Cleans up in the background while it is entered.

    Args:
        mirror: loses the images that were superseded `retain` seconds ago.
        derived: is pruned.
        retain: in seconds.
        every: seconds between two passes.
    """

    def __init__(self, mirror: Mirror, derived: Derived, *, retain: float, every: float) -> None:
        self._mirror, self._derived, self._retain, self._every = mirror, derived, retain, every
        # What live pods run, if that is known; None means that it is another proxy's to remove anything.
        self.in_use: Callable[[], Awaitable[AbstractSet[Digest] | None]] | None = None
        self.succeeded = 0.0  # when the last pass without a failure ended, in seconds since the epoch
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._repeat())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _repeat(self) -> None:
        await asyncio.sleep(min(FIRST, self._every))
        while True:
            await self.run()
            await asyncio.sleep(self._every)

    async def run(self) -> bool:
        """Make one pass and return whether all of it succeeded; a part that fails does not keep the others."""
        done = [
            await self._try("superseded images could not be removed", self._retire),
            await self._try("the cache could not be pruned", self._derived.prune),
        ]
        if all(done):
            self.succeeded = time.time()
        return all(done)

    async def _retire(self) -> None:
        """Remove superseded images; none at all while it cannot be said what is in use."""
        in_use = await self.in_use() if self.in_use else frozenset()
        if in_use is None:
            return
        removed = await self._mirror.retain(self._retain, in_use)
        for digest in removed:
            _log.info("superseded image removed from the mirror: %s", digest)

    async def _try(self, problem: str, part: Callable[[], Awaitable[object]]) -> bool:
        try:
            await part()
        except Exception as error:  # noqa: BLE001 - whatever it was, it must not be the last pass
            _log.warning("%s, tried again in %.0f s: %s", problem, self._every, error or type(error).__name__)
            return False
        return True
