"""Configuration files on upgrade, as dpkg decides with `--force-confdef --force-confold`.

Owns the decision per file: left alone, replaced, or the package's version put beside it.
Rules: dpkg(1) `--force-confold`, deb-conffiles(5), Debian Policy 10.7.3
"""

import hashlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace

from proxy.engine.families.dpkg.archive import conffile_paths
from proxy.engine.families.dpkg.database import DpkgDb, Record, parse_conffiles
from proxy.engine.families.dpkg.overrides import Overrides
from proxy.engine.family import Payload
from proxy.engine.rootfs import RootFS
from proxy.engine.stage import Stage
from proxy.engine.tar import Entry, Kind


@dataclass(frozen=True, slots=True)
class Conffile:
    """What happens to one conffile: `entries` are written; `md5` goes into the database; or `reason` says why not.

    `removes` are paths that go if they are there.
    `obsolete` marks one that the new version no longer has, and that stays. `note` tells that the image's file is kept
    where nobody would expect it.
    """

    path: str
    md5: str
    entries: tuple[Entry, ...] = ()
    reason: str = ""
    note: str = ""
    obsolete: bool = False
    removes: tuple[str, ...] = ()


def decide_conffiles(
    stage: Stage, payload: Payload, old: Mapping[str, tuple[str, str]], overrides: Overrides, skipped: Collection[str]
) -> tuple[Conffile, ...]:
    """Decide every conffile of the new version, in the order in which it lists them.

    Args:
        stage: the tree as it is when the package is configured.
        payload: the new version.
        old: what is recorded of the conffiles' old versions, md5 sum and flags by path.
        overrides: where diverted paths go, and with which owner and mode.
        skipped: the paths that dpkg's filters leave out.
    """
    shipped = {entry.path: entry for entry in payload.entries}
    found: list[Conffile] = []
    for path in listed_conffiles(payload):
        entry, before = shipped.get(path), old.get(path, ("", ""))[0].removeprefix("newconffile")
        if path in skipped:
            found.append(Conffile(path, before or "newconffile"))
        elif entry is None or not isinstance(entry.content, bytes):
            reason = f"the conffile /{path} is not in the package, no plain file, or too large to compare"
            found.append(Conffile(path, "", reason=reason))
        else:
            placed = replace(overrides.dress(entry), path=overrides.place(path, payload.package.name))
            found.append(_decide_one(stage, path, placed, before))
    return tuple(found)


def recorded_conffiles(value: str) -> dict[str, tuple[str, str]]:
    """Return md5 sum and flags of the conffiles in a Conffiles field, by path without leading slash."""
    return {path.lstrip("/"): found for path, found in parse_conffiles(value).items()}


def _decide_one(stage: Stage, path: str, new: Entry, before: str) -> Conffile:
    """Decide one conffile; `new` is where it lies. What dpkg unpacks beside it for the time being does not stay."""
    data = new.content if isinstance(new.content, bytes) else b""
    md5, there = md5_of(data), stage.get(new.path)
    aside = (f"{new.path}.dpkg-new",)
    if there is None:
        return _decide_missing(path, new, before, md5)
    if there.kind not in {Kind.FILE, Kind.HARDLINK}:
        return Conffile(path, md5, reason=f"the conffile /{path} is a {there.kind} in the image")
    current = md5_of(stage.read(new.path) or b"")
    while there.kind is Kind.HARDLINK and (target := stage.get(there.target)) is not None:
        there = target
    if current == md5 or (before == md5 and before):
        return Conffile(path, md5, removes=aside)  # the same already, or changed in the image only: kept
    kept = replace(new, mode=there.mode, uid=there.uid, gid=there.gid)
    return Conffile(path, md5, (kept,), removes=aside) if current == before else _beside(path, md5, kept)


def _decide_missing(path: str, new: Entry, before: str, md5: str) -> Conffile:
    if not before:
        return Conffile(path, md5, (new,), removes=(f"{new.path}.dpkg-new",))
    if before != md5:
        return _beside(path, md5, new)  # removed by the image's owner, and changed in the package
    return Conffile(path, md5, removes=(f"{new.path}.dpkg-new",))


def _beside(path: str, md5: str, new: Entry) -> Conffile:
    removes = (f"{new.path}.dpkg-new", f"{new.path}.dpkg-old")
    return Conffile(path, md5, (replace(new, path=f"{new.path}.dpkg-dist"),), removes=removes)


def decide_simple_conffiles(fs: RootFS, db: DpkgDb, record: Record, payload: Payload) -> Iterator[Conffile]:
    """Decide without a record of the old conffiles, by where a file comes from.

    The file is what was shipped when its old sum says so, or when it comes from the very layer that brought the
    package's record: whoever built the image laid down both. A file of any other layer is somebody's change and is
    kept as it is, as `--force-confold` would keep it.
    """
    sums = db.sums(record)
    shipped = {entry.path: entry for entry in payload.entries}
    for path in listed_conffiles(payload):
        entry, there = shipped.get(path), fs.get(path)
        if entry is None or not isinstance(entry.content, bytes):
            yield Conffile(path, "", reason=f"the conffile /{path} is not in the package, or too large to compare")
            continue
        md5 = md5_of(entry.content)
        if there is None:
            yield Conffile(path, md5)  # whoever made the image left it out
            continue
        if there.kind is not Kind.FILE or fs.missing([path]):
            yield Conffile(path, md5, reason=f"the conffile /{path} is a {there.kind} in the image, or cannot be read")
            continue
        current = md5_of(fs.read(path) or b"")
        if current == md5:
            yield Conffile(path, md5)
        elif sums.get(path) == current or _of_one_layer(fs, path, record.file):
            yield Conffile(path, md5, (replace(entry, path=fs.locate(path)),))
        else:
            yield Conffile(path, md5, note=f"its conffile /{path} was changed in another layer and is kept")


def _of_one_layer(fs: RootFS, *paths: str) -> bool:
    places = {origin[0] if (origin := fs.origin(path)) else None for path in paths}
    return len(places) == 1 and None not in places


def listed_conffiles(payload: Payload) -> tuple[str, ...]:
    """Return the paths of the package's conffiles in its own order."""
    known = conffile_paths(dict(payload.control))
    lines = payload.control.get("conffiles", b"").decode("utf-8", "surrogateescape").split("\n")
    paths = (line.strip().rpartition(" ")[2].lstrip("/") for line in lines if not line.startswith("remove-on-upgrade"))
    return tuple(path for path in dict.fromkeys(paths) if path in known and path)


def md5_of(data: bytes) -> str:
    """Return the hexadecimal md5 sum, as dpkg writes it."""
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
