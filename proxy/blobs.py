"""Content-addressed files on this machine, laid out as the `blobs` folder of an OCI image layout.

Owns `blobs/<algorithm>/<hex>` under one root: the cache of upstream layers and packages, and the storage of the
embedded mirror. A file is complete, checked and on the device before it has its name; what fails or is cancelled
leaves nothing. Refuses to grow beyond its bound: a cache evicts what was used least recently and is not pinned, other
stores leave making room to their owner.
Layout: https://github.com/opencontainers/image-spec/blob/v1.1.1/image-layout.md#blobs
"""

import asyncio
import contextlib
import errno
import os
import stat
import time
from collections import Counter, OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path

from proxy.errors import MalformedInput, ResourceExhausted, TrustFailure
from proxy.files import raise_if_full
from proxy.incoming import Incoming
from proxy.oci.digest import Digest, DigestCheck
from proxy.partial import GATHER, Partial, in_thread, sweep, sync_folder

_NO_LINK = frozenset({errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.EACCES})


class BlobStore:
    """Files named by their digest. Belongs to one event loop; several processes may share a cache's folder.

    Args:
        root: the folder that holds `blobs`; made when missing.
        max_bytes: the most that all blobs together may take.
        evict: whether to make room by removing the least recently used unpinned blobs (a cache).
    """

    def __init__(self, root: Path, max_bytes: int, *, evict: bool = True) -> None:
        self.root, self.max_bytes, self._evict = root, max_bytes, evict
        self._sizes: OrderedDict[Digest, int] = OrderedDict()  # least recently used first
        self._pins: Counter[Digest] = Counter()
        self._busy: dict[Digest, asyncio.Lock] = {}
        self._waiting: Counter[Digest] = Counter()
        self._reserved = 0
        self.used = 0
        self._load()

    def _load(self) -> None:
        self.folder("sha256").mkdir(parents=True, exist_ok=True)
        found: list[tuple[int, Digest, int]] = []
        for folder in (self.folder("sha256"), self.folder("sha512")):
            if not folder.is_dir():
                continue
            sweep(folder)
            for entry in os.scandir(folder):
                with contextlib.suppress(MalformedInput, FileNotFoundError):
                    digest = Digest.parse(f"{folder.name}:{entry.name}")
                    status = entry.stat(follow_symlinks=False)
                    if stat.S_ISREG(status.st_mode):
                        found.append((status.st_atime_ns, digest, status.st_size))
        for _, digest, size in sorted(found):
            self._sizes[digest] = size
            self.used += size

    def folder(self, algorithm: str) -> Path:
        """Return where the blobs of an algorithm are."""
        return self.root / "blobs" / algorithm

    def __len__(self) -> int:
        return len(self._sizes)

    def __iter__(self) -> Iterator[Digest]:
        return iter(tuple(self._sizes))

    def path(self, digest: Digest) -> Path:
        """Return where the blob is or will be; counts as a use of it."""
        self._touch(digest)
        return self.final(digest)

    def has(self, digest: Digest, size: int | None = None) -> bool:
        """Return whether the blob is here, with exactly `size` bytes when given; counts as a use of it."""
        try:
            found = self.final(digest).stat().st_size
        except OSError:
            self._forget(digest)
            return False
        self.account(digest, found)
        self._touch(digest)
        return size is None or found == size

    def size(self, digest: Digest) -> int | None:
        """Return the blob's size in bytes, or None when it is not here; counts as a use of it."""
        return self._sizes[digest] if self.has(digest) else None

    def last_used(self, digest: Digest) -> float:
        """Return when the blob was last used or linked, in seconds since the epoch; 0 when it is not here."""
        try:
            status = self.final(digest).stat()
        except FileNotFoundError:
            return 0.0
        return max(status.st_atime, status.st_ctime)

    @contextlib.contextmanager
    def pin(self, digests: Iterable[Digest]) -> Iterator[None]:
        """Keep blobs from eviction inside the block, also those that only come into being in it."""
        held = tuple(digests)
        self._pins.update(held)
        try:
            yield
        finally:
            self._pins.subtract(held)
            for digest in held:
                if not self._pins[digest]:
                    del self._pins[digest]

    def pinned(self, digest: Digest) -> bool:
        """Return whether anybody keeps the blob from eviction."""
        return digest in self._pins

    async def ingest(
        self,
        digest: Digest,
        size: int | None,
        stream: AsyncIterator[bytes],
        where: str,
        limit: int,
        *,
        watch: Callable[[Path, int], None] | None = None,
    ) -> Path:
        """Read a stream into the store; several at once for one digest read one stream.

        Args:
            digest: what the bytes must come to.
            size: how many there must be, or None.
            stream: the bytes; closed when they are not needed.
            where: the stream's name in error messages.
            limit: the most bytes accepted when `size` is None.
            watch: told after every piece where the bytes are gathered, unchecked so far, and how many there are.

        Raises:
            TrustFailure: size or digest is wrong.
            ResourceExhausted: the bound of the store or the disk is reached.
        """
        async with self._alone(digest):
            if self.has(digest, size):
                await _close(stream)
                return self.path(digest)
            check = DigestCheck(digest, size=size, limit=limit, where=where)
            with contextlib.closing(Incoming(self, digest.algorithm, check, size or 0)) as incoming:
                async for piece in stream:
                    await incoming.append(piece)
                    if watch is not None:
                        watch(incoming.path, incoming.size)
                await incoming.commit()
        return self.path(digest)

    async def put_bytes(self, data: bytes) -> Digest:
        """Store `data` under its SHA-256 digest."""
        digest = Digest.of(data)

        async def once() -> AsyncIterator[bytes]:
            yield data

        await self.ingest(digest, len(data), once(), f"{len(data)} bytes", len(data))
        return digest

    async def adopt(self, file: Path, digest: Digest, size: int) -> Path:
        """Take a finished local file, whose name is gone afterwards; its digest is checked.

        Raises:
            TrustFailure: the file is no regular file, or size or digest is wrong; the file stays.
            ResourceExhausted: the bound of the store or the disk is reached.
        """
        path = await self.link_file(file, digest, size, verify=True)
        await in_thread(lambda: file.unlink(missing_ok=True))
        return path

    async def link_from(self, other: "BlobStore", digest: Digest) -> Path:
        """Take a blob from another store: a hard link, or a checked copy where links cannot be had."""
        with other.pin([digest]):
            size = other.size(digest)
            if size is None:
                raise FileNotFoundError(errno.ENOENT, "no such blob", str(other.path(digest)))
            return await self.link_file(other.path(digest), digest, size, verify=False)

    async def link_file(self, file: Path, digest: Digest, size: int, *, verify: bool) -> Path:
        """Take a local file under a hard link, or a copy where links cannot be had; the file keeps its own name.

        Args:
            file: nobody writes to it any more.
            digest: what it holds.
            size: how many bytes it holds.
            verify: whether to hash it; only a file that was hashed before is safe without. A copy is always hashed.
        """
        async with self._alone(digest):
            if self.has(digest, size):
                return self.path(digest)
            self.reserve(size)
            try:
                await in_thread(lambda: self._link(file, digest, size, verify=verify))
                self.account(digest, size)
            finally:
                self.release(size)
        return self.path(digest)

    def _link(self, file: Path, digest: Digest, size: int, *, verify: bool) -> None:
        handle = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        final = self.final(digest)
        try:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode) or status.st_size != size:
                raise TrustFailure(f"{file}: not a regular file of {size} bytes; refused")
            if verify:
                check = DigestCheck(digest, size=size, limit=size, where=str(file))
                for piece in _pieces(handle):
                    check.update(piece)
                check.finish()
                os.fsync(handle)
            final.parent.mkdir(parents=True, exist_ok=True)
            final.unlink(missing_ok=True)  # only a file of a wrong size is found here
            with contextlib.suppress(FileExistsError):
                os.link(file, final, follow_symlinks=False)
            sync_folder(final.parent)
        except OSError as error:
            raise_if_full(error, final)
            if error.errno not in _NO_LINK:
                raise
            check = DigestCheck(digest, size=size, limit=size, where=str(file))
            with contextlib.closing(Partial(final.parent, check)) as partial:
                os.lseek(handle, 0, os.SEEK_SET)
                for piece in _pieces(handle):
                    partial.write(piece)
                partial.commit(self.final)
        finally:
            os.close(handle)

    def upload(self, limit: int) -> Incoming:
        """Begin a blob whose digest is known at its end only; it has `limit` bytes at the most."""
        return Incoming(self, "sha256", DigestCheck(None, size=None, limit=limit, where="upload"), 0)

    def remove(self, digest: Digest) -> int:
        """Remove a blob and return the bytes that this freed; 0 when it is pinned or not here."""
        if self.pinned(digest):
            return 0
        freed = self._forget(digest)
        self.final(digest).unlink(missing_ok=True)
        return freed

    def room_for(self, size: int) -> int:
        """Return how many bytes must go before `size` more fit; 0 or less when they do."""
        return self.used + self._reserved + size - self.max_bytes

    def final(self, digest: Digest) -> Path:
        """Return the blob's path; no use of it."""
        return self.folder(digest.algorithm) / digest.hex

    def _touch(self, digest: Digest) -> None:
        if digest not in self._sizes:
            return
        self._sizes.move_to_end(digest)
        path = self.final(digest)
        with contextlib.suppress(OSError):  # gone or a read-only folder: the order in memory is what counts
            os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))

    def account(self, digest: Digest, size: int) -> None:
        """Take note of a blob that is there."""
        self.used += size - self._sizes.get(digest, 0)
        self._sizes[digest] = size

    def _forget(self, digest: Digest) -> int:
        size = self._sizes.pop(digest, 0)
        self.used -= size
        return size

    @contextlib.asynccontextmanager
    async def _alone(self, digest: Digest) -> AsyncIterator[None]:
        """One writer per digest; who waited finds the blob there, or tries with a stream of its own."""
        self._waiting[digest] += 1
        try:
            with self.pin([digest]):
                async with self._busy.setdefault(digest, asyncio.Lock()):
                    yield
        finally:
            self._waiting[digest] -= 1
            if not self._waiting[digest]:
                del self._waiting[digest], self._busy[digest]

    def reserve(self, more: int) -> None:
        """Set bytes aside; evicts if it may, else raises ResourceExhausted."""
        if self._evict and self.room_for(more) > 0:
            for digest in tuple(self._sizes):
                if self.room_for(more) <= 0:
                    break
                self.remove(digest)
        if self.room_for(more) > 0:
            raise ResourceExhausted(
                f"{self.root}: {more} more bytes do not fit, {self.used} of {self.max_bytes} are in use; "
                "raise its max_bytes or remove what is not needed"
            )
        self._reserved += more

    def release(self, reserved: int) -> None:
        """Give back bytes set aside."""
        self._reserved -= reserved


async def _close(stream: AsyncIterator[bytes]) -> None:
    if isinstance(stream, AsyncGenerator):
        await stream.aclose()


def _pieces(handle: int) -> Iterator[bytes]:
    while piece := os.read(handle, GATHER):
        yield piece
