"""A blob on its way into a store, and the room that is set aside for it.

Owns the bookkeeping of one blob between its first byte and its name; `partial` owns the file.
"""

from pathlib import Path
from typing import Protocol

from proxy.oci.digest import Digest, DigestCheck
from proxy.partial import Partial, in_thread


class Room(Protocol):
    """What a blob on its way needs of the store it goes to."""

    def folder(self, algorithm: str) -> Path:
        """Return where the blobs of an algorithm are."""
        ...

    def final(self, digest: Digest) -> Path:
        """Return the blob's path."""
        ...

    def reserve(self, more: int) -> None:
        """Set bytes aside, or raise ResourceExhausted."""
        ...

    def release(self, reserved: int) -> None:
        """Give back bytes set aside."""
        ...

    def account(self, digest: Digest, size: int) -> None:
        """Take note of a blob that is there."""
        ...


class Incoming:
    """A blob on its way into a store, with the room it takes set aside; `close` undoes what `commit` did not finish."""

    def __init__(self, store: Room, algorithm: str, check: DigestCheck, size: int) -> None:
        self._store, self._reserved = store, 0
        self._reserve(size)
        try:
            self._partial = Partial(store.folder(algorithm), check)
        except BaseException:
            store.release(self._reserved)
            raise

    @property
    def size(self) -> int:
        """How many bytes have come in."""
        return self._partial.size

    @property
    def path(self) -> Path:
        """Where the bytes are gathered."""
        return self._partial.path

    def _reserve(self, size: int) -> None:
        if size > self._reserved:
            self._store.reserve(size - self._reserved)
            self._reserved = size

    async def append(self, piece: bytes) -> None:
        """Add bytes; raises TrustFailure when there are too many, ResourceExhausted when they do not fit."""
        self._reserve(self._partial.size + len(piece))
        await self._partial.append(piece)

    async def flush(self) -> None:
        """Write what was gathered, so that a pause holds no memory."""
        await self._partial.flush()

    async def commit(self, expected: Digest | None = None) -> Digest:
        """Check the whole and give it its name; raises TrustFailure when size or digest is wrong."""
        await self._partial.flush()
        found = await in_thread(lambda: self._partial.commit(self._store.final, expected=expected))
        self._store.account(found, self._partial.size)
        return found

    def close(self) -> None:
        """Give back the room; remove the file unless it was committed."""
        self._store.release(self._reserved)
        self._reserved = 0
        self._partial.close()
