"""What ELF files offer and need: made ones, the machine's own as readelf reads them, damaged ones refused."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.engine.elf import open_elf
from proxy.engine.elfsymbols import Need, read_symbols
from proxy.engine.outline import outline_bytes, outline_stream
from proxy.errors import MalformedInput
from tests.proxy.engine.elves import Sym, make_elf
from tests.support import require_tool

SYMBOLS = [
    Sym("new", "@LIB_2"),
    Sym("old", "LIB_1"),
    Sym("old", "@LIB_2"),
    Sym("plain"),
    Sym("read", "C_1", "libc.so.6"),
    Sym("perhaps", "C_9", "libc.so.6", weak=True),
    Sym("anywhere", "", ""),
]
ROW = re.compile(r"^ *\d+: \S+ +\d+ \S+ +(GLOBAL|WEAK|UNIQUE) +(DEFAULT|PROTECTED).* +(\w+) (\S+)", re.MULTILINE)
FORMS = [(64, "<", 62), (64, ">", 22), (32, "<", 3), (32, ">", 8)]


def library(bits: int = 64, order: str = "<", machine: int = 62, *, gnu_hash: bool = False) -> bytes:
    return make_elf(
        "libx.so.1",
        needed=["libc.so.6"],
        symbols=SYMBOLS,
        versions=["LIB_0", "LIB_1", "LIB_2"],
        weak_versions=["C_9"],
        bits=bits,
        order=order,
        machine=machine,
        gnu_hash=gnu_hash,
    )


@pytest.mark.parametrize("gnu_hash", [True, False])
@pytest.mark.parametrize(("bits", "order", "machine"), FORMS)
def test_symbols_are_read_whatever_the_class_the_order_and_the_hash_table(bits, order, machine, gnu_hash):
    elf = open_elf(library(bits, order, machine, gnu_hash=gnu_hash), "x")
    symbols = read_symbols(elf)
    assert symbols.provided == {
        *("@LIB_0", "@LIB_1", "@LIB_2"),
        *("new@LIB_2", "new", "old@LIB_1", "old@LIB_2", "old", "plain"),
    }
    assert symbols.needs == {Need("read", "C_1", "libc.so.6"), Need("anywhere")}
    assert symbols.versions == {("libc.so.6", "C_1")}
    assert (elf.soname, elf.needed) == ("libx.so.1", ("libc.so.6",))


@pytest.mark.parametrize("piece", [1, 100, 10_000])
@pytest.mark.parametrize(("bits", "order", "machine"), FORMS)
def test_an_outline_says_what_its_file_says(bits, order, machine, piece):
    data = library(bits, order, machine, gnu_hash=True)
    pieces = iter([data[at : at + piece] for at in range(0, len(data), piece)])
    outline = outline_stream(lambda: next(pieces, b""), len(data), "x")
    assert outline == outline_bytes(data, "x")
    assert outline is not None
    small, whole = open_elf(outline, "x"), open_elf(data, "x")
    assert read_symbols(small) == read_symbols(whole)
    assert (small.soname, small.needed, small.bits, small.order, small.machine) == (
        *(whole.soname, whole.needed, whole.bits, whole.order, whole.machine),
    )
    assert outline_bytes(outline, "x") == outline


def test_what_is_no_elf_file_has_an_empty_outline():
    assert outline_stream(iter([b"GROUP ( libc.so.6 )", b""]).__next__, 19, "libc.so") == b""


@pytest.mark.interop
def test_the_libraries_of_this_machine_offer_what_readelf_reads():
    readelf = require_tool("readelf")
    paths = [
        Path(sys.executable).resolve(),
        *sorted(Path("/usr/lib/x86_64-linux-gnu").glob("lib[cmsz]*.so.[0-9]*"))[:20],
    ]
    for path in paths:
        symbols = read_symbols(open_elf(path.read_bytes(), str(path)))
        said = subprocess.run([readelf, "--dyn-syms", "-W", path], capture_output=True, text=True, check=True).stdout
        rows = re.findall(
            r"^ *\d+: \S+ +\d+ \S+ +(GLOBAL|WEAK|UNIQUE) +(DEFAULT|PROTECTED).* +(\w+) (\S+)", said, re.MULTILINE
        )
        assert {need.key for need in symbols.needs} >= {
            name for bind, _, place, name in rows if place == "UND" and bind != "WEAK"
        }
        offered = {name.replace("@@", "@") for _, _, place, name in rows if place != "UND"}
        copies = {need.key for need in symbols.needs}
        assert offered - copies <= symbols.provided
        outline = open_elf(outline_bytes(path.read_bytes(), str(path)), str(path))
        assert read_symbols(outline) == symbols


@settings(max_examples=200)
@given(st.binary(min_size=1, max_size=8), st.integers(0, 1200), st.booleans())
def test_damaged_tables_are_read_or_refused_and_nothing_else(noise, at, gnu_hash):
    whole = library(gnu_hash=gnu_hash)
    for data in (whole[:at], whole[:at] + noise + whole[at + len(noise) :]):
        pieces = iter([data])
        outline_stream(lambda pieces=pieces: next(pieces, b""), len(data), "x")
        try:
            read_symbols(open_elf(data, "x"))
        except MalformedInput:
            continue
