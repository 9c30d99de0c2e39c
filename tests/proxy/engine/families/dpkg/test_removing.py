"""A package that is removed for the sake of an upgrade leaves what dpkg leaves of it."""

from dataclasses import replace
from pathlib import Path

import pytest

from proxy.engine.families.dpkg.database import Record, open_database
from proxy.engine.families.dpkg.removing import in_order
from tests.proxy.engine.families.dpkg.debs import Deb, install, open_tree, run
from tests.proxy.engine.families.dpkg.judged import CHROOTLESS, Case, conffiles, judged, refused
from tests.proxy.engine.filesystems import Link

pytestmark = pytest.mark.interop

KEPT = Deb("kept", "1", files={"usr/share/kept/file": b"1", "usr/share/both/kept": b"1"})
NEWER = Deb("kept", "2", fields="Breaks: old\n", files={"usr/share/kept/file": b"2", "usr/share/both/kept": b"1"})
SCRIPT = b"""#!/bin/sh
set -e
if [ "$1" = remove ] && [ $# = 1 ]; then
    rm -f "$DPKG_ROOT/etc/said.NAME"
fi
"""
RICH = "Section: libs\nPriority: optional\nInstalled-Size: 12\nMulti-Arch: same\nDepends: kept\nBreaks: k (<< 2)\n"
TEMPLATES = b"Template: old/x\nType: string\nDescription: x\n"


def scripts() -> dict[str, bytes]:
    return {name: SCRIPT.replace(b"NAME", name.encode()) for name in ("preinst", "postinst", "prerm", "postrm")}


