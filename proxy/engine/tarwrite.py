"""Writes tar members deterministically: the same entry gives the same bytes everywhere and always.

Owns the form: ustar headers with empty user and group names, octal numbers, and a pax header before a member only where
ustar cannot say it (long or non-ASCII names, large numbers, times before 1970, extended attributes). What it writes,
`tarread` reads back unchanged.
Format: pax(1) of POSIX.1-2001
"""

import zlib
from collections.abc import Iterator

from proxy.engine.paxheader import render_pax
from proxy.engine.tar import BLOCK, Entry, Kind
from proxy.errors import MalformedInput

END = bytes(2 * BLOCK)
_FLAGS = {
    Kind.FILE: b"0",
    Kind.HARDLINK: b"1",
    Kind.SYMLINK: b"2",
    Kind.CHAR: b"3",
    Kind.BLOCK: b"4",
    Kind.DIR: b"5",
    Kind.FIFO: b"6",
}
_NAME = 100  # bytes of a ustar name or link target
_PREFIX = 155  # bytes of a ustar name's prefix
_MAX_ID = 0o7777777
_MAX_NUMBER = 0o77777777777


def render_header(entry: Entry) -> bytes:
    """Return the header blocks of an entry; its body and `padding` follow. A whiteout must be made a file before."""
    records: dict[str, bytes] = {}
    name = _bytes(entry.path) + (b"/" if entry.kind is Kind.DIR else b"")
    if entry.path == "":
        name = b"./"
    prefix, short = _split(name)
    if not name.isascii() or (not short and name):
        records["path"] = name
        prefix, short = b"", _ascii(name)
    target = _bytes(entry.target)
    if not target.isascii() or len(target) > _NAME:
        records["linkpath"] = target
        target = _ascii(target)
    size = entry.size if entry.kind is Kind.FILE else 0
    uid = _number(records, "uid", entry.uid, _MAX_ID)
    gid = _number(records, "gid", entry.gid, _MAX_ID)
    length = _number(records, "size", size, _MAX_NUMBER)
    mtime = _number(records, "mtime", entry.mtime, _MAX_NUMBER)
    for key, value in entry.xattrs.items():
        records[f"SCHILY.xattr.{key}"] = value
    device = entry.device if entry.kind in {Kind.CHAR, Kind.BLOCK} else (0, 0)
    block = _block(
        flag=_FLAGS[entry.kind],
        name=short,
        prefix=prefix,
        target=target,
        numbers=(entry.mode & 0o7777, uid, gid, length, mtime),
        device=device,
    )
    if not records:
        return block
    body = render_pax(records)
    head = _block(flag=b"x", name=b"PaxHeaders/" + short[-80:].strip(b"/"), numbers=(0o644, 0, 0, len(body), 0))
    return head + body + padding(len(body)) + block


def padding(size: int) -> bytes:
    """Return the zeros that follow a body of `size` bytes."""
    return bytes(-size % BLOCK)


def render_member(entry: Entry, body: Iterator[bytes]) -> Iterator[bytes]:
    """Yield a member piece by piece; MalformedInput where the body is not of the entry's size."""
    yield render_header(entry)
    seen = 0
    for piece in body:
        seen += len(piece)
        yield piece
    if seen != (entry.size if entry.kind is Kind.FILE else 0):
        raise MalformedInput(f"has {seen} bytes of content, but its size is {entry.size}", text=entry.path)
    yield padding(seen)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _ascii(name: bytes) -> bytes:
    """Return a short stand-in for a name that a pax record gives in full."""
    return name.decode("ascii", "replace").encode("ascii", "replace")[:_NAME]


def _split(name: bytes) -> tuple[bytes, bytes]:
    """Split a name into ustar's prefix and name; two empty ones where it does not fit."""
    if len(name) <= _NAME:
        return b"", name
    at = name.find(b"/", len(name) - _NAME - 1)
    if 0 < at <= _PREFIX and at < len(name) - 1:
        return name[:at], name[at + 1 :]
    return b"", b""


def _number(records: dict[str, bytes], key: str, value: int, most: int) -> int:
    """Return what the ustar field says; a number that it cannot hold goes to a record, and the field says 0."""
    if 0 <= value <= most:
        return value
    records[key] = str(value).encode()
    return 0


def _block(
    *,
    flag: bytes,
    name: bytes,
    numbers: tuple[int, int, int, int, int],
    prefix: bytes = b"",
    target: bytes = b"",
    device: tuple[int, int] = (0, 0),
) -> bytes:
    """Return one header block; `numbers` are mode, uid, gid, size and mtime."""
    head = b"".join(
        (
            name.ljust(_NAME, b"\0"),
            b"%07o\0%07o\0%07o\0%011o\0%011o\0" % numbers,
            b"        ",
            flag,
            target.ljust(_NAME, b"\0"),
            b"ustar\x0000",
            bytes(64),
            b"%07o\0%07o\0" % device,
            prefix.ljust(_PREFIX, b"\0"),
            bytes(12),
        )
    )
    # Adler-32's low half is the sum plus one modulo 65521; a header of ASCII never comes near that
    total = (zlib.adler32(head) & 0xFFFF) - 1
    return head[:148] + b"%06o\0 " % total + head[156:]
