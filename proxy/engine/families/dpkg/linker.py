"""The linker's cache of an image where nothing runs: would it be out of date after an upgrade?

Owns the comparison (`ldcache` reads the cache). It pairs sonames with paths, and stays true if every path that it names
in the package's name is in the new version too (1), and every new library path is the file behind a link that the cache
already names, or is in no directory that it covers (2).
Format: ld.so(8)
"""

import re
from collections.abc import Iterator, Mapping

from proxy.engine.families.dpkg.database import DpkgDb, Record
from proxy.engine.families.dpkg.ldcache import CACHE, parse_linker_cache
from proxy.engine.family import Payload
from proxy.engine.rootfs import RootFS
from proxy.engine.tar import Entry, Kind

_LIBRARY = re.compile(r"(?:lib|ld-)[^/]*\.so[^/]*|ld[^/]*\.so[^/]*")


def cached_paths_change(fs: RootFS, db: DpkgDb, record: Record, payload: Payload) -> str:
    """Say which path the cache, if there is one, would lose or gain (1, 2), or ``""``."""
    data = fs.read(CACHE)
    if data is None:
        return ""
    cached = {fs.locate(entry.path.lstrip("/")): entry.soname for entry in parse_linker_cache(data).entries}
    old = {fs.locate(path) for path in db.files(record)}
    new = {fs.locate(entry.path): entry for entry in payload.entries if entry.kind is not Kind.DIR}
    for path, entry in new.items():
        if path.startswith("etc/ld.so.conf") and isinstance(entry.content, bytes) and entry.content != fs.read(path):
            return f"/{path} changes"
    gone = sorted(path for path in cached if path in old and path not in new)  # (1)
    if gone:
        return f"the new version has no /{gone[0]}"
    added = next(iter(_added(cached, set(new) - old - set(cached), new)), "")  # (2)
    return f"/{added} is new" if added else ""


def _added(cached: Mapping[str, str], paths: set[str], new: Mapping[str, Entry]) -> Iterator[str]:
    """Yield the new paths that ldconfig might take up."""
    folders = {path.rpartition("/")[0] for path in cached}
    behind = {
        f"{path.rpartition('/')[0]}/{entry.target}"
        for path, entry in new.items()
        if entry.kind is Kind.SYMLINK and path in cached and "/" not in entry.target
    }
    for path in sorted(paths - behind):
        folder, _, name = path.rpartition("/")
        covered = folder.partition("/glibc-hwcaps")[0] in folders and _LIBRARY.fullmatch(name) is not None
        if covered or path.startswith("etc/ld.so.conf"):
            yield path
