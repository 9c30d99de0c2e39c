"""The dynamic linker's cache: would ldconfig write another one after an upgrade?

Owns reading which paths `/etc/ld.so.cache` names, and the comparison. The cache pairs sonames with paths. It stays
the same if (1) the sonames that the package says it provides (its shlibs file, made from the libraries themselves)
stay the same, (2) every path that the cache names in the package's name is in the new version too, and (3) every new
library path is the file behind a link that the cache already names, or is in no directory that the cache covers.
Format: ld.so(8), the header of glibc's cache (`glibc-ld.so.cache1.1`), deb-shlibs(5)
"""

import re
import struct
from collections.abc import Iterator, Mapping

from proxy.engine.families.dpkg.database import DpkgDb, Record
from proxy.engine.family import Payload
from proxy.engine.rootfs import RootFS
from proxy.engine.tar import Entry, Kind
from proxy.errors import MalformedInput

CACHE = "etc/ld.so.cache"
MAX_LIBRARIES = 200_000

_MAGIC = b"glibc-ld.so.cache1.1"
_OLD_MAGIC = b"ld.so-1.7.0"
_HEADER = struct.Struct("<II20x")  # after the magic: count, length of the strings
_ENTRY = struct.Struct("<iIIIQ")  # flags, key, value, osversion, hwcap
_LIBRARY = re.compile(r"(?:lib|ld-)[^/]*\.so[^/]*|ld[^/]*\.so[^/]*")


def parse_cache(data: bytes) -> tuple[tuple[str, str], ...]:
    """Parse a cache in glibc's present format into soname and path pairs; raises MalformedInput for any other."""
    start = data.find(_MAGIC) if data.startswith(_OLD_MAGIC) else 0
    if start < 0 or not data.startswith(_MAGIC, start):
        raise MalformedInput("not a cache of glibc's present format", file=CACHE)
    base = start + len(_MAGIC)
    if len(data) < base + _HEADER.size:
        raise MalformedInput("cut short", file=CACHE)
    count, _ = _HEADER.unpack_from(data, base)
    if count > MAX_LIBRARIES or len(data) < base + _HEADER.size + count * _ENTRY.size:
        raise MalformedInput("cut short, or more libraries than there are", file=CACHE)
    pairs: list[tuple[str, str]] = []
    for number in range(count):
        _, key, value, _, _ = _ENTRY.unpack_from(data, base + _HEADER.size + number * _ENTRY.size)
        pairs.append((_text(data, start + key), _text(data, start + value)))
    return tuple(pairs)


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
    cached = {fs.locate(path.lstrip("/")): soname for soname, path in parse_cache(data)}
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


def _text(data: bytes, at: int) -> str:
    end = data.find(b"\0", at)
    if at <= 0 or at >= len(data) or end < 0:
        raise MalformedInput("a string outside the file", file=CACHE)
    return data[at:end].decode("utf-8", "surrogateescape")
