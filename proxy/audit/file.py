"""The sink that appends to a file and rotates it by size.

Owns the file. Several processes may share one: each batch is written under a lock on the file, at its end, whole or
not at all (what a full disk took of it is cut off again), so lines are never mixed or torn. A batch is with the kernel
when it counts as written; the file is synced to the disk when it is rotated and at the end, so a crash of the machine
may cost the last seconds, one of the process nothing. A full disk makes lines wait, then drop; see `queue`.
Rotation: `path` becomes `path.1`, `path.1` becomes `path.2`, up to `keep`; older ones are removed.
"""

import contextlib
import errno
import fcntl
import os
from collections.abc import Sequence
from pathlib import Path

from proxy.audit.config import FileSinkConfig
from proxy.audit.queue import NotTaken, QueuedSink
from proxy.errors import ResourceExhausted

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
MODE = 0o640
MAX_BATCH = 256 << 10  # bytes


class FileSink(QueuedSink):
    """Appends to a file.

    Raises:
        ResourceExhausted: the file cannot be opened; a disk that is full now is no reason not to start.
    """

    def __init__(self, config: FileSinkConfig) -> None:
        super().__init__("file", batch_bytes=min(MAX_BATCH, config.max_bytes))
        self._path, self._max_bytes, self._keep = config.path, config.max_bytes, config.keep
        self._descriptor = -1
        try:
            self._open()
        except OSError as error:
            if error.errno not in FULL:
                hint = "give audit.file.path a folder that this user may write to"
                raise ResourceExhausted(f"{self._path}: {error.strerror}; {hint}") from error

    def hand_on(self, lines: Sequence[bytes]) -> int:
        """Append the batch, in a new file where it does not fit."""
        batch = b"".join(lines)
        try:
            self._lock()
            try:
                size = os.fstat(self._descriptor).st_size
                if size and size + len(batch) > self._max_bytes:
                    self._rotate()
                    size = 0
                self._append(batch, size)
            finally:
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        except OSError as error:
            raise NotTaken(f"{self._path}: {error.strerror}") from error
        return len(lines)

    def finish(self) -> None:
        """Sync and close the file."""
        if self._descriptor >= 0:
            try:
                os.fsync(self._descriptor)
            except OSError:  # a pipe or a device: there is nothing to sync
                pass
            finally:
                os.close(self._descriptor)
                self._descriptor = -1

    def _open(self) -> None:
        """Open the file that the path names now."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, MODE)
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = descriptor

    def _lock(self) -> None:
        """Lock the file that the path names; another process may have rotated it."""
        if self._descriptor < 0:
            self._open()
        while True:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
            mine = os.fstat(self._descriptor)
            try:
                there = self._path.stat()
            except FileNotFoundError:
                there = None
            if there is not None and (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino):
                return
            self._open()

    def _rotate(self) -> None:
        """Move the files one number on and lock a new one; the caller holds the lock on the old."""
        os.fsync(self._descriptor)
        beyond = self._keep
        while (old := self._numbered(beyond)).exists():  # also those that a larger `keep` has left
            old.unlink()
            beyond += 1
        for number in range(self._keep - 1, 0, -1):
            if (old := self._numbered(number)).exists():
                old.rename(self._numbered(number + 1))
        self._path.rename(self._numbered(1))
        self._lock()

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")

    def _append(self, batch: bytes, size: int) -> None:
        """Write the batch at the end, or leave the file as it was; a torn last line of somebody else's is ended."""
        torn = size > 0 and os.pread(self._descriptor, 1, size - 1) != b"\n"
        rest = memoryview(b"\n" + batch if torn else batch)
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError:
            with contextlib.suppress(OSError):  # a device has no size; the first error is the one to tell
                os.ftruncate(self._descriptor, size)
            raise
