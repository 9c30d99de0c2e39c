"""The records of pax extended headers, read and written.

Owns which keywords mean something here: path, linkpath, size, uid, gid, mtime and extended attributes (SCHILY.xattr,
and libarchive's own form where SCHILY's is absent). Others are checked for form and left. Refuses sparse files.
Format: pax(1) of POSIX.1-2001, "pax Extended Header"
"""

import base64
import binascii
import re
import urllib.parse
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from proxy.errors import MalformedInput

_TIME = re.compile(rb"(-?)([0-9]{1,18})(?:\.([0-9]{0,20}))?")
_SIZE = re.compile(rb"[0-9]{1,18}")
_LENGTH = 20  # digits that a record's length may have
_SCHILY = b"SCHILY.xattr."
_LIBARCHIVE = b"LIBARCHIVE.xattr."
_GLOBAL_REFUSED = ("path", "linkpath", "size")


@dataclass(slots=True)
class Pax:
    """What one extended header says; None where it is silent."""

    path: str | None = None
    linkpath: str | None = None
    size: int | None = None
    uid: int | None = None
    gid: int | None = None
    mtime: int | None = None
    xattrs: dict[str, bytes] = field(default_factory=dict)

    def refuse_global(self, where: str) -> None:
        """Raise MalformedInput where, as a global header, this would give members other names or sizes."""
        for name in _GLOBAL_REFUSED:
            if getattr(self, name) is not None:
                raise MalformedInput(f"a global pax header that sets {name}: readers differ on it", file=where)


def parse_pax(raw: bytes, where: str) -> Pax:
    """Parse the body of an extended header; raises MalformedInput."""
    pax = Pax()
    other: dict[str, bytes] = {}
    for key, value in _records(raw, where):
        try:
            _take(pax, other, key, value)
        except (ValueError, binascii.Error) as error:
            text = (key + b"=" + value[:80]).decode("utf-8", "replace")
            raise MalformedInput(f"a pax record that does not read ({error})", file=where, text=text) from error
    for name, value in other.items():
        pax.xattrs.setdefault(name, value)
    return pax


def _records(raw: bytes, where: str) -> Iterable[tuple[bytes, bytes]]:
    at = 0
    while at < len(raw):
        blank = raw.find(b" ", at, at + _LENGTH)
        digits = raw[at:blank] if blank > 0 else b""
        end = at + int(digits) if digits.isdigit() else 0
        key, equals, value = raw[blank + 1 : end - 1].partition(b"=")
        if end <= blank or end > len(raw) or raw[end - 1 : end] != b"\n" or not equals or not key or b"\0" in key:
            raise MalformedInput("a pax record with a wrong length or form", file=where, text=repr(raw[at : at + 60]))
        yield key, value
        at = end


def _take(pax: Pax, other: dict[str, bytes], key: bytes, value: bytes) -> None:
    """Put one record in its place; ValueError where its value is not what its key needs."""
    match key:
        case b"path":
            pax.path = _name(value)
        case b"linkpath":
            pax.linkpath = _name(value)
        case b"size":
            pax.size = _integer(value)
        case b"uid":
            pax.uid = _integer(value)
        case b"gid":
            pax.gid = _integer(value)
        case b"mtime":
            pax.mtime = _seconds(value)
        case _ if key.startswith(_SCHILY):
            pax.xattrs[_name(key[len(_SCHILY) :]) or ""] = value
        case _ if key.startswith(_LIBARCHIVE):
            name = urllib.parse.unquote(key[len(_LIBARCHIVE) :].decode("ascii"))
            other[name] = base64.b64decode(value + b"=" * (-len(value) % 4), validate=True)
        case _ if key.startswith(b"GNU.sparse."):
            raise ValueError("sparse files are not taken")


def _name(value: bytes) -> str | None:
    if b"\0" in value:
        raise ValueError("a NUL byte in a name")
    return value.decode("utf-8", "surrogateescape") or None  # an empty value takes the keyword back


def _integer(value: bytes) -> int | None:
    if not value:
        return None
    if not _SIZE.fullmatch(value):
        raise ValueError("not a number")
    return int(value)


def _seconds(value: bytes) -> int | None:
    """Return whole seconds, rounded down as a file system would."""
    if not value:
        return None
    match = _TIME.fullmatch(value)
    if match is None:
        raise ValueError("not a time")
    seconds = int(match[2])
    if match[1]:
        return -seconds - (1 if (match[3] or b"").strip(b"0") else 0)
    return seconds


def render_pax(records: Mapping[str, bytes]) -> bytes:
    """Render records in the order of their keys."""
    out = bytearray()
    for key in sorted(records):
        body = b" " + key.encode("utf-8", "surrogateescape") + b"=" + records[key] + b"\n"
        size = len(body)
        while len(str(size)) + len(body) != size:
            size = len(str(size)) + len(body)
        out += str(size).encode() + body
    return bytes(out)
