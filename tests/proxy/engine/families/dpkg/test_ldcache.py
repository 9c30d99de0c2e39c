"""The dynamic linker's cache as it is read."""

import struct
from pathlib import Path

import pytest

from proxy.engine.families.dpkg.ldcache import parse_linker_cache
from proxy.errors import MalformedInput
from tests.proxy.engine.families.dpkg.debs import run
from tests.support import require_tool


def cache(*pairs: tuple[str, str]) -> bytes:
    """Make a cache in glibc's present format."""
    head = len(b"glibc-ld.so.cache1.1") + 28
    strings, entries = b"", b""
    base = head + 24 * len(pairs)
    for soname, path in pairs:
        key = base + len(strings)
        value = key + len(soname) + 1
        strings += soname.encode() + b"\0" + path.encode() + b"\0"
        entries += struct.pack("<iIIIQ", 0x0303, key, value, 0, 0)
    return b"glibc-ld.so.cache1.1" + struct.pack("<II20x", len(pairs), len(strings)) + entries + strings


@pytest.mark.interop
def test_the_cache_of_this_machine_reads_as_ldconfig_prints_it(tmp_path: Path) -> None:
    ldconfig = require_tool("ldconfig")
    path = Path("/etc/ld.so.cache")
    if not path.exists():
        pytest.skip("this machine has no /etc/ld.so.cache")
    printed = [line.split(" => ") for line in run(ldconfig, "-p").splitlines() if " => " in line]
    expected = [(left.strip().split(" ")[0], right) for left, right in printed]
    found = parse_linker_cache(path.read_bytes()).entries
    assert [(entry.soname, entry.path) for entry in found] == expected


@pytest.mark.parametrize("data", [b"", b"ld.so-1.7.0\0", b"glibc-ld.so.cache1.1\xff\xff", cache(("a", "/b"))[:-20]])
def test_a_damaged_cache_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedInput):
        parse_linker_cache(data)
