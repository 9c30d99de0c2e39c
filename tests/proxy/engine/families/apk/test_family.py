import io
import tarfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from proxy.engine.families.apk import ApkFamily
from proxy.engine.families.apk.database import render_installed
from proxy.engine.families.apk.repositories import read_sources
from proxy.engine.family import Distribution, PackageSource, Payload, SkippedSource, SourceSettings
from proxy.errors import MalformedInput, Unsupported
from tests.proxy.engine.filesystems import Link, make_fs, open_fs
from tests.support import data_path

FAMILY = ApkFamily()
INSTALLED = b"P:musl\nV:1.2.5-r0\nA:x86_64\n\nP:tzdata\nV:2024a-r1\nA:noarch\n\n"
OS_RELEASE = b'NAME="Alpine Linux"\nID=alpine\nVERSION_ID=3.20.3\nPRETTY_NAME="Alpine Linux v3.20"\n'
REPOSITORIES = b"""\
# a comment
http://archive.example/alpine/v3.20/main/
@edge https://archive.example/alpine/edge/community

/media/cdrom/apks
https://user:secret@archive.example/private
ftp://archive.example/alpine
@lonely
http://archive.example/a http://archive.example/b
http://[archive.example/
https:///path
"""


def open_files(files: dict[str, bytes | Link]) -> Any:
    fs = make_fs(files, FAMILY.keeps)
    return fs, FAMILY.open(fs)


@pytest.mark.parametrize(
    "files",
    [
        {"lib/apk/db/installed": INSTALLED},
        {"usr/lib/apk/db/installed": INSTALLED},
        {"usr/lib/apk/db/installed": INSTALLED, "lib": Link("usr/lib")},
        {"usr/lib/apk/db/installed": INSTALLED, "lib/apk": Link("../usr/lib/apk")},
        {"lib/apk/db/installed": INSTALLED, "usr/lib/apk/db": Link("/lib/apk/db")},
        {"lib/apk/db/installed": INSTALLED, "usr/lib/apk/db/installed": INSTALLED},
    ],
)
def test_database_is_found_in_either_place(files: dict[str, bytes | Link]) -> None:
    _, db = open_files({**files, "etc/os-release": OS_RELEASE})
    assert [item.key for item in db.packages] == ["musl", "tzdata"]
    assert db.arch == "x86_64"
    assert db.distribution == Distribution("alpine", "3.20.3", "", "Alpine Linux v3.20")
    assert render_installed(db.records) == INSTALLED


def test_path_of_the_database_is_where_it_really_lies() -> None:
    _, db = open_files({"usr/lib/apk/db/installed": INSTALLED, "lib": Link("usr/lib")})
    assert db.path == "usr/lib/apk/db/installed"


def test_two_databases_that_differ_are_refused() -> None:
    with pytest.raises(MalformedInput, match=r"differ \(lib/apk/db/installed and usr/lib/apk/db/installed\)"):
        open_files({"lib/apk/db/installed": INSTALLED, "usr/lib/apk/db/installed": INSTALLED * 0 + b"P:a\nV:1\n\n"})


def test_image_without_os_release_has_an_unknown_distribution() -> None:
    _, db = open_files({"lib/apk/db/installed": INSTALLED})
    assert db.distribution == Distribution("")


def test_architecture_that_the_image_writes_down_counts() -> None:
    _, db = open_files({"lib/apk/db/installed": INSTALLED, "etc/apk/arch": b"aarch64\n"})
    assert db.arch == "aarch64"


def test_world_of_the_image_holds_its_packages() -> None:
    _, db = open_files({"lib/apk/db/installed": INSTALLED, "etc/apk/world": b"musl=1.2.5-r0\n"})
    assert [bool(item.fixed) for item in db.packages] == [True, False]


