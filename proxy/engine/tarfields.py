"""The fields of a tar header: checksum, numbers and names.

Owns what their bytes mean. Numbers are octal digits between blanks and NULs, or GNU's base-256; anything else is
refused, where lenient readers would each make another number of it.
Formats: pax(1) of POSIX.1-2001, https://www.gnu.org/software/tar/manual/html_node/Standard.html
"""

import zlib

from proxy.engine.tar import LIMITS, Limits
from proxy.errors import MalformedInput

_ADLER = 65521
_SUM_DIGITS = 7
_ASCII_END = 128
_INT64 = 1 << 63


def sum_holds(block: bytes) -> bool:
    """Say whether a header block has the checksum that it names.

    The low half of Adler-32 is the sum of all bytes plus one, modulo 65521: a sum at the speed of C. Where it
    differs, old tars that summed signed bytes get their chance.
    """
    digits = block[148:156].strip(b" \0")
    said = _octal(digits)
    if said is None or len(digits) > _SUM_DIGITS:
        return False
    bare = block[:148] + b"        " + block[156:]
    if zlib.adler32(bare) & 0xFFFF == (said + 1) % _ADLER:
        return True
    return said == sum(bare) - 256 * sum(byte >= _ASCII_END for byte in bare)


def parse_number(field: bytes) -> int | None:
    """Parse a numeric field; None where it is no number or one over 63 bits."""
    digits = field.strip(b" \0")
    if not digits:
        return 0
    if not field[0] & 0x80:
        return _octal(digits)
    bits = 8 * len(field) - 1
    number = int.from_bytes(field, "big") & (1 << bits) - 1
    number -= (number >> bits - 1) << bits
    return number if abs(number) < _INT64 else None


def _octal(digits: bytes) -> int | None:
    """Return the value of ASCII digits in octal; None where there are none, or others among them."""
    if not digits.isdigit():
        return None
    try:
        return int(digits, 8)
    except ValueError:
        return None


def clean_path(name: str, where: str, limits: Limits = LIMITS) -> str:
    """Return a member's name as a path relative to the root, normalized; ``""`` is the root.

    Raises MalformedInput for `..` and for names over the limits.
    """
    path = name.removeprefix("./").rstrip("/")
    if len(path) > limits.path or path.count("/") >= limits.depth:
        most = f"at most {limits.path} characters and {limits.depth} components are taken"
        raise MalformedInput(f"a path of {len(path)} characters; {most}", file=where, text=path)
    if path and (path[0] in "/." or "//" in path or "/." in path):
        parts = [part for part in path.split("/") if part not in {"", "."}]
        if ".." in parts:
            raise MalformedInput("a path that climbs out with ..; refused", file=where, text=name)
        path = "/".join(parts)
    return path
