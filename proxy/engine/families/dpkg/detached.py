"""Detached OpenPGP signatures: the packets of a ``Release.gpg``, one by one.

Owns taking the armor off and cutting the packets apart, since a release is signed by several keys and one good
signature is enough. Verifies nothing; see `release`. Refuses what is no signature.
Specification: RFC 4880 sections 4.2 (packets) and 6.2 (armor)
"""

import base64
import binascii
import re
from collections.abc import Iterator

from proxy.errors import MalformedInput

MAX_SIGNATURES = 16  # Debian's releases have three
SIGNATURE = 2  # the packet's tag

_ARMOR = re.compile(
    rb"-----BEGIN PGP SIGNATURE-----\r?\n(?:[^\r\n:]+: [^\r\n]*\r?\n)*\r?\n(.*?)(?:\n=[^\n]*)?\n-----END", re.DOTALL
)


def split_signatures(data: bytes, where: str) -> tuple[bytes, ...]:
    """Return the signature packets of a detached signature, armored or not; raises MalformedInput."""
    match = _ARMOR.search(data)
    if match is not None:
        try:
            data = base64.b64decode(b"".join(match[1].split()), validate=True)
        except binascii.Error as error:
            raise MalformedInput("the armor of a signature is damaged", file=where) from error
    found = tuple(_packets(data, where))
    if not found or len(found) > MAX_SIGNATURES:
        raise MalformedInput(f"{len(found) or 'no'} signatures; 1 to {MAX_SIGNATURES} are read", file=where)
    return found


def _packets(data: bytes, where: str) -> Iterator[bytes]:
    at = 0
    while at < len(data):
        start, (tag, size, body) = at, _header(data, at, where)
        at = body + size
        if tag != SIGNATURE or at > len(data):
            raise MalformedInput("not a signature, or one that is cut short", file=where)
        yield data[start:at]


def _header(data: bytes, at: int, where: str) -> tuple[int, int, int]:
    """Return a packet's tag, the size of its body and where that begins."""
    first, rest = data[at], data[at + 1 : at + 6].ljust(5, b"\0")
    if first & 0xC0 == 0xC0:  # noqa: PLR2004 - the new form
        if rest[0] < 192:  # noqa: PLR2004
            return first & 0x3F, rest[0], at + 2
        if rest[0] < 224:  # noqa: PLR2004
            return first & 0x3F, ((rest[0] - 192) << 8) + rest[1] + 192, at + 3
        if rest[0] == 255:  # noqa: PLR2004
            return first & 0x3F, int.from_bytes(rest[1:5]), at + 6
    elif first & 0x80 and first & 3 != 3:  # noqa: PLR2004 - the old form, of a known size
        width = 1 << (first & 3)
        return (first >> 2) & 0xF, int.from_bytes(rest[:width]), at + 1 + width
    raise MalformedInput("not an OpenPGP packet of a known size", file=where)
