"""The dynamic linker's cache: when ldconfig would write another one."""

import struct
from pathlib import Path

import pytest

from proxy.engine.families.dpkg.database import keeps, open_database
from proxy.engine.families.dpkg.judge import judge
from proxy.engine.families.dpkg.ldcache import parse_linker_cache
from proxy.errors import MalformedInput
from tests.proxy.engine.families.dpkg.debs import Deb, run, unpack
from tests.proxy.engine.filesystems import Link, make_fs
from tests.support import require_tool

LIB = "usr/lib/x86_64-linux-gnu"
SHLIBS = b"libx 1 libx1 (>= 1)\n"


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


def reason(tmp_path: Path, new: Deb, *, interested: bytes = b"libc-bin\n", cached: bool = True) -> str:
    """Say why the upgrade of a library package to `new` would be skipped."""
    require_tool("dpkg-deb")
    names = ["", "/usr", "/usr/lib", f"/{LIB}", f"/{LIB}/libx.so.1", f"/{LIB}/libx.so.1.0"]
    files: dict[str, bytes | Link] = {
        "var/lib/dpkg/status": b"Package: libx1\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1\n\n",
        "var/lib/dpkg/info/libx1.list": "\n".join(["/.", *names[1:], ""]).encode(),
        "var/lib/dpkg/info/libx1.shlibs": SHLIBS,
        "var/lib/dpkg/info/libx1.triggers": b"activate-noawait ldconfig\n",
        "var/lib/dpkg/triggers/ldconfig": interested,
        f"{LIB}/libx.so.1.0": b"1",
        f"{LIB}/libx.so.1": Link("libx.so.1.0"),
    }
    if cached:
        files["etc/ld.so.cache"] = cache(("libx.so.1", f"/{LIB}/libx.so.1"), ("liby.so.1", f"/{LIB}/liby.so.1"))
    fs = make_fs(files, keeps)
    db = open_database(fs)
    assert db is not None
    return judge(fs, db, unpack(new, new.build(tmp_path))[0]).reason


def library(*names: str, shlibs: bytes = SHLIBS) -> Deb:
    files = {f"{LIB}/{name}": b"2" for name in names}
    links = {f"{LIB}/libx.so.1": Link(names[0])} if names[0] != "libx.so.1" else {}
    return Deb("libx1", "2", files={**files, **links}, control={"shlibs": shlibs, "triggers": b"activate ldconfig\n"})


@pytest.mark.interop
def test_a_new_file_behind_the_same_soname_leaves_the_cache_as_it_is(tmp_path: Path) -> None:
    assert reason(tmp_path, library("libx.so.1.1")) == ""


@pytest.mark.interop
@pytest.mark.parametrize(
    ("new", "because"),
    [
        (library("libx.so.1.1", "libz.so.3"), "libz.so.3 is new"),
        (library("libx.so.1.1", shlibs=b"libx 2 libx1\n"), "other libraries"),
        (Deb("libx1", "2", control={"shlibs": SHLIBS, "triggers": b"activate ldconfig\n"}), "has no /usr"),
    ],
)
def test_another_library_or_soname_is_a_reason_to_skip(tmp_path: Path, new: Deb, because: str) -> None:
    said = reason(tmp_path, new)
    assert "ld.so.cache" in said
    assert because in said


@pytest.mark.interop
def test_without_a_cache_ldconfig_would_make_one_if_anybody_is_interested(tmp_path: Path) -> None:
    assert "no cache now" in reason(tmp_path / "a", library("libx.so.1.1"), cached=False)
    assert reason(tmp_path / "b", library("libx.so.1.1"), cached=False, interested=b"") == ""


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
