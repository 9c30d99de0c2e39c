"""What an upgrade leaves behind: the entries of the patch layer, files and database.

Owns carrying out, as data, what dpkg does to a file system when it unpacks and configures packages without scripts.
Every path goes through the image's own symlinks (``lib -> usr/lib``). What it cannot do faithfully is told by
`judge` beforehand, or raises NotRecordable.

For each payload, with its scripts before, between and after (see `scripts`): its paths (see `unpacking`), then the
record, which is the stanza and `info/*`. All are unpacked before the first is configured. Packages that go are removed
before that (see `removing`). Packages of images that
no dpkg ever touched are done by `simple`.
Format: dpkg(1), deb(5); https://github.com/opencontainers/image-spec/blob/v1.1.1/layer.md
"""

from bisect import insort
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from proxy.engine.closure import satisfies
from proxy.engine.families.dpkg.archive import OWN_SUMS
from proxy.engine.families.dpkg.chisel import read_manifest, render_manifest, renewed
from proxy.engine.families.dpkg.database import INFO, MANIFEST, STATUS, DpkgDb, Form, Record, parse_md5sums
from proxy.engine.families.dpkg.deb822 import Stanza, parse_relations, parse_stanzas, render_stanzas
from proxy.engine.families.dpkg.extendedstates import mark_automatic
from proxy.engine.families.dpkg.filters import Filters, read_filters
from proxy.engine.families.dpkg.removing import in_order, remove
from proxy.engine.families.dpkg.scripts import Scripts, tell_triggered
from proxy.engine.families.dpkg.simple import SimpleUpgrade
from proxy.engine.families.dpkg.statusentry import render_status, retire_conffiles
from proxy.engine.families.dpkg.triggers import Triggers
from proxy.engine.families.dpkg.unpacking import Unpacked, Unpacking
from proxy.engine.families.dpkg.version import compare_versions
from proxy.engine.family import NotRecordable, Package, Payload
from proxy.engine.layer import add_parents
from proxy.engine.rootfs import RootFS
from proxy.engine.stage import Misplaced, Stage
from proxy.engine.tar import Entry, Kind
from proxy.errors import MalformedInput

SCRIPTS = frozenset({"preinst", "postinst", "prerm", "postrm", "config"})


def record_upgrade(
    fs: RootFS, db: DpkgDb, payloads: Sequence[Payload], unscripted: Collection[str] = (), removed: Collection[str] = ()
) -> tuple[Entry, ...]:
    """Return the entries of the patch layer, with the existing directories above them; raises NotRecordable."""
    db = db.adding(payload.package for payload in payloads)
    recording = Recording(fs, db, payloads, unscripted, removed)
    recording.run()
    if removed:
        other = Recording(fs, db, payloads, unscripted, removed)
        other.run(late=True)
        path = recording.stage.differs(other.stage)
        if path:
            reason = f"it is not certain whether it goes before others are unpacked, and /{path} shows it"
            raise NotRecordable(dict.fromkeys(removed, reason))
    return add_parents(recording.stage.entries(), fs)


