"""The patch layer against dpkg itself: the same tree, upgraded by both, must come out the same."""

import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from proxy.engine.families.dpkg.database import keeps, open_database
from proxy.engine.families.dpkg.judge import judge as judge_payload
from proxy.engine.families.dpkg.record import record_upgrade
from proxy.engine.tar import Entry, Kind
from tests.proxy.engine.families.dpkg.debs import Deb, install, open_tree, run, tree_of, unpack, upgrade
from tests.proxy.engine.filesystems import Link, make_fs
from tests.support import data_path, require_root, require_tool

pytestmark = pytest.mark.interop

DISTROLESS = "rootfs/distroless-base-debian11-{}-derived.tar.xz"


@pytest.fixture(autouse=True)
def _tools() -> None:
    require_tool("dpkg")
    require_tool("dpkg-deb")
    require_root()


def judge(
    tmp_path: Path,
    old: Deb,
    new: Deb,
    *others: Deb,
    before: Mapping[str, bytes | Link | None] | None = None,
    links: Mapping[str, str] | None = None,
    options: tuple[str, ...] = (),
) -> dict[str, tuple[object, ...]]:
    """Upgrade one tree by dpkg and its copy by a patch layer; compare; return what they have in common."""
    root, ours = tmp_path / "dpkg", tmp_path / "ours"
    for path, target in (links or {}).items():
        (root / target).mkdir(parents=True, exist_ok=True)
        (root / path).symlink_to(target)
    install(root, *(deb.build(tmp_path / "old") for deb in (old, *others)), options=options)
    for path, content in (before or {}).items():
        place = root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True)
        if isinstance(content, Link):
            place.symlink_to(content.target)
        elif content is not None:
            place.write_bytes(content)
    shutil.copytree(root, ours, symlinks=True, copy_function=_copy)
    built = new.build(tmp_path / "new")
    assert upgrade(ours, new, built) == ""
    install(root, built, options=options)
    expected, found = tree_of(root), tree_of(ours)
    assert found == expected
    return found


def _copy(source: str, target: str) -> None:
    run("cp", "-a", source, target)


def test_changed_new_and_dropped_files_come_out_as_dpkg_leaves_them(tmp_path: Path) -> None:
    old = Deb("tool", files={"usr/bin/tool": b"1", "usr/share/tool/old/a": b"x", "usr/share/tool/b": b"y"})
    new = Deb(
        "tool",
        "1.1-1",
        files={"usr/bin/tool": b"2" * 70_000, "usr/share/tool/b": b"y", "usr/share/tool/new/c": b"z"},
        modes={"usr/bin/tool": 0o4755, "usr/share/tool/new": 0o2775},
    )
    tree = judge(tmp_path, old, new)
    assert "usr/share/tool/old" not in tree
    assert "usr/share/tool/new/c" in tree


def test_a_path_that_another_package_owns_too_stays(tmp_path: Path) -> None:
    old = Deb("tool", files={"usr/share/common/a": b"1"})
    other = Deb("other", files={"usr/share/common/b": b"2"})
    tree = judge(tmp_path, old, Deb("tool", "2", files={"usr/bin/tool": b""}), other)
    assert "usr/share/common/b" in tree
    assert "usr/share/common/a" not in tree


def test_files_go_through_the_image_s_symlinked_directories(tmp_path: Path) -> None:
    old = Deb(
        "libx1", files={"lib/x86_64-linux-gnu/libx.so.1.0": b"1", "lib/x86_64-linux-gnu/libx.so.1": Link("libx.so.1.0")}
    )
    new = Deb(
        "libx1",
        "2",
        files={"usr/lib/x86_64-linux-gnu/libx.so.1.1": b"2", "usr/lib/x86_64-linux-gnu/libx.so.1": Link("libx.so.1.1")},
    )
    tree = judge(tmp_path, old, new, Deb("other", files={"lib/other": b""}), links={"lib": "usr/lib"})
    assert "usr/lib/x86_64-linux-gnu/libx.so.1.0" not in tree
    assert tree["lib"][4] == Path("usr/lib")


def test_an_existing_directory_keeps_its_mode_and_hard_links_stay_links(tmp_path: Path) -> None:
    old = Deb("tool", files={"srv/d/a": b"1"}, modes={"srv/d": 0o700})
    new = Deb("tool", "2", files={"srv/d/a": b"2"}, hardlinks={"srv/d/b": "srv/d/a"}, modes={"srv/d": 0o755})
    tree = judge(tmp_path, old, new)
    assert tree["srv/d"][1] == 0o700


