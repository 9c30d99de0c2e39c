"""What an upgrade leaves behind: the entries of the patch layer, files and database.

Owns carrying out, as data, what dpkg does to a file system when it unpacks and configures packages without scripts.
Every path goes through the image's own symlinks (``lib -> usr/lib``). What it cannot do faithfully is told by
`judge` beforehand; it is not decided here.

For each payload:
1. the package's paths: filters, then directories only where none is, links never over a directory, conffiles by their
   own rules, everything else with the package's metadata;
2. paths that only the old version had: gone, unless another package has them; directories if nothing is left in them;
3. the record: the stanza, `info/*` (status) or the stanza file and its md5sums (status.d);
4. what scripts and triggers would change beside that, as `judge` found it.
Format: dpkg(1), deb(5); https://github.com/opencontainers/image-spec/blob/v1.1.1/layer.md
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from proxy.engine.families.dpkg.archive import OWN_SUMS
from proxy.engine.families.dpkg.conffiles import Conffile, decide_conffiles
from proxy.engine.families.dpkg.database import INFO, STATUS, DpkgDb, Form, Record, parse_md5sums
from proxy.engine.families.dpkg.deb822 import Stanza, render_stanzas
from proxy.engine.families.dpkg.filters import Filters, read_filters
from proxy.engine.families.dpkg.findings import Change
from proxy.engine.families.dpkg.judge import find_all
from proxy.engine.families.dpkg.statusentry import render_status
from proxy.engine.families.dpkg.taker import PathTaker
from proxy.engine.family import Payload
from proxy.engine.layer import add_parents
from proxy.engine.rootfs import RootFS
from proxy.engine.tar import Entry, Kind
from proxy.errors import MalformedInput

SCRIPTS = frozenset({"preinst", "postinst", "prerm", "postrm", "config"})


def record_upgrade(fs: RootFS, db: DpkgDb, payloads: Sequence[Payload]) -> tuple[Entry, ...]:
    """Return the entries of the patch layer, with the existing directories above them."""
    return _Recording(fs, db, payloads).entries()


class _Recording:
    """One upgrade in the making: `written` and `gone` by real path."""

    def __init__(self, fs: RootFS, db: DpkgDb, payloads: Sequence[Payload]) -> None:
        self._fs, self._db = fs, db
        self._items = [(db.record_of(payload.package), payload) for payload in payloads]
        self._filters = read_filters(fs)
        self._written: dict[str, Entry] = {}
        self._gone: set[str] = set()
        self._time = max((entry.mtime for payload in payloads for entry in payload.entries), default=0)

    def entries(self) -> tuple[Entry, ...]:
        stanzas: dict[int, Stanza] = {}
        _check_shared(self._items)
        for record, payload in self._items:
            conffiles = decide_conffiles(self._fs, self._db, record, payload)
            self._write_paths(record, payload, conffiles)  # (1)
            for entry in self._record(record, payload, conffiles, stanzas):  # (3)
                self._written[entry.path] = entry
        self._drop_old()  # (2)
        self._change()  # (4)
        if stanzas:
            data = render_stanzas([stanzas.get(id(stanza), stanza) for stanza in self._db.stanzas])
            status = self._database_file(STATUS, data)
            self._written[status.path] = status
        whiteouts = (Entry(path, Kind.WHITEOUT) for path in self._gone if path not in self._written)
        return add_parents((*self._written.values(), *whiteouts), self._fs)

    def _write_paths(self, record: Record, payload: Payload, conffiles: tuple[Conffile, ...]) -> None:
        special = {item.path for item in conffiles}
        taker = PathTaker(self._fs, self._db, record, payload, self._filters)
        for entry in payload.entries:
            if entry.path in special or not taker.takes(entry):
                continue
            written = placed(self._fs, entry)
            if written is not None:
                self._written[written.path] = written
        for item in conffiles:
            for entry in item.entries:
                self._written[entry.path] = entry

    def _change(self) -> None:
        for _, payload in self._items:
            for finding in find_all(self._fs, self._db, payload):
                for entry in finding.entries if isinstance(finding, Change) else ():
                    if entry.kind is Kind.WHITEOUT:
                        self._written.pop(entry.path, None)
                        self._gone.add(entry.path)
                    else:
                        self._written[entry.path] = entry

    def _drop_old(self) -> None:
        """Step 2, for all packages at once: a path may have moved from one to another."""
        moving = {record.installed.key for record, _ in self._items}
        stays = {self._fs.locate(entry.path) for _, payload in self._items for entry in payload.entries}
        stays |= {
            self._fs.resolve(entry.path)
            for _, payload in self._items
            for entry in payload.entries
            if entry.kind is Kind.DIR
        }
        directories: set[str] = set()
        for record, payload in self._items:
            for path in (*self._db.files(record), *_replaced_targets(self._fs, self._db, record, payload)):
                real = self._fs.locate(path)
                there = self._fs.get(real)
                if there is None or real in stays or set(self._db.owners.get(real, ())) - moving:
                    continue
                if there.kind is Kind.DIR:
                    directories.add(real)
                    continue
                self._gone.add(real)
                if record.form is Form.STATUS_D:
                    directories.update(_parents(real))
        self._drop_directories(directories - stays, moving)

    def _drop_directories(self, candidates: set[str], moving: set[str]) -> None:
        occupied = {parent for path in self._written for parent in _parents(path)}
        for path in sorted(candidates, key=lambda path: -path.count("/")):
            owned = set(self._db.owners.get(path, ())) - moving
            left = [name for name in self._fs.listdir(path) if f"{path}/{name}" not in self._gone]
            if not owned and not left and path not in occupied and path.count("/"):
                self._gone = {gone for gone in self._gone if not gone.startswith(f"{path}/")} | {path}

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
        stem = record.stem.partition(":")[0]
        if stanza.get("Multi-Arch") == "same" and (self._fs.read(f"{INFO}/format") or b"1").strip() == b"1":
            stem = f"{stem}:{stanza.get('Architecture')}"
        files = _info_files(payload, self._filters)
        for name in self._fs.listdir(INFO):
            owner, _, suffix = name.rpartition(".")
            if owner == record.stem and (suffix not in files or stem != record.stem):
                self._gone.add(self._fs.locate(f"{INFO}/{name}"))
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


def placed(fs: RootFS, entry: Entry) -> Entry | None:
    """Return a payload's entry at its real place, or None where what is there stays (directories)."""
    real = fs.locate(entry.path)
    if entry.kind is Kind.DIR:
        there = fs.get(fs.resolve(entry.path))
        return None if there is not None and there.kind is Kind.DIR else replace(entry, path=real)
    there = fs.get(real)
    if entry.kind is Kind.SYMLINK and there is not None and there.kind is Kind.DIR:
        return None
    if entry.kind is Kind.HARDLINK:
        return replace(entry, path=real, target=fs.locate(entry.target))
    return replace(entry, path=real)


def _replaced_targets(fs: RootFS, db: DpkgDb, record: Record, payload: Payload) -> Iterator[str]:
    """Yield files that no list names but that a moved link shows to be the old version's (libz.so.1 -> libz.so.1.2.13).

    Only status.d images without md5sums need it.
    """
    if record.form is Form.STATUS or db.sums(record):
        return
    for entry in payload.entries:
        there = fs.get(entry.path) if entry.kind is Kind.SYMLINK and "/" not in entry.target else None
        if there is None or there.kind is not Kind.SYMLINK or "/" in there.target or there.target == entry.target:
            continue
        yield f"{entry.path.rpartition('/')[0]}/{there.target}"


def _info_files(payload: Payload, filters: Filters) -> Mapping[str, bytes]:
    """Return the files that dpkg keeps of a package: all control files but `control`, and the list of its paths."""
    files = {name: data for name, data in payload.control.items() if name not in {"control", OWN_SUMS}}
    ordered = sorted(payload.entries, key=lambda entry: entry.kind is Kind.SYMLINK)  # dpkg makes links last of all
    lines = ["/.", *(f"/{entry.path}" for entry in ordered)]
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