class Recording:
    """One upgrade in the making; `stage` is the tree as it is so far.

    Scripts of `unscripted` packages are left out. The packages `removed` (keys) go first: apt removes a package before
    it unpacks the one that must not be with it.
    """

    def __init__(
        self,
        fs: RootFS,
        db: DpkgDb,
        payloads: Sequence[Payload],
        unscripted: Collection[str] = (),
        removed: Collection[str] = (),
    ) -> None:
        self._time = max((entry.mtime for payload in payloads for entry in payload.entries), default=0)
        self._fs, self._db = fs, db
        items = [(db.record_of(payload.package), payload) for payload in payloads]
        self._items = [item for item in items if item[0].form is Form.STATUS]
        self._filters = read_filters(fs)
        self.stage = Stage(fs, self._time)
        self._unpacking = Unpacking(self.stage, db, self._filters)
        self._others = [item for item in items if item[0].form is not Form.STATUS]
        self._simple = SimpleUpgrade(self.stage, db, self._others, self._filters)
        self._stanzas: dict[str, Stanza] = {}  # that changed, by key
        self._triggers = Triggers(self.stage)
        self._removed = in_order([db.records[key] for key in sorted(removed)])
        self._gone: set[str] = set()  # keys of packages that leave no record
        self._unscripted = unscripted
        self._touched: dict[str, int] = {}
        self._scripts = {
            record.installed.key: Scripts(self.stage, db, record, payload, self._triggers)
            for record, payload in self._items
            if record.installed.key not in unscripted
        }

    @property
    def touched(self) -> Mapping[str, int]:
        """How many changes the scripts of each package made, by key."""
        return {**self._touched, **{key: scripts.changes for key, scripts in self._scripts.items()}}

    def run(self, *, late: bool = False) -> None:
        """Do all of it; raises NotRecordable.

        With `late` packages go only when one comes that must not be with them.
        """
        _check_shared(self._items)
        gone = [record.installed.package for record in self._removed]
        after = [not late or any(_excludes(payload, package) for package in gone) for _, payload in self._items]
        for item, waits in zip(self._items, after, strict=True):
            if not waits:
                self._unpack(*item)
        self._remove()
        for item, waits in zip(self._items, after, strict=True):
            if waits:
                self._unpack(*item)
        self._stanzas |= self._simple.unpack()
        if self._stanzas or self._gone:
            self._write_status()
        for scripts in self._scripts.values():
            scripts.configure()
        if self._scripts or self._removed:
            tell_triggered(self.stage, self._db, self._triggers)
        self._simple.finish()
        self._renew_manifest()

    def _unpack(self, record: Record, payload: Payload) -> None:
        scripts = self._scripts.get(record.installed.key)
        if scripts is not None:
            scripts.before_unpacking()
        try:
            self._record(record, payload, self._unpacking.unpack(record, payload))
        except Misplaced as error:
            raise NotRecordable({record.installed.key: str(error)}) from error
        if scripts is not None:
            scripts.after_unpacking()

    def _remove(self) -> None:
        """Remove the packages that go, if what takes over from them must not be with them."""
        for record in self._removed:
            key, package = record.installed.key, record.installed.package
            files = {self.stage.locate(path) for path in self._db.files(record) if not self.stage.is_dir(path)}
            for other, payload in self._items:
                takes = (entry for entry in payload.entries if entry.kind is not Kind.DIR)
                if not _excludes(payload, package) and any(self.stage.locate(entry.path) in files for entry in takes):
                    reason = f"it takes over files of {key}, which is removed, and could be with it"
                    raise NotRecordable({other.installed.key: reason})
            left = remove(self._unpacking, self._db, record, self._triggers, scripted=key not in self._unscripted)
            self._touched[key] = left.changes
            if left.stanza is None:
                self._gone.add(key)
            else:
                self._stanzas[key] = left.stanza

    def _write_status(self) -> None:
        """Write the status file, and what apt knows of packages that were added or removed."""
        known = {id(record.stanza): key for key, record in self._db.records.items()}
        keys = [known.get(id(stanza), "") for stanza in self._db.stanzas]
        kept = [(key, stanza) for key, stanza in zip(keys, self._db.stanzas, strict=True) if key not in self._gone]
        stanzas = [self._stanzas.get(key, stanza) for key, stanza in kept]
        added = [record.installed.key for record, _ in self._items if not record.installed.package.version]
        for key in added:  # dpkg keeps them in the order of their names
            insort(stanzas, self._stanzas[key], key=lambda stanza: stanza.get("Package"))
        self.stage.put(self._database_file(STATUS, render_stanzas(stanzas)))
        names = {record.installed.package.name for record in self._removed}
        mark_automatic(self.stage, added, self._db.arch, names)

    def _renew_manifest(self) -> None:
        """Make chisel's manifest true again."""
        packages = [payload.package for record, payload in self._others if record.form is Form.PARTIAL]
        manifest = read_manifest(self._fs) if packages else None
        if manifest is not None:
            data = render_manifest(renewed(self._fs, manifest, packages, self.stage.entries()))
            self.stage.put(self._database_file(MANIFEST, data))

    def _record(self, record: Record, payload: Payload, unpacked: Unpacked) -> None:
        """Write the stanza and the info files of one package, and what others lost to it."""
        where = f"{payload.package.name} control"
        stanza = render_status(payload.control["control"], record.stanza, unpacked.conffiles, where)
        self._stanzas[record.installed.key] = stanza
        stem = record.stem.partition(":")[0]
        if stanza.get("Multi-Arch") == "same" and (self._fs.read(f"{INFO}/format") or b"1").strip() == b"1":
            stem = f"{stem}:{stanza.get('Architecture')}"
        files = _info_files(payload, self._filters, unpacked.listed)
        for name in self.stage.listdir(INFO):
            owner, _, suffix = name.rpartition(".")
            if owner == record.stem and (suffix not in files or stem != record.stem):
                self.stage.remove(f"{INFO}/{name}")
        for suffix, data in files.items():
            entry = self._database_file(f"{INFO}/{stem}.{suffix}", data)
            self.stage.put(replace(entry, mode=0o755 if suffix in SCRIPTS else 0o644, uid=0, gid=0))
        for key, lost in unpacked.lost.items():
            self._take_from(self._db.records[key], lost)

    def _take_from(self, other: Record, lost: Collection[str]) -> None:
        """Take paths from the list of a package that was replaced in part; its conffiles among them are obsolete."""
        path = f"{INFO}/{other.stem}.list"
        lines = (self.stage.read(path) or b"").decode("utf-8", "surrogateescape").split("\n")
        kept = "\n".join(line for line in lines if line.strip("/") not in lost or line == "")
        self.stage.put(self._database_file(path, kept.encode("utf-8", "surrogateescape")))
        key = other.installed.key
        self._stanzas[key] = retire_conffiles(self._stanzas.get(key, other.stanza), lost)

    def _database_file(self, path: str, data: bytes) -> Entry:
        """Return a file of the database with its old owner and mode, and the newest time of the packages."""
        there = self._fs.get(path)
        if there is not None and there.kind is Kind.SYMLINK:
            there = self._fs.get(self._fs.resolve(path))
        real = self._fs.resolve(path)
        if there is None or there.kind is not Kind.FILE:
            return Entry(real, Kind.FILE, 0o644, 0, 0, self._time, len(data), "", data)
        return Entry(real, Kind.FILE, there.mode, there.uid, there.gid, self._time, len(data), "", data)


