"""Reads tar streams strictly: ustar, pax, GNU long names and base-256 numbers.

Owns the parsing of headers and the walk over members; creates nothing on any disk. Where readers of tar differ, it
decides as Go's archive/tar does, since every container runtime unpacks layers with it, and refuses what is
ambiguous. Refused: `..` in a name, NUL in a name, sparse files, types that no layer has, wrong checksums, numbers out
of range, an end without its zero block, anything but zeros after it. Taken: absolute names (relative to the root, as
runtimes do), `./`, an empty name (the root directory). Global pax headers are checked and not applied, as in Go; one
that would change names or sizes elsewhere is refused.
Formats: pax(1) of POSIX.1-2001, https://www.gnu.org/software/tar/manual/html_node/Standard.html
"""

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from proxy.engine.paxheader import Pax, parse_pax
from proxy.engine.tar import BLOCK, CHUNK, LIMITS, NO_XATTRS, Entry, Kind, Limits, Readable
from proxy.engine.tarfields import clean_path, parse_number, sum_holds
from proxy.errors import MalformedInput

_FIELDS = struct.Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12x")
_ZEROS = bytes(BLOCK)
_KINDS = {
    b"0": Kind.FILE,
    b"\0": Kind.FILE,
    b"1": Kind.HARDLINK,
    b"2": Kind.SYMLINK,
    b"3": Kind.CHAR,
    b"4": Kind.BLOCK,
    b"5": Kind.DIR,
    b"6": Kind.FIFO,
}
_SPECIAL = {b"x": "pax", b"g": "", b"L": "name", b"K": "target"}
_USTAR = b"ustar\x0000"
_MAX_ID = 0xFFFF_FFFF
_MAX_TIME = 1 << 62


class Header(NamedTuple):
    """One member without its content; the fields are those of `Entry`."""

    path: str
    kind: Kind
    mode: int
    uid: int
    gid: int
    mtime: int
    size: int
    target: str
    xattrs: Mapping[str, bytes]
    device: tuple[int, int]


@dataclass(slots=True)
class _Extra:
    """What extended headers say of the member that follows them."""

    pax: Pax | None = None
    name: str | None = None
    target: str | None = None


