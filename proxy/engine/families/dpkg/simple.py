"""What an upgrade leaves behind in an image that no dpkg ever touched: distroless ones (status.d), chiselled ones.

Owns the files and the records of such packages: whoever made the image decided what is in it (see `taker`). Every path
goes through the image's own symlinks (``lib -> usr/lib``).

1. the package's paths: directories only where none is, links never over a directory, conffiles by their own rules;
2. paths that only the old version had: gone, unless another package has them; directories if nothing is left in them;
3. the stanza; in status.d its file, and its md5sums if they are kept;
4. what builders of distroless images made of a package's files, made again (see `derived`).
"""

from collections.abc import Iterable, Iterator, Sequence

from proxy.engine.families.dpkg.archive import OWN_SUMS
from proxy.engine.families.dpkg.conffiles import Conffile, decide_simple_conffiles
from proxy.engine.families.dpkg.database import DpkgDb, Form, Record
from proxy.engine.families.dpkg.deb822 import Stanza
from proxy.engine.families.dpkg.derived import find_derived
from proxy.engine.families.dpkg.filters import Filters
from proxy.engine.families.dpkg.findings import Change, NotReproduced
from proxy.engine.families.dpkg.ldconfig import renew_cache
from proxy.engine.families.dpkg.statusentry import render_status
from proxy.engine.families.dpkg.taker import PathTaker
from proxy.engine.family import NotRecordable, Payload
from proxy.engine.rootfs import RootFS
from proxy.engine.stage import Stage
from proxy.engine.tar import Entry, Kind


class SimpleUpgrade:
    """The packages of an upgrade that have their records in status.d, or in a `status` that was made for the image."""

    def __init__(self, stage: Stage, db: DpkgDb, items: Sequence[tuple[Record, Payload]], filters: Filters) -> None:
        self._stage, self._db, self._items, self._filters = stage, db, items, filters
        self._fs: RootFS = stage.fs
        self._stays: set[str] = set()  # what the new versions install: never dropped

    def unpack(self) -> dict[str, Stanza]:
        """Do the files and the records of status.d; return the new stanzas of `status`; raises NotRecordable."""
        stanzas: dict[str, Stanza] = {}
        for record, payload in self._items:
            conffiles = self._unpack(record, payload)
            if record.form is Form.PARTIAL:
                where, control = f"{payload.package.name} control", payload.control["control"]
                stanzas[record.installed.key] = render_status(control, record.stanza, conffiles, where)
                continue
            self._stage.write(record.file, payload.control["control"].rstrip(b"\n") + b"\n")  # (3)
            if self._fs.get(f"{record.file}.md5sums") is not None:
                sums = payload.control.get("md5sums") or payload.control.get(OWN_SUMS, b"")
                self._stage.write(f"{record.file}.md5sums", sums)
        self._drop_old()
        return stanzas

    def finish(self) -> None:
        """Do what is derived from the files, when all are in place (4); raises NotRecordable."""
        for record, payload in self._items:
            for finding in find_derived(self._fs, self._db, record, payload):
                for entry in finding.entries if isinstance(finding, Change) else ():
                    self._stage.put(entry)
        try:
            if self._items:
                renew_cache(self._stage, self._db.arch)
        except NotReproduced as error:
            reason = f"/etc/ld.so.cache would be out of date, and cannot be made again: {error.what}"
            raise NotRecordable(dict.fromkeys((r.installed.key for r, _ in self._items), reason)) from error

    def _unpack(self, record: Record, payload: Payload) -> tuple[Conffile, ...]:
        conffiles = tuple(decide_simple_conffiles(self._fs, self._db, record, payload))
        special = {item.path for item in conffiles}
        taker = PathTaker(self._fs, self._db, record, payload, self._filters)
        for entry in payload.entries:  # (1)
            self._stays.add(self._fs.locate(entry.path))
            self._stays.add(self._fs.resolve(entry.path) if entry.kind is Kind.DIR else entry.path)
            if taker.takes(entry):
                self._check(record, entry)
                if entry.path not in special:
                    self._lay(entry)
        for item in conffiles:
            for entry in item.entries:
                self._lay(entry)
        return conffiles

    def _check(self, record: Record, entry: Entry) -> None:
        """Refuse paths that have no place, or that another package has."""
        key, fs = record.installed.key, self._fs
        there = fs.get(entry.path)
        if there is None:
            parent = fs.get(fs.resolve(entry.path.rpartition("/")[0])) if "/" in entry.path else None
            if parent is not None and parent.kind is not Kind.DIR:
                raise NotRecordable({key: f"/{entry.path} would lie under a path that is no directory"})
            return
        if entry.kind is Kind.DIR:
            real = fs.get(fs.resolve(entry.path))
            if real is not None and real.kind is not Kind.DIR:
                reason = f"/{entry.path} is a {there.kind} in the image and a directory in the package"
                raise NotRecordable({key: reason})
            return
        if there.kind is Kind.DIR and entry.kind is not Kind.SYMLINK:
            reason = f"/{entry.path} is a directory in the image and a {entry.kind} in the package"
            raise NotRecordable({key: reason})
        others = [other for other in self._db.owners.get(fs.locate(entry.path), ()) if other != key]
        if others and there.kind is not Kind.DIR:
            raise NotRecordable({key: f"/{entry.path} belongs to {others[0]}"})

    def _lay(self, entry: Entry) -> None:
        there = self._stage.get(entry.path)
        over = entry.kind is Kind.DIR and self._stage.is_dir(entry.path)
        if over or (entry.kind is Kind.SYMLINK and there is not None and there.kind is Kind.DIR):
            return
        folder = entry.path.rpartition("/")[0]
        if folder and there is None:
            self._stage.make_dir(folder)
        self._stage.put(entry)

    def _drop_old(self) -> None:
        """Step 2, for all packages at once: a path may have moved from one to another."""
        moving = {record.installed.key for record, _ in self._items}
        directories: set[str] = set()
        for record, payload in self._items:
            for path in (*self._db.files(record), *self._replaced_targets(record, payload)):
                real = self._fs.locate(path)
                there = self._fs.get(real)
                if there is None or real in self._stays or set(self._db.owners.get(real, ())) - moving:
                    continue
                if there.kind is not Kind.DIR:
                    self._stage.remove(real)
                    directories.update(_parents(real))
        for path in sorted(directories - self._stays, key=lambda path: -path.count("/")):
            there = self._stage.get(path)
            owned = set(self._db.owners.get(path, ())) - moving
            if path.count("/") and not owned and there is not None and not self._stage.listdir(path):
                self._stage.remove_dir(path)

    def _replaced_targets(self, record: Record, payload: Payload) -> Iterator[str]:
        """Yield files that no list names but that a moved link shows to be the old version's.

        (libz.so.1 -> libz.so.1.2.13.) Only images without md5sums need it, and chiselled ones.
        """
        for entry in payload.entries if not self._db.sums(record) else ():
            there = self._fs.get(entry.path) if entry.kind is Kind.SYMLINK and "/" not in entry.target else None
            if there is None or there.kind is not Kind.SYMLINK or "/" in there.target or there.target == entry.target:
                continue
            yield f"{entry.path.rpartition('/')[0]}/{there.target}"


def _parents(path: str) -> Iterable[str]:
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path