def _excludes(payload: Payload, package: Package) -> bool:
    """Say whether a package must not be with another one."""
    where = f"{payload.package.name} control"
    control = parse_stanzas(payload.control["control"], where)[0]
    relations = (parse_relations(control.get(name), where=where) for name in ("Conflicts", "Breaks"))
    constraints = (one for groups in relations for group in groups for one in group)
    return any(satisfies(package, one, payload.package, compare_versions) for one in constraints)


def _check_shared(items: Sequence[tuple[Record, Payload]]) -> None:
    """Refuse what dpkg refuses: packages of one name whose shared files differ between architectures."""
    seen: dict[str, dict[str, str]] = {}
    for record, payload in items:
        name = record.installed.package.name
        sums = parse_md5sums(_sums(payload), f"{record.installed.key} md5sums")
        known = seen.setdefault(name, {})
        differing = next((path for path, digest in sums.items() if known.get(path, digest) != digest), "")
        if differing:
            raise MalformedInput(
                f"differs between the architectures of {name}, which dpkg refuses", file=f"/{differing}"
            )
        known |= sums


def _info_files(payload: Payload, filters: Filters, listed: Sequence[str]) -> Mapping[str, bytes]:
    """Return the files that dpkg keeps of a package: all control files but `control`, and the list of its paths."""
    files = {name: data for name, data in payload.control.items() if name not in {"control", OWN_SUMS}}
    files["list"] = ("\n".join(["/.", *(f"/{path}" for path in listed)]) + "\n").encode("utf-8", "surrogateescape")
    if "md5sums" not in files:
        made = parse_md5sums(payload.control.get(OWN_SUMS, b""))
        taken = (f"{digest}  {path}\n" for path, digest in made.items() if not filters.skips(path, Kind.FILE))
        files["md5sums"] = "".join(taken).encode("utf-8", "surrogateescape")
    return files


def _sums(payload: Payload) -> bytes:
    return payload.control.get("md5sums") or payload.control.get(OWN_SUMS, b"")
