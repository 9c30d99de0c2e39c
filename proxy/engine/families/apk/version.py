"""Versions as apk writes and orders them: `digits{.digits}{letter}{_suffix{digits}}{-r digits}`.

Owns the order. Refuses what `apk version --check` refuses, and the half-written forms that it lets pass (`1.`, `1_`,
`1-r`, the empty text), which no package has.
Specification: apk-package(5), https://wiki.alpinelinux.org/wiki/APKBUILD_Reference#pkgver; the judge is apk 2.14.

A version is a row of parts, each a kind and a number, ended by a part of its own. Two versions compare as their rows
do: the first part that differs decides, by its kind first (the order of `_Kind`), then by its number. So
`1.0_rc < 1.0 < 1.0-r1 < 1.0_p < 1.0a < 1.0.1`.

A group of digits after a dot that begins with zeros counts as a fraction: first the zeros (the more, the less), then
the rest as a part of its own (0 if there is none), so that `1.0 < 1.01 < 1.1`.
"""

import re
from enum import IntEnum
from functools import lru_cache

from proxy.errors import MalformedInput

MAX_DIGITS = 17  # of one number; apk refuses more
MAX_VERSION = 512  # characters

_PRE = ("alpha", "beta", "pre", "rc")
_POST = ("cvs", "svn", "git", "hg", "p")
_FORM = re.compile(
    r"[0-9]+(?:\.[0-9]+)*(?:[a-z][0-9]+(?:\.[0-9]+)*)*[a-z]?"
    rf"(?:_(?:{'|'.join(_PRE + _POST)})[0-9]*)*(?:-r[0-9]+)?"
)
_PART = re.compile(
    rf"(?P<dot>\.)?(?P<digits>[0-9]+)|_(?P<suffix>{'|'.join(_PRE + _POST)})|(?P<rev>-r)|(?P<letter>[a-z])"
)


class _Kind(IntEnum):
    """What a part is; where two versions go on differently, the later kind is the greater version."""

    PRE_SUFFIX = 0
    END = 1
    REVISION = 2
    SUFFIX_NUMBER = 3
    POST_SUFFIX = 4
    LETTER = 5
    DIGIT = 6
    FRACTION = 7


_Part = tuple[_Kind, int]


_SUFFIXES: dict[str, _Part] = {
    **{name: (_Kind.PRE_SUFFIX, number) for number, name in enumerate(_PRE)},
    **{name: (_Kind.POST_SUFFIX, number) for number, name in enumerate(_POST)},
}


def compare_versions(a: str, b: str) -> int:
    """Return a negative number, zero or a positive one; MalformedInput if either is no version."""
    parts, others = _split(a), _split(b)
    return (parts > others) - (parts < others)


@lru_cache(maxsize=4096)
def _split(version: str) -> tuple[_Part, ...]:
    if len(version) > MAX_VERSION or _FORM.fullmatch(version) is None:
        raise MalformedInput("not a version as apk writes them (1.2.3a_rc4-r5)", text=version)
    parts: list[_Part] = []
    number_kind = _Kind.DIGIT  # what digits without a dot are, by the part before them
    for match in _PART.finditer(version):
        if match["letter"]:
            parts.append((_Kind.LETTER, ord(match["letter"])))
            number_kind = _Kind.DIGIT
        elif match["suffix"]:
            parts.append(_SUFFIXES[match["suffix"]])
            number_kind = _Kind.SUFFIX_NUMBER
        elif match["rev"]:
            number_kind = _Kind.REVISION
        elif match["dot"]:
            parts.extend(_after_dot(match["digits"], version))
        else:
            parts.append((number_kind, _number(match["digits"], version)))
    return (*parts, (_Kind.END, 0))


def _after_dot(digits: str, version: str) -> tuple[_Part, ...]:
    rest = digits.lstrip("0")
    zeros = len(digits) - len(rest)
    if not zeros:
        return ((_Kind.FRACTION, _number(digits, version)),)
    return ((_Kind.FRACTION, -zeros), (_Kind.DIGIT, _number(rest or "0", version)))


def _number(digits: str, version: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise MalformedInput(f"a number in an apk version has {MAX_DIGITS} digits at the most", text=version)
    return int(digits)
