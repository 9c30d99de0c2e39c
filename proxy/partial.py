"""A blob on its way in: a temporary file beside the blobs, hashed while it grows, renamed when it is right.

Owns the temporary files, their sweeping and what reaches the device when. A partial file is held under flock(2) for as
long as its writer lives, so leftovers are told from work in progress on every process-id namespace. Pieces are
gathered and handed to a thread: the event loop neither hashes nor waits for the disk.
"""

import asyncio
import contextlib
import fcntl
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from proxy.errors import TrustFailure
from proxy.files import TEMPORARY, raise_if_full
from proxy.oci.digest import Digest, DigestCheck

GATHER = (
    512 << 10
)  # bytes handed to a thread at once: a hop costs 0.1 ms, hashing this much 0.3 ms; each blob on its way holds two

T = TypeVar("T")


async def in_thread(work: Callable[[], T]) -> T:
    """Run `work` in a thread; a cancelled caller waits until it has ended, so that nothing goes on behind its back."""
    future = asyncio.get_running_loop().run_in_executor(None, work)
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait({future})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        future.exception()  # the cancellation is what the caller hears of
        raise cancelled
    return future.result()


def sync_folder(folder: Path) -> None:
    """Make renames and links in `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sweep(folder: Path) -> None:
    """Remove the temporary files in `folder` whose writer is gone."""
    for entry in os.scandir(folder):
        if entry.name.startswith(TEMPORARY) and entry.is_file(follow_symlinks=False):
            _remove_unheld(Path(entry.path))


def _remove_unheld(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError, BlockingIOError):
        handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
        finally:
            os.close(handle)


def _create_held(folder: Path) -> tuple[int, Path]:
    """Create a temporary file and lock it; a sweeper that comes in between costs another turn."""
    while True:
        path = folder / f"{TEMPORARY}{secrets.token_hex(12)}"
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise_if_full(error, path)
            raise
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            continue
        if os.fstat(handle).st_nlink:
            return handle, path
        os.close(handle)


class Partial:
    """Bytes of a blob that is not complete yet. Either `commit` or `close` ends it.

    Args:
        folder: where the blob will live, so that the last step is a rename.
        check: what the bytes must come to.
    """

    def __init__(self, folder: Path, check: DigestCheck) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._handle, self.path = _create_held(folder)
        self._check = check
        self._pieces: list[bytes] = []
        self._gathered = 0
        self.size = 0

    async def append(self, piece: bytes) -> None:
        """Add bytes; raises TrustFailure when there are too many, ResourceExhausted when the disk is full."""
        self._pieces.append(piece)
        self._gathered += len(piece)
        self.size += len(piece)
        if self._gathered >= GATHER:
            await self.flush()

    async def flush(self) -> None:
        """Write and hash what was gathered."""
        pieces, self._pieces, self._gathered = self._pieces, [], 0
        if pieces:
            await in_thread(lambda: self._write(pieces))

    def write(self, piece: bytes) -> None:
        """Add bytes at once; for callers that are in a thread."""
        self.size += len(piece)
        self._write([piece])

    def _write(self, pieces: list[bytes]) -> None:
        try:
            for piece in pieces:
                self._check.update(piece)
                view = memoryview(piece)
                while view:
                    view = view[os.write(self._handle, view) :]
        except OSError as error:
            raise_if_full(error, self.path)
            raise

    def commit(self, target: Callable[[Digest], Path], *, expected: Digest | None = None) -> Digest:
        """Check the whole, flush it to the device and give it its name; in a thread.

        Args:
            target: gives the final path for the digest found.
            expected: the digest that an upload named at its end.

        Raises:
            TrustFailure: size or digest is not what it must be.
        """
        found = self._check.finish()
        if expected is not None and expected != found:
            found = self._hash_again(expected)
        path = target(found)
        try:
            os.fsync(self._handle)
            path.parent.mkdir(parents=True, exist_ok=True)
            self.path.rename(path)
            sync_folder(path.parent)
        except OSError as error:
            raise_if_full(error, path)
            raise
        os.close(self._handle)
        self._handle = -1
        return found

    def _hash_again(self, expected: Digest) -> Digest:
        """Hash with the algorithm that the uploader chose at the end; SHA-256 was computed on the way."""
        where = f"upload of {self.size} bytes"
        if expected.algorithm == "sha256":
            raise TrustFailure(f"{where}: digest is {self._check.finish()}, expected {expected}; refused")
        check = DigestCheck(expected, size=self.size, limit=self.size, where=where)
        offset = 0
        while piece := os.pread(self._handle, GATHER, offset):
            check.update(piece)
            offset += len(piece)
        return check.finish()

    def close(self) -> None:
        """Remove the file, unless it was committed; may be called any number of times."""
        if self._handle < 0:
            return
        self.path.unlink(missing_ok=True)
        os.close(self._handle)
        self._handle = -1