class TarReader:
    """A cursor over the members of a tar: `next()` gives a header, then `read`, `copy` or nothing for its body."""

    __slots__ = ("_at", "_buffer", "_left", "_limits", "_pad", "_read", "count", "where")

    def __init__(self, stream: Readable, *, where: str = "tar", limits: Limits = LIMITS) -> None:
        self.where, self.count = where, 0
        self._read = stream.read
        self._limits = limits
        self._buffer, self._at = b"", 0
        self._left = self._pad = 0  # bytes of the current body, and of its padding, that were not taken yet

    def next(self) -> Header | None:
        """Return the next member's header, or None at the end (the stream is then read to its own end)."""
        if self._left or self._pad:
            self._skip(self._left + self._pad)
            self._left = self._pad = 0
        extra: _Extra | None = None
        while True:
            block = self._block()
            if block == _ZEROS:
                if extra is not None:
                    raise self._wrong("ends after an extended header that belongs to no member")
                self._finish()
                return None
            self._count()
            if block[156:157] in _KINDS:
                return self._header(block, extra)
            extra = self._special(block, extra)

    def read(self, size: int = CHUNK, /) -> bytes:
        """Return up to `size` bytes of the current member's body; ``b""`` at its end."""
        size = min(size, self._left)
        if not size:
            return b""
        if self._at >= len(self._buffer):
            self._fill()
        piece = self._buffer[self._at : self._at + size]
        self._at += len(piece)
        self._left -= len(piece)
        return piece

    def copy(self, write: Callable[[bytes], object]) -> None:
        """Hand the rest of the current member's body to `write`, piece by piece."""
        while piece := self.read():
            write(piece)

    @property
    def ahead(self) -> int:
        """How many bytes were read from the stream and not taken yet: where a body lies, for who counts the reads."""
        return len(self._buffer) - self._at

    def _wrong(self, message: str, text: str = "") -> MalformedInput:
        return MalformedInput(f"tar member {self.count}: {message}", file=self.where, text=text)

    def _count(self) -> None:
        self.count += 1
        if self.count > self._limits.entries:
            raise self._wrong(f"more than {self._limits.entries} members; refused")

    def _fill(self) -> None:
        self._buffer, self._at = self._read(CHUNK), 0
        if not self._buffer:
            raise self._wrong("the tar is cut short; fetch it again")

    def _block(self) -> bytes:
        at = self._at
        block = self._buffer[at : at + BLOCK]
        self._at = at + len(block)
        while len(block) < BLOCK:
            self._fill()
            rest = self._buffer[: BLOCK - len(block)]
            self._at = len(rest)
            block += rest
        return block

    def _skip(self, size: int) -> None:
        ahead = len(self._buffer) - self._at
        while size > ahead:
            size -= ahead
            self._fill()
            ahead = len(self._buffer)
        self._at += size

    def _finish(self) -> None:
        """Read to the end of the stream; only zeros may follow the first zero block."""
        piece = self._buffer[self._at :]
        while True:
            if piece.count(0) != len(piece):
                raise self._wrong("bytes after the end of the tar")
            piece = self._read(CHUNK)
            if not piece:
                break
        self._buffer, self._at = b"", 0

    def _special(self, block: bytes, extra: "_Extra | None") -> "_Extra | None":
        """Take one extended header, and return what is known so far of the member to come."""
        flag = block[156:157]
        if flag not in _SPECIAL:
            raise self._wrong(f"member type {flag!r} is not one that a layer may have (sparse files included)")
        self._check_sum(block)
        size = self._number(block[124:136])
        if not 0 <= size <= self._limits.header:
            raise self._wrong(f"an extended header of {size} bytes; at most {self._limits.header} are taken")
        self._left = size
        body = b"".join(iter(self.read, b""))
        self._skip(-size % BLOCK)
        if flag == b"g":
            parse_pax(body, self.where).refuse_global(self.where)
            return extra
        extra = extra or _Extra()
        field = _SPECIAL[flag]
        if getattr(extra, field) is not None:
            raise self._wrong("two extended headers of one kind for one member")
        setattr(extra, field, parse_pax(body, self.where) if flag == b"x" else self._text(body.rstrip(b"\0")))
        return extra

    def _text(self, raw: bytes) -> str:
        if b"\0" in raw:
            raise self._wrong("a NUL byte in a name", repr(raw[:80]))
        return raw.decode("utf-8", "surrogateescape")

    def _check_sum(self, block: bytes) -> None:
        if not sum_holds(block):
            raise self._wrong("wrong header checksum: not a tar, or a damaged one", repr(block[148:156]))

    def _number(self, field: bytes) -> int:
        number = parse_number(field)
        if number is None:
            raise self._wrong("not a number", repr(field))
        return number

    def _header(self, block: bytes, extra: "_Extra | None") -> Header:
        self._check_sum(block)
        raw_name, raw_mode, raw_uid, raw_gid, raw_size, raw_time, _, flag, raw_target, *rest = _FIELDS.unpack(block)
        kind = _KINDS[flag]
        number = self._number
        mode, uid, gid, mtime = number(raw_mode) & 0o7777, number(raw_uid), number(raw_gid), number(raw_time)
        name: str | None = None
        target: str | None = None
        size: int | None = None
        xattrs = NO_XATTRS
        if extra is not None:
            name, target = extra.name, extra.target
            if (pax := extra.pax) is not None:
                uid, gid, mtime = _first(pax.uid, uid), _first(pax.gid, gid), _first(pax.mtime, mtime)
                name, target = name or pax.path, target or pax.linkpath
                size, xattrs = pax.size, pax.xattrs or NO_XATTRS
        if name is None:
            name = self._name(raw_name, rest)
        if size is None:
            size = number(raw_size)
        if not (0 <= uid <= _MAX_ID and 0 <= gid <= _MAX_ID and -_MAX_TIME < mtime < _MAX_TIME):
            raise self._wrong(f"owner {uid}:{gid} or time {mtime} out of range", name)
        kind = self._begin_body(kind, flag, size, name)
        path = clean_path(name, self.where, self._limits)
        if not path and kind is not Kind.DIR:
            raise self._wrong(f"the root directory as a {kind}", name)
        linked = ""
        if kind is Kind.SYMLINK or kind is Kind.HARDLINK:
            linked = self._target(kind, raw_target if target is None else target)
        device = (0, 0)
        if kind is Kind.CHAR or kind is Kind.BLOCK:
            device = (number(rest[3]) & _MAX_ID, number(rest[4]) & _MAX_ID)
        return Header(path, kind, mode, uid, gid, mtime, self._left, linked, xattrs, device)

    def _begin_body(self, kind: Kind, flag: bytes, size: int, name: str) -> Kind:
        """Note how much body follows, and return the kind: an old tar's directory is a file with a slash."""
        if size < 0 or size > self._limits.size:
            raise self._wrong(f"a size of {size} bytes", name)
        if kind is not Kind.FILE:
            return kind  # as in Go, only files have a body
        if name[-1:] == "/":
            if flag == b"0" or size:
                raise self._wrong("a regular file whose name ends in a slash", name)
            return Kind.DIR
        self._left, self._pad = size, -size % BLOCK
        return kind

    def _name(self, raw: bytes, rest: list[bytes]) -> str:
        name = raw.partition(b"\0")[0].decode("utf-8", "surrogateescape")
        magic, prefix = rest[0], rest[5]
        if prefix[0] and magic == _USTAR:
            return prefix.partition(b"\0")[0].decode("utf-8", "surrogateescape") + "/" + name
        if prefix[0] and magic[:5] == b"ustar" and not prefix[0] & 0x80 and prefix.strip(b"\0 01234567"):
            raise self._wrong("a GNU header with a name prefix, which readers take differently", name)
        return name

    def _target(self, kind: Kind, raw: bytes | str) -> str:
        target = raw if isinstance(raw, str) else raw.partition(b"\0")[0].decode("utf-8", "surrogateescape")
        if kind is Kind.HARDLINK:
            target = clean_path(target, self.where, self._limits)
        if not target or len(target) > self._limits.path:
            raise self._wrong(f"a {kind} with an empty target, or one that is too long", target)
        return target


