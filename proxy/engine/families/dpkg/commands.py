"""The commands of maintainer scripts whose effect on an upgrade is known, and what is known of the place they run in.

Owns one function per command: True or False where it does nothing and its result is known, None where it does nothing
and its result is not known, `DOES` where it does something or nobody can say. The table grows with what is understood.
Specification: dpkg-maintscript-helper(1), deb-systemd-helper(1p), update-alternatives(1), getent(1)
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from proxy.engine.families.dpkg.findings import Change
from proxy.engine.families.dpkg.version import compare_versions


class Does:
    """The command does something, or nobody knows."""


DOES = Does()
Verdict = bool | Does | Change | None
Words = list[str | None]


@dataclass(frozen=True, slots=True)
class Scene:
    """What is known where a script would run.

    `exists(path, test)` answers a file test (``-e``, ``-d``, ``-L``...) with True, False or None for not known;
    `read` gives a file's bytes or None; `unit_same` says that systemd's helper would find nothing to change for a unit.
    """

    script: str
    arguments: tuple[str, ...]
    package: str
    old_version: str
    exists: Callable[[str, str], bool | None]
    read: Callable[[str], bytes | None]
    unit_same: Callable[[str], bool]
    variables: Mapping[str, str] = field(default_factory=dict)


_COMPARISONS: Mapping[str, Callable[[int], bool]] = {
    "lt": lambda c: c < 0,
    "le": lambda c: c <= 0,
    "eq": lambda c: c == 0,
    "ne": lambda c: c != 0,
    "ge": lambda c: c >= 0,
    "gt": lambda c: c > 0,
}


def _dpkg(_scene: Scene, words: Words) -> Verdict:
    """`dpkg --compare-versions`; other questions only read."""
    if words[:1] == ["--compare-versions"]:
        rest = [word for word in words[1:] if word != "--"]
        if len(rest) != 3 or None in rest:  # noqa: PLR2004 - version, operator, version
            return None
        return compare(rest[0] or "", rest[1] or "", rest[2] or "")
    return None if words[:1] in (["--print-architecture"], ["-s"], ["-l"], ["-L"]) else DOES


def compare(left: str, operator: str, right: str) -> bool | None:
    """Compare as dpkg does: an empty version is older than any, or newer with an operator in ``-nl``."""
    name = operator.removesuffix("-nl")
    if name not in _COMPARISONS:
        return None
    if not left or not right:
        order = (left != "") - (right != "")
        return _COMPARISONS[name](-order if operator.endswith("-nl") else order)
    return _COMPARISONS[name](compare_versions(left, right))


def _maintscript_helper(scene: Scene, words: Words) -> Verdict:
    """dpkg-maintscript-helper acts before unpacking and on configuring, from versions up to the one it is told."""
    if None in words or "--" not in words:
        return DOES
    told = [word or "" for word in words[: words.index("--")]]
    takes = {"rm_conffile": 1, "mv_conffile": 2, "symlink_to_dir": 2, "dir_to_symlink": 2}.get(told[0])
    if takes is None:
        return True if told[0] == "supports" else DOES
    if scene.script in {"prerm", "postrm"}:
        return True  # they act on purge and on aborted upgrades only
    prior = told[1 + takes] if len(told) > 1 + takes else ""
    if prior and compare(scene.old_version, "le-nl", prior) is False:
        return True
    return DOES


def _systemd_helper(scene: Scene, words: Words) -> Verdict:
    """deb-systemd-helper finds every link already made, or already refused, if the unit did not change."""
    told = [word for word in words if word is None or not word.startswith("--")]
    if None in told or len(told) < 2 or "--user" in words:  # noqa: PLR2004 - action and unit
        return DOES
    if told[0] in {"was-enabled", "is-enabled", "debian-installed"}:
        return None
    if told[0] in {"unmask", "enable", "update-state"} and all(scene.unit_same(str(u)) for u in told[1:]):
        return None
    return DOES


def _getent(scene: Scene, words: Words) -> Verdict:
    """`getent passwd NAME` and `getent group NAME`, from the image's files."""
    if len(words) != 2 or words[0] not in {"passwd", "group"} or not words[1]:  # noqa: PLR2004
        return None
    data = scene.read(f"etc/{words[0]}")
    if data is None:
        return None
    return any(line.startswith(words[1].encode() + b":") for line in data.split(b"\n")) or None


def _alternatives(scene: Scene, words: Words) -> Verdict:
    """`update-alternatives --remove` of a group that is not there."""
    if len(words) == 3 and words[0] == "--remove" and words[1]:  # noqa: PLR2004
        gone = scene.exists(f"var/lib/dpkg/alternatives/{words[1]}", "-e")
        return None if gone is False else DOES
    return DOES


def _remove(scene: Scene, words: Words) -> Verdict:
    """`rm -f` of files that are not there."""
    paths = [word for word in words if word is None or not word.startswith("-")]
    plain = all(path and path.startswith("/") and not set("*?[") & set(path) for path in paths)
    return True if plain and all(scene.exists((path or "").lstrip("/"), "-L") is False for path in paths) else DOES


COMMANDS: Mapping[str, Callable[[Scene, Words], Verdict]] = {
    "dpkg": _dpkg,
    "dpkg-maintscript-helper": _maintscript_helper,
    "deb-systemd-helper": _systemd_helper,
    "getent": _getent,
    "update-alternatives": _alternatives,
    "rm": _remove,
}
