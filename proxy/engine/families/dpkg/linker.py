"""The dynamic linker's cache: would ldconfig write another one after an upgrade?

Owns the comparison (`ldcache` reads the cache). The cache pairs sonames with paths. It stays
the same if (1) the sonames that the package says it provides (its shlibs file, made from the libraries themselves)
stay the same, (2) every path that the cache names in the package's name is in the new version too, and (3) every new
library path is the file behind a link that the cache already names, or is in no directory that the cache covers.
Format: ld.so(8), deb-shlibs(5)
"""

import re
from collections.abc import Iterator, Mapping

from proxy.engine.families.dpkg.database import DpkgDb, Record
from proxy.engine.families.dpkg.ldcache import CACHE, parse_linker_cache
from proxy.engine.family import Payload
from proxy.engine.rootfs import RootFS
from proxy.engine.tar import Entry, Kind

_LIBRARY = re.compile(r"(?:lib|ld-)[^/]*\.so[^/]*|ld[^/]*\.so[^/]*")


def linker_cache_changes(fs: RootFS, db: DpkgDb, record: Record, payload: Payload) -> str:
    """Say why the cache might change, or ``""`` if it provably names the same libraries."""
    if fs.read(CACHE) is None:
        return "the image has no cache now"
    if _provided(db.info(record, "shlibs") or b"") != _provided(payload.control.get("shlibs", b"")):  # (1)
        return "its shlibs name other libraries"
    return cached_paths_change(fs, db, record, payload)


def cached_paths_change(fs: RootFS, db: DpkgDb, record: Record, payload: Payload) -> str:
    """Say which path the cache, if there is one, would lose or gain (2, 3), or ``""``."""
    data = fs.read(CACHE)
    if data is None:
        return ""
    cached = {fs.locate(entry.path.lstrip("/")): entry.soname for entry in parse_linker_cache(data).entries}
    old = {fs.locate(path) for path in db.files(record)}
    new = {fs.locate(entry.path): entry for entry in payload.entries if entry.kind is not Kind.DIR}
    for path, entry in new.items():
        if path.startswith("etc/ld.so.conf") and isinstance(entry.content, bytes) and entry.content != fs.read(path):
            return f"/{path} changes"
    gone = sorted(path for path in cached if path in old and path not in new)  # (2)
    if gone:
        return f"the new version has no /{gone[0]}"
    added = next(iter(_added(cached, set(new) - old - set(cached), new)), "")  # (3)
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


def _provided(shlibs: bytes) -> frozenset[tuple[str, str]]:
    lines = (line.split() for line in shlibs.decode("utf-8", "replace").split("\n"))
    return frozenset((words[0], words[1]) for words in lines if len(words) > 1 and not words[0].endswith(":"))
