"""The compact form of Packages files in which a package is found by name without loading the file.

Owns writing it from the text of Packages files in one pass with flat memory, and looking names up. Keeps only the
fields that planning and fetching need, and adds each stanza's component. Fields are taken in their canonical spelling,
as every archive tool writes them.
Specification of what goes in: deb822(5), Debian's DebianRepository/Format page

Form: MAGIC; stanzas, each after its length (4 bytes); the table of names; the table of provided names; then a footer:
offset and entry count of both tables (8 bytes each), MAGIC. An entry is 8 bytes, CRC-32 of the name above the stanza's
offset, tables are sorted; all integers are little-endian. A reader checks the name in the stanza, so collisions are
harmless.
"""

import struct
import sys
import zlib
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from proxy.errors import MalformedInput, ResourceExhausted

MAGIC = b"admdpkg1"
MAX_SIZE = 1 << 32  # offsets have 32 bits; Debian's main takes 26 MB

KEPT = (
    b"Package",
    b"Source",
    b"Version",
    b"Architecture",
    b"Multi-Arch",
    b"Pre-Depends",
    b"Depends",
    b"Recommends",
    b"Provides",
    b"Conflicts",
    b"Breaks",
    b"Phased-Update-Percentage",
    b"Filename",
    b"Size",
    b"SHA256",
)
COMPONENT = b"Component"  # not one of KEPT: what a stanza itself says there is dropped
_PREFIXES = frozenset((name + b":")[:5] for name in KEPT)
_FOOTER = struct.Struct("<QQQQ8s")
_LENGTH = struct.Struct("<I")


def write_stanzas(pieces: Iterable[bytes], spool: BinaryIO, where: str) -> int:
    """Write the stanzas of one Packages text, of no named component: see `write_texts`."""
    return write_texts([("", pieces)], spool, where)


def write_texts(texts: Iterable[tuple[str, Iterable[bytes]]], spool: BinaryIO, where: str) -> int:
    """Write the stanzas of Packages texts to `spool` from its start; returns how many.

    Args:
        texts: each with its component's name, which its stanzas get as a field, and its pieces of any size.
        spool: a file.
        where: the source's name in error messages.

    Raises MalformedInput for a stanza without a name, ResourceExhausted past the size that the form can hold.
    """
    spool.seek(0)
    spool.truncate()
    spool.write(MAGIC)
    offset = len(MAGIC)
    names, provided = array("Q"), array("Q")
    for mark, batch in _marked_batches(texts):
        output: list[bytes] = []
        for stanza in batch:
            kept = _keep(stanza)
            if not kept:
                continue
            kept += mark
            entry = b"\n".join(kept)
            names.append(zlib.crc32(_name(kept, where)) << 32 | offset)
            for name in _provides(entry):
                provided.append(zlib.crc32(name) << 32 | offset)
            output += (_LENGTH.pack(len(entry)), entry)
            offset += 4 + len(entry)
        if offset >= MAX_SIZE:
            raise ResourceExhausted(f"{where}: more than {MAX_SIZE} bytes of package data")
        spool.write(b"".join(output))
    _write_table(names, spool)
    _write_table(provided, spool)
    first = offset + 8 * len(names)
    spool.write(_FOOTER.pack(offset, len(names), first, len(provided), MAGIC))
    spool.flush()
    return len(names)


def _marked_batches(texts: Iterable[tuple[str, Iterable[bytes]]]) -> Iterator[tuple[list[bytes], list[bytes]]]:
    for component, pieces in texts:
        mark = [b"%s: %s" % (COMPONENT, component.encode())] if component else []
        for batch in _batches(pieces):
            yield mark, batch


