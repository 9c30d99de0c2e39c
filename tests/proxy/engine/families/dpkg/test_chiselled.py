"""Chiselled images: parts of packages, a status that was made for scanners, or chisel's own manifest."""

import hashlib
import json
from dataclasses import replace

import pytest
import zstandard

from proxy.engine.families.dpkg.chisel import parse_manifest, render_manifest, renewed
from proxy.engine.families.dpkg.database import MANIFEST, Form, open_database
from proxy.engine.families.dpkg.judge import judge
from proxy.engine.families.dpkg.record import record_upgrade
from proxy.engine.tar import Entry, Kind
from tests.proxy.engine.families.dpkg.test_distroless import image, payload
from tests.proxy.engine.filesystems import Link, make_fs
from tests.support import data_path

LIB = "usr/lib/x86_64-linux-gnu"
STATUS = b"""Package: tool
Status: install ok installed
Version: 1
Architecture: amd64
Maintainer: x
Description: x

Package: other
Status: install ok installed
Version: 1
Architecture: amd64
Maintainer: x
Description: x
"""
BASE = {"var/lib/dpkg/status": STATUS, "usr/bin/tool": b"1", "etc/tool.conf": b"1"}
NEW = payload("tool", {"usr/bin/tool": b"2", "usr/bin/more": b"2", "usr/share/doc/tool/copyright": b"2"})


def upgrade(fs, new):
    db = open_database(fs)
    judgement = judge(fs, db, new)
    assert judgement.reason == ""
    return judgement, {entry.path: entry for entry in record_upgrade(fs, db, (new,)) if entry.kind is not Kind.DIR}


def test_a_status_without_dpkg_and_lists_is_that_of_parts_of_packages():
    assert {record.form for record in open_database(image(BASE)).records.values()} == {Form.PARTIAL}
    for path in ("usr/bin/dpkg", "var/lib/dpkg/info/other.list"):
        assert open_database(image({**BASE, path: b"x"})).records["tool"].form is Form.STATUS


def test_only_files_that_the_image_has_are_touched():
    judgement, entries = upgrade(image(BASE), NEW)
    assert set(entries) == {"usr/bin/tool", "var/lib/dpkg/status"}
    assert entries["usr/bin/tool"].content == b"2"
    assert judgement.notes == ("the image has parts of packages: 1 of its 3 files are renewed, none is added",)


def test_the_status_says_the_new_version_and_keeps_the_others():
    db = open_database(image(BASE))
    record = db.record_of(NEW.package)
    _, entries = upgrade(image(BASE), NEW)
    text = entries["var/lib/dpkg/status"].content.decode()
    assert record.installed.package.version == "1"
    assert text.count("Package: ") == 2
    assert "Status: install ok installed" in text


def test_a_library_takes_its_new_file_name_when_its_link_leads_there():
    files = {
        "var/lib/dpkg/status": STATUS,
        f"{LIB}/libtool.so.1": Link("libtool.so.1.2"),
        f"{LIB}/libtool.so.1.2": b"1",
    }
    new = payload("tool", {f"{LIB}/libtool.so.1.3": b"2", f"{LIB}/libmore.so.1": b"2"})
    new = replace(new, entries=(*new.entries, Entry(f"{LIB}/libtool.so.1", Kind.SYMLINK, target="libtool.so.1.3")))
    _, entries = upgrade(make_fs(files, lambda _: True), new)
    assert {path: entry.kind for path, entry in entries.items() if path.startswith(LIB)} == {
        f"{LIB}/libtool.so.1": Kind.SYMLINK,
        f"{LIB}/libtool.so.1.2": Kind.WHITEOUT,
        f"{LIB}/libtool.so.1.3": Kind.FILE,
    }


@pytest.mark.parametrize(("layers", "moves"), [((BASE,), True), ((BASE, {"etc/tool.conf": b"own"}), False)])
def test_a_conffile_that_a_later_layer_changed_is_kept(layers, moves):
    judgement, entries = upgrade(image(*layers), payload("tool", {"etc/tool.conf": b"2"}, ["etc/tool.conf"]))
    assert ("etc/tool.conf" in entries) is moves
    assert any("changed in another layer and is kept" in note for note in judgement.notes) is not moves