def test_info_files_and_status_of_a_multi_arch_package_are_written_as_dpkg_writes_them(tmp_path: Path) -> None:
    fields = "Multi-Arch: same\nSection: libs\nPriority: optional\nHomepage: https://a.example\nX-Own: yes\n"
    old = Deb(
        "libx1",
        fields=fields,
        files={"usr/lib/libx.so.1": b"1"},
        control={
            "triggers": b"activate-noawait ldconfig\n",
            "shlibs": b"libx 1 libx1\n",
            "templates": b"Template: a\n",
        },
    )
    new = Deb(
        "libx1",
        "2:2.0~rc1-1",
        fields=fields.replace("libs", "oldlibs").replace("Priority: optional\n", "")
        + "Depends: a (>=1:2) ,b|c:any(<< 3),\n d\nBreaks: e(<<1)\nSource: x (2)\nProvides: libx (= 1)\n",
        files={"usr/lib/libx.so.1": b"2"},
        control={"triggers": b"activate-noawait ldconfig\n", "shlibs": b"libx 1 libx1 (>= 2)\n"},
    )
    tree = judge(tmp_path, old, new, Deb("other", fields="Section: net\n"))
    assert "var/lib/dpkg/info/libx1:amd64.shlibs" in tree
    assert "var/lib/dpkg/info/libx1:amd64.templates" not in tree


def test_an_unchanged_conffile_is_replaced_and_a_changed_one_gets_the_new_one_beside_it(tmp_path: Path) -> None:
    files = {"etc/tool/a.conf": b"1", "etc/tool/b.conf": b"1", "etc/tool/c.conf": b"1", "etc/tool/d.conf": b"1"}
    listed = {"conffiles": b"".join(b"/%s\n" % path.encode() for path in files)}
    new = dict.fromkeys(files, b"2") | {"etc/tool/c.conf": b"1"}
    before = {"etc/tool/b.conf": b"mine", "etc/tool/c.conf": b"mine", "etc/tool/d.conf": b"2"}
    tree = judge(
        tmp_path,
        Deb("tool", files=files, control=listed),
        Deb(
            "tool",
            "2",
            files={**new, "etc/tool/e.conf": b"5"},
            control={"conffiles": listed["conffiles"] + b"/etc/tool/e.conf\n"},
        ),
        before=before,
    )
    assert tree["etc/tool/a.conf"][4][0] == b"2"  # type: ignore[index]
    assert tree["etc/tool/b.conf.dpkg-dist"][4][0] == b"2"  # type: ignore[index]
    assert "etc/tool/c.conf.dpkg-dist" not in tree


def test_a_conffile_that_was_deleted_in_the_image_stays_deleted(tmp_path: Path) -> None:
    listed = {"conffiles": b"/etc/a.conf\n"}
    old, new = (Deb("tool", version, files={"etc/a.conf": b"1"}, control=listed) for version in ("1", "2"))
    assert "etc/a.conf" not in judge(tmp_path, old, new, before={"etc/a.conf": None})


def test_path_filters_of_slim_images_are_kept(tmp_path: Path) -> None:
    rules = (
        "path-exclude=/usr/share/doc/*",
        "path-include=/usr/share/doc/*/copyright",
        "path-exclude=/usr/share/man/*",
    )
    files = {"usr/share/doc/tool/copyright": b"c", "usr/share/doc/tool/changelog": b"l", "usr/share/man/man1/t.1": b"m"}
    tree = judge(
        tmp_path,
        Deb("tool", files=files),
        Deb("tool", "2", files={**files, "usr/share/doc/tool/more/NEWS": b"n", "usr/bin/tool": b""}),
        before={"etc/dpkg/dpkg.cfg.d/slim": "\n".join(rules).encode()},
        options=tuple(f"--{rule}" for rule in rules),
    )
    assert "usr/share/doc/tool/copyright" in tree
    assert "usr/share/doc/tool/changelog" not in tree


def test_a_link_to_a_directory_is_never_replaced_by_a_directory(tmp_path: Path) -> None:
    old = Deb("tool", files={"usr/share/tool/a": b"1"})
    root = tmp_path / "root"
    install(root, old.build(tmp_path / "old"))
    shutil.move(root / "usr/share/tool", root / "data")
    (root / "usr/share/tool").symlink_to("/data")
    new = Deb("tool", "2", files={"usr/share/tool/a": b"2", "usr/share/tool/b": b"3"})
    assert upgrade(root, new, new.build(tmp_path / "new")) == ""
    assert (root / "usr/share/tool").is_symlink()
    assert (root / "data/b").read_bytes() == b"3"


