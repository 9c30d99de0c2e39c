"""From events to sinks.

Owns the log that admissions write to, the sink of standard output, and which sinks the settings ask for. Nothing here
waits: each sink has a queue of its own.
"""

import os
import sys
from collections.abc import Sequence
from typing import Protocol, TextIO

from proxy.audit.config import AuditConfig
from proxy.audit.event import AuditEvent, render_event
from proxy.audit.queue import NotTaken, QueuedSink


class Sink(Protocol):
    """Takes lines; `written` and `dropped` count them."""

    name: str
    written: int
    dropped: int

    def offer(self, line: bytes) -> None:
        """Take a line; never blocks."""

    async def close(self) -> None:
        """Hand on what waits, for a limited time."""


class AuditLog:
    """Writes events, a line each, to all sinks.

    Args:
        stream: gets each line at once, in the caller's own time: for a file of a demonstration or a test.
        sinks: get each line.
    """

    def __init__(self, stream: TextIO | None = None, *, sinks: Sequence[Sink] = ()) -> None:
        self._stream, self.sinks = stream, tuple(sinks)

    def write(self, event: AuditEvent) -> None:
        """Write one event."""
        line = render_event(event)
        if self._stream is not None:
            self._stream.write(line.decode())
            self._stream.flush()
        for sink in self.sinks:
            sink.offer(line)

    async def close(self) -> None:
        """Close every sink."""
        for sink in self.sinks:
            await sink.close()


class StreamSink(QueuedSink):
    """Standard output, by its descriptor (found when it is first needed); a slow reader costs lines, never time."""

    def __init__(self, descriptor: int | None = None) -> None:
        super().__init__("stdout")
        self._descriptor = descriptor
        self._rest = b""

    def hand_on(self, lines: Sequence[bytes]) -> int:
        """Write the batch; one that was written in part is gone on with, so that lines stay whole."""
        self._rest = self._rest or b"".join(lines)
        try:
            if self._descriptor is None:
                self._descriptor = sys.stdout.fileno()
            while self._rest:
                self._rest = self._rest[os.write(self._descriptor, self._rest) :]
        except OSError as error:
            raise NotTaken(f"standard output: {error.strerror or error}") from error
        return len(lines)


def open_audit(config: AuditConfig) -> AuditLog:
    """Return the log that the settings ask for; ResourceExhausted names a file that cannot be written."""
    sinks: list[Sink] = []
    if config.stdout:
        sinks.append(StreamSink())
    if config.file is not None:
        from proxy.audit.file import FileSink  # noqa: PLC0415 - what is not asked for is not imported

        sinks.append(FileSink(config.file))
    if config.http is not None:
        from proxy.audit.http import HttpSink  # noqa: PLC0415 - likewise

        sinks.append(HttpSink(config.http))
    return AuditLog(sinks=sinks)
