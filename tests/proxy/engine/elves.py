"""Tiny ELF files for tests: header, one loaded segment, a dynamic section with symbols and versions. No code."""

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

BASE = 0x400000  # where the file is loaded: addresses and offsets must not be taken for one another

Pack = Callable[..., bytes]


@dataclass(frozen=True)
class Sym:
    """A symbol; `version` with a leading ``@`` is the default one (``name@@V``). `library` makes it an import."""

    name: str
    version: str = ""
    library: str | None = None
    weak: bool = False


def make_elf(
    soname: str = "",
    *,
    needed: Sequence[str] = (),
    symbols: Sequence[Sym] = (),
    versions: Sequence[str] = (),
    runpath: str = "",
    bits: int = 64,
    order: str = "<",
    machine: int = 62,
    gnu_hash: bool = False,
    weak_versions: Sequence[str] = (),
) -> bytes:
    """Return an ELF file. `versions` are defined in that order, those of `symbols` besides."""
    strings = _Strings()
    own = (symbol.version.lstrip("@") for symbol in symbols if symbol.library is None and symbol.version)
    defined = list(dict.fromkeys([*versions, *own]))
    numbers = {version: 2 + at for at, version in enumerate(defined)}
    asked: dict[str, dict[str, int]] = {}
    rows, indexes = [(0, 0, 0, 0)], [0]
    for symbol in sorted(symbols, key=lambda symbol: symbol.library is None):
        index = 1
        if symbol.library:
            index = asked.setdefault(symbol.library, {}).setdefault(symbol.version, 100 + sum(map(len, asked.values())))
        elif symbol.library is None and symbol.version:
            index = numbers[symbol.version.lstrip("@")] | (0 if symbol.version.startswith("@") else 0x8000)
        rows.append(
            (strings.add(symbol.name), 0x22 if symbol.weak else 0x12, 0, 0 if symbol.library is not None else 1)
        )
        indexes.append(index)
    wide = bits == 64
    pack = lambda form, *values: struct.pack(order + form, *values)  # noqa: E731 - a short name for many fields
    symtab = b"".join(
        pack("IBBHQQ", name, info, other, place, 0, 0) if wide else pack("IIIBBH", name, 0, 0, info, other, place)
        for name, info, other, place in rows
    )
    verdef = _verdef(pack, strings, soname, numbers)
    verneed = _verneed(pack, strings, asked, weak_versions)
    tags = [(1, strings.add(name)) for name in needed]
    tags += [(14, strings.add(soname))] if soname else []
    tags += [(29, strings.add(runpath))] if runpath else []
    tags += [(0x6FFFFFFD, 1 + len(defined))] if defined else []
    tags += [(0x6FFFFFFF, len(asked))] if asked else []
    parts = [(6, symtab), (0x6FFFFFF0, pack(f"{len(indexes)}H", *indexes) if defined or asked else b"")]
    parts += [(0x6FFFFFFC, verdef), (0x6FFFFFFE, verneed)]
    parts.append((0x6FFFFEF5, _gnu_hash(order, bits, rows)) if gnu_hash else (4, pack("II", 0, len(rows))))
    parts.append((5, bytes(strings.data)))
    tags.append((10, len(strings.data)))
    at = 64 + 2 * 56 if wide else 52 + 2 * 32
    body = b""
    for tag, data in parts:
        if data:
            tags.append((tag, BASE + at + len(body)))
            body += data
    tags.append((0, 0))
    dynamic = b"".join(pack("QQ" if wide else "II", tag, value) for tag, value in tags)
    return _head(wide, order, machine, at + len(body), len(dynamic)) + body + dynamic


def _verdef(pack: Pack, strings: "_Strings", soname: str, numbers: Mapping[str, int]) -> bytes:
    if not numbers:
        return b""
    made = pack("HHHHIII", 1, 1, 1, 1, 0, 20, 28) + pack("II", strings.add(soname), 0)
    for version, number in numbers.items():
        following = 28 if version != list(numbers)[-1] else 0
        made += pack("HHHHIII", 1, 0, number, 1, 0, 20, following) + pack("II", strings.add(version), 0)
    return made


def _verneed(
    pack: Pack, strings: "_Strings", asked: Mapping[str, Mapping[str, int]], weak_versions: Sequence[str]
) -> bytes:
    made = b""
    for library, found in asked.items():
        size = 16 + 16 * len(found)
        made += pack("HHIII", 1, len(found), strings.add(library), 16, 0 if library == list(asked)[-1] else size)
        for version, index in found.items():
            following = 0 if version == list(found)[-1] else 16
            flags = 2 if version in weak_versions else 0
            made += pack("IHHII", 0, flags, index, strings.add(version), following)
    return made


def _head(wide: bool, order: str, machine: int, at: int, size: int) -> bytes:
    ident = b"\x7fELF" + bytes([2 if wide else 1, 1 if order == "<" else 2, 1]) + bytes(9)
    start, row = (64, 56) if wide else (52, 32)
    word = "Q" if wide else "I"
    made = ident + struct.pack(f"{order}HHI{word * 3}IHHHHHH", 3, machine, 1, 0, start, 0, 0, start, row, 2, 0, 0, 0)
    for kind, offset, length in ((1, 0, at + size), (2, at, size)):
        if wide:
            made += struct.pack(f"{order}IIQQQQQQ", kind, 6, offset, BASE + offset, 0, length, length, 8)
        else:
            made += struct.pack(f"{order}IIIIIIII", kind, offset, BASE + offset, 0, length, length, 6, 4)
    return made


def _gnu_hash(order: str, bits: int, rows: Sequence[tuple[int, ...]]) -> bytes:
    """Return a table of one bucket: all defined symbols, which stand last."""
    first = next((number for number, row in enumerate(rows) if number and row[3]), len(rows))
    count = len(rows) - first
    chain = [2 * number | (number == count - 1) for number in range(count)]
    bloom = bytes(bits // 8)
    return (
        struct.pack(f"{order}IIII", 1, first, 1, 0)
        + bloom
        + struct.pack(f"{order}{1 + count}I", first if count else 0, *chain)
    )


class _Strings:
    def __init__(self) -> None:
        self.data = bytearray(b"\0")

    def add(self, text: str) -> int:
        at = len(self.data)
        self.data += text.encode() + b"\0"
        return at
