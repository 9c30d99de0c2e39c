"""What an upgrade leaves behind: the entries of the patch layer, files and database.

Owns carrying out, as data, what dpkg does to a file system when it unpacks and configures packages without scripts.
Every path goes through the image's own symlinks (``lib -> usr/lib``). What it cannot do faithfully is told by
`judge` beforehand, or raises NotRecordable.

For each payload:
1. the package's paths: filters, then directories only where none is, links never over a directory, conffiles by their
   own rules, everything else with the package's metadata;
2. paths that only the old version had: gone, unless another package has them; directories if nothing is left in them;
3. the record: the stanza, `info/*` (status; a made one has none) or the stanza file and its md5sums (status.d);
4. what its scripts do before, between and after that (see `scripts`); in status.d images what is `derived`.
Format: dpkg(1), deb(5); https://github.com/opencontainers/image-spec/blob/v1.1.1/layer.md
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from proxy.engine.families.dpkg.archive import OWN_SUMS
from proxy.engine.families.dpkg.chisel import read_manifest, render_manifest, renewed
from proxy.engine.families.dpkg.conffiles import Conffile, decide_conffiles
from proxy.engine.families.dpkg.database import INFO, MANIFEST, STATUS, DpkgDb, Form, Record, parse_md5sums
from proxy.engine.families.dpkg.deb822 import Stanza, render_stanzas
from proxy.engine.families.dpkg.derived import find_derived
from proxy.engine.families.dpkg.filters import Filters, read_filters
from proxy.engine.families.dpkg.findings import Change, NotReproduced
from proxy.engine.families.dpkg.ldconfig import renew_cache
from proxy.engine.families.dpkg.scripts import Scripts, tell_triggered
from proxy.engine.families.dpkg.statusentry import render_status
from proxy.engine.families.dpkg.taker import PathTaker
from proxy.engine.families.dpkg.triggers import Triggers
from proxy.engine.family import NotRecordable, Payload
from proxy.engine.layer import add_parents
from proxy.engine.rootfs import RootFS
from proxy.engine.stage import Misplaced, Stage
from proxy.engine.tar import Entry, Kind
from proxy.errors import MalformedInput

SCRIPTS = frozenset({"preinst", "postinst", "prerm", "postrm", "config"})


def record_upgrade(
    fs: RootFS, db: DpkgDb, payloads: Sequence[Payload], unscripted: Collection[str] = ()
) -> tuple[Entry, ...]:
    """Return the entries of the patch layer, with the existing directories above them; raises NotRecordable."""
    recording = Recording(fs, db, payloads, unscripted)
    recording.run()
    return add_parents(recording.stage.entries(), fs)


class Recording:
    """One upgrade in the making; `stage` is the tree as it is so far. Scripts of `unscripted` packages are left out."""

    def __init__(self, fs: RootFS, db: DpkgDb, payloads: Sequence[Payload], unscripted: Collection[str] = ()) -> None:
        self._time = max((entry.mtime for payload in payloads for entry in payload.entries), default=0)
        self._fs, self._db = fs, db
        self._items = [(db.record_of(payload.package), payload) for payload in payloads]
        self._filters = read_filters(fs)
        self.stage = Stage(fs, self._time)
        self._stays: set[str] = set()  # what the new versions install, and obsolete conffiles: never dropped
        self._triggers = Triggers(self.stage)
        self._scripts = {
            record.installed.key: Scripts(self.stage, db, record, payload, self._triggers)
            for record, payload in self._items
            if record.form is Form.STATUS and record.installed.key not in unscripted
        }

    @property
    def touched(self) -> Mapping[str, int]:
        """How many changes the scripts of each package made, by key."""
        return {key: scripts.changes for key, scripts in self._scripts.items()}

    def run(self) -> None:
        """Do all of it; raises NotRecordable."""
        _check_shared(self._items)
        stanzas: dict[int, Stanza] = {}
        for record, payload in self._items:
            scripts = self._scripts.get(record.installed.key)
            if scripts is not None:
                scripts.before_unpacking()
            try:
                self._unpack(record, payload, stanzas)
            except Misplaced as error:
                raise NotRecordable({record.installed.key: str(error)}) from error
            if scripts is not None:
                scripts.after_unpacking()
        self._drop_old()  # (2)
        if stanzas:
            data = render_stanzas([stanzas.get(id(stanza), stanza) for stanza in self._db.stanzas])
            self.stage.put(self._database_file(STATUS, data))
        for scripts in self._scripts.values():
            scripts.configure()  # (4)
        if self._scripts:
            tell_triggered(self.stage, self._db, self._triggers)
        self._derive()
        self._renew_manifest()

    def _renew_manifest(self) -> None:
        """Make chisel's manifest true again."""
        packages = [payload.package for record, payload in self._items if record.form is Form.PARTIAL]
        manifest = read_manifest(self._fs) if packages else None
        if manifest is not None:
            data = render_manifest(renewed(self._fs, manifest, packages, self.stage.entries()))
            self.stage.put(self._database_file(MANIFEST, data))

    def _unpack(self, record: Record, payload: Payload, stanzas: dict[int, Stanza]) -> None:
        conffiles = decide_conffiles(self._fs, self._db, record, payload)
        special = {item.path for item in conffiles}
        taker = PathTaker(self._fs, self._db, record, payload, self._filters)
        for entry in payload.entries:  # (1)
            takes = taker.takes(entry)
            if takes or record.form is not Form.STATUS:
                self._stays.add(self._fs.locate(entry.path))
                self._stays.add(self._fs.resolve(entry.path) if entry.kind is Kind.DIR else entry.path)
            if takes and entry.path not in special:
                lay(self.stage, entry)
        for item in conffiles:
            for entry in item.entries:
                lay(self.stage, entry)
        for entry in self._record(record, payload, conffiles, stanzas):  # (3)
            self.stage.put(entry)

    def _derive(self) -> None:
        """What builders of distroless images made of a package's files, made again."""
        for record, payload in self._items:
            if record.form is Form.STATUS:
                continue
            for finding in find_derived(self._fs, self._db, record, payload):
                for entry in finding.entries if isinstance(finding, Change) else ():
                    self.stage.put(entry)
        simple = [record.installed.key for record, _ in self._items if record.form is not Form.STATUS]
        try:
            if simple:
                renew_cache(self.stage, self._db.arch)
        except NotReproduced as error:
            reason = f"/etc/ld.so.cache would be out of date, and cannot be made again: {error.what}"
            raise NotRecordable(dict.fromkeys(simple, reason)) from error

    def _drop_old(self) -> None:
        """Step 2, for all packages at once: a path may have moved from one to another."""
        moving = {record.installed.key for record, _ in self._items}
        directories: dict[str, list[str]] = {}
        for record, payload in self._items:
            for path in (*self._db.files(record), *_replaced_targets(self._fs, self._db, record, payload)):
                real = self._fs.locate(path)
                there = self._fs.get(real)
                if there is None or real in self._stays or set(self._db.owners.get(real, ())) - moving:
                    continue
                if there.kind is Kind.DIR:
                    directories.setdefault(real, []).append(record.installed.key)
                    continue
                self.stage.remove(real)
                if record.form is Form.STATUS_D:
                    for parent in _parents(real):
                        directories.setdefault(parent, []).append(record.installed.key)
        self._drop_directories(directories)

    def _drop_directories(self, candidates: Mapping[str, Sequence[str]]) -> None:
        """Remove the empty directories that packages lost, but for those that another one's list has at its turn.

        A path that a filter leaves out is in its package's new list all the same, as dpkg keeps it.
        """
        turn = {record.installed.key: number for number, (record, _) in enumerate(self._items)}
        listed: dict[str, list[str]] = {}
        for record, payload in self._items:
            for entry in payload.entries:
                if entry.kind is Kind.DIR:
                    listed.setdefault(self._fs.locate(entry.path), []).append(record.installed.key)
        for path in sorted(set(candidates) - self._stays, key=lambda path: -path.count("/")):
            there = self.stage.get(path)
            if not path.count("/") or there is None or there.kind is not Kind.DIR or self.stage.listdir(path):
                continue
            old, new = self._db.owners.get(path, ()), listed.get(path, ())
            for key in candidates[path]:
                later = [other for other in old if other != key and turn.get(other, len(turn)) > turn[key]]
                if not later and not [other for other in new if other != key and turn[other] < turn[key]]:
                    self.stage.remove_dir(path)
                    break

    def _record(
        self, record: Record, payload: Payload, conffiles: tuple[Conffile, ...], stanzas: dict[int, Stanza]
    ) -> Iterator[Entry]:
        if record.form is Form.STATUS_D:
            control = payload.control["control"]
            yield self._database_file(record.file, control.rstrip(b"\n") + b"\n")
            if self._fs.get(f"{record.file}.md5sums") is not None:
                yield self._database_file(f"{record.file}.md5sums", _sums(payload))
            return
        where = f"{payload.package.name} control"
        stanzas[id(record.stanza)] = stanza = render_status(payload.control["control"], record.stanza, conffiles, where)
        if record.form is Form.PARTIAL:
            return
        stem = record.stem.partition(":")[0]
        if stanza.get("Multi-Arch") == "same" and (self._fs.read(f"{INFO}/format") or b"1").strip() == b"1":
            stem = f"{stem}:{stanza.get('Architecture')}"
        kept = [item.path for item in conffiles if item.obsolete]
        self._stays.update(map(self._fs.locate, kept))
        files = _info_files(payload, self._filters, kept)
        for name in self._fs.listdir(INFO):
            owner, _, suffix = name.rpartition(".")
            if owner == record.stem and (suffix not in files or stem != record.stem):
                self.stage.remove(f"{INFO}/{name}")
        for suffix, data in files.items():
            entry = self._database_file(f"{INFO}/{stem}.{suffix}", data)
            yield replace(entry, mode=0o755 if suffix in SCRIPTS else 0o644, uid=0, gid=0)

    def _database_file(self, path: str, data: bytes) -> Entry:
        """Return a file of the database with its old owner and mode, and the newest time of the packages."""
        there = self._fs.get(path)
        if there is not None and there.kind is Kind.SYMLINK:
            there = self._fs.get(self._fs.resolve(path))
        real = self._fs.resolve(path)
        if there is None or there.kind is not Kind.FILE:
            return Entry(real, Kind.FILE, 0o644, 0, 0, self._time, len(data), "", data)
        return Entry(real, Kind.FILE, there.mode, there.uid, there.gid, self._time, len(data), "", data)


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


