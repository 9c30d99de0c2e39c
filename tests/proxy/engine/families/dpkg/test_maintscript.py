"""dpkg-maintscript-helper as it is done to the stage, against the real one in an upgrade by dpkg."""

from pathlib import Path

import pytest

from proxy.engine.families.dpkg.version import holds
from tests.proxy.engine.families.dpkg.debs import Deb
from tests.proxy.engine.families.dpkg.judged import Case, conffiles, helper, judged, refused
from tests.proxy.engine.filesystems import Link

pytestmark = pytest.mark.interop

GONE = helper("rm_conffile /etc/t/gone 2~")
MOVED = helper("mv_conffile /etc/t/old /etc/t/new 2~")
TO_LINK = helper("dir_to_symlink /usr/share/t/doc real 2~")
TO_FOLDER = helper("symlink_to_dir /usr/share/t/doc real 2~")


def _removal(version: str = "1") -> Case:
    return Case(
        [
            Deb(
                "t",
                version,
                files={"etc/t/gone": b"1", "etc/t/stays": b"1"},
                control=conffiles("etc/t/gone", "etc/t/stays"),
            )
        ],
        [Deb("t", "9", files={"etc/t/stays": b"1"}, control=conffiles("etc/t/stays") | GONE)],
    )


def _move() -> Case:
    return Case(
        [Deb("t", "1", files={"etc/t/old": b"1"}, control=conffiles("etc/t/old"))],
        [Deb("t", "2", files={"etc/t/new": b"2"}, control=conffiles("etc/t/new") | MOVED)],
    )


def _with(case: Case, path: str, text: str | None) -> Case:
    def owner(root: Path) -> None:
        (root / path).unlink() if text is None else (root / path).write_text(text)

    return Case(case.old, case.new, owner)


def test_an_unchanged_conffile_is_removed_for_good(tmp_path: Path) -> None:
    tree = judged(tmp_path, _removal())
    assert not [path for path in tree if path.startswith("etc/t/gone")]


def test_a_changed_conffile_is_put_aside(tmp_path: Path) -> None:
    assert "etc/t/gone.dpkg-bak" in judged(tmp_path, _with(_removal(), "etc/t/gone", "mine"))


def test_a_conffile_that_is_gone_already_leaves_nothing(tmp_path: Path) -> None:
    tree = judged(tmp_path, _with(_removal(), "etc/t/gone", None))
    assert not [path for path in tree if path.startswith("etc/t/gone")]


def test_versions_past_the_named_one_are_left_alone(tmp_path: Path) -> None:
    assert "etc/t/gone" in judged(tmp_path, _removal("3"))


def test_an_unchanged_conffile_moves_with_the_package_s_new_text(tmp_path: Path) -> None:
    tree = judged(tmp_path, _move())
    assert "etc/t/old" not in tree
    assert tree["etc/t/new"][4][0] == b"2"  # type: ignore[index]


def test_a_changed_conffile_moves_as_it_is(tmp_path: Path) -> None:
    tree = judged(tmp_path, _with(_move(), "etc/t/old", "mine"))
    assert tree["etc/t/new"][4][0] == b"mine"  # type: ignore[index]


def test_a_folder_becomes_a_link(tmp_path: Path) -> None:
    old = Deb("t", "1", files={"usr/share/t/doc/a": b"1", "usr/share/t/real/b": b"1"})
    new = Deb("t", "2", files={"usr/share/t/real/b": b"2", "usr/share/t/doc": Link("real")}, control=TO_LINK)
    tree = judged(tmp_path, Case([old], [new]))
    assert tree["usr/share/t/doc"][4] == Path("real")


def test_a_folder_with_somebody_s_own_file_does_not_become_a_link(tmp_path: Path) -> None:
    old = Deb("t", "1", files={"usr/share/t/doc/a": b"1", "usr/share/t/real/b": b"1"})
    new = Deb("t", "2", files={"usr/share/t/real/b": b"2", "usr/share/t/doc": Link("real")}, control=TO_LINK)
    case = _with(Case([old], [new]), "usr/share/t/doc/mine", "mine")
    assert "dpkg-maintscript-helper dir_to_symlink" in refused(tmp_path, case)


def test_what_comes_into_a_folder_that_becomes_a_link_moves_to_its_target(tmp_path: Path) -> None:
    old = Deb("t", "1", files={"usr/share/t/doc/a": b"1", "usr/share/t/real/b": b"1"})
    new = Deb("t", "2", files={"usr/share/t/real/b": b"2", "usr/share/t/doc/c": b"3"}, control=TO_LINK)
    tree = judged(tmp_path, Case([old], [new]))
    assert "usr/share/t/real/c" in tree


def test_a_link_becomes_a_folder(tmp_path: Path) -> None:
    old = Deb("t", "1", files={"usr/share/t/real/b": b"1", "usr/share/t/doc": Link("real")})
    new = Deb("t", "2", files={"usr/share/t/real/b": b"2", "usr/share/t/doc/a": b"2"}, control=TO_FOLDER)
    tree = judged(tmp_path, Case([old], [new]))
    assert "usr/share/t/doc/a" in tree


def test_a_link_to_elsewhere_stays_a_link(tmp_path: Path) -> None:
    old = Deb("t", "1", files={"usr/share/t/else/b": b"1", "usr/share/t/doc": Link("else")})
    new = Deb("t", "2", files={"usr/share/t/else/b": b"2", "usr/share/t/doc/a": b"2"}, control=TO_FOLDER)
    tree = judged(tmp_path, Case([old], [new]))
    assert "usr/share/t/else/a" in tree


@pytest.mark.parametrize(
    ("left", "operator", "right", "expected"),
    [("1", "le-nl", "", True), ("1", "le", "", False), ("", "lt", "1", True), ("1", "??", "1", None)],
)
def test_an_empty_version_is_the_oldest_or_the_newest(
    left: str, operator: str, right: str, expected: bool | None
) -> None:
    assert holds(left, operator, right) is expected
