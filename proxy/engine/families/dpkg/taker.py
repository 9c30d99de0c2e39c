"""Which paths of a payload are installed at all: dpkg's filters, and what builders of distroless images leave out."""

from proxy.engine.families.dpkg.chisel import read_manifest
from proxy.engine.families.dpkg.database import DpkgDb, Form, Record
from proxy.engine.families.dpkg.derived import builders_own
from proxy.engine.families.dpkg.filters import Filters
from proxy.engine.family import Payload
from proxy.engine.rootfs import RootFS
from proxy.engine.tar import Entry, Kind

_TRIMMED = ("usr/share/doc/", "usr/share/man/", "usr/share/locale/", "usr/share/info/", "usr/share/lintian/")


class PathTaker:
    """Says which paths of a payload are installed at all.

    With dpkg, its filters decide. In status.d images whoever made the image decided, and left out what dpkg never
    heard of: a path that the old version had and the image lacks stays out, as does documentation in a folder that the
    image does not have. Of a chiselled image's packages it gets what it has, and what its links lead to now: which
    parts were chosen is not known.
    """

    def __init__(self, fs: RootFS, db: DpkgDb, record: Record, payload: Payload, filters: Filters) -> None:
        self._fs, self._db, self._record, self._payload, self._filters = fs, db, record, payload, filters
        self._simple = record.form is not Form.STATUS
        self._part = _held(fs, payload) if record.form is Form.PARTIAL else None
        self._old = frozenset(db.sums(record)) if self._simple else frozenset()

    def takes(self, entry: Entry) -> bool:
        """Say whether the image gets this path."""
        if not self._simple:
            return not self._filters.skips(entry.path, entry.kind)
        if builders_own(self._fs, self._db, self._record, self._payload, entry):
            return False
        if self._part is not None:
            return entry.path in self._part
        if self._fs.get(entry.path) is not None:
            return True
        if entry.path in self._old:
            return False
        return not (entry.path + "/").startswith(_TRIMMED) or bool(
            entry.kind is not Kind.DIR and self._fs.listdir(entry.path.rpartition("/")[0])
        )


def _held(fs: RootFS, payload: Payload) -> frozenset[str]:
    """Return the paths that a chiselled image has of a package, and the new names of files that its links lead to.

    With chisel's manifest only what it lists is the package's; a file of the same name is somebody else's.
    """
    manifest = read_manifest(fs)
    entries = {entry.path: entry for entry in payload.entries}
    held = {path for path in entries if fs.get(path) is not None and (manifest is None or path in manifest.paths)}
    todo = [entries[path] for path in held]
    while todo:
        entry = todo.pop()
        if entry.kind is Kind.SYMLINK and "/" not in entry.target:
            folder = entry.path.rpartition("/")[0]
            path = f"{folder}/{entry.target}" if folder else entry.target
            if path in entries and path not in held:
                held.add(path)
                todo.append(entries[path])
    return frozenset(held)