@pytest.mark.parametrize(
    ("before", "new", "reason"),
    [
        ({}, Deb("tool", "2", files={"usr/share/other": b""}), "belongs to other"),
        (
            {},
            Deb("tool", "2", control={"postinst": b"#!/bin/sh\nset -e\nupdate-thing\n"}),
            r"its postinst is not understood yet \(line 3: update-thing\)",
        ),
        (
            {
                "var/lib/dpkg/triggers/told": b"other\n",
                "var/lib/dpkg/info/other.postinst": b"#!/bin/sh\n[ $1 = configure ] || update-thing $2\n",
            },
            Deb("tool", "2", control={"triggers": b"activate told\n"}),
            r"activates the trigger told of other, whose postinst is not understood yet \(line 2: update-thing",
        ),
    ],
)
def test_what_dpkg_would_do_otherwise_is_skipped_with_a_reason(
    tmp_path: Path, before: Mapping[str, bytes], new: Deb, reason: str
) -> None:
    root = tmp_path / "root"
    old = Deb("tool", files={"usr/bin/tool": b"1"})
    install(root, old.build(tmp_path / "old"), Deb("other", files={"usr/share/other": b""}).build(tmp_path / "old"))
    for path, content in before.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    said = upgrade(root, new, new.build(tmp_path / "new"))
    assert re.search(reason, said), said


@pytest.mark.parametrize("both", [False, True])
def test_interests_move_to_the_end_of_their_files_and_the_packages_are_told_at_the_end(
    tmp_path: Path, *, both: bool
) -> None:
    told = b'#!/bin/sh\nset -e\nif [ "$1" = triggered ]; then ln -s "$2" "$DPKG_ROOT/var/told"; fi\n'
    interest = b"interest-noawait /usr/share/x\ninterest told\n"
    same = "Multi-Arch: same\n" if both else ""
    old = Deb("tool", fields=same, files={"usr/share/x/a": b"1"}, control={"triggers": interest + b"interest gone\n"})
    new = Deb(
        "tool",
        "2",
        fields=same,
        files={"usr/share/x/a": b"2", "usr/share/y/b": b"1"},
        control={"triggers": interest + b"interest-await new\nactivate other-told\n"},
    )
    other = Deb("other", control={"triggers": interest + b"interest other-told\n", "postinst": told})
    tree = judge(tmp_path, old, new, other, options=("--force-script-chrootless",))
    assert "var/lib/dpkg/triggers/gone" not in tree
    named = b"other\ntool:amd64\n" if both else b"other\ntool\n"
    assert tree["var/lib/dpkg/triggers/told"][4][0] == named  # type: ignore[index]
    assert str(tree["var/told"][4]) == "/usr/share/x other-told"


def test_conffiles_that_the_new_version_lost_stay_as_obsolete_and_deleted_ones_are_forgotten(tmp_path: Path) -> None:
    names = ["a", "b", "c", "gone"]
    listed = "".join(f"/etc/{name}\n" for name in names).encode()
    old = Deb("tool", files={f"etc/{name}": b"1" for name in names}, control={"conffiles": listed})
    new = Deb("tool", "2", files={"etc/a": b"2"}, control={"conffiles": b"/etc/a\n"})
    tree = judge(tmp_path, old, new, before={"etc/b": b"changed", "etc/gone": None})
    assert tree["etc/b"][4][0] == b"changed"  # type: ignore[index]
    assert "etc/gone" not in tree


def test_a_conffile_that_was_deleted_here_and_changed_there_is_laid_beside_its_place(tmp_path: Path) -> None:
    old = Deb("tool", files={"etc/a": b"1"}, control={"conffiles": b"/etc/a\n"})
    new = Deb("tool", "2", files={"etc/a": b"2"}, control={"conffiles": b"/etc/a\n"})
    tree = judge(tmp_path, old, new, before={"etc/a": None})
    assert "etc/a.dpkg-dist" in tree
    assert "etc/a" not in tree


def test_a_new_conffile_over_a_file_of_somebody_s_own_is_laid_beside_it(tmp_path: Path) -> None:
    new = Deb("tool", "2", files={"etc/a": b"2"}, control={"conffiles": b"/etc/a\n"})
    tree = judge(tmp_path, Deb("tool"), new, before={"etc/a": b"mine"})
    assert tree["etc/a"][4][0] == b"mine"  # type: ignore[index]
    assert "etc/a.dpkg-dist" in tree


def record_simple(tmp_path: Path, files: Mapping[str, bytes | Link], new: Deb) -> dict[str, Entry]:
    """Record an upgrade in a status.d image."""
    fs = make_fs(files, keeps)
    db = open_database(fs)
    assert db is not None
    payload, _ = unpack(new, new.build(tmp_path / "new"))
    assert judge_payload(fs, db, payload).reason == ""
    return {entry.path: entry for entry in record_upgrade(fs, db, (payload,))}


