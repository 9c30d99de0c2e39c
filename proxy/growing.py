"""A file that somebody still writes, read behind the writer.

Owns the waiting, which is bounded: a worker that reads behind a slow download is given back soon. What is read is not
believed by anybody before the writer has checked the whole; the reader only says what it saw.
"""

import os
import time
from pathlib import Path
from types import TracebackType
from typing import Self

PAUSE = 0.004  # seconds between two looks
MAX_WAIT = 2.0  # seconds of waiting in all


class Stalled(Exception):
    """The writer is too slow, or gave up."""


class GrowingFile:
    """The bytes of a file until it has its full size.

    Args:
        partial: where it is written.
        final: where it is renamed to once it is whole and checked.
        size: how many bytes it will have.
    """

    def __init__(self, partial: Path, final: Path, size: int) -> None:
        try:
            self._stream = partial.open("rb", buffering=0)
        except FileNotFoundError:
            self._stream = final.open("rb", buffering=0)
        self._left, self._patience = size, MAX_WAIT

    def read(self, size: int = -1, /) -> bytes:
        """Return up to `size` bytes, waiting for the next ones; ``b""`` at the full size only. Raises Stalled."""
        if not self._left:
            return b""
        wanted = self._left if size < 0 else min(size, self._left)
        while not (piece := self._stream.read(wanted)):
            if self._patience <= 0 or not os.fstat(self._stream.fileno()).st_nlink:
                raise Stalled
            time.sleep(PAUSE)
            self._patience -= PAUSE
        self._left -= len(piece)
        return piece

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stream.close()