def test_a_hard_link_to_a_part_that_is_not_there_skips_the_package():
    new = replace(NEW, entries=(*NEW.entries, Entry("usr/bin/alias", Kind.HARDLINK, target="usr/bin/more")))
    fs = image({**BASE, "usr/bin/alias": b"1"})
    assert "hard link to /usr/bin/more" in judge(fs, open_database(fs), new).reason


def manifest(*rows):
    lines = [{"jsonwall": "1.0", "schema": "1.0", "count": len(rows) + 1}, *rows]
    text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
    return zstandard.ZstdCompressor().compress(text.encode())


TOOL = {"kind": "package", "name": "tool", "version": "1", "sha256": "0" * 64, "arch": "amd64"}
PATH = {"kind": "path", "path": "/usr/bin/tool", "mode": "0755", "slices": ["tool_bins"], "sha256": "0" * 64, "size": 1}
OTHER = {"kind": "path", "path": "/usr/bin/z", "mode": "0755", "slices": ["z_bins"], "sha256": "1" * 64, "size": 1}
PACKAGED = replace(NEW, package=replace(NEW.package, fields={"SHA256": "2" * 64}))


def chiselled(*rows):
    return image({**BASE, "usr/share/doc/tool/copyright": b"own", MANIFEST: manifest(*rows)})


def test_the_manifest_stays_true():
    _, entries = upgrade(chiselled(TOOL, PATH, OTHER), PACKAGED)
    assert set(entries) == {"usr/bin/tool", "var/lib/dpkg/status", MANIFEST}
    new = parse_manifest(entries[MANIFEST].content)
    assert new.line(1) == {**TOOL, "version": "2", "sha256": "2" * 64}
    assert new.line(2) == {**PATH, "mode": "0644", "sha256": hashlib.sha256(b"2").hexdigest(), "size": 1}
    assert new.line(3) == OTHER


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ((PATH,), "does not name it"),
        ((TOOL, {**PATH, "final_sha256": "0" * 64}), "changed by a slice's script"),
        ((TOOL, {**PATH, "inode": 1}), "of another kind"),
        ((TOOL, {**PATH, "link": "other"}), "of another kind"),
    ],
)
def test_a_manifest_that_could_not_stay_true_skips_the_package(rows, reason):
    fs = chiselled(*rows)
    assert reason in judge(fs, open_database(fs), PACKAGED).reason


@pytest.mark.parametrize("data", [b"x", manifest({"kind": "path"}), zstandard.ZstdCompressor().compress(b"[]\n")])
def test_a_damaged_manifest_skips_the_package(data):
    fs = image({**BASE, MANIFEST: data})
    assert "chisel's manifest cannot be kept true" in judge(fs, open_database(fs), PACKAGED).reason


@pytest.mark.data
def test_a_real_manifest_is_read_and_written_back():
    data = data_path("pkgdb/ubuntu-chisel/openssl.manifest.wall").read_bytes()
    found = parse_manifest(data)
    assert set(found.packages) == {"base-files", "libc6", "libssl3t64", "openssl"}
    assert found.line(found.paths["usr/bin/openssl"])["size"] == 1005368
    assert parse_manifest(render_manifest(found)) == found
    fs = image({})
    package = replace(NEW.package, name="openssl", fields={"SHA256": "2" * 64})
    entry = Entry("usr/bin/openssl", Kind.FILE, mode=0o755, content=b"new", size=3)
    changed = renewed(fs, found, [package], [entry])
    differing = [number for number, line in enumerate(changed.lines) if line != found.lines[number]]
    assert differing == sorted([found.packages["openssl"], found.paths["usr/bin/openssl"]])
    assert list(changed.lines[1:]) == sorted(changed.lines[1:])
