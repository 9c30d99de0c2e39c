"""The files of an image on this machine, in a folder or in a tar archive, by the names that the format gives them.

Owns safe reading: only regular files are opened and reads are bounded. A member's name in an archive is a key to look
up and never becomes a path; an archive that is compressed is unpacked into one nameless temporary file.
"""

import io
import os
import posixpath
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO, Protocol

from proxy.engine.inflate import open_layer
from proxy.engine.tar import CHUNK
from proxy.engine.tar import Kind as MemberKind
from proxy.engine.tarread import TarReader
from proxy.errors import MalformedInput
from proxy.files import raise_if_full

MAX_LINKS = 10  # of a chain
_COMPRESSED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd")


class ImageFiles(Protocol):
    """Named files, read-only."""

    where: str

    def open(self, name: str) -> BinaryIO:
        """Open a regular file for reading, from its start; raises MalformedInput when there is none of this name."""
        ...

    def close(self) -> None:
        """Let go of what is held open."""
        ...


def read_small(files: ImageFiles, name: str, limit: int) -> bytes:
    """Return a whole file of `limit` bytes at the most."""
    with files.open(name) as stream:
        data = stream.read(limit + 1)
    if len(data) > limit:
        raise MalformedInput(f"has more than {limit} bytes", file=f"{files.where}: {name}")
    return data


class FolderFiles:
    """The files below a folder."""

    def __init__(self, root: Path) -> None:
        self.root, self.where = root, str(root)
        if not root.is_dir():
            raise MalformedInput("there is no such folder", file=str(root))

    def open(self, name: str) -> BinaryIO:
        """Open a file; a pipe or a device in its place is refused rather than waited for."""
        path = self.root / name
        try:
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
        except OSError as error:
            raise MalformedInput(f"cannot be read: {error.strerror}", file=str(path)) from error
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            raise MalformedInput("is no regular file", file=str(path))
        return os.fdopen(handle, "rb")

    def close(self) -> None:
        """Nothing is held."""


@dataclass(frozen=True, slots=True)
class _Member:
    offset: int = 0
    size: int = 0
    link: str = ""  # the name of another member


class TarFiles:
    """The regular members of a tar archive, read in place.

    Args:
        path: the archive, plain or compressed with gzip or zstd.
        scratch: where a compressed one is unpacked to; the system's place for temporary files by default.
    """

    def __init__(self, path: Path, scratch: Path | None = None) -> None:
        self.where = str(path)
        self._file: IO[bytes] = _open_plain(path, scratch)
        try:
            self._members = _list_members(self._file, self.where)
        except BaseException:
            self._file.close()
            raise

    def open(self, name: str) -> BinaryIO:
        """Open a member, through links between members."""
        for _ in range(MAX_LINKS):
            member = self._members.get(name)
            if member is None:
                raise MalformedInput("the archive does not hold this file", file=self.where, text=name)
            if not member.link:
                return io.BufferedReader(_Slice(self._file.fileno(), member.offset, member.size), CHUNK)
            name = member.link
        raise MalformedInput(f"a chain of more than {MAX_LINKS} links", file=self.where, text=name)

    def close(self) -> None:
        """Close the archive."""
        self._file.close()


class _Slice(io.RawIOBase):
    """A part of an open file as a file of its own; several may be read side by side."""

    def __init__(self, handle: int, offset: int, size: int) -> None:
        self._handle, self._start, self._size, self._at = handle, offset, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        room = memoryview(buffer)[: max(0, self._size - self._at)]
        count = os.preadv(self._handle, [room], self._start + self._at) if room else 0
        self._at += count
        return count


class _Counted:
    """Counts what is read, which tells where a member's body lies."""

    def __init__(self, file: IO[bytes]) -> None:
        self._read, self.taken = file.read, 0

    def read(self, size: int, /) -> bytes:
        piece = self._read(size)
        self.taken += len(piece)
        return piece


def _open_plain(path: Path, scratch: Path | None) -> IO[bytes]:
    """Open an archive as an uncompressed file."""
    opened = FolderFiles(path.parent).open(path.name) if path.parent.is_dir() else None
    if opened is None:
        raise MalformedInput("there is no such file", file=str(path))
    if not opened.peek(4).startswith(_COMPRESSED):  # type: ignore[attr-defined] # fdopen gives a BufferedReader
        return opened
    with opened:
        plain = tempfile.TemporaryFile(dir=scratch)  # noqa: SIM115 - lives as long as the archive is read
        try:
            stream = open_layer(opened, where=str(path))
            while piece := stream.read():
                plain.write(piece)
            plain.seek(0)
        except OSError as error:
            plain.close()
            raise_if_full(error, Path(scratch or tempfile.gettempdir()) / "unpacked")
            raise
        except BaseException:
            plain.close()
            raise
    return plain


def _list_members(file: IO[bytes], where: str) -> Mapping[str, _Member]:
    members: dict[str, _Member] = {}
    counted = _Counted(file)
    reader = TarReader(counted, where=where)
    while header := reader.next():
        if header.kind is MemberKind.FILE:
            members[header.path] = _Member(counted.taken - reader.ahead, header.size)
        elif header.kind is MemberKind.SYMLINK:
            beside = posixpath.join(posixpath.dirname(header.path), header.target)
            members[header.path] = _Member(link=posixpath.normpath(beside))
        elif header.kind is MemberKind.HARDLINK:
            members[header.path] = _Member(link=header.target)
    return members
