"""The outline of an ELF file: all that the dynamic linker reads of it, as a small ELF file that reads the same.

Owns which files a scan takes outlines of, taking one from a stream without holding the file, and its form. A library's
tables lie in its first pages and its dynamic section near the end, both named by the program headers; a file that is
made otherwise has no outline by the stream and must be read as a whole.
Format: as in `elf`; the symbol count is written as a hash table without buckets.
"""

import re
import struct
from collections.abc import Callable, Sequence

from proxy.engine import elfsymbols as tables
from proxy.engine.elf import DYNAMIC, LOAD, MAGIC, MAX_DYNAMIC, NEEDED, SONAME, Elf, Segment, open_elf
from proxy.errors import MalformedInput

HEAD = 16 << 20  # bytes from the start of a file; the tables of libstdc++ end at 0.7 MB, those of libLLVM at 12 MB
FIRST = 4096  # bytes in which the program headers lie
RPATH, RUNPATH = 15, 29
NONE = b""  # the outline of what is no ELF file, or takes no part in dynamic linking

_LIBRARY = re.compile(r"(?:.*/)?[^/]+\.so(?:\.[^/]*)?")
_KEPT = (NEEDED, SONAME, RPATH, RUNPATH)


def is_library_name(path: str) -> bool:
    """Say whether a file of that name is taken for a shared library."""
    return ".so" in path and _LIBRARY.fullmatch(path) is not None


def outline_stream(read: Callable[[], bytes], size: int, where: str) -> bytes | None:
    """Return the outline of a file of `size` bytes that `read` gives piece by piece, ``b""`` at its end.

    It need not be read to its end. None if the outline cannot be had without the whole file, or the file is damaged.
    """
    head = bytearray()
    while len(head) < min(FIRST, size) and (piece := read()):
        head += piece
    if not head.startswith(MAGIC):
        return NONE
    try:
        elf = open_elf(bytes(head), where)
        dynamic = next((part for part in elf.segments if part.kind == DYNAMIC), None)
        if dynamic is None:
            return NONE
        return render_outline(Elf(_read_on(read, head, elf.segments, dynamic).read, where))
    except MalformedInput:
        return None


def _read_on(read: Callable[[], bytes], head: bytearray, segments: Sequence[Segment], dynamic: Segment) -> "_Sparse":
    """Read on to the end of the first segment, HEAD at the most, and of the dynamic section."""
    first = (part.size for part in segments if part.kind == LOAD and part.offset == 0)
    wanted, start, end = min(HEAD, next(first, 0)), dynamic.offset, dynamic.offset + dynamic.size
    if dynamic.size > MAX_DYNAMIC * 16:
        raise MalformedInput("a dynamic section larger than a linker writes")
    at, part = len(head), bytearray(head[start:end])
    while (at < wanted or at < end) and (piece := read()):
        if at < wanted:
            head += piece
        part += piece[max(start - at, 0) : max(end - at, 0)]
        at += len(piece)
    return _Sparse(bytes(head), start, bytes(part))


def outline_bytes(data: bytes, where: str) -> bytes:
    """Return the outline of a file that is in memory; raises MalformedInput for a damaged one."""
    return render_outline(open_elf(data, where)) if data.startswith(MAGIC) else NONE


def render_outline(elf: Elf) -> bytes:
    """Return an ELF file with the same names, versions and symbols; ``b""`` where there is nothing to link."""
    if not elf.dynamic:
        return NONE
    wide = elf.bits == 64  # noqa: PLR2004
    versions, count = tables.read_versions(elf), tables.count_symbols(elf)
    word = "Q" if wide else "I"
    entries = [(tag, value) for tag, value in elf.dynamic if tag in _KEPT]
    parts = [(tables.HASH, struct.pack(f"{elf.order}II", 0, count)), (tables.STRTAB, tables.read_strings(elf))]
    for tag, size, number in (
        (tables.SYMTAB, count * tables.symbol_form(elf).size, 0),
        (tables.VERSYM, count * 2, 0),
        (tables.VERDEF, versions.defined_size, tables.VERDEFNUM),
        (tables.VERNEED, versions.needed_size, tables.VERNEEDNUM),
    ):
        at = elf.value(tag)
        if at is None or not size:
            continue
        parts.append((tag, elf.exactly(elf.offset_of(at), size)))
        if number:
            entries.append((number, elf.value(number) or 0))
    entries.append((tables.STRSZ, len(parts[1][1])))
    head = 64 + 2 * 56 if wide else 52 + 2 * 32
    at = head + (len(entries) + len(parts) + 1) * (16 if wide else 8)
    length = at - head
    for tag, data in parts:
        entries.append((tag, at))
        at += len(data)
    dynamic = b"".join(struct.pack(elf.order + word * 2, tag, value) for tag, value in (*entries, (0, 0)))
    return b"".join([_header(elf, head, length, at), dynamic, *(data for _, data in parts)])


def _header(elf: Elf, head: int, length: int, size: int) -> bytes:
    wide = elf.bits == 64  # noqa: PLR2004
    ident = MAGIC + bytes([2 if wide else 1, 1 if elf.order == "<" else 2, 1]) + bytes(9)
    start, row = (64, 56) if wide else (52, 32)
    form = struct.Struct(f"{elf.order}HHI{'QQQ' if wide else 'III'}IHHHHHH")
    made = ident + form.pack(elf.kind, elf.machine, 1, 0, start, 0, elf.flags, start, row, 2, 0, 0, 0)
    for kind, offset, extent in ((LOAD, 0, size), (DYNAMIC, head, length)):
        fields = (
            (kind, 4, offset, offset, 0, extent, extent, 1) if wide else (kind, offset, offset, 0, extent, extent, 4, 1)
        )
        made += struct.pack(f"{elf.order}{'IIQQQQQQ' if wide else 'IIIIIIII'}", *fields)
    return made


class _Sparse:
    """A file of which the start and one part are known; what is asked for beyond them is not there."""

    __slots__ = ("_head", "_offset", "_part")

    def __init__(self, head: bytes, offset: int, part: bytes) -> None:
        self._head, self._offset, self._part = head, offset, part

    def read(self, offset: int, size: int) -> bytes:
        if offset < len(self._head):
            return self._head[offset : offset + size]
        start = offset - self._offset
        return self._part[start : start + size] if start >= 0 else b""
