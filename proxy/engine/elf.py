"""ELF files, as far as the dynamic linker looks at them: header, program headers, dynamic section, notes.

Owns reading shared objects of both classes and byte orders from any source of bytes, never more than it needs.
Every offset and count comes from a hostile file: what lies outside the file, or is more than any linker writes, is
refused as malformed.
Format: System V gABI chapters 4 and 5, elf(5), https://refspecs.linuxfoundation.org/elf/gabi4+/contents.html
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

from proxy.errors import MalformedInput

MAGIC = b"\x7fELF"
SHARED_OBJECT = 3  # e_type ET_DYN
MAX_SEGMENTS = 512  # a linker writes about ten
MAX_DYNAMIC = 65_536  # entries of the dynamic section; libraries have under a hundred
MAX_NAME = 4096  # bytes in a name: PATH_MAX
MAX_NOTES = 1 << 20  # bytes in one segment of notes

LOAD, DYNAMIC, NOTE, PROPERTY = 1, 2, 4, 0x6474E553  # p_type
NEEDED, STRTAB, STRSZ, SONAME = 1, 5, 10, 14  # d_tag

ReadAt = Callable[[int, int], bytes]
"""Gives up to `size` bytes from `offset` on; fewer at the end of the file only."""


@dataclass(frozen=True, slots=True)
class Segment:
    """One program header: `size` bytes at `offset` of the file, `address` in memory."""

    kind: int
    offset: int
    address: int
    size: int
    align: int


@dataclass(frozen=True, slots=True)
class ElfNote:
    """One note: who defines it (``GNU``), its type and its bytes."""

    owner: bytes
    kind: int
    data: bytes


class Elf:
    """An ELF file that has a valid header; the rest is read when it is asked for.

    Raises MalformedInput for what is not ELF, here or on first use of a damaged part.
    """

    def __init__(self, read: ReadAt, where: str) -> None:
        self._read, self.where = read, where
        head = read(0, 64)
        if len(head) < 52 or not head.startswith(MAGIC) or head[4] not in {1, 2} or head[5] not in {1, 2}:  # noqa: PLR2004 - size, class, byte order
            raise MalformedInput("not an ELF file", file=where)
        self.bits = 32 * head[4]
        self.order = "<" if head[5] == 1 else ">"
        wide = self.bits == 64  # noqa: PLR2004
        form = struct.Struct(f"{self.order}HHI{'QQQ' if wide else 'III'}IHHHHHH")
        if len(head) < 16 + form.size:
            raise MalformedInput("its ELF header is cut short", file=where)
        fields = form.unpack_from(head, 16)
        self.kind, self.machine, self.flags = fields[0], fields[1], fields[6]
        self._table, self._row, self._count = fields[4], fields[8], fields[9]
        self._wide = wide

    @cached_property
    def segments(self) -> tuple[Segment, ...]:
        """The program headers in order."""
        form = struct.Struct(f"{self.order}{'IIQQQQQQ' if self._wide else 'IIIIIIII'}")
        if self._count > MAX_SEGMENTS or (self._count and self._row < form.size):
            raise MalformedInput("more or smaller program headers than a linker writes", file=self.where)
        data = self.exactly(self._table, self._row * self._count)
        found = []
        for number in range(self._count):
            fields = form.unpack_from(data, number * self._row)
            if self._wide:
                kind, _, offset, address, _, size, _, align = fields
            else:
                kind, offset, address, _, size, _, _, align = fields
            found.append(Segment(kind, offset, address, size, align))
        return tuple(found)

    @cached_property
    def dynamic(self) -> tuple[tuple[int, int], ...]:
        """The dynamic section's tags and values up to its end mark; empty where there is none."""
        part = next((segment for segment in self.segments if segment.kind == DYNAMIC), None)
        if part is None:
            return ()
        form = struct.Struct(f"{self.order}{'qQ' if self._wide else 'iI'}")
        if part.size > MAX_DYNAMIC * form.size:
            raise MalformedInput("a dynamic section larger than a linker writes", file=self.where)
        data = self.exactly(part.offset, part.size - part.size % form.size)
        found: list[tuple[int, int]] = []
        for tag, value in form.iter_unpack(data):
            if tag == 0:
                break
            found.append((tag, value))
        return tuple(found)

    @cached_property
    def _values(self) -> dict[int, int]:
        return dict(reversed(self.dynamic))

    @property
    def soname(self) -> str | None:
        """The name that the library says it has."""
        return next((self.name(value) for tag, value in self.dynamic if tag == SONAME), None)

    @property
    def needed(self) -> tuple[str, ...]:
        """The libraries that it asks for, in order."""
        return tuple(self.name(value) for tag, value in self.dynamic if tag == NEEDED)

    @property
    def notes(self) -> Iterator[ElfNote]:
        """The notes of all note segments; the rest of a segment that is damaged is passed over, as linkers do."""
        for segment in self.segments:
            if segment.kind == NOTE and segment.size <= MAX_NOTES:
                yield from self._notes(self.exactly(segment.offset, segment.size), 8 if segment.align == 8 else 4)  # noqa: PLR2004

    def value(self, tag: int) -> int | None:
        """Return the first value of a tag of the dynamic section."""
        return self._values.get(tag)

    def name(self, offset: int) -> str:
        """Return the string at `offset` of the dynamic string table."""
        table, size = self.value(STRTAB), self.value(STRSZ)
        if table is None or (size is not None and offset >= size):
            raise MalformedInput("a name outside its string table", file=self.where)
        text, end, _ = self._read(self.offset_of(table) + offset, MAX_NAME).partition(b"\0")
        if not end:
            raise MalformedInput("a name without an end", file=self.where)
        return text.decode("utf-8", "surrogateescape")

    def offset_of(self, address: int) -> int:
        """Return where in the file the byte lies that is loaded at `address`."""
        for segment in self.segments:
            if segment.kind == LOAD and segment.address <= address < segment.address + segment.size:
                return address - segment.address + segment.offset
        raise MalformedInput("an address that no segment loads", file=self.where, text=hex(address))

    def _notes(self, data: bytes, align: int) -> Iterator[ElfNote]:
        at, head = 0, struct.Struct(f"{self.order}III")
        while at + head.size <= len(data):
            owner, size, kind = head.unpack_from(data, at)
            start = -(-(at + head.size + owner) // align) * align
            if start + size > len(data):
                return
            yield ElfNote(data[at + head.size : at + head.size + owner].rstrip(b"\0"), kind, data[start : start + size])
            at = -(-(start + size) // align) * align

    def exactly(self, offset: int, size: int) -> bytes:
        """Return `size` bytes at `offset` of the file; raises MalformedInput if it has no such bytes."""
        data = self._read(offset, size) if size else b""
        if len(data) != size:
            raise MalformedInput("cut short", file=self.where)
        return data

    def words(self, offset: int, count: int) -> tuple[int, ...]:
        """Return `count` numbers of 32 bits."""
        return struct.unpack(f"{self.order}{count}I", self.exactly(offset, 4 * count))

    def halves(self, offset: int, count: int) -> tuple[int, ...]:
        """Return `count` numbers of 16 bits."""
        return struct.unpack(f"{self.order}{count}H", self.exactly(offset, 2 * count))


def open_elf(data: bytes, where: str) -> Elf:
    """Open an ELF file that is in memory."""
    return Elf(lambda offset, size: data[offset : offset + size], where)
