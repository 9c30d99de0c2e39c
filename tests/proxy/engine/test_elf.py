"""Reading ELF files: real ones as the real tools see them, damaged ones refused."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.engine.elf import open_elf
from proxy.errors import MalformedInput
from tests.support import require_tool

HEADER = 0x40 + 2 * 56


def library(dynamic: bytes = b"", notes: bytes = b"") -> bytes:
    """Return a 64-bit shared object with a dynamic section and a segment of notes."""
    word = lambda value, size: value.to_bytes(size, "little")  # noqa: E731 - a short name for many fields
    end = HEADER + 56 + len(dynamic)
    load = word(1, 4) + word(5, 4) + bytes(24) + word(4096, 8) * 2 + word(4096, 8)
    part = word(2, 4) + word(4, 4) + word(HEADER + 56, 8) + bytes(16) + word(len(dynamic), 8) * 2 + word(8, 8)
    note = word(4, 4) + word(4, 4) + word(end, 8) + bytes(16) + word(len(notes), 8) * 2 + word(4, 8)
    head = b"\x7fELF\2\1\1" + bytes(9) + word(3, 2) + word(62, 2) + word(1, 4) + bytes(8) + word(64, 8) + bytes(8)
    head += bytes(4) + word(64, 2) + word(56, 2) + word(3, 2) + bytes(6)
    return head + load + part + note + dynamic + notes


def entry(tag: int, value: int) -> bytes:
    return tag.to_bytes(8, "little") + value.to_bytes(8, "little")


def shared_object(soname: str) -> bytes:
    """Return a shared object of that name, as large as the smallest that a linker writes."""
    table = b"\0" + soname.encode() + b"\0"
    dynamic = entry(14, 1) + entry(5, HEADER + 56 + 4 * 16) + entry(10, len(table)) + entry(0, 0)
    return library(dynamic, table + bytes(2000))


@pytest.mark.interop
def test_the_libraries_of_this_machine_say_what_readelf_reads() -> None:
    readelf = require_tool("readelf")
    found = [
        Path(sys.executable).resolve(),
        *sorted(Path("/usr/lib/x86_64-linux-gnu").glob("lib[cmsz]*.so.[0-9]*"))[:25],
    ]
    for path in found:
        elf = open_elf(path.read_bytes(), str(path))
        said = subprocess.run([readelf, "-dW", str(path)], capture_output=True, text=True, check=True).stdout
        assert list(elf.needed) == re.findall(r"\(NEEDED\).*\[(.*)\]", said)
        assert [elf.soname] == (re.findall(r"\(SONAME\).*\[(.*)\]", said) or [None])
        notes = subprocess.run([readelf, "-nW", str(path)], capture_output=True, text=True, check=True).stdout
        ids = re.findall(r"Build ID: ([0-9a-f]+)", notes)
        assert [note.data.hex() for note in elf.notes if note.owner == b"GNU" and note.kind == 3] == ids


def test_names_and_notes_of_a_made_library_are_read() -> None:
    strings = HEADER + 56 + 5 * 16
    table = b"\0libx.so.1\0libc.so.6\0"
    dynamic = entry(1, 11) + entry(14, 1) + entry(5, strings) + entry(10, len(table)) + entry(0, 0)
    elf = open_elf(library(dynamic, table), "x")
    assert (elf.soname, elf.needed, elf.machine, elf.bits) == ("libx.so.1", ("libc.so.6",), 62, 64)
    note = b"\4\0\0\0\2\0\0\0\1\0\0\0GNU\0ab\0\0"
    assert [(found.owner, found.kind, found.data) for found in open_elf(library(b"", note), "x").notes] == [
        (b"GNU", 1, b"ab")
    ]


@pytest.mark.parametrize(
    "dynamic",
    [
        entry(14, 1) + entry(0, 0),
        entry(14, 1) + entry(5, 10**9) + entry(0, 0),
        entry(14, 10**9) + entry(5, 64) + entry(10, 4) + entry(0, 0),
        entry(14, 4000) + entry(5, 64) + entry(0, 0),
    ],
)
def test_a_name_that_lies_nowhere_is_refused(dynamic: bytes) -> None:
    with pytest.raises(MalformedInput):
        _ = open_elf(library(dynamic), "x").soname


@settings(max_examples=200)
@given(st.binary(max_size=64), st.integers(0, 300))
def test_a_damaged_file_is_read_or_refused_and_nothing_else(noise: bytes, at: int) -> None:
    whole = library(entry(14, 1) + entry(5, 64) + entry(0, 0), b"\4\0\0\0\2\0\0\0\1\0\0\0GNU\0ab\0\0")
    for data in (noise, whole[:at], whole[:at] + noise + whole[at + len(noise) :]):
        try:
            elf = open_elf(data, "x")
            _ = (elf.soname, elf.needed, list(elf.notes))
        except MalformedInput:
            continue
