"""What an ELF file offers to others and asks of them: symbols with their versions, as the dynamic linker sees them.

Owns reading the dynamic symbol table and the tables of versions; sections are not looked at, they may be stripped.
Every count and offset comes from a hostile file, and is bounded before anything is read.
Format: System V gABI chapter 5 (symbol and hash tables), https://www.akkadia.org/drepper/symbol-versioning
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from proxy.engine.elf import Elf
from proxy.errors import MalformedInput

MAX_SYMBOLS = 1 << 20  # libLLVM and libwebkit have some 50,000
MAX_STRINGS = 64 << 20  # bytes of their names
MAX_VERSIONS = 1 << 16  # definitions, or needs; the index of a version has 15 bits
MAX_VERSION_BYTES = 4 << 20

HASH, SYMTAB, SYMENT, STRTAB, STRSZ, GNU_HASH = 4, 6, 11, 5, 10, 0x6FFFFEF5
VERSYM, VERDEF, VERDEFNUM, VERNEED, VERNEEDNUM = 0x6FFFFFF0, 0x6FFFFFFC, 0x6FFFFFFD, 0x6FFFFFFE, 0x6FFFFFFF
RELA, RELASZ, REL, RELSZ, JMPREL, PLTRELSZ, PLTREL, MIPS_SYMTABNO = 7, 8, 17, 18, 23, 2, 20, 0x70000011
_MIPS = 8
_LOCAL, _WEAK, _HIDDEN, _BASE, _WEAK_VERSION = 0, 2, 0x8000, 2, 2


@dataclass(frozen=True, slots=True)
class Need:
    """A symbol that a file asks for: the version and the library it was linked against, both empty if it says none."""

    name: str
    version: str = ""
    library: str = ""

    @property
    def key(self) -> str:
        """As in `Symbols.provided`."""
        return f"{self.name}@{self.version}" if self.version else self.name


@dataclass(frozen=True, slots=True)
class Symbols:
    """What a file provides and needs.

    `provided` holds ``name@VERSION`` for every version of a symbol, ``name`` where one that asks for no version would
    find it (so a default that became an old version is missed), and ``@VERSION`` for every version defined. `needs`
    and `versions` (library, version) leave out what is weak: the linker does without.
    """

    provided: frozenset[str]
    needs: frozenset[Need]
    versions: frozenset[tuple[str, str]]

    @property
    def versioned(self) -> bool:
        """Whether it defines versions; in a library without them every version is found."""
        return any(name.startswith("@") for name in self.provided)


@dataclass(frozen=True, slots=True)
class VersionTables:
    """Versions by index: those that are defined, and those needed with their library; `raw` is how many bytes each."""

    defined: dict[int, str]
    needed: dict[int, tuple[str, str]]
    strong: frozenset[tuple[str, str]]
    defined_size: int = 0
    needed_size: int = 0


def read_symbols(elf: Elf) -> Symbols:
    """Read the symbols of an ELF file; raises MalformedInput where its tables are damaged."""
    tables = read_versions(elf)
    provided = {f"@{version}" for version in tables.defined.values()}
    needs: set[Need] = set()
    for name, weak, here, index in _rows(elf):
        number = index & ~_HIDDEN
        needed = tables.needed.get(number) if number >= _BASE else None
        if not here or needed is not None:  # a copy of a library's variable is here, and asked for all the same
            if not weak:
                library, version = needed or ("", "")
                needs.add(Need(name, version, library))
            continue
        if not index:
            continue
        if number >= _BASE and number in tables.defined:
            provided.add(f"{name}@{tables.defined[number]}")
        if number <= _BASE or not index & _HIDDEN:
            provided.add(name)
    return Symbols(frozenset(provided), frozenset(needs), tables.strong)


def count_symbols(elf: Elf) -> int:
    """Return how many rows the symbol table has: as its hash tables say, or as far as relocations reach."""
    if elf.machine == _MIPS and (count := elf.value(MIPS_SYMTABNO)) is not None:
        return _bounded(elf, count)
    if elf.value(GNU_HASH) is not None and (count := _count_hashed(elf)):  # first: the older table may lie far behind
        return count
    if (at := elf.value(HASH)) is not None:
        return _bounded(elf, elf.words(elf.offset_of(at) + 4, 1)[0])
    return _bounded(elf, max(_relocated(elf), default=-1) + 1)


def read_versions(elf: Elf) -> VersionTables:
    """Read the versions that a file defines and needs."""
    strings = read_strings(elf)
    defined: dict[int, str] = {}
    needed: dict[int, tuple[str, str]] = {}
    strong: set[tuple[str, str]] = set()
    sizes = [0, 0]
    for at, (_, flags, index, count, _, aux, _) in _chain(elf, VERDEF, VERDEFNUM, "HHHHIII"):
        sizes[0] = max(sizes[0], at + aux + 8)
        if count and not flags & 1:  # the base version is the file itself
            name = _unpack(elf, VERDEF, at + aux, "II")[0]
            defined[index & ~_HIDDEN] = _text(elf, strings, name)
    for at, (_, count, file, aux, _) in _chain(elf, VERNEED, VERNEEDNUM, "HHIII"):
        library, here = _text(elf, strings, file), at + aux
        for _ in range(count):
            _, flags, other, name, following = _unpack(elf, VERNEED, here, "IHHII")
            sizes[1] = max(sizes[1], here + 16)
            needed[other & ~_HIDDEN] = (library, _text(elf, strings, name))
            if not flags & _WEAK_VERSION:
                strong.add(needed[other & ~_HIDDEN])
            if len(needed) > MAX_VERSIONS:
                raise MalformedInput("more versions than can be numbered", file=elf.where)
            if not following:
                break
            here += following
    return VersionTables(defined, needed, frozenset(strong), *sizes)


def read_strings(elf: Elf) -> bytes:
    """Return the dynamic string table."""
    at, size = elf.value(STRTAB), elf.value(STRSZ) or 0
    if at is None:
        return b""
    if size > MAX_STRINGS:
        raise MalformedInput("more names than any library has", file=elf.where)
    return elf.exactly(elf.offset_of(at), size)


def _rows(elf: Elf) -> Iterator[tuple[str, bool, bool, int]]:
    """Yield of every symbol that takes part in linking: name, whether weak, whether defined here, version index."""
    at, count = elf.value(SYMTAB), count_symbols(elf) if elf.dynamic else 0
    if at is None or not count:
        return
    form = symbol_form(elf)
    rows = form.iter_unpack(elf.exactly(elf.offset_of(at), count * form.size))
    strings = read_strings(elf)
    versym = elf.value(VERSYM)
    indexes = elf.halves(elf.offset_of(versym), count) if versym is not None else (1,) * count
    wide = elf.bits == 64  # noqa: PLR2004
    for row, index in zip(rows, indexes, strict=True):
        name, info, other, where = (row[0], row[1], row[2], row[3]) if wide else (row[0], row[3], row[4], row[5])
        bind = info >> 4
        if not name or bind == _LOCAL or (where and other & 3 in {1, 2}):  # internal or hidden
            continue
        yield _text(elf, strings, name), bind == _WEAK, where != 0, index


def symbol_form(elf: Elf) -> struct.Struct:
    """Return the form of one row of the symbol table."""
    return struct.Struct(f"{elf.order}{'IBBHQQ' if elf.bits == 64 else 'IIIBBH'}")  # noqa: PLR2004


def _count_hashed(elf: Elf) -> int:
    """Return where the last chain of the GNU hash table ends; 0 if no symbol is in it."""
    start = elf.offset_of(elf.value(GNU_HASH) or 0)
    buckets, first, bloom, _ = elf.words(start, 4)
    if max(buckets, bloom) > MAX_SYMBOLS:
        raise MalformedInput("a hash table larger than any library has", file=elf.where)
    table = start + 16 + bloom * (elf.bits // 8)
    last = max(elf.words(table, buckets), default=0)
    if last < first or not last:
        return 0
    _bounded(elf, last)
    at = table + 4 * (buckets + last - first)
    while not elf.words(at, 1)[0] & 1:
        at, last = at + 4, _bounded(elf, last + 1)
    return last + 1


def _relocated(elf: Elf) -> Iterator[int]:
    """Yield the numbers of the symbols that relocations name."""
    wide = elf.bits == 64  # noqa: PLR2004
    with_addend = elf.value(PLTREL) == RELA
    for place, length, addend in ((RELA, RELASZ, True), (REL, RELSZ, False), (JMPREL, PLTRELSZ, with_addend)):
        at, size = elf.value(place), elf.value(length) or 0
        if at is None or not size:
            continue
        if size > MAX_STRINGS:
            raise MalformedInput("more relocations than any program has", file=elf.where)
        form = struct.Struct(f"{elf.order}{('QQq' if addend else 'QQ') if wide else ('IIi' if addend else 'II')}")
        for row in form.iter_unpack(elf.exactly(elf.offset_of(at), size - size % form.size)):
            yield row[1] >> (32 if wide else 8)


def _chain(elf: Elf, start: int, count: int, form: str) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Yield a table of versions entry by entry, with the place of each; the last field leads to the next."""
    number, at = elf.value(count) or 0, 0
    if number > MAX_VERSIONS:
        raise MalformedInput("more versions than can be numbered", file=elf.where)
    if elf.value(start) is None:
        return
    for _ in range(number):
        fields = _unpack(elf, start, at, form)
        yield at, fields
        if not fields[-1]:
            return
        at += fields[-1]


def _unpack(elf: Elf, start: int, at: int, form: str) -> tuple[int, ...]:
    packed = struct.Struct(elf.order + form)
    if at > MAX_VERSION_BYTES:
        raise MalformedInput("a table of versions larger than any library has", file=elf.where)
    return packed.unpack(elf.exactly(elf.offset_of(elf.value(start) or 0) + at, packed.size))


def _text(elf: Elf, strings: bytes, at: int) -> str:
    end = strings.find(b"\0", at)
    if end < 0:
        raise MalformedInput("a name outside its string table", file=elf.where)
    return strings[at:end].decode("utf-8", "surrogateescape")


def _bounded(elf: Elf, count: int) -> int:
    if count > MAX_SYMBOLS:
        raise MalformedInput("more symbols than any library has", file=elf.where)
    return count
