"""The dpkg database in both forms."""

import csv
import io
import lzma

import pytest

from proxy.engine.families.dpkg.database import DpkgDb, Form, keeps, open_database, parse_conffiles, parse_md5sums
from proxy.engine.rootfs import RootFS, scan_layer
from proxy.errors import MalformedInput
from tests.proxy.engine.filesystems import make_fs
from tests.support import data_path


def stanza(name: str, status: str = "install ok installed", more: str = "", arch: str = "amd64") -> str:
    return f"Package: {name}\nStatus: {status}\nArchitecture: {arch}\nVersion: 1\n{more}\n"


def opened(files: dict[str, bytes]) -> DpkgDb:
    db = open_database(make_fs(files, keeps))
    assert db is not None
    return db


def with_status(*stanzas: str) -> DpkgDb:
    return opened({"var/lib/dpkg/status": "".join(stanzas).encode()})


def test_held_and_unfinished_packages_are_fixed_with_the_reason() -> None:
    db = with_status(
        stanza("a"),
        stanza("b", "hold ok installed"),
        stanza("c", "install ok half-configured"),
        stanza("d", "install reinstreq installed"),
        stanza("e", "deinstall ok installed"),
        stanza("f", "deinstall ok config-files"),
        stanza("g", "unknown ok not-installed"),
    )
    fixed = {item.key: item.fixed for item in db.packages}
    assert fixed["a"] == ""
    assert "held" in fixed["b"]
    assert "half-configured" in fixed["c"]
    assert "reinstreq" in fixed["d"]
    assert "deinstall" in fixed["e"]
    assert set(fixed) == {"a", "b", "c", "d", "e"}


def test_foreign_packages_are_keyed_with_their_architecture() -> None:
    db = with_status(stanza("dpkg"), stanza("libc6"), stanza("libc6", arch="i386"), stanza("tzdata", arch="all"))
    assert [item.key for item in db.packages] == ["dpkg", "libc6", "libc6:i386", "tzdata"]
    assert db.arch == "amd64"


def test_the_same_package_twice_is_malformed() -> None:
    with pytest.raises(MalformedInput, match="a is there twice"):
        with_status(stanza("a"), stanza("a"))


def test_nothing_of_a_database_interrupted_in_its_work_may_move() -> None:
    db = opened({"var/lib/dpkg/status": stanza("a").encode(), "var/lib/dpkg/updates/0001": b"x"})
    assert "interrupted" in db.packages[0].fixed


def test_status_d_names_are_arbitrary_and_md5sums_are_no_packages() -> None:
    folder = "var/lib/dpkg/status.d"
    plain = b"Package: libssl1.1\nVersion: 1\nArchitecture: arm64\n"
    files = {f"{folder}/libssl1": plain, f"{folder}/bGliYw": plain.replace(b"libssl1.1", b"libc6")}
    db = opened({**files, f"{folder}/libssl1.md5sums": b"%s  usr/lib/a\n" % (b"0" * 32), f"{folder}/empty": b""})
    assert {key: (record.file, record.form) for key, record in db.records.items()} == {
        "libc6": (f"{folder}/bGliYw", Form.STATUS_D),
        "libssl1.1": (f"{folder}/libssl1", Form.STATUS_D),
    }
    assert db.arch == "arm64"
    assert db.files(db.records["libssl1.1"]) == ("usr/lib/a",)


def test_a_package_in_both_forms_may_not_move_and_others_of_either_may() -> None:
    plain = b"Package: %s\nVersion: 1\nArchitecture: amd64\n"
    folder = "var/lib/dpkg/status.d"
    db = opened({"var/lib/dpkg/status": stanza("a").encode(), f"{folder}/a": plain % b"a", f"{folder}/b": plain % b"b"})
    assert {item.key: bool(item.fixed) for item in db.packages} == {"a": True, "b": False}


def test_an_image_without_either_form_is_not_dpkg_s() -> None:
    assert open_database(make_fs({"etc/passwd": b""}, keeps)) is None
    assert open_database(make_fs({"var/lib/dpkg/status": b""}, keeps)) is None


def test_conffiles_and_md5sums_are_parsed_and_refused() -> None:
    digest = "0" * 32
    assert parse_conffiles(f"\n /etc/a b {digest}\n /etc/c {digest} obsolete") == {
        "/etc/a b": (digest, ""),
        "/etc/c": (digest, "obsolete"),
    }
    assert parse_md5sums(f"{digest}  a b\n{digest}  ./c\n".encode()) == {"a b": digest, "c": digest}
    with pytest.raises(MalformedInput):
        parse_conffiles("\n /etc/a")
    with pytest.raises(MalformedInput, match="x:2"):
        parse_md5sums(f"{digest}  a\nbad\n".encode(), "x")


@pytest.mark.data
@pytest.mark.parametrize("name", ["debian-11.5-nginx1.23-amd64", "ubuntu-20.04.6-amd64"])
def test_real_databases_read_as_dpkg_query_reads_them(name: str) -> None:
    captures = io.BytesIO()
    with lzma.open(data_path(f"rootfs/{name}.tar.xz")) as stream:
        index = scan_layer(stream, "", keep=keeps, captures=captures, captures_name="c", where=name)
    kept = captures.getvalue()
    db = open_database(RootFS([index], lambda span: kept[span.offset : span.offset + span.size]))
    assert db is not None
    found = [
        [p.package.name, p.package.version, p.package.arch, p.package.source, p.package.source_version]
        for p in db.packages
    ]
    with data_path(f"expected/{name}.dpkg.tsv").open() as stream:
        rows = [row for row in csv.reader(stream, delimiter="\t") if row[5] == "installed"]
    expected = [[row[0].partition(":")[0], *row[1:5]] for row in rows]
    assert sorted(found) == sorted(expected)
    assert db.distribution.id == name.partition("-")[0]
    assert db.arch == "amd64"
