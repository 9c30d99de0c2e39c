"""Work ahead of need must never cost those who wait: how fast upstream hosts are asked, and when one is left in peace.

Owns a bucket of tokens per host (a few at once, then so many a minute) and the rest that a host gets after a failure,
doubled with each in a row. Limits that hosts themselves announce end in failures, and so in a rest.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

BURST = 10
FIRST_REST, LONGEST_REST = 60.0, 3600.0  # seconds
MAX_HOSTS = 1000

V = TypeVar("V")


class Pace:
    """Spares upstream hosts.

    Args:
        per_minute: how many images of one host are asked for.
        clock: a monotonic clock.
        sleep: waits.
    """

    def __init__(
        self,
        per_minute: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._interval, self._clock, self._sleep = 60.0 / per_minute, clock, sleep
        self._due: dict[str, float] = {}  # when the bucket of a host is full again
        self._rests: dict[str, tuple[float, float]] = {}  # host: how long it rests, and until when

    async def wait(self, host: str) -> None:
        """Return when the host may be asked once more."""
        now = self._clock()
        due = max(now, self._due.get(host, now)) + self._interval
        _keep(self._due, host, due)
        early = due - now - BURST * self._interval
        if early > 0:
            await self._sleep(early)

    def resting(self, host: str) -> float:
        """Return for how many seconds the host is left in peace, 0 where it is not."""
        _, until = self._rests.get(host, (0.0, 0.0))
        return max(0.0, until - self._clock())

    def note(self, host: str, *, failed: bool) -> None:
        """Take note of what asking the host came to."""
        if not failed:
            self._rests.pop(host, None)
            return
        last, _ = self._rests.get(host, (0.0, 0.0))
        rest = min(LONGEST_REST, 2 * last if last else FIRST_REST)
        _keep(self._rests, host, (rest, self._clock() + rest))


def _keep(known: dict[str, V], host: str, value: V) -> None:
    known.pop(host, None)
    known[host] = value
    while len(known) > MAX_HOSTS:
        known.pop(next(iter(known)))
