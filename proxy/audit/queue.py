"""What waits for a sink: lines in memory, and the thread that hands them on.

Owns the promise that a sink never holds up an admission: `offer` takes no longer than appending to a list does. A batch
that the sink could not take is tried again, later and later; while it waits the queue fills, and what no longer fits is
dropped, counted, and said in the log. At the end what waits is handed on for a limited time.
"""

import asyncio
import logging
import random
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence

FIRST_PAUSE, LAST_PAUSE = 0.25, 30.0  # seconds between attempts
SAID_SECONDS = 60.0  # between two lines about the same trouble

log = logging.getLogger(__name__)


class NotTaken(Exception):
    """A batch could not be handed on now; `pause` is what the other side asks for, in seconds."""

    def __init__(self, reason: str, *, pause: float | None = None) -> None:
        super().__init__(reason)
        self.pause = pause


class QueuedSink(ABC):
    """A sink with a queue and a thread of its own; whoever derives from it says how a batch is handed on.

    Args:
        name: names the sink in figures and logs.
        queue_bytes: what may wait.
        batch_lines: lines of one batch, at the most.
        batch_bytes: likewise; a longer line is a batch of its own.
        batch_seconds: how long a batch waits for more lines.
        drain_seconds: how long `close` waits.
    """

    def __init__(
        self,
        name: str,
        *,
        queue_bytes: int = 8 << 20,
        batch_lines: int = 1000,
        batch_bytes: int = 256 << 10,
        batch_seconds: float = 0.0,
        drain_seconds: float = 5.0,
    ) -> None:
        self.name = name
        self.written = self.dropped = 0  # lines
        self._limit, self._batch_lines, self._batch_bytes = queue_bytes, batch_lines, batch_bytes
        self._batch_seconds, self._drain_seconds = batch_seconds, drain_seconds
        self._lines: deque[bytes] = deque()
        self._bytes = 0  # of all lines that wait, those of the batch under way included
        self._changed = threading.Condition()
        self._deadline: float | None = None  # of the end, once that has begun
        self._under_way = 0  # lines of the batch that is being handed on
        self._trouble, self._told_trouble, self._said, self._told = "", "", 0.0, 0
        self._thread = threading.Thread(target=self._run, name=f"audit-{name}", daemon=True)
        self._started = False

    @property
    def waiting(self) -> int:
        """Bytes that wait."""
        return self._bytes

    @abstractmethod
    def hand_on(self, lines: Sequence[bytes]) -> int:
        """Hand a batch on and return how many of its lines the other side took; the others are lost for good.

        Raises NotTaken when it is to be tried again.
        """

    def finish(self) -> None:  # noqa: B027 - most hold nothing
        """Release what the sink holds; runs in its thread, as the last thing."""

    def offer(self, line: bytes) -> None:
        """Take a line, or drop it when too many wait; never blocks."""
        with self._changed:
            if self._deadline is not None or self._bytes + len(line) > self._limit:
                self.dropped += 1
                return
            self._lines.append(line)
            self._bytes += len(line)
            self._changed.notify()
            if not self._started:
                self._started = True
                self._thread.start()

    async def close(self) -> None:
        """Hand on what waits, for `drain_seconds` at the most; lines that are left then are dropped."""
        with self._changed:
            if self._deadline is not None:
                return
            self._deadline = time.monotonic() + self._drain_seconds
            self._changed.notify()
            started = self._started
        if not started:
            self.finish()
            return
        await asyncio.to_thread(self._thread.join, self._drain_seconds + FIRST_PAUSE)
        if self._thread.is_alive():  # the other side has it in a call that does not return
            with self._changed:
                self.dropped += len(self._lines) + self._under_way
                self._lines.clear()
        self._say(force=True)

    def _run(self) -> None:
        while batch := self._take():
            self._insist(batch)
            with self._changed:
                self._bytes -= sum(map(len, batch))
                self._under_way = 0
        self.finish()

    def _take(self) -> list[bytes]:
        """Return the next batch; empty at the end."""
        with self._changed:
            while not self._lines and self._deadline is None:
                self._changed.wait()
            until = time.monotonic() + self._batch_seconds
            while self._deadline is None and len(self._lines) < self._batch_lines and until > time.monotonic():
                self._changed.wait(until - time.monotonic())
            batch: list[bytes] = []
            size = 0
            while self._lines and len(batch) < self._batch_lines:
                size += len(self._lines[0])
                if batch and size > self._batch_bytes:
                    break
                batch.append(self._lines.popleft())
            self._under_way = len(batch)
            return batch

    def _insist(self, batch: list[bytes]) -> None:
        """Hand a batch on, again and again if need be."""
        pause = FIRST_PAUSE
        while True:
            try:
                taken = self.hand_on(batch)
            except NotTaken as error:
                self._trouble = str(error)
                if not self._wait(error.pause or pause * random.uniform(0.5, 1.0)):  # noqa: S311 - spreads attempts
                    self._drop(len(batch))
                    return
                pause = min(LAST_PAUSE, 2 * pause)
                continue
            with self._changed:
                self.written += taken
                self.dropped += len(batch) - taken
            self._trouble = ""
            self._say()
            return

    def _wait(self, seconds: float) -> bool:
        """Wait before another attempt, and say whether there is time for one."""
        self._say()
        with self._changed:
            until = time.monotonic() + seconds
            while self._deadline is None and until > time.monotonic():
                self._changed.wait(until - time.monotonic())
            if self._deadline is None:
                return True
            left = self._deadline - time.monotonic()
        time.sleep(max(0.0, min(left, FIRST_PAUSE)))
        return left > 0

    def _drop(self, lines: int) -> None:
        with self._changed:
            self.dropped += lines

    def _say(self, *, force: bool = False) -> None:
        """Log trouble and losses: a new trouble at once, the same once in `SAID_SECONDS` at the most."""
        lost, now, trouble = self.dropped - self._told, time.monotonic(), self._trouble
        new = trouble and trouble != self._told_trouble
        if (not lost and not trouble) or not (new or force or not self._said or now >= self._said + SAID_SECONDS):
            return
        why = f": {trouble}" if trouble else ""
        log.error("audit lines to %s: %d dropped, %d bytes wait%s", self.name, lost, self._bytes, why)
        self._said, self._told, self._told_trouble = now, self._told + lost, trouble or self._told_trouble
