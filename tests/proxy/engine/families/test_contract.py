"""What every family owes the engine; a new family joins by a line in FAMILIES and an example here."""

import io
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from proxy.engine.families import FAMILIES
from proxy.engine.family import Distribution, Family, PackageSource, SourceSettings
from proxy.engine.rootfs import RootFS
from proxy.errors import MalformedInput, Unsupported
from tests.proxy.engine.filesystems import make_fs


@dataclass(frozen=True)
class Example:
    """A small system of a family, and what must be read from it. `versions` ascend."""

    database: str
    content: bytes
    sources: Mapping[str, bytes]
    packages: Mapping[str, str]
    arch: str
    os_release: bytes
    distribution: Distribution
    versions: tuple[str, ...]


EXAMPLES = {
    "dpkg": Example(
        database="var/lib/dpkg/status",
        content=(
            b"Package: libc6\nStatus: install ok installed\nArchitecture: amd64\nVersion: 2.36-9+deb12u4\n"
            b"Maintainer: a\nDescription: b\n\n"
            b"Package: tzdata\nStatus: install ok installed\nArchitecture: all\nVersion: 2024a-0+deb12u1\n"
            b"Maintainer: a\nDescription: b\n\n"
        ),
        sources={"etc/apt/sources.list": b"deb https://archive.example/debian bookworm main\n"},
        packages={"libc6": "2.36-9+deb12u4", "tzdata": "2024a-0+deb12u1"},
        arch="amd64",
        os_release=b'ID=debian\nVERSION_ID="12"\nVERSION_CODENAME=bookworm\nPRETTY_NAME="Debian 12"\n',
        distribution=Distribution("debian", "12", "bookworm", "Debian 12"),
        versions=("1.0~rc1-1", "1.0", "1.0-1", "1.0-1+deb12u1", "1.0-2", "1.0.1", "1.10", "1:0.5"),
    ),
    "apk": Example(
        database="lib/apk/db/installed",
        content=b"P:musl\nV:1.2.5-r0\nA:x86_64\n\nP:tzdata\nV:2024a-r1\nA:noarch\n\n",
        sources={"etc/apk/repositories": b"https://archive.example/alpine/v3.20/main\n"},
        packages={"musl": "1.2.5-r0", "tzdata": "2024a-r1"},
        arch="x86_64",
        os_release=b'ID=alpine\nVERSION_ID=3.20.3\nPRETTY_NAME="Alpine Linux v3.20"\n',
        distribution=Distribution("alpine", "3.20.3", "", "Alpine Linux v3.20"),
        versions=("1.0_rc1", "1.0", "1.0-r1", "1.0-r10", "1.0_p1", "1.0.1", "1.10", "2"),
    ),
}

each_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)


def kept(path: str) -> bool:
    """Keep what any family wants, as the engine's scan does."""
    return any(family.keeps(path) for family in FAMILIES)


def system_of(name: str, keep: Callable[[str], bool] = kept) -> RootFS:
    example = EXAMPLES[name]
    files = {example.database: example.content, "etc/os-release": example.os_release, **example.sources}
    return make_fs(files, keep)


def test_every_family_has_a_name_and_an_example() -> None:
    names = [family.name for family in FAMILIES]
    assert len(set(names)) == len(names)
    assert set(names) <= set(EXAMPLES)


@each_family
def test_own_database_is_opened(family: Family) -> None:
    example = EXAMPLES[family.name]
    db = family.open(system_of(family.name, family.keeps))
    assert db is not None
    assert {item.key: item.package.version for item in db.packages} == example.packages
    assert db.arch == example.arch
    assert db.distribution == example.distribution


@each_family
def test_other_databases_and_empty_roots_are_not_mine(family: Family) -> None:
    for other in set(EXAMPLES) - {family.name}:
        assert family.open(system_of(other)) is None
    assert family.open(make_fs({}, kept)) is None
    assert family.open(make_fs({"usr/bin/app": b"\x7fELF"}, kept)) is None


@each_family
def test_contents_that_no_family_reads_are_not_kept(family: Family) -> None:
    assert not family.keeps("usr/bin/app")
    assert not family.keeps("usr/lib/x86_64-linux-gnu/libc.so.6")
    assert family.keeps(EXAMPLES[family.name].database)


@each_family
@pytest.mark.parametrize("damage", [b"\0\0\0\0", b"neither field nor blank\n", b"\xff\xfe\n"])
def test_damaged_database_is_an_error_and_not_an_empty_one(family: Family, damage: bytes) -> None:
    example = EXAMPLES[family.name]
    fs = make_fs({example.database: damage + example.content}, family.keeps)
    with pytest.raises(MalformedInput, match=example.database):
        family.open(fs)


@each_family
def test_versions_are_in_total_order(family: Family) -> None:
    versions = EXAMPLES[family.name].versions
    for (i, a), (j, b) in itertools.product(enumerate(versions), repeat=2):
        order = family.compare(a, b)
        assert (order > 0) - (order < 0) == (i > j) - (i < j), (a, b)


@each_family
def test_every_source_belongs_to_the_family_and_every_skip_has_a_reason(family: Family) -> None:
    fs = system_of(family.name)
    db = family.open(fs)
    assert db is not None
    used, skipped = family.sources(fs, db, SourceSettings())
    assert any("archive.example" in item.uri for item in (*used, *skipped))  # used or named, never lost
    assert all(source.family == family.name for source in used)
    assert all(skip.reason for skip in skipped)


@each_family
def test_family_that_only_inspects_says_so_and_refuses_the_rest(family: Family) -> None:
    fs = system_of(family.name)
    db = family.open(fs)
    assert db is not None
    if not family.inspect_only:
        assert family.candidates(fs, db, []) == {}
        assert family.available(db, [], db.packages[0].package.name) == ()
        return
    used, skipped = family.sources(fs, db, SourceSettings())
    assert used == ()
    assert family.inspect_only in {skip.reason for skip in skipped}
    source = PackageSource(family.name, "https://archive.example")
    with pytest.raises(Unsupported, match=family.inspect_only):
        family.candidates(fs, db, [])
    with pytest.raises(Unsupported, match=family.inspect_only):
        family.record(fs, db, [])
    assert family.judge_removal(fs, db, db.packages[0].key).reason == family.inspect_only
    with pytest.raises(Unsupported, match=family.inspect_only):
        next(family.refresh(source, SourceSettings(), datetime.now(UTC), io.BytesIO()))
