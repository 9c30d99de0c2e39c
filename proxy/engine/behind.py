"""Work that follows the main thread at a short distance: hashing and compressing on a second processor.

Owns one helper thread per process. Pieces are worked on in the order in which they are given, so the result is the same
as if it had been done at once. Only for functions that let other threads run meanwhile: SHA-2, zlib and zstd do.
"""

import sys
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache

DEPTH = 4  # pieces that may wait: what is held in memory is that many pieces at the most
SWITCH = 0.0005  # seconds that the helper may wait for the interpreter; Python's own 5 ms would starve it


class Behind:
    """Calls `work` with every piece, behind the caller's back and in order."""

    __slots__ = ("_pending", "_work")

    def __init__(self, work: Callable[[bytes], object]) -> None:
        self._work = work
        self._pending: deque[Future[object]] = deque()

    def put(self, piece: bytes) -> None:
        """Hand over the next piece; waits while `DEPTH` of them wait. Raises what the work of an earlier one raised."""
        if len(self._pending) >= DEPTH:
            self._pending.popleft().result()
        self._pending.append(_helper().submit(self._work, piece))

    def catch_up(self) -> None:
        """Wait until all pieces so far are done; raises what their work raised."""
        while self._pending:
            self._pending.popleft().result()


@cache
def _helper() -> ThreadPoolExecutor:
    sys.setswitchinterval(SWITCH)
    return ThreadPoolExecutor(1, "behind")
