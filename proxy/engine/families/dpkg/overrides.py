"""Diversions and stat overrides: where a package's path goes instead, and with which owner and mode.

Owns reading both lists from the tree as it is. Refuses lists that dpkg would not read, names of users and groups that
the image does not know among them: dpkg stops at them, whatever it was asked.
Formats: dpkg-divert(1), dpkg-statoverride(1); the files `diversions` and `statoverride` of dpkg's folder
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from proxy.engine.stage import Stage
from proxy.engine.tar import Entry, Kind
from proxy.errors import MalformedInput

DIVERSIONS = "var/lib/dpkg/diversions"
STATOVERRIDE = "var/lib/dpkg/statoverride"
MAX_LINES = 100_000
LOCAL = ":"


@dataclass(frozen=True, slots=True)
class Override:
    """The owner and the mode of one path, as its image's owner set them."""

    uid: int
    gid: int
    mode: int


@dataclass(frozen=True, slots=True)
class Overrides:
    """What the image says of packages' paths (all without leading slash)."""

    diverted: Mapping[str, tuple[str, str]] = field(default_factory=dict)  # path -> where to, for whom not
    stats: Mapping[str, Override] = field(default_factory=dict)

    def place(self, path: str, package: str) -> str:
        """Return where `package` puts its `path`."""
        target, diverter = self.diverted.get(path, (path, package))
        return path if diverter == package else target

    def takes(self, path: str) -> str:
        """Return the path that was diverted to `path`, or nothing."""
        return next((source for source, (target, _) in self.diverted.items() if target == path), "")

    def dress(self, entry: Entry) -> Entry:
        """Return the entry with the owner and mode that it is to have."""
        found = self.stats.get(entry.path)
        if found is None:
            return entry
        mode = entry.mode if entry.kind is Kind.SYMLINK else found.mode
        return replace(entry, uid=found.uid, gid=found.gid, mode=mode)


def read_overrides(stage: Stage) -> Overrides:
    """Read both lists of the tree as it is."""
    return Overrides(_read_diversions(stage), _read_stats(stage))


def _lines(stage: Stage, path: str) -> list[str]:
    lines = (stage.read(path) or b"").decode("utf-8", "surrogateescape").split("\n")
    if len(lines) > MAX_LINES:
        raise MalformedInput(f"more than {MAX_LINES} lines; refused", file=path)
    return lines[:-1] if lines and not lines[-1] else lines


def _read_diversions(stage: Stage) -> dict[str, tuple[str, str]]:
    lines = _lines(stage, DIVERSIONS)
    if len(lines) % 3:
        raise MalformedInput("not three lines for each diversion", file=DIVERSIONS)
    return {lines[n].strip("/"): (lines[n + 1].strip("/"), lines[n + 2]) for n in range(0, len(lines), 3)}


def _read_stats(stage: Stage) -> dict[str, Override]:
    found: dict[str, Override] = {}
    for number, line in enumerate(_lines(stage, STATOVERRIDE), 1):
        if not line:
            continue
        match = re.fullmatch(r"(\S+) (\S+) ([0-7]{1,4}) /(.+)", line)
        uid = _number(stage, "passwd", match[1]) if match else None
        gid = _number(stage, "group", match[2]) if match else None
        if match is None or uid is None or gid is None:
            raise MalformedInput(
                "not an override (user, group, mode, path) of a user and a group that the image knows",
                file=STATOVERRIDE,
                line=number,
                text=line,
            )
        found[match[4].rstrip("/")] = Override(uid, gid, int(match[3], 8))
    return found


def _number(stage: Stage, which: str, name: str) -> int | None:
    if name.startswith("#") and name[1:].isdecimal():
        return int(name[1:])
    for line in (stage.read(f"etc/{which}") or b"").decode("utf-8", "surrogateescape").split("\n"):
        fields = line.split(":")
        if fields[0] == name and len(fields) > 2 and fields[2].isdecimal():  # noqa: PLR2004
            return int(fields[2])
    return 0 if name == "root" else None
