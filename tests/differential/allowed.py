"""The differences that are explained: at most fifteen, each with its reason. None may match a path that a package owns.

Owns this list alone. A predicate sees the whole difference and speaks of what it means, not only of a name.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tests.differential.compare import Difference

MOST = 15


@dataclass(frozen=True, slots=True)
class Allowed:
    """One kind of difference: `path` matches where it may be, `holds` says what it must look like."""

    name: str
    reason: str
    path: re.Pattern[str]
    holds: Callable[[Difference], bool]

    def explains(self, difference: Difference) -> bool:
        return self.path.fullmatch(difference.path) is not None and self.holds(difference)


def _log(difference: Difference) -> bool:
    return difference.theirs is not None and difference.theirs.type == "file"


def _bytecode(difference: Difference) -> bool:
    kind = "file" if difference.path.endswith(".pyc") else "folder"
    return difference.ours is None and difference.theirs is not None and difference.theirs.type == kind


def _empty(difference: Difference) -> bool:
    return difference.ours is None and difference.theirs is not None and difference.theirs.type == "folder"


def _left_behind(difference: Difference) -> bool:
    return difference.ours is None


def _manual_index(difference: Difference) -> bool:
    return difference.theirs is not None


def _backup(difference: Difference) -> bool:
    return difference.theirs is not None and difference.theirs.type == "file"


ALLOWED = (
    Allowed(
        "log",
        "the tools write what they did into their logs; a patch runs no tool",
        re.compile(r"var/log/(dpkg|alternatives)\.log|var/log/apt/(history|term)\.log|var/log/apt/eipp\.log\.xz"),
        _log,
    ),
    Allowed(
        "preconfiguration",
        "apt has packages' questions and templates extracted into a folder, and leaves it behind empty",
        re.compile(r"var/cache/debconf/tmp\.ci"),
        _empty,
    ),
    Allowed(
        "debconf",
        "debconf writes its database anew, with its cache beside it, whenever a package is configured",
        re.compile(r"var/cache/debconf/(config|templates|passwords)\.dat(-old)?"),
        _backup,
    ),
    Allowed(
        "backup",
        "dpkg keeps the database as it was before",
        re.compile(r"var/lib/dpkg/(status|available|diversions|statoverride)-old"),
        _backup,
    ),
    Allowed(
        "bytecode",
        "stale bytecode is removed and not compiled again: python compiles what it does not find",
        re.compile(r"usr/(lib|share)/.*/__pycache__(/[^/]+\.pyc)?"),
        _bytecode,
    ),
    Allowed(
        "aux-cache",
        "ldconfig keeps inode numbers and times of the libraries here, to be quicker the next time",
        re.compile(r"var/cache/ldconfig/aux-cache"),
        _log,
    ),
    Allowed(
        "java",
        "a Java program that scripts start keeps figures of itself in a folder while it runs, and leaves the folder",
        re.compile(r"tmp/hsperfdata_[^/]+(/[0-9]+)?"),
        _left_behind,
    ),
    Allowed(
        "manual-index",
        "the index of manual pages is not made again: man finds pages without it",
        re.compile(r"var/cache/man(/.*)?"),
        _manual_index,
    ),
    Allowed(
        "class-data",
        "Java 11 makes its archive of class data when configured; it is removed and not made: java does without it",
        re.compile(r"usr/lib/jvm/java-11-openjdk-[^/]+/lib/(server|client)/classes\.jsa"),
        _left_behind,
    ),
)


def explain(difference: Difference) -> Allowed | None:
    """Return what explains a difference; None for a path that a package owns, whatever it looks like."""
    if difference.owner:
        return None
    return next((item for item in ALLOWED if item.explains(difference)), None)


def owned_and_allowed(owned: Mapping[str, str]) -> list[str]:
    """Return a complaint for each path that a package owns and that a predicate matches."""
    return [
        f"the predicate {item.name} matches {path} of {package}"
        for path, package in sorted(owned.items())
        for item in ALLOWED
        if item.path.fullmatch(path)
    ]
