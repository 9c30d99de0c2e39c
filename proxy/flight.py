"""Work side by side: single flight (callers that want the same thing share one piece of work), and gather.

Owns the tasks. Work that is shared goes on when a caller gives up (a deadline, a closed connection); a failure
reaches every caller that still waits.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Iterable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class SingleFlight(Generic[K, V]):
    """Runs at most one task per key at a time."""

    def __init__(self) -> None:
        self._tasks: dict[K, asyncio.Task[V]] = {}

    def __len__(self) -> int:
        return len(self._tasks)

    def __contains__(self, key: K) -> bool:
        return key in self._tasks

    def start(self, key: K, work: Callable[[], Awaitable[V]]) -> asyncio.Task[V]:
        """Return the running task of `key`, or start one."""
        task = self._tasks.get(key)
        if task is None:
            task = asyncio.ensure_future(_call(work))
            self._tasks[key] = task
            task.add_done_callback(lambda done: self._finish(key, done))
        return task

    async def run(self, key: K, work: Callable[[], Awaitable[V]]) -> V:
        """Wait for the shared work of `key` and return its result; a cancelled caller leaves it running."""
        return await asyncio.shield(self.start(key, work))

    async def close(self) -> None:
        """Cancel all work and wait until it has ended."""
        tasks = tuple(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _finish(self, key: K, task: asyncio.Task[V]) -> None:
        self._tasks.pop(key, None)
        if not task.cancelled():
            task.exception()  # every waiter has its own copy: nothing to report here


async def gather_all(works: Iterable[Awaitable[V]]) -> list[V]:
    """Wait for all; when one fails, cancel the others, wait until they have ended, and raise its error."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        return list(await asyncio.gather(*tasks))
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


async def _call(work: Callable[[], Awaitable[V]]) -> V:
    return await work()