def _batches(pieces: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Yield lists of whole stanzas; what a piece leaves over goes before the next."""
    rest: list[bytes] = []
    for piece in pieces:
        if b"\n\n" not in piece and not (rest and piece[:1] == b"\n"):
            rest.append(piece)
            continue
        stanzas = b"".join((*rest, piece)).split(b"\n\n")
        rest = [stanzas.pop()]
        yield stanzas
    yield b"".join(rest).split(b"\n\n")


def _keep(stanza: bytes) -> list[bytes]:
    """Return the lines of the fields that are kept."""
    lines = stanza.split(b"\n")
    if b"\n " not in stanza and b"\n\t" not in stanza:
        return [line for line in lines if line[:5] in _PREFIXES]
    kept: list[bytes] = []
    keeping = False
    for line in lines:
        if line[:1] not in {b" ", b"\t"}:
            keeping = line[:5] in _PREFIXES
        if keeping:
            kept.append(line)
    return kept


def _name(kept: list[bytes], where: str) -> bytes:
    for line in kept:
        if line.startswith(b"Package:"):
            return line[8:].strip()
    raise MalformedInput("a stanza without a Package field", file=where, text=kept[0].decode(errors="replace"))


def _provides(entry: bytes) -> Iterator[bytes]:
    start = entry.find(b"\nProvides:")
    if start < 0:
        return
    start += 10
    end = start
    while True:  # to the end of a value that may be folded
        end = entry.find(b"\n", end + 1)
        if end < 0 or entry[end + 1 : end + 2] not in {b" ", b"\t"}:
            break
    for item in entry[start : end if end >= 0 else None].split(b","):
        yield item.strip().split(b" ", 1)[0].split(b"(", 1)[0].split(b":", 1)[0]


def _write_table(table: "array[int]", spool: BinaryIO) -> None:
    ordered = array("Q", sorted(table))
    if sys.byteorder == "big":
        ordered.byteswap()
    spool.write(ordered.tobytes())


class StanzaReader:
    """Finds stanzas in a file that `write_stanzas` wrote.

    Args:
        stream: the file, seekable.
        where: its name in error messages.
    """

    def __init__(self, stream: BinaryIO, where: str) -> None:
        self._stream, self._where = stream, where
        size = stream.seek(0, 2)
        if size < len(MAGIC) + _FOOTER.size:
            raise MalformedInput("a package index that was not written to its end", file=where)
        stream.seek(size - _FOOTER.size)
        names_at, names, provided_at, provided, magic = _FOOTER.unpack(stream.read(_FOOTER.size))
        ends = (names_at + 8 * names, provided_at + 8 * provided)
        if magic != MAGIC or ends != (provided_at, size - _FOOTER.size):
            raise MalformedInput("a package index of another form, or damaged", file=where)
        self._end = names_at
        self._names = self._table(names_at, names)
        self._provided = self._table(provided_at, provided)

    def __len__(self) -> int:
        return len(self._names)

    def named(self, name: str) -> Iterator[bytes]:
        """Yield the stanzas of the packages that may be named `name`; the caller compares the name."""
        return self._find(self._names, name)

    def providing(self, name: str) -> Iterator[bytes]:
        """Yield the stanzas of the packages that may provide `name`; the caller compares the names."""
        return self._find(self._provided, name)

    def _table(self, offset: int, count: int) -> "array[int]":
        table = array("Q")
        self._stream.seek(offset)
        table.frombytes(self._stream.read(8 * count))
        if sys.byteorder == "big":
            table.byteswap()
        return table

    def _find(self, table: "array[int]", name: str) -> Iterator[bytes]:
        crc = zlib.crc32(name.encode(errors="surrogateescape"))
        for at in range(bisect_left(table, crc << 32), len(table)):
            if table[at] >> 32 != crc:
                return
            yield self._stanza(table[at] & 0xFFFFFFFF)

    def _stanza(self, offset: int) -> bytes:
        self._stream.seek(offset)
        head = self._stream.read(_LENGTH.size)
        length = _LENGTH.unpack(head)[0] if len(head) == _LENGTH.size else self._end
        if offset + length + _LENGTH.size > self._end:
            raise MalformedInput("a package index that is damaged", file=self._where)
        return self._stream.read(length)