def removal(old: Deb, **more: object) -> Case:
    return replace(Case((KEPT, old), [NEWER], removed=["old"]), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "old",
    [
        Deb("old", "1", files={"usr/share/old/deep/er/file": b"1", "usr/share/both/old": b"1"}),
        Deb("old", "1:2.0~1", arch="all", fields="Homepage: x\n", files={"usr/old": Link("share"), "usr/l": Link("x")}),
        Deb("old", "1", files={"etc/old.d/a": b"1", "usr/share/x": b"1"}, control=conffiles("etc/old.d/a")),
        Deb("old", "1", files={"usr/share/old/x": b"1"}, control={"postrm": b"#!/bin/sh\nexit 0\n"}),
        Deb("old", "1", files={"usr/share/old/x": b"1"}, control={"prerm": b"#!/bin/sh\nexit 0\n"}),
        Deb("old", "1", files={"etc/old.d/a": b"1", "x": b"1"}, control={**scripts(), **conffiles("etc/old.d/a")}),
        Deb("old", "1", fields=RICH, files={"lib/old.so": b"1", "etc/o": b""}, control=conffiles("etc/o")),
        Deb("old", "1", files={"usr/a": b"1"}, control={"templates": TEMPLATES, "shlibs": b"libold 1 old\n"}),
        Deb("old", "1", files={"usr/a": b"1"}, hardlinks={"usr/b": "usr/a", "usr/c": "usr/a"}),
        Deb("old", "1", files={"usr/a": b"1"}, control={"triggers": b"interest-noawait /usr/share/z\ninterest n\n"}),
        Deb("old", "1", files={"usr/a": b"1"}, control={"triggers": b"activate-noawait said\n"}),
        Deb("old", "1", files={"opt/own/": b"", "opt/there/": b"", "srv/there/": b""}),
        Deb("old", "1"),
    ],
)
def test_what_is_left_is_what_dpkg_leaves(tmp_path: Path, old: Deb) -> None:
    def owner(root: Path) -> None:
        for folder in ("etc/old.d", "opt/there/mine", "srv/there"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        (root / "srv/there/mine").write_text("1")
        for name in scripts():
            (root / f"etc/said.{name}").write_text("removed by the script that is called as for a removal")
        for name in ("a.dpkg-dist", "a.dpkg-new", "b"):
            (root / "etc/old.d" / name).write_text("1")

    found = judged(tmp_path, removal(old, owner=owner))
    assert "usr/share/old" not in found
    assert ("etc/said.prerm" in found) != ("preinst" in old.control)


def test_conffiles_stay_whatever_their_owner_did_to_them(tmp_path: Path) -> None:
    paths = [f"etc/old/{name}" for name in ("plain", "edited", "deleted", "below/it")]
    old = Deb("old", "1", files=dict.fromkeys(paths, b"1"), control=conffiles(*paths))

    def owner(root: Path) -> None:
        (root / "etc/old/edited").write_text("mine")
        (root / "etc/old/deleted").unlink()

    judged(tmp_path, removal(old, owner=owner))


@pytest.mark.parametrize("rest", ["etc/old/obsolete", "etc/old/a"])
def test_obsolete_conffiles_stay(tmp_path: Path, rest: str) -> None:
    first = Deb("old", "0", files={"etc/old/a": b"1", "etc/old/obsolete": b"1"})
    first = replace(first, control=conffiles("etc/old/a", "etc/old/obsolete"))
    old = Deb("old", "1", files={"etc/old/a": b"1", "usr/x": b""}, control=conffiles("etc/old/a"))

    def owner(root: Path) -> None:
        run("dpkg", f"--root={root}", "--force-unsafe-io", "--log=/dev/null", "-i", str(old.build(tmp_path / "again")))
        (root / rest).unlink()

    judged(tmp_path, removal(first, owner=owner))


def test_what_dpkg_left_beside_files_while_it_unpacked_goes_with_them(tmp_path: Path) -> None:
    def owner(root: Path) -> None:
        for end in ("dpkg-new", "dpkg-tmp", "dpkg-old"):
            (root / f"usr/share/old/file.{end}").write_text("1")

    judged(tmp_path, removal(Deb("old", "1", files={"usr/share/old/file": b"1"}), owner=owner))


def test_a_diverted_file_goes_where_it_is(tmp_path: Path) -> None:
    def owner(root: Path) -> None:
        words = ("--local", "--rename", "--divert", "/usr/bin/tool.real", "--add", "/usr/bin/tool")
        run("dpkg-divert", f"--root={root}", *words)
        (root / "usr/bin/tool").write_text("mine")

    judged(tmp_path, removal(Deb("old", "1", files={"usr/bin/tool": b"1", "usr/bin/x": b""}), owner=owner))


def test_a_file_that_is_gone_already_is_no_matter(tmp_path: Path) -> None:
    def owner(root: Path) -> None:
        (root / "usr/share/old/a").unlink()
        (root / "usr/share/old/b").unlink()
        (root / "usr/share/old/b").mkdir()

    judged(tmp_path, removal(Deb("old", "1", files={"usr/share/old/a": b"1", "usr/share/old/b": b"1"}), owner=owner))


def test_others_are_told_of_files_that_go(tmp_path: Path) -> None:
    script = b'#!/bin/sh\nset -e\nif [ "$1" = triggered ]; then rm -f "$DPKG_ROOT/etc/told"; fi\n'
    control = {"triggers": b"interest-noawait /usr/share/watched\n", "postinst": script}
    watcher = Deb("watcher", "1", files={"usr/w": b""}, control=control)
    old = Deb("old", "1", files={"usr/share/watched/old": b"1"})

    def owner(root: Path) -> None:
        (root / "etc").mkdir(exist_ok=True)
        (root / "etc/told").write_text("removed by who is told")

    case = Case((KEPT, watcher, old), [NEWER], owner, removed=["old"])
    assert "etc/told" not in judged(tmp_path, case)


@pytest.mark.parametrize(
    "relation", ["Conflicts: old\nReplaces: old\nProvides: old\n", "Conflicts: old\n", "Breaks: old\n"]
)
@pytest.mark.parametrize("edited", [False, True])
def test_what_takes_its_place_has_its_files_and_its_conffiles(tmp_path: Path, relation: str, *, edited: bool) -> None:
    paths = {"usr/bin/tool": b"1", "usr/share/old/data": b"1", "etc/tool/conf": b"1", "etc/tool/other": b"1"}
    old = Deb("old", "1", files=paths, control=conffiles("etc/tool/conf", "etc/tool/other"))
    new = {"usr/bin/tool": b"2", "usr/share/new/data": b"2", "etc/tool/conf": b"2"}
    named = Deb("new", "2", fields=relation, files=new, control=conffiles("etc/tool/conf"))

    def owner(root: Path) -> None:
        if edited:
            (root / "etc/tool/conf").write_text("mine")

    judged(tmp_path, Case((KEPT, old), [named], owner, removed=["old"]))


def test_every_path_taken_over_leaves_an_empty_record_only_for_a_postrm(tmp_path: Path) -> None:
    for name, control in (("with", {"postrm": b"#!/bin/sh\n"}), ("without", {})):
        old = Deb("old", "1", files={"usr/bin/tool": b"1"}, control=control)
        new = Deb("new", "2", fields="Conflicts: old\nReplaces: old\n", files={"usr/bin/tool": b"2"})
        judged(tmp_path / name, Case((KEPT, old), [new], removed=["old"]))


def test_several_go_at_once(tmp_path: Path) -> None:
    first = Deb("one", "1", files={"usr/share/old/a": b"1", "usr/share/old/x/": b""})
    second = Deb("two", "1", files={"usr/share/old/b": b"1", "etc/two": b""}, control=conffiles("etc/two"))
    judged(tmp_path, Case((KEPT, first, second), [NEWER], removed=["one", "two"]))


def test_a_script_that_is_not_understood_is_a_reason(tmp_path: Path) -> None:
    old = Deb("old", "1", files={"usr/a": b"1"}, control={"prerm": b"#!/bin/sh\n/usr/lib/old/clear-everything\n"})
    assert "old: its prerm is not understood yet (line 2: " in refused(tmp_path, removal(old))


def test_an_upgrade_that_takes_files_of_it_and_could_be_with_it_is_a_reason(tmp_path: Path) -> None:
    old = Deb("old", "1", files={"usr/a": b"1", "usr/b": b"1"})
    taker = Deb("kept", "2", fields="Replaces: old\n", files={"usr/a": b"2"})
    assert "it takes over files of old" in refused(tmp_path, Case((KEPT, old), [taker], removed=["old"]))


def test_a_package_whose_going_others_see_or_not_is_a_reason(tmp_path: Path) -> None:
    script = b'#!/bin/sh\nif [ -e "$DPKG_ROOT/usr/a" ]; then rm -f "$DPKG_ROOT/etc/seen"; fi\n'
    looks = Deb("looks", "2", files={"usr/looks": b"2"}, control={"preinst": script})

    def owner(root: Path) -> None:
        (root / "etc").mkdir(exist_ok=True)
        (root / "etc/seen").write_text("removed by who sees it")

    old = Deb("old", "1", files={"usr/a": b"1"})
    reason = refused(
        tmp_path, Case((KEPT, replace(looks, version="1", control={}), old), [NEWER, looks], owner, removed=["old"])
    )
    assert "not certain whether it goes before others are unpacked, and /etc/seen shows it" in reason


def test_one_that_needs_another_goes_before_it(tmp_path: Path) -> None:
    script = b'#!/bin/sh\nif [ "$1" = remove ] && [ ! -e "$DPKG_ROOT/usr/NAME" ]; then rm -f "$DPKG_ROOT/etc/it"; fi\n'
    needs = {
        "a": "",
        "b": "Depends: a\n",
        "c": "Depends: e | b\n",
        "d": "Depends: v\n",
        "e": "Depends: d\nProvides: v\n",
    }
    debs = [
        Deb(name, "1", fields=field, files={f"usr/{name}": b"1"}, control={"prerm": script.replace(b"NAME", seen)})
        for (name, field), seen in zip(needs.items(), (b"b", b"a", b"x", b"x", b"x"), strict=True)
    ]

    def owner(root: Path) -> None:
        (root / "etc").mkdir(exist_ok=True)
        (root / "etc/it").write_text("removed where b goes first")
        (root / "usr/x").write_text("")

    found = judged(tmp_path, Case((KEPT, *debs[:3]), [NEWER], owner, removed=["a", "b", "c"]))
    assert "etc/it" not in found
    assert [record.installed.key for record in in_order(records_of(tmp_path / "more", debs))] == [
        "c",
        "b",
        "a",
        "e",
        "d",
    ]


def records_of(folder: Path, debs: list[Deb]) -> list[Record]:
    folder.mkdir()
    install(folder, *(deb.build(folder / "built") for deb in debs), options=CHROOTLESS)
    db = open_database(open_tree(folder))
    assert db is not None
    return list(db.records.values())