def lay(stage: Stage, entry: Entry) -> None:
    """Lay a package's path down as dpkg does: directories only where none is, links never over a directory."""
    there = stage.get(entry.path)
    over = entry.kind is Kind.DIR and stage.is_dir(entry.path)
    if over or (entry.kind is Kind.SYMLINK and there is not None and there.kind is Kind.DIR):
        return
    folder = entry.path.rpartition("/")[0]
    if folder and there is None:
        stage.make_dir(folder)
    stage.put(entry)


def _replaced_targets(fs: RootFS, db: DpkgDb, record: Record, payload: Payload) -> Iterator[str]:
    """Yield files that no list names but that a moved link shows to be the old version's (libz.so.1 -> libz.so.1.2.13).

    Only status.d images without md5sums need it, and chiselled ones.
    """
    if record.form is Form.STATUS or db.sums(record):
        return
    for entry in payload.entries:
        there = fs.get(entry.path) if entry.kind is Kind.SYMLINK and "/" not in entry.target else None
        if there is None or there.kind is not Kind.SYMLINK or "/" in there.target or there.target == entry.target:
            continue
        yield f"{entry.path.rpartition('/')[0]}/{there.target}"


def _info_files(payload: Payload, filters: Filters, kept: Sequence[str]) -> Mapping[str, bytes]:
    """Return the files that dpkg keeps of a package: all control files but `control`, and the list of its paths.

    `kept` are obsolete conffiles, which stay in the list, at its end.
    """
    files = {name: data for name, data in payload.control.items() if name not in {"control", OWN_SUMS}}
    ordered = sorted(payload.entries, key=lambda entry: entry.kind is Kind.SYMLINK)  # dpkg makes links last of all
    lines = ["/.", *(f"/{entry.path}" for entry in ordered), *(f"/{path}" for path in kept)]
    files["list"] = ("\n".join(lines) + "\n").encode("utf-8", "surrogateescape")
    if "md5sums" not in files:
        made = parse_md5sums(payload.control.get(OWN_SUMS, b""))
        taken = (f"{digest}  {path}\n" for path, digest in made.items() if not filters.skips(path, Kind.FILE))
        files["md5sums"] = "".join(taken).encode("utf-8", "surrogateescape")
    return files


def _sums(payload: Payload) -> bytes:
    return payload.control.get("md5sums") or payload.control.get(OWN_SUMS, b"")


def _parents(path: str) -> Iterable[str]:
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path
