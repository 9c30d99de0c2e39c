"""Where a dpkg database may lie and what its files may be called: links, layers, odd names; and where it is gone."""

import base64

import pytest

from proxy.engine.families.dpkg.database import Form, keeps, open_database
from proxy.engine.families.dpkg.judge import judge
from proxy.engine.families.dpkg.record import record_upgrade
from proxy.engine.nodatabase import why_none
from proxy.engine.tar import Kind
from tests.proxy.engine.families.dpkg.test_distroless import STANZA, image, payload, sums_of
from tests.proxy.engine.filesystems import Link, layered, make_fs

WHOLE = b"Package: tool\nStatus: install ok installed\nVersion: 1\nArchitecture: amd64\nMaintainer: x\nDescription: x\n"
NEW = payload("tool", {"usr/bin/tool": b"2"})


def upgraded(fs):
    db = open_database(fs)
    assert judge(fs, db, NEW).reason == ""
    return {entry.path: entry for entry in record_upgrade(fs, db, (NEW,)) if entry.kind is not Kind.DIR}


@pytest.mark.parametrize("place", ["usr/lib/sysimage/dpkg", "opt/dpkg"])
def test_a_database_behind_a_link_is_read_and_written_where_it_lies(place):
    files = {
        f"{place}/status": WHOLE,
        f"{place}/info/tool.list": b"/.\n/usr\n/usr/bin\n/usr/bin/tool\n/usr/bin/old\n",
        "var/lib/dpkg": Link(f"/{place}"),
        "usr/bin/tool": b"1",
        "usr/bin/old": b"1",
    }
    found = upgraded(make_fs(files, keeps))
    assert f"{place}/status" in found
    assert f"{place}/info/tool.list" in found
    assert found["usr/bin/old"].kind is Kind.WHITEOUT
    assert not any(path.startswith("var/lib/dpkg") for path in found)


@pytest.mark.parametrize(
    "name", ["tool", "tool1", "TOOL", base64.b64encode(b"tool").decode(), base64.urlsafe_b64encode(b"t/o=o?l").decode()]
)
def test_records_keep_their_files_names_whatever_they_are(name):
    file = f"var/lib/dpkg/status.d/{name}"
    fs = image({file: STANZA % b"tool", f"{file}.md5sums": sums_of("usr/bin/tool", b"1"), "usr/bin/tool": b"1"})
    found = upgraded(fs)
    assert {file, f"{file}.md5sums", "usr/bin/tool"} == set(found)
    assert b"Package: tool" in found[file].content


def test_sums_stay_beside_their_record_and_say_what_is_there():
    file = "var/lib/dpkg/status.d/tool"
    new = payload("tool", {"usr/bin/tool": b"2"})
    new.control["md5sums"] = sums_of("usr/bin/tool", b"2")
    fs = image({file: STANZA % b"tool", f"{file}.md5sums": sums_of("usr/bin/tool", b"1"), "usr/bin/tool": b"1"})
    found = {entry.path: entry for entry in record_upgrade(fs, open_database(fs), (new,))}
    assert found[f"{file}.md5sums"].content == sums_of("usr/bin/tool", b"2")
    bare = image({file: STANZA % b"tool", "usr/bin/tool": b"1"})
    assert f"{file}.md5sums" not in {entry.path for entry in record_upgrade(bare, open_database(bare), (new,))}


def test_both_forms_of_the_database_stand_side_by_side():
    whole = {"var/lib/dpkg/status": WHOLE, "var/lib/dpkg/info/tool.list": b"/.\n"}
    fs = image(whole, {"var/lib/dpkg/status.d/base": STANZA % b"base-files"})
    forms = {key: record.form for key, record in open_database(fs).records.items()}
    assert forms == {
        "tool": Form.STATUS,
        "base-files": Form.STATUS_D,
    }


def test_a_package_that_both_forms_record_may_not_move():
    fs = image({"var/lib/dpkg/status": WHOLE, "var/lib/dpkg/status.d/tool": STANZA % b"tool"})
    (installed,) = open_database(fs).packages
    assert "nothing says which one is true" in installed.fixed


def test_a_database_of_a_middle_layer_is_found_and_one_that_was_removed_is_named():
    layers = ({"etc/os-release": b"ID=debian\n"}, {"var/lib/dpkg/status": WHOLE}, {"usr/bin/app": b"1"})
    assert [item.key for item in open_database(layered(*layers, keep=keeps)[-1]).packages] == ["tool"]
    for whiteout in ("var/lib/dpkg/.wh.status", "var/lib/.wh.dpkg", "var/lib/dpkg/.wh..wh..opq"):
        fs = layered(*layers, {whiteout: b""}, keep=keeps)[-1]
        assert open_database(fs) is None
        assert "var/lib/dpkg/status was removed by a later layer" in why_none(fs)


def test_an_empty_database_names_no_package():
    for content in (b"", b"\n"):
        fs = image({"var/lib/dpkg/status": content})
        assert open_database(fs) is None
        assert "is empty" in why_none(fs)


def test_a_chiselled_image_without_a_database_says_so():
    fs = image({"var/lib/chisel/manifest.wall": b"x"})
    assert open_database(fs) is None
    assert "chiselled image without dpkg's database" in why_none(fs)
