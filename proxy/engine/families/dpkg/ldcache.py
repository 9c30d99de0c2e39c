"""The format of `/etc/ld.so.cache`: what ldconfig writes and the dynamic linker reads.

Owns parsing and rendering glibc's present format, byte for byte: the plain one up to glibc 2.32 (strings one after the
other) and the one with extensions since 2.33 (strings that share their ends, names of glibc-hwcaps folders, the name
of the program that wrote it). Refuses the combined format of ldconfig before 2.32 where a distribution kept it: none
of those that are supported did.
Format: ld.so(8), the structures of the cache that glibc documents beside its reader

1. header: magic and version, number of entries, length of the strings, byte order, offset of the extensions
2. entries: flags, offset of soname and path, version of the kernel, hardware capability
3. strings
4. extensions: magic, count, then tag, flags, offset and size of each: 0 is the writer's name, 1 the hwcaps folders
"""

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from proxy.errors import MalformedInput

CACHE = "etc/ld.so.cache"
MAX_LIBRARIES = 200_000
MAX_FOLDERS = 1000

_MAGIC = b"glibc-ld.so.cache1.1"
_EXTENSIONS = 0xEAA42174
_LITTLE, _BIG = 2, 3
_EXTENDED_HWCAP = 1 << 62
_INDEX = (1 << 32) - 1


@dataclass(frozen=True, slots=True)
class Cached:
    """One library: `folder` names its glibc-hwcaps folder (with the instruction set `level`) or is empty.

    `kernel` is the oldest kernel that it runs on (8 bits each of system, major, minor and patch level), written up to
    glibc 2.35. `hwcap` is a hardware capability of the older kind.
    """

    soname: str
    path: str
    flags: int
    kernel: int = 0
    hwcap: int = 0
    folder: str = ""
    level: int = 0


@dataclass(frozen=True, slots=True)
class LinkerCache:
    """A whole cache, its entries in the file's order.

    `generator` is the name of the program that wrote it, or None in the format without extensions. `folders` are the
    names of the glibc-hwcaps folders that were seen; parsing finds those that a library lies in.
    """

    entries: tuple[Cached, ...]
    generator: str | None = None
    folders: frozenset[str] = frozenset()
    order: str = "<"
    endian: int = _LITTLE


def parse_linker_cache(data: bytes) -> LinkerCache:
    """Parse a cache; raises MalformedInput for one that is damaged or in the format of old."""
    if not data.startswith(_MAGIC) or len(data) < 48:  # noqa: PLR2004 - the header's size
        raise MalformedInput("not a cache of glibc's present format", file=CACHE)
    order = ">" if data[28] == _BIG else "<"
    count, _, endian, extensions = struct.unpack_from(f"{order}IIB3xI", data, len(_MAGIC))
    form = struct.Struct(f"{order}iIIIQ")
    if count > MAX_LIBRARIES or len(data) < 48 + count * form.size:
        raise MalformedInput("cut short, or more libraries than there are", file=CACHE)
    generator, names = _parse_extensions(data, extensions, order) if extensions else (None, ())
    entries: list[Cached] = []
    for number in range(count):
        flags, key, value, kernel, hwcap = form.unpack_from(data, 48 + number * form.size)
        folder, level = "", 0
        if hwcap & _EXTENDED_HWCAP:
            index, level, hwcap = hwcap & _INDEX, hwcap >> 32 & 1023, 0
            if index >= len(names):
                raise MalformedInput("a library of a folder that it does not name", file=CACHE)
            folder = names[index]
        entries.append(Cached(_text(data, key), _text(data, value), flags, kernel, hwcap, folder, level))
    return LinkerCache(tuple(entries), generator, frozenset(names), order, endian)