STANZA = b"Package: libx1.1\nVersion: 1\nArchitecture: amd64\n"


def test_a_status_d_record_is_rewritten_under_its_own_name_and_scripts_are_not_run(tmp_path: Path) -> None:
    new = Deb("libx1.1", "2", files={"usr/lib/libx.so": b"2"}, control={"postinst": b"#!/bin/sh\nrm -rf /\n"})
    files = {"var/lib/dpkg/status.d/libx1": STANZA, "usr/lib/libx.so": b"1"}
    entries = record_simple(tmp_path, files, new)
    stanza = entries["var/lib/dpkg/status.d/libx1"].content
    assert isinstance(stanza, bytes)
    assert b"Version: 2\n" in stanza
    assert b"Status:" not in stanza
    assert "var/lib/dpkg/status.d/libx1.md5sums" not in entries
    assert not [path for path in entries if path.startswith("var/lib/dpkg/info")]


def test_md5sums_of_status_d_are_replaced_and_name_what_was_dropped(tmp_path: Path) -> None:
    sums = b"%s  usr/lib/libx.so.1.0\n%s  usr/share/doc/libx1.1/copyright\n" % (b"0" * 32, b"1" * 32)
    new = Deb(
        "libx1.1",
        "2",
        files={"usr/lib/libx.so.1.1": b"2", "usr/share/doc/libx1.1/copyright": b"c"},
        control={"md5sums": b"%s  usr/lib/libx.so.1.1\n" % (b"2" * 32)},
    )
    folder = "var/lib/dpkg/status.d"
    files = {f"{folder}/libx1.1": STANZA, f"{folder}/libx1.1.md5sums": sums, "usr/lib/libx.so.1.0": b"1"}
    entries = record_simple(tmp_path, files, new)
    assert entries["usr/lib/libx.so.1.0"].kind is Kind.WHITEOUT
    assert entries[f"{folder}/libx1.1.md5sums"].content == b"%s  usr/lib/libx.so.1.1\n" % (b"2" * 32)
    assert "usr/share/doc/libx1.1/copyright" not in entries, "the image was made without it"


def test_without_md5sums_a_moved_link_shows_which_file_is_left_over(tmp_path: Path) -> None:
    files = {
        "var/lib/dpkg/status.d/libx1": STANZA,
        "usr/lib/libx.so.1": Link("libx.so.1.0"),
        "usr/lib/libx.so.1.0": b"1",
    }
    new = Deb("libx1.1", "2", files={"usr/lib/libx.so.1": Link("libx.so.1.1"), "usr/lib/libx.so.1.1": b"2"})
    entries = record_simple(tmp_path, files, new)
    assert entries["usr/lib/libx.so.1.0"].kind is Kind.WHITEOUT


@pytest.mark.data
def test_openssl_of_a_real_slim_debian_comes_out_as_dpkg_leaves_it_in_a_chroot(tmp_path: Path) -> None:
    archive = data_path("rootfs/debian-11.5-nginx1.23-amd64.tar.xz")
    path = next(data_path("packages/deb").glob("openssl_*.deb"))
    root, ours = tmp_path / "dpkg", tmp_path / "ours"
    for tree in (root, ours):
        shutil.unpack_archive(archive, tree, filter="fully_trusted")
    new = Deb("openssl", path.name.split("_")[1])
    assert upgrade(ours, new, path) == ""
    shutil.copy(path, root / "openssl.deb")
    run("chroot", str(root), "dpkg", "--log=/dev/null", "--force-confold", "--force-depends", "-i", "/openssl.deb")
    (root / "openssl.deb").unlink()
    assert tree_of(ours) == tree_of(root)


@pytest.mark.data
def test_real_packages_upgrade_a_distroless_image(tmp_path: Path) -> None:
    root = tmp_path / "root"
    shutil.unpack_archive(data_path(DISTROLESS.format("amd64")), root, filter="fully_trusted")
    for path in sorted(data_path("packages/deb").glob("*.deb")):
        name, version, _ = path.name.removesuffix(".deb").split("_")
        assert upgrade(root, Deb(name, version), path) == ""
    db = open_database(open_tree(root))
    assert db is not None
    assert {
        item.key: item.package.version for item in db.packages if item.key in {"libc6", "libssl1.1", "openssl"}
    } == {
        "libc6": "2.31-13+deb11u14",
        "libssl1.1": "1.1.1w-0+deb11u8",
        "openssl": "1.1.1w-0+deb11u8",
    }
    assert sorted(path.name for path in (root / "var/lib/dpkg/status.d").iterdir()) == [
        "base", "libc6", "libssl1", "netbase", "openssl", "tzdata",
    ]  # fmt: skip
