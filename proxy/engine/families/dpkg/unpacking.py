"""Unpacking one package over its old version, as dpkg does it, on a stage.

Owns where each path goes and whether it may: filters, diversions, overrides, who else owns it, what lies there. What
dpkg would refuse, or what would make a package disappear, raises NotRecordable with the reason.

1. every path of the package, links last: left out by a filter, or laid down where diversions say; directories only
   where none is, links never over a directory; a path of another package only if that one is replaced;
2. conffiles by their own rules (see `conffiles`);
3. what the old version alone had, from the end of its list: files go, conffiles stay as obsolete, directories go if
   they are empty and in no other list;
4. packages that were replaced lose those paths from their lists; their conffiles are obsolete.
Specification: dpkg(1), Debian Policy 6.6, 7.6; deb-conffiles(5)
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from proxy.engine.closure import satisfies
from proxy.engine.families.dpkg.conffiles import Conffile, decide_conffiles, recorded_conffiles
from proxy.engine.families.dpkg.database import DpkgDb, Form, Record
from proxy.engine.families.dpkg.deb822 import parse_relations, parse_stanzas
from proxy.engine.families.dpkg.filters import Filters
from proxy.engine.families.dpkg.overrides import Overrides, read_overrides
from proxy.engine.families.dpkg.ownership import Ownership
from proxy.engine.families.dpkg.version import compare_versions
from proxy.engine.family import NotRecordable, Package, Payload
from proxy.engine.stage import Stage
from proxy.engine.tar import Entry, Kind
from proxy.errors import MalformedInput


@dataclass(frozen=True, slots=True)
class Unpacked:
    """What came of it: the new list, conffiles with the obsolete ones, and the paths that other packages lost."""

    listed: tuple[str, ...]
    conffiles: tuple[Conffile, ...]
    lost: Mapping[str, frozenset[str]]


class Unpacking:
    """The state of an upgrade's unpacking: the tree, the lists, the conffiles and the versions of the moment.

    Attributes:
        removed: the keys of packages that were removed; what they have in their lists is only left over.
    """

    def __init__(self, stage: Stage, db: DpkgDb, filters: Filters) -> None:
        self._stage, self._db, self._filters = stage, db, filters
        self._owners = Ownership(db)
        self.removed: set[str] = set()
        self._packages: dict[str, Package] = {}
        self._conffiles: dict[str, dict[str, tuple[str, str]]] = {}

    def unpack(self, record: Record, payload: Payload) -> Unpacked:
        """Unpack one package (steps 1 to 4); raises NotRecordable."""
        work = _Work(self, record, payload)
        return work.run()

    @property
    def stage(self) -> Stage:
        """The tree."""
        return self._stage

    @property
    def filters(self) -> Filters:
        """The image's path filters."""
        return self._filters

    @property
    def ownership(self) -> Ownership:
        """The lists of the moment."""
        return self._owners

    def package(self, key: str) -> Package:
        """Return a package in the version of the moment."""
        return self._packages.get(key) or self._db.records[key].installed.package

    def conffiles(self, key: str) -> dict[str, tuple[str, str]]:
        """Return the recorded conffiles of a package as they are now."""
        found = self._conffiles.get(key)
        if found is None:
            record = self._db.records[key]
            found = recorded_conffiles(record.stanza.get("Conffiles")) if record.form is Form.STATUS else {}
            self._conffiles[key] = found
        return found

    def moved(self, key: str, package: Package) -> None:
        """Take note of a package's new version."""
        self._packages[key] = package


