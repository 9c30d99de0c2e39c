"""Where certificates are kept: the Store protocol, and a folder on disk.

Owns reading and writing the folder. Files are whole or not there (a temporary name, then a rename), keys are readable
by their owner only, and a lock file makes two processes that start at once agree on one authority. Refuses files that
are too large to be certificates.
"""

import contextlib
import fcntl
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from certs.errors import CertificateError
from certs.holdings import FILES, SECRET_FILES, Files

LOCK_FILE = ".lock"
LOCK_SECONDS = 30.0
LOCK_PAUSE = 0.05
MAX_FILE = 1 << 20  # the size limit of a whole Secret

Change = Callable[[Files], Files]


class Store(Protocol):
    """A place of named files that one process at a time may change."""

    def update(self, change: Change) -> bool:
        """Read the files, write what `change` makes of them, and say whether anything differed."""


class FolderStore:
    """A folder; made on the first update, readable by its owner only."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __str__(self) -> str:
        return str(self.folder)

    def read(self) -> Files:
        """Return the files that are there."""
        files: dict[str, bytes] = {}
        for name in FILES:
            path = self.folder / name
            try:
                with path.open("rb") as stream:
                    files[name] = stream.read(MAX_FILE + 1)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise CertificateError(f"{path} cannot be read: {error.strerror}") from error
            if len(files[name]) > MAX_FILE:
                raise CertificateError(f"{path} is larger than {MAX_FILE} bytes: no certificate")
        return files

    def update(self, change: Change) -> bool:
        """Read, change and write the files under the folder's lock.

        Raises:
            CertificateError: the folder cannot be written, another process keeps it locked, or `change` says so.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with self._locked():
                before = self.read()
                return self._write(before, change(before))
        except OSError as error:
            raise CertificateError(f"{self.folder}: certificates cannot be kept here: {error.strerror}") from error

    def _write(self, before: Files, after: Files) -> bool:
        changed = {name: data for name, data in after.items() if before.get(name) != data}
        for name, data in changed.items():
            self._replace(name, data)
        gone = [name for name in before if name not in after]
        for name in gone:
            (self.folder / name).unlink(missing_ok=True)
        return bool(changed or gone)

    def _replace(self, name: str, data: bytes) -> None:
        handle, temporary = tempfile.mkstemp(prefix=".tmp-", dir=self.folder)  # 0600 from the start
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(data)
                if name not in SECRET_FILES:
                    os.fchmod(stream.fileno(), 0o644)
                stream.flush()
                os.fsync(stream.fileno())
            Path(temporary).rename(self.folder / name)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        deadline = time.monotonic() + LOCK_SECONDS
        with (self.folder / LOCK_FILE).open("a") as stream:
            while True:
                try:
                    fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError as error:
                    if time.monotonic() > deadline:
                        raise CertificateError(
                            f"{self.folder / LOCK_FILE} is locked by another process for {LOCK_SECONDS:.0f} s"
                        ) from error
                    time.sleep(LOCK_PAUSE)
            yield
