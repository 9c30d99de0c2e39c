"""Contents that lie in files of the cache: read piece by piece, each file opened once for many of them.

Owns the open files of one build. A layer has thousands of small contents in few files; opening a file for each took a
tenth of the time that writing the layer takes.
"""

import os
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from proxy.engine.tar import Span
from proxy.errors import MalformedInput

CHUNK = 1 << 20  # bytes of one piece
MAX_OPEN = 64  # files


class SpanReader:
    """Reads spans of files below `root`; closes them when the block ends."""

    def __init__(self, root: str) -> None:
        self._root = Path(root)
        self._open: OrderedDict[str, int] = OrderedDict()  # least recently used first

    def chunks(self, span: Span) -> Iterator[bytes]:
        """Yield a content; raises MalformedInput where its file is too short."""
        at, end = span.offset, span.offset + span.size
        while at < end:
            piece = os.pread(self._handle(span.file), min(end - at, CHUNK), at)
            if not piece:
                raise MalformedInput("shorter than its index says; remove the cache folder", file=span.file)
            at += len(piece)
            yield piece

    def read(self, span: Span) -> bytes:
        """Return a content at once."""
        return b"".join(self.chunks(span))

    def _handle(self, file: str) -> int:
        handle = self._open.get(file)
        if handle is None:
            if len(self._open) == MAX_OPEN:
                os.close(self._open.popitem(last=False)[1])
            handle = self._open[file] = os.open(self._root / file, os.O_RDONLY | os.O_CLOEXEC)
        else:
            self._open.move_to_end(file)
        return handle

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        while self._open:
            os.close(self._open.popitem()[1])


def read_span(root: str, span: Span) -> bytes:
    """Return one content of a file below `root`."""
    with SpanReader(root) as reader:
        return reader.read(span)
