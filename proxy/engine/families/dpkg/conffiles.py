"""Configuration files on upgrade, as dpkg decides with `--force-confdef --force-confold`.

Owns the decision per file: left alone, replaced, the package's version put beside it, or kept as obsolete. Conffiles
that move between packages are not decided; the reason says so.
Rules: dpkg(1) `--force-confold`, deb-conffiles(5), Debian Policy 10.7.3
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

from proxy.engine.families.dpkg.archive import conffile_paths
from proxy.engine.families.dpkg.database import DpkgDb, Form, Record, parse_conffiles
from proxy.engine.family import Payload
from proxy.engine.rootfs import RootFS
from proxy.engine.tar import Entry, Kind


@dataclass(frozen=True, slots=True)
class Conffile:
    """What happens to one conffile: `entries` are written; `md5` goes into the database; or `reason` says why not.

    `obsolete` marks one that the new version no longer has, and that stays. `note` tells that the image's file is kept
    where nobody would expect it.
    """

    path: str
    md5: str
    entries: tuple[Entry, ...] = ()
    reason: str = ""
    note: str = ""
    obsolete: bool = False


def decide_conffiles(fs: RootFS, db: DpkgDb, record: Record, payload: Payload) -> tuple[Conffile, ...]:
    """Decide every conffile of the new version, in the order in which it lists them, then those that it lost."""
    if record.form is not Form.STATUS:
        return tuple(_decide_simple(fs, db, record, payload))
    return (*_decide(fs, record, payload), *_lost(fs, db, record, payload))


def _decide(fs: RootFS, record: Record, payload: Payload) -> Iterator[Conffile]:
    old = _recorded(record)
    shipped = {entry.path: entry for entry in payload.entries}
    listed = _listed(payload)
    for path in listed:
        entry = shipped.get(path)
        if entry is None or not isinstance(entry.content, bytes):
            yield Conffile(path, "", reason=f"the conffile /{path} is not in the package, or too large to compare")
        else:
            yield _decide_one(fs, path, entry, *old.get(path, ("", "")))


def _recorded(record: Record) -> dict[str, tuple[str, str]]:
    return {path.lstrip("/"): found for path, found in parse_conffiles(record.stanza.get("Conffiles")).items()}


def _lost(fs: RootFS, db: DpkgDb, record: Record, payload: Payload) -> Iterator[Conffile]:
    """Yield the conffiles that the new version lacks and that are there: dpkg keeps them, in its list's reverse order.

    One that another package took over is that one's from now on, which is not followed.
    """
    listed, old = set(_listed(payload)), _recorded(record)
    shipped = {entry.path for entry in payload.entries}
    for path in reversed(list(dict.fromkeys((*sorted(set(old) - set(db.files(record))), *db.files(record))))):
        if path not in old or path in listed or fs.get(path) is None:
            continue
        if path in shipped:
            yield Conffile(path, "", reason=f"/{path} was a conffile and is none any more, which is not followed yet")
        yield Conffile(path, old[path][0], obsolete=True)


def _decide_one(  # noqa: PLR0911 - a table of cases, one return each
    fs: RootFS, path: str, new: Entry, old_md5: str, flags: str
) -> Conffile:
    data = new.content if isinstance(new.content, bytes) else b""
    md5, there = md5_of(data), fs.get(fs.resolve(path))
    if "remove-on-upgrade" in flags or old_md5 == "newconffile":
        return Conffile(path, md5, reason=f"the conffile /{path} was {flags or 'not configured'} before")
    if there is None:
        return _decide_missing(fs, path, new, old_md5, md5)
    if there.kind is not Kind.FILE or fs.missing([path]):
        return Conffile(path, md5, reason=f"the conffile /{path} is a {there.kind} in the image, or cannot be read")
    current = md5_of(fs.read(path) or b"")
    if md5 in {current, old_md5} and (old_md5 or current == md5):
        return Conffile(path, md5)  # the same already, or changed in the image only: kept
    kept = replace(new, path=there.path, mode=there.mode, uid=there.uid, gid=there.gid)
    if current == old_md5:
        return Conffile(path, md5, (kept,))
    if fs.get(f"{kept.path}.dpkg-old") is not None:
        return Conffile(path, md5, reason=f"/{kept.path}.dpkg-old lies in the way of the changed conffile")
    return Conffile(path, md5, (replace(kept, path=f"{kept.path}.dpkg-dist"),))


def _decide_missing(fs: RootFS, path: str, new: Entry, old_md5: str, md5: str) -> Conffile:
    if not old_md5:
        return Conffile(path, md5, (replace(new, path=fs.resolve(path)),))
    if old_md5 == md5:
        return Conffile(path, md5)  # removed by the image's owner, and it stays so
    real = fs.resolve(path)
    return Conffile(path, md5, (replace(new, path=f"{real}.dpkg-dist"),))  # deleted here, changed there: laid beside


def _decide_simple(fs: RootFS, db: DpkgDb, record: Record, payload: Payload) -> Iterator[Conffile]:
    """Decide without a record of the old conffiles, by where a file comes from.

    The file is what was shipped when its old sum says so, or when it comes from the very layer that brought the
    package's record: whoever built the image laid down both. A file of any other layer is somebody's change and is
    kept as it is, as `--force-confold` would keep it.
    """
    sums = db.sums(record)
    shipped = {entry.path: entry for entry in payload.entries}
    for path in _listed(payload):
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


def _listed(payload: Payload) -> tuple[str, ...]:
    """Return the paths of the package's conffiles in its own order."""
    known = conffile_paths(dict(payload.control))
    lines = payload.control.get("conffiles", b"").decode("utf-8", "surrogateescape").split("\n")
    paths = (line.strip().rpartition(" ")[2].lstrip("/") for line in lines if not line.startswith("remove-on-upgrade"))
    return tuple(path for path in dict.fromkeys(paths) if path in known and path)


def md5_of(data: bytes) -> str:
    """Return the hexadecimal md5 sum, as dpkg writes it."""
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
