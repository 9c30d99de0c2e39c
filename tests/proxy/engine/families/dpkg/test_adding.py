"""A package that was not installed is recorded as dpkg records it."""

from pathlib import Path

import pytest

from tests.proxy.engine.families.dpkg.debs import Deb, run
from tests.proxy.engine.families.dpkg.judged import Case, conffiles, helper, judged, refused

pytestmark = pytest.mark.interop

THERE = (Deb("b", "1", files={"usr/share/b": b"1"}), Deb("z", "1", files={"usr/share/z": b"1"}))
SCRIPT = b"""#!/bin/sh
set -e
if [ "$1" = install ] || { [ "$1" = configure ] && [ -z "$2" ]; }; then
    rm -f "$DPKG_ROOT/etc/said.NAME"
fi
"""
NEWER = Deb("b", "2", fields="Depends: new\n", files={"usr/share/b": b"2"})


def scripts() -> dict[str, bytes]:
    return {name: SCRIPT.replace(b"NAME", name.encode()) for name in ("preinst", "postinst", "prerm", "postrm")}


@pytest.mark.parametrize(
    "new",
    [
        Deb("new", "1", files={"usr/share/new/file": b"1"}),
        Deb("aa", "1", files={"usr/share/new/file": b"1"}),
        Deb("zz", "1", files={"usr/share/new/file": b"1"}),
        Deb("new", "1", fields="Multi-Arch: same\n", files={"usr/lib/new.so": b"1"}),
        Deb("new", "1", arch="all", fields="Section: libs\nPriority: optional\n", files={"usr/lib/new.so": b"1"}),
        Deb("new", "1", files={"etc/new": b"1"}, control=conffiles("etc/new")),
        Deb("new", "1", files={"etc/own": b"", "usr/share/new": b"1"}, control=scripts()),
        Deb("new", "1", files={"usr/x": b"1"}, control=helper("rm_conffile /etc/old 1.0~")),
        Deb("new", "1", files={"usr/x": b"1"}, control={"triggers": b"interest-noawait /usr/share/z\n"}),
        Deb(
            "new", "1", files={"usr/x": b"1"}, control={"triggers": b"interest-noawait named\nactivate-noawait named\n"}
        ),
        Deb("new", "1", fields="Replaces: z\n", files={"usr/share/z": b"2", "usr/share/new": b"1"}),
    ],
)
def test_a_new_package_comes_out_as_dpkg_leaves_it(tmp_path: Path, new: Deb) -> None:
    keeps = Deb("z", "1", files={"usr/share/z": b"1", "usr/share/zz": b"1", "etc/z": b"1"})

    def owner(root: Path) -> None:
        for name in scripts():
            (root / f"etc/said.{name}").write_text("removed by the script that is called as for a new package")

    judged(tmp_path, Case([THERE[0], keeps], [new, NEWER], owner))


def test_a_conffile_that_is_there_already(tmp_path: Path) -> None:
    def owner(root: Path) -> None:
        (root / "etc").mkdir(exist_ok=True)
        (root / "etc/new").write_text("mine")

    new = Deb("new", "1", files={"etc/new": b"1"}, control=conffiles("etc/new"))
    judged(tmp_path, Case(THERE, [new], owner))


def test_a_package_that_was_removed_and_left_its_conffiles_is_a_reason(tmp_path: Path) -> None:
    def owner(root: Path) -> None:
        run("dpkg", f"--root={root}", "--force-unsafe-io", "--remove", "new")

    old = Deb("new", "1", files={"etc/new": b"1", "usr/x": b"1"}, control=conffiles("etc/new"))
    new = Deb("new", "2", files={"etc/new": b"2", "usr/x": b"1"}, control=conffiles("etc/new"))
    assert "its record is still there" in refused(tmp_path, Case((*THERE, old), [new], owner))