class _Work:
    """The unpacking of one package."""

    def __init__(self, state: Unpacking, record: Record, payload: Payload) -> None:
        self._state, self._stage, self._payload = state, state.stage, payload
        control = parse_stanzas(payload.control["control"], f"{payload.package.name} control")[0]
        self._key, self._name = record.installed.key, payload.package.name
        self._overrides = self._read_overrides()
        self._entries = sorted(payload.entries, key=lambda entry: entry.kind is Kind.SYMLINK)
        self._skipped = {entry.path for entry in payload.entries if state.filters.skips(entry.path, entry.kind)}
        self._old_conffiles = state.conffiles(self._key)
        self._lost: dict[str, set[str]] = {}
        self._replaces = parse_relations(control.get("Replaces"), where=f"{self._name} control")

    def run(self) -> Unpacked:
        """Do all steps."""
        before = self._known_conffiles()
        decided = decide_conffiles(self._stage, self._payload, before, self._overrides, self._skipped)
        for item in decided:
            if item.reason:
                self._refuse(item.reason)
        special = {item.path for item in decided}
        self._check_links(special)
        for entry in self._entries:  # (1)
            if entry.path in self._skipped:
                continue
            over = self._check(entry)
            if over and entry.path not in special:
                self._lay(entry)
        for item in decided:  # (2)
            for path in item.removes:
                self._stage.remove(path)
            for entry in item.entries:
                self._stage.put(entry)
        old = self._state.ownership.listed(self._key)
        paths = [entry.path for entry in self._entries]
        obsolete = self._drop(old, special)  # (3)
        listed = (*paths, *(item.path for item in obsolete))
        self._state.ownership.put(self._key, listed)
        self._give_up()  # (4)
        conffiles = (*decided, *obsolete)
        self._old_conffiles.clear()
        self._old_conffiles.update({c.path: (c.md5, "obsolete" if c.obsolete else "") for c in conffiles})
        self._state.moved(self._key, self._payload.package)
        return Unpacked(listed, conffiles, {key: frozenset(lost) for key, lost in self._lost.items()})

    def _read_overrides(self) -> Overrides:
        try:
            return read_overrides(self._stage)
        except MalformedInput as error:
            raise NotRecordable({self._key: str(error)}) from error

    def _refuse(self, reason: str) -> None:
        raise NotRecordable({self._key: reason})

    def _known_conffiles(self) -> dict[str, tuple[str, str]]:
        """Return what is known of each conffile's old version: from whichever package has it in its list."""
        found: dict[str, tuple[str, str]] = {}
        for entry in self._entries:
            for key in self._state.ownership.owners(entry.path):
                known = self._state.conffiles(key).get(entry.path)
                if known is not None and entry.path not in found:
                    found[entry.path] = known
        return found

    def _place(self, path: str) -> str:
        return self._overrides.place(path, self._name)

    def _check_links(self, special: set[str]) -> None:
        """Refuse hard links that cannot be made, or whose metadata would be set twice."""
        for entry in self._entries:
            if entry.kind is not Kind.HARDLINK or entry.path in self._skipped:
                continue
            if entry.target in self._skipped:
                self._refuse(f"/{entry.path} is a hard link to /{entry.target}, which a path filter leaves out")
            if {entry.path, entry.target} & (special | set(self._overrides.stats)):
                self._refuse(f"/{entry.path} is a hard link, and a conffile or under an override")

    def _check(self, entry: Entry) -> bool:
        """Say whether the entry is laid down; refuse what dpkg refuses."""
        place = self._place(entry.path)
        there = self._stage.get(place)
        parent = place.rpartition("/")[0]
        if parent and there is None and self._stage.follow(parent) is not None and not self._stage.is_dir(parent):
            self._refuse(f"/{entry.path} would lie under a path that is no directory")
        source = self._overrides.takes(entry.path)
        if source and entry.kind is not Kind.DIR:
            self._refuse(f"/{entry.path} is where /{source} was diverted to")
        folder = there is not None and there.kind is Kind.DIR
        if (entry.kind is Kind.DIR and self._stage.is_dir(place)) or (entry.kind is Kind.SYMLINK and folder):
            return False  # what is there stays as it is
        self._check_owners(entry, place)
        return True

    def _check_owners(self, entry: Entry, place: str) -> None:
        """Refuse to take a path from another package, unless that one is replaced.

        A folder that is not there is taken for a shared one, and leaves the other packages' lists.
        """
        shared = entry.kind is Kind.DIR and self._stage.get(place) is None
        ownership = self._state.ownership
        for key in ownership.others(entry.path, self._key):
            other = self._state.package(key)
            diverter = self._overrides.diverted.get(entry.path, ("", ""))[1]
            if other.name == self._name or diverter in {self._name, other.name}:
                continue
            flags = self._state.conffiles(key).get(entry.path, ("", ""))[1]
            taken = (
                shared or key in self._state.removed or "obsolete" in flags
            )  # of a removed one only conffiles are left
            if not taken and not self._is_replaced(other):
                self._refuse(f"/{entry.path} belongs to {key}")
            self._lost.setdefault(key, set()).add(entry.path)
        there = self._stage.get(place)
        if there is None or there.kind is Kind.DIR:
            return
        real = self._stage.locate(place)
        if real != place:
            strangers = [
                key for key in ownership.others(real, self._key) if self._state.package(key).name != self._name
            ]
            if strangers and ownership.owners(entry.path) != ownership.owners(real):
                self._refuse(f"/{entry.path} is /{real}, which belongs to {strangers[0]}")

    def _is_replaced(self, other: Package) -> bool:
        own = self._payload.package
        return any(
            satisfies(other, constraint, own, compare_versions) for group in self._replaces for constraint in group
        )

    def _lay(self, entry: Entry) -> None:
        dressed = replace(self._overrides.dress(entry), path=self._place(entry.path))
        if entry.kind is Kind.HARDLINK:
            dressed = replace(dressed, target=self._place(entry.target))
        there = self._stage.get(dressed.path)
        if there is not None and there.kind is Kind.DIR and entry.kind is not Kind.DIR:
            self._stage.remove_tree(dressed.path)
        folder = dressed.path.rpartition("/")[0]
        if folder and there is None:
            self._stage.make_dir(folder)
        self._stage.put(dressed)

    def _drop(self, old: tuple[str, ...], special: set[str]) -> list[Conffile]:
        """Remove what the new version does not have; return the conffiles that stay all the same."""
        stage, ownership = self._stage, self._state.ownership
        new = {entry.path for entry in self._entries} - self._skipped
        places: set[str] | None = None
        obsolete: list[Conffile] = []
        for path in reversed(old):
            if path in new or path in special:
                continue
            place = self._place(path)
            there = stage.get(place)
            if there is None:
                continue
            if there.kind is Kind.DIR:
                if not ownership.others(path, self._key) and not stage.listdir(place):
                    stage.remove_dir(place)
                continue
            if stage.is_dir(place) and ownership.others(path, self._key):
                continue  # a link to a folder (lib -> usr/lib)
            if places is None:
                places = {stage.locate(self._place(path)) for path in new}
            if stage.locate(place) in places or self._is_shared(path):
                continue
            if path in self._old_conffiles:
                obsolete.append(Conffile(path, self._old_conffiles[path][0], obsolete=True))
                continue
            self._refuse_alias(path, place)
            stage.remove(place)
        return obsolete

    def _is_shared(self, path: str) -> bool:
        """Say whether another architecture's instance of the package has the path too."""
        others = self._state.ownership.others(path, self._key)
        return any(self._state.package(key).name == self._name for key in others)

    def _refuse_alias(self, path: str, place: str) -> None:
        real = self._stage.locate(place)
        if real != place and (others := self._state.ownership.others(real, self._key)):
            self._refuse(f"/{path} of its old version is /{real}, which belongs to {others[0]}")

    def _give_up(self) -> None:
        """Take the paths that were replaced from the lists of the others."""
        for key, lost in self._lost.items():
            rest = [path for path in self._state.ownership.listed(key) if path not in lost]
            own = {entry.path for entry in self._entries}
            if key not in self._state.removed and all(path in own for path in rest):
                self._refuse(f"it takes over every file of {key}, which would disappear")
            self._state.ownership.put(key, rest)
            known = self._state.conffiles(key)
            for path in lost & set(known):
                known[path] = (known[path][0], "obsolete")
