"""Debian version numbers: their form and their order.

Owns the comparison that dpkg and apt use. Refuses versions that are not of the documented form.
Specification: deb-version(7).

Algorithm (numbers in the code): 1. the epochs are compared as numbers; 2. then upstream versions, 3. then revisions
(an absent one equals ``0``), each as alternating runs of non-digits and digits; 4. in a non-digit run ``~`` sorts
before the end of the run, the end before letters, letters before anything else; 5. digit runs compare as numbers.
"""

import re
from collections.abc import Callable, Mapping
from functools import lru_cache

from proxy.errors import MalformedInput

MAX_LENGTH = 1024  # dpkg has no limit; the longest version in Debian's archive has under 100 characters

_RUN = re.compile(r"([^0-9]*)0*([0-9]*)")
_END = "\x02"
_ORDER = {ord("~"): "\x01"} | {ord(c): chr(ord(c) + 256) for c in ".+-:"}

Key = tuple[int, tuple[tuple[str, int, str], ...], tuple[tuple[str, int, str], ...]]


_COMPARISONS: Mapping[str, Callable[[int], bool]] = {
    "lt": lambda c: c < 0,
    "le": lambda c: c <= 0,
    "eq": lambda c: c == 0,
    "ne": lambda c: c != 0,
    "ge": lambda c: c >= 0,
    "gt": lambda c: c > 0,
}


def holds(left: str, operator: str, right: str) -> bool | None:
    """Compare as `dpkg --compare-versions` does, with its operators in words; None for another one.

    An empty version is older than any, or newer with an operator in ``-nl``.
    """
    name = operator.removesuffix("-nl")
    if name not in _COMPARISONS:
        return None
    if not left or not right:
        order = (left != "") - (right != "")
        return _COMPARISONS[name](-order if operator.endswith("-nl") else order)
    return _COMPARISONS[name](compare_versions(left, right))


def compare_versions(a: str, b: str) -> int:
    """Return -1, 0 or 1 as `a` is older than, equal to or newer than `b`; raises MalformedInput for a bad form."""
    if a == b:
        return 0
    left, right = version_key(a), version_key(b)
    return (left > right) - (left < right)


@lru_cache(maxsize=8192)
def version_key(version: str) -> Key:
    """Return a value that sorts as the version does; raises MalformedInput when `version` is not of the form."""
    epoch, upstream, revision = split_version(version)
    return epoch, _runs(upstream), _runs(revision)


def split_version(version: str) -> tuple[int, str, str]:
    """Return epoch, upstream version and revision (``""`` if absent); raises MalformedInput for a bad form."""
    if len(version) > MAX_LENGTH:
        raise MalformedInput(f"a version of more than {MAX_LENGTH} characters", text=version)
    epoch, colon, rest = version.partition(":")
    if not colon:
        epoch, rest = "", version
    upstream, dash, revision = rest.rpartition("-")
    if not dash:
        upstream, revision = rest, ""
    good = (
        (not colon or re.fullmatch("[0-9]{1,9}", epoch))
        and re.fullmatch(r"[0-9A-Za-z.+~:-]+", upstream)
        and (not dash or re.fullmatch(r"[0-9A-Za-z.+~]+", revision))
    )
    if not good:
        raise MalformedInput("not a Debian version ([epoch:]upstream[-revision], see deb-version(7))", text=version)
    return int(epoch or "0"), upstream, revision


def _runs(text: str) -> tuple[tuple[str, int, str], ...]:
    """Return (non-digits, number's length, number) per run, ending in a mark that sorts as the end does."""
    runs = [(run.translate(_ORDER) + _END, len(number), number) for run, number in _RUN.findall(text)]
    nothing = (_END, 0, "")
    while len(runs) > 1 and runs[-1] == nothing:
        runs.pop()
    return (*runs, nothing)