def render_linker_cache(cache: LinkerCache) -> bytes:
    """Write a cache as ldconfig does."""
    used = sorted({entry.folder for entry in cache.entries if entry.folder}, key=_bytes)
    index = {name: number for number, name in enumerate(used)}
    form = struct.Struct(f"{cache.order}iIIIQ")
    base = 48 + len(cache.entries) * form.size
    if cache.generator is None:
        offsets, strings = _one_by_one(cache.entries)
    else:
        every = {text for entry in cache.entries for text in (entry.soname, entry.path)}
        shared, strings = _shared(every | cache.folders | set(used))
        offsets = [(shared[entry.soname], shared[entry.path]) for entry in cache.entries]
    rows = []
    for entry, (soname, path) in zip(cache.entries, offsets, strict=True):
        hwcap = entry.hwcap
        if entry.folder:
            hwcap = _EXTENDED_HWCAP | entry.level << 32 | index[entry.folder]
        rows.append(form.pack(entry.flags, base + soname, base + path, entry.kernel, hwcap))
    end = base + len(strings)
    at = -(-end // 4) * 4 if cache.generator is not None else 0
    head = struct.pack(f"{cache.order}IIB3xI12x", len(cache.entries), len(strings), cache.endian, at)
    body = b"".join((_MAGIC, head, *rows, strings))
    if cache.generator is None:
        return body
    where = [base + shared[name] for name in used]
    return body + bytes(at - end) + _extensions(cache.generator, where, at, cache.order)


def _extensions(generator: str, folders: Sequence[int], at: int, order: str) -> bytes:
    """Write the extensions: names of folders by offset, then the writer's name."""
    count = 2 if folders else 1
    start = at + 8 + 16 * count
    array = b"".join(struct.pack(f"{order}I", offset) for offset in folders)
    text = _bytes(generator)
    sections = [struct.pack(f"{order}IIII", 0, 0, start + len(array), len(text))]
    if folders:
        sections.append(struct.pack(f"{order}IIII", 1, 0, start, len(array)))
    return b"".join((struct.pack(f"{order}II", _EXTENSIONS, count), *sections, array, text))


def _parse_extensions(data: bytes, at: int, order: str) -> tuple[str, tuple[str, ...]]:
    generator = ""
    names: tuple[str, ...] = ()
    if at + 8 > len(data):
        raise MalformedInput("its extensions are cut short", file=CACHE)
    magic, count = struct.unpack_from(f"{order}II", data, at)
    if magic != _EXTENSIONS or count > MAX_FOLDERS or at + 8 + 16 * count > len(data):
        raise MalformedInput("its extensions are damaged", file=CACHE)
    for number in range(count):
        tag, flags, offset, size = struct.unpack_from(f"{order}IIII", data, at + 8 + 16 * number)
        if tag > 1 or flags or offset + size > len(data) or size > 4 * MAX_FOLDERS:
            raise MalformedInput("an extension that is not known", file=CACHE)
        if tag == 0:
            generator = data[offset : offset + size].decode("utf-8", "surrogateescape")
        else:
            indexes = struct.iter_unpack(f"{order}I", data[offset : offset + size - size % 4])
            names = tuple(_text(data, index) for (index,) in indexes)
    return generator, names


def _one_by_one(entries: Sequence[Cached]) -> tuple[list[tuple[int, int]], bytes]:
    offsets: list[tuple[int, int]] = []
    pieces: list[bytes] = []
    at = 0
    for entry in entries:
        soname, path = _bytes(entry.soname) + b"\0", _bytes(entry.path) + b"\0"
        offsets.append((at, at + len(soname)))
        at += len(soname) + len(path)
        pieces += (soname, path)
    return offsets, b"".join(pieces)


def _shared(texts: Iterable[str]) -> tuple[Mapping[str, int], bytes]:
    """Put strings together that end alike: sorted backwards from their last byte on, so the longer comes first."""
    offsets: dict[str, int] = {}
    pieces: list[bytes] = []
    at, last = 0, b""
    for text in sorted(texts, key=lambda text: _bytes(text)[::-1], reverse=True):
        data = _bytes(text)
        if pieces and last.endswith(data):
            offsets[text] = at - 1 - len(data)
            continue
        offsets[text], last = at, data
        pieces += (data, b"\0")
        at += len(data) + 1
    return offsets, b"".join(pieces)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _text(data: bytes, at: int) -> str:
    end = data.find(b"\0", at)
    if at <= 0 or at >= len(data) or end < 0:
        raise MalformedInput("a string outside the file", file=CACHE)
    return data[at:end].decode("utf-8", "surrogateescape")
