"""Removing one package, as `dpkg --remove` does it, on a stage.

Owns which paths go and what stays of the record: conffiles, folders that are not empty, the postrm. Only whole packages
of one architecture are removed; anything else raises NotRecordable with the reason.

1. the prerm;
2. every path, from the end of the list: conffiles stay, and the folders above them; a folder that other packages have
   is not this one's any more; what stays on disk all the same stays in the list; files go, and what dpkg left beside
   them while it unpacked;
3. the postrm; triggers; the info files but the list and the postrm;
4. a package that leaves no conffile and no postrm leaves no record either; another one becomes ``config-files``.
Specification: dpkg(1), Debian Policy 6.6, 6.8
"""

from collections.abc import Sequence
from dataclasses import dataclass

from proxy.engine.families.dpkg.database import INFO, DpkgDb, Form, Record
from proxy.engine.families.dpkg.deb822 import Stanza
from proxy.engine.families.dpkg.overrides import Overrides, read_overrides
from proxy.engine.families.dpkg.scripts import LastScripts
from proxy.engine.families.dpkg.triggers import Interested, Triggers
from proxy.engine.families.dpkg.unpacking import Unpacking
from proxy.engine.family import NotRecordable
from proxy.engine.stage import Misplaced
from proxy.engine.tar import Kind
from proxy.errors import MalformedInput

BESIDE = (".dpkg-tmp", ".dpkg-new")


@dataclass(frozen=True, slots=True)
class Removed:
    """What is left of a package: its stanza, None where it leaves none, and how many changes its scripts made."""

    stanza: Stanza | None
    changes: int


def remove(state: Unpacking, db: DpkgDb, record: Record, triggers: Triggers, *, scripted: bool = True) -> Removed:
    """Remove one package (steps 1 to 4); raises NotRecordable. Without `scripted` its scripts are left out."""
    work = _Work(state, db, record)
    scripts = LastScripts(state.stage, db, record, triggers) if scripted else None
    if scripts is not None:  # (1)
        scripts.before()
    try:
        left, touched = work.clear()  # (2)
    except (Misplaced, MalformedInput) as error:
        raise NotRecordable({record.installed.key: str(error)}) from error
    if scripts is not None:  # (3)
        scripts.after()
    package = record.installed.package
    same = record.stanza.get("Multi-Arch") == "same"
    told = Interested(record.installed.key, package.arch, same=same)
    triggers.unpack(told, db.info(record, "triggers") or b"", b"", touched)
    return Removed(work.write(left), scripts.changes if scripts is not None else 0)


def in_order(records: Sequence[Record]) -> list[Record]:
    """Return packages in the order in which they go: one that needs another before that one."""
    needing: dict[str, list[Record]] = {}
    for record in records:
        for group in record.installed.package.requires:
            for one in group:
                needing.setdefault(one.name, []).append(record)
    ordered: dict[str, Record] = {}
    seen: set[str] = set()
    todo = [(record, False) for record in reversed(records)]
    while todo:
        record, ready = todo.pop()
        key, package = record.installed.key, record.installed.package
        if ready:
            ordered[key] = record
        elif key not in seen:
            seen.add(key)
            names = {package.name, *(one.name for one in package.provides)}
            todo.append((record, True))
            todo += [(other, False) for name in sorted(names) for other in reversed(needing.get(name, []))]
    return list(ordered.values())


def render_leftover(old: Stanza) -> Stanza:
    """Return the stanza of an installed package after it was removed, its conffiles and postrm being left."""
    fields: list[tuple[str, str]] = []
    for name, value in old.items():
        if name.lower() == "status":
            fields.append((name, "deinstall ok config-files"))
        elif name.lower() == "version":
            fields += [(name, value), ("Config-Version", value)]
        elif name.lower() not in {"config-version", "triggers-pending", "triggers-awaited"}:
            fields.append((name, value))
    return Stanza.of(fields, "")


class _Work:
    """The removal of one package."""

    def __init__(self, state: Unpacking, db: DpkgDb, record: Record) -> None:
        self._state, self._stage, self._db, self._record = state, state.stage, db, record
        self._key, package = record.installed.key, record.installed.package
        if record.form is not Form.STATUS:
            self._refuse("nothing is removed from an image that dpkg never touched")
        others = [key for key, other in db.records.items() if other.installed.package.name == package.name]
        if others != [self._key]:
            self._refuse("it is installed for several architectures")
        if db.info(record, "list") is None:
            self._refuse("dpkg has no list of its files")
        self._name = package.name
        self._conffiles = state.conffiles(self._key)
        self._current = [path for path, (_, flags) in self._conffiles.items() if "obsolete" not in flags]

    def clear(self) -> tuple[list[str], list[str]]:
        """Remove the paths; return those that stay in its list, in its order, and those that went."""
        left: list[str] = []
        touched: list[str] = []
        overrides = read_overrides(self._stage)
        for path in reversed(self._state.ownership.listed(self._key)):
            place = overrides.place(path, self._name)
            if path in self._conffiles:
                left.append(path)
                continue
            folder = self._stage.is_dir(place)
            if folder and any(name.startswith(f"{path}/") for name in (*self._current, *left)):
                left.append(path)
                continue
            if folder and self._state.ownership.others(path, self._key):
                continue
            touched.append(path)
            if not self._take(path, place, overrides):
                left.append(path)
        return left[::-1], touched

    def _take(self, path: str, place: str, overrides: Overrides) -> bool:
        """Remove what is at a path; False where that is a folder that is not empty."""
        for end in BESIDE:
            self._stage.remove_tree(f"{place}{end}")
        there = self._stage.get(place)
        if there is None:
            return True
        if there.kind is Kind.DIR:
            if self._stage.listdir(place):
                return False
            self._stage.remove_dir(place)
            return True
        source = overrides.takes(path)
        if source:
            self._refuse(f"its /{path} is where /{source} was diverted to")
        real = self._stage.locate(place)
        strangers = [key for name in {path, real} for key in self._state.ownership.others(name, self._key)]
        if strangers and not self._is_diverted(path, overrides):
            self._refuse(f"its /{path} is /{real}, which {strangers[0]} has, too")
        self._stage.remove(place)
        return True

    def _is_diverted(self, path: str, overrides: Overrides) -> bool:
        """Say whether this package's and the others' path are two files, because of a diversion."""
        return path in overrides.diverted

    def write(self, left: list[str]) -> Stanza | None:
        """Write what stays of the record; return its stanza."""
        stem, key = self._record.stem, self._key
        postrm = self._db.info(self._record, "postrm") is not None
        kept = bool(self._conffiles) or postrm
        for name in self._stage.listdir(INFO):
            owner, _, suffix = name.rpartition(".")
            if owner == stem and not (kept and suffix in {"list", "postrm"}):
                self._stage.remove(f"{INFO}/{name}")
        self._state.ownership.put(key, left if kept else ())
        self._state.removed.add(key)
        if not kept:
            return None
        text = "".join(f"/{path}\n" for path in left)
        self._stage.write(f"{INFO}/{stem}.list", text.encode("utf-8", "surrogateescape"))
        return render_leftover(self._record.stanza)

    def _refuse(self, reason: str) -> None:
        raise NotRecordable({self._key: reason})
