"""Who goes first: work that somebody waits for, before work done ahead of need.

Owns the queue in front of a limited number of places. Work is in the foreground unless a `Lane` in its context says
otherwise; tasks take the context that they are started in. A lane can be lifted: when somebody begins to wait for what
was being done ahead of need, all that is still to come of it goes first, too. Background work leaves one place free
where there is more than one, so that who comes waits for no job to end.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar


class Lane:
    """Whether a piece of work is done ahead of need, until somebody waits for it."""

    def __init__(self, *, background: bool = False) -> None:
        self.background = background
        self.on_lift: set[Callable[[], None]] = set()

    def lift(self) -> None:
        """Put the work in the foreground."""
        self.background = False
        for tell in tuple(self.on_lift):
            tell()


_FOREGROUND = Lane()
_current: ContextVar[Lane] = ContextVar("lane", default=_FOREGROUND)


def current_lane() -> Lane:
    """Return the lane of the work that asks."""
    return _current.get()


@contextmanager
def in_background() -> Iterator[Lane]:
    """Mark what is done and started in this block as done ahead of need."""
    lane = Lane(background=True)
    token = _current.set(lane)
    try:
        yield lane
    finally:
        _current.reset(token)


class Places:
    """A limited number of places, given to the foreground first."""

    def __init__(self, size: int) -> None:
        self._size, self._taken = size, 0
        self._waiting: deque[tuple[Lane, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Hold a place for the length of the block."""
        await self._take(current_lane())
        try:
            yield
        finally:
            self._taken -= 1
            self._hand_out()

    async def _take(self, lane: Lane) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((lane, turn))
        self._hand_out()
        lane.on_lift.add(self._hand_out)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # the place was given in the same moment
                self._taken -= 1
                self._hand_out()
            raise
        finally:
            lane.on_lift.discard(self._hand_out)

    def _hand_out(self) -> None:
        """Give free places to those who wait, in order, the foreground first."""
        self._waiting = deque(each for each in self._waiting if not each[1].done())
        for background in (False, True):
            limit = self._size - 1 if background and self._size > 1 else self._size
            for entry in [each for each in self._waiting if each[0].background is background]:
                if self._taken >= limit:
                    break
                self._waiting.remove(entry)
                self._taken += 1
                entry[1].set_result(None)