def test_repositories_are_read_and_unusable_ones_named() -> None:
    files: dict[str, bytes | Link] = {
        "lib/apk/db/installed": INSTALLED,
        "etc/os-release": OS_RELEASE,
        "etc/apk/repositories": REPOSITORIES,
        "etc/apk/repositories.d/more.list": b"https://archive.example/more\n",
        "etc/apk/repositories.d/more.bak": b"https://archive.example/never\n",
    }
    fs, db = open_files(files)
    used, skipped = read_sources(fs, db)
    assert [(item.uri, item.written, item.options) for item in used] == [
        ("http://archive.example/alpine/v3.20/main", "etc/apk/repositories:2", {}),
        ("https://archive.example/alpine/edge/community", "etc/apk/repositories:3", {"tag": "edge"}),
        ("https://archive.example/more", "etc/apk/repositories.d/more.list:1", {}),
    ]
    assert {(item.family, item.arch, item.keys) for item in used} == {("apk", "x86_64", ("alpine",))}
    assert [(item.uri, item.written.rpartition(":")[2]) for item in skipped] == [
        ("/media/cdrom/apks", "5"),
        ("https://archive.example/private", "6"),
        ("ftp://archive.example/alpine", "7"),
        ("", "8"),
        ("http://archive.example/a", "9"),
        ("http://[archive.example/", "10"),
        ("https:///path", "11"),
    ]
    assert all(item.reason for item in skipped)
    assert "secret" not in repr((used, skipped))


def test_every_source_is_skipped_with_its_reason() -> None:
    fs, db = open_files({"lib/apk/db/installed": INSTALLED, "etc/apk/repositories": REPOSITORIES})
    used, skipped = FAMILY.sources(fs, db, SourceSettings())
    assert used == ()
    assert len(skipped) == 9
    assert [item.reason for item in skipped].count(FAMILY.inspect_only) == 2
    assert SkippedSource("http://archive.example/alpine/v3.20/main", "etc/apk/repositories:2", FAMILY.inspect_only) in (
        skipped
    )


def test_image_without_repositories_is_told_the_reason_too() -> None:
    fs, db = open_files({"lib/apk/db/installed": INSTALLED})
    used, (skip,) = FAMILY.sources(fs, db, SourceSettings())
    assert used == ()
    assert (skip.written, skip.reason) == ("etc/apk/repositories", FAMILY.inspect_only)


def test_patching_is_refused_with_the_reason_everywhere() -> None:
    fs, db = open_files({"lib/apk/db/installed": INSTALLED})
    source = PackageSource("apk", "https://archive.example/alpine/v3.20/main")
    package = db.packages[0].package
    spool = io.BytesIO()
    with pytest.raises(Unsupported, match="not patched yet"):
        FAMILY.refresh(source, SourceSettings(), datetime.now(UTC), spool)
    with pytest.raises(Unsupported, match="not patched yet"):
        FAMILY.candidates(fs, db, [])
    with pytest.raises(Unsupported, match="not patched yet"):
        FAMILY.available(db, [], "musl")
    with pytest.raises(Unsupported, match="not patched yet"):
        FAMILY.unpack(package, io.BytesIO(), spool, "spool")
    with pytest.raises(Unsupported, match="not patched yet"):
        FAMILY.record(fs, db, [])
    assert FAMILY.judge(fs, db, Payload(package, {}, ())).reason == FAMILY.inspect_only


@pytest.mark.data
@pytest.mark.parametrize(
    ("archive", "count", "arch", "version"),
    [
        ("alpine-3.20.3-x86_64", 14, "x86_64", "3.20.3"),
        ("alpine-3.20.3-aarch64", 14, "aarch64", "3.20.3"),
        ("alpine-3.10.9-x86_64", 14, "x86_64", "3.10.9"),
        ("alpine-3.7.3-x86_64", 13, "x86_64", "3.7.3"),
    ],
)
def test_alpine_images_are_read(archive: str, count: int, arch: str, version: str) -> None:
    fs = open_fs(data_path(f"rootfs/{archive}.tar.gz"), FAMILY.keeps)
    db = FAMILY.open(fs)
    assert db is not None
    assert (len(db.packages), db.arch) == (count, arch)
    assert (db.distribution.id, db.distribution.version) == ("alpine", version)
    assert not any(item.fixed for item in db.packages)
    assert render_installed(db.records) == fs.read("lib/apk/db/installed")
    used, skipped = read_sources(fs, db)
    assert [item.uri.rpartition("/")[2] for item in used] == ["main", "community"]
    assert skipped == ()


@pytest.mark.data
def test_wolfi_image_without_the_apk_binary_is_read(tmp_path: Path) -> None:
    with tarfile.open(data_path("images/wolfi-glibc-20240226-x86_64.oci.tar")) as tar:
        tar.extractall(tmp_path, filter="data")
    (layer,) = (path for path in tmp_path.rglob("*") if path.is_file() and path.read_bytes()[:2] == b"\x1f\x8b")
    db = FAMILY.open(open_fs(layer, FAMILY.keeps))
    assert db is not None
    assert (db.distribution.id, db.arch, len(db.packages)) == ("wolfi", "x86_64", 5)
