"""Which package has which path in its list, at each moment of an upgrade.

Owns the lists of dpkg's `info` as they change while one package after the other is unpacked. Paths are compared as
they are written, which is how dpkg compares them.
"""

from collections.abc import Iterable

from proxy.engine.families.dpkg.database import DpkgDb


class Ownership:
    """The lists of all packages, as they are at the moment."""

    def __init__(self, db: DpkgDb) -> None:
        self._db = db
        self._lists: dict[str, tuple[str, ...]] = {}  # of packages whose list changed
        self._changes: dict[str, tuple[str, ...]] = {}  # owners of paths of which they changed

    def listed(self, key: str) -> tuple[str, ...]:
        """Return the paths in the list of one package."""
        found = self._lists.get(key)
        return self._db.files(self._db.records[key]) if found is None else found

    def owners(self, path: str) -> tuple[str, ...]:
        """Return the keys of the packages that have `path` in their lists."""
        found = self._changes.get(path)
        return self._db.holders.get(path, ()) if found is None else found

    def others(self, path: str, key: str) -> tuple[str, ...]:
        """Return the keys of the packages other than `key` that have `path` in their lists."""
        return tuple(owner for owner in self.owners(path) if owner != key)

    def put(self, key: str, paths: Iterable[str]) -> None:
        """Give a package a new list."""
        old, new = self.listed(key), tuple(dict.fromkeys(paths))
        self._lists[key] = new
        kept = set(new)
        for path in old:
            if path not in kept:
                self._changes[path] = self.others(path, key)
        for path in new:
            if key not in self.owners(path):
                self._changes[path] = (*self.owners(path), key)