def _first(value: int | None, other: int) -> int:
    return other if value is None else value


class Body:
    """The content of the member in hand; valid until the next one is asked for."""

    __slots__ = ("_number", "_reader")

    def __init__(self, reader: TarReader) -> None:
        self._reader, self._number = reader, reader.count

    def read(self, size: int = CHUNK, /) -> bytes:
        """Return up to `size` bytes; ``b""`` at the end."""
        if self._number != self._reader.count:
            raise ValueError("this member's body has gone by: read it before the next member")
        return self._reader.read(size)

    def copy(self, write: Callable[[bytes], object]) -> None:
        """Hand the rest to `write`, piece by piece."""
        while piece := self.read():
            write(piece)


def read_tar(stream: Readable, *, where: str = "tar", limits: Limits = LIMITS) -> Iterator[tuple[Entry, Body]]:
    """Yield every member with its body, in order; the stream is read to its end.

    Args:
        stream: an uncompressed tar (see `inflate.open_layer`).
        where: the archive's name in errors.
        limits: what the archive may have.

    Raises:
        MalformedInput: see the module's docstring.
    """
    reader = TarReader(stream, where=where, limits=limits)
    while (header := reader.next()) is not None:
        path, kind, mode, uid, gid, mtime, size, target, xattrs, device = header
        yield Entry(path, kind, mode, uid, gid, mtime, size, target, None, xattrs, device), Body(reader)
