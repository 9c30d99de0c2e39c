"""Unpacking against dpkg itself: conffiles, diversions, overrides, filters, moves between packages, links, kinds."""

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from proxy.engine.families.dpkg.database import open_database
from tests.proxy.engine.families.dpkg.debs import Deb, open_tree
from tests.proxy.engine.families.dpkg.judged import Case, conffiles, judged, prepare, refused
from tests.proxy.engine.filesystems import Link

pytestmark = pytest.mark.interop

Owner = Callable[[Path], None]


def writes(**texts: str | None) -> Owner:
    """Return what writes files (or removes them, for None); ``__`` stands for a slash and ``_DOT_`` for a dot."""

    def owner(root: Path) -> None:
        for name, text in texts.items():
            path = root / name.replace("__", "/").replace("_DOT_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            if text is not None:
                path.write_text(text)

    return owner


def config(*rules: str) -> tuple[Owner, tuple[str, ...]]:
    """Return what writes dpkg's configuration into the tree, and the same as options."""

    def before(root: Path) -> None:
        (root / "etc/dpkg/dpkg.cfg.d").mkdir(parents=True)
        (root / "etc/dpkg/dpkg.cfg.d/slim").write_text("".join(f"{rule}\n" for rule in rules))

    return before, tuple(f"--{rule}" for rule in rules)


def pair(old: Mapping[str, bytes | Link], new: Mapping[str, bytes | Link], *listed: str) -> tuple[list[Deb], list[Deb]]:
    """Return an old and a new version of a package; `listed` are the conffiles of both."""
    return (
        [Deb("t", "1", files=old, control=conffiles(*listed) if listed else {})],
        [Deb("t", "2", files=new, control=conffiles(*listed) if listed else {})],
    )


CONF = pair({"etc/c": b"1"}, {"etc/c": b"2"}, "etc/c")


@pytest.mark.parametrize(
    "owner",
    [
        writes(etc__c="mine"),
        writes(etc__c=None),
        writes(etc__c="2"),
        writes(etc__c="mine", etc__c_DOT_dpkg_old="o"),
        writes(etc__c="mine", **{"etc__c_DOT_dpkg-old": "o", "etc__c_DOT_dpkg-dist": "d", "etc__c_DOT_dpkg-new": "n"}),
        writes(**{"etc__c_DOT_dpkg-old": "o", "etc__c_DOT_dpkg-dist": "d", "etc__c_DOT_dpkg-new": "n"}),
        writes(etc__c=None, **{"etc__c_DOT_dpkg-old": "o", "etc__c_DOT_dpkg-dist": "d"}),
        writes(etc__c="2", **{"etc__c_DOT_dpkg-old": "o", "etc__c_DOT_dpkg-dist": "d"}),
    ],
)
def test_a_conffile_comes_out_as_dpkg_leaves_it_whatever_its_owner_did(tmp_path: Path, owner: Owner) -> None:
    judged(tmp_path, Case(*CONF, owner=owner))


def test_a_conffile_that_is_a_link_in_the_image_is_a_reason(tmp_path: Path) -> None:
    def owner(root: Path) -> None:
        (root / "etc/c").rename(root / "etc/real")
        (root / "etc/c").symlink_to("real")

    assert refused(tmp_path, Case(*CONF, owner=owner)) == "t: the conffile /etc/c is a symlink in the image"


def test_a_conffile_that_a_filter_leaves_out_keeps_its_record(tmp_path: Path) -> None:
    before, options = config("path-exclude=/etc/c")
    old, new = pair({"etc/c": b"1", "etc/d": b"1"}, {"etc/c": b"2", "etc/d": b"2"}, "etc/c", "etc/d")
    judged(tmp_path, Case(old, new, before=before, options=options))


def test_a_conffile_with_the_flag_remove_on_upgrade_is_left_to_dpkg(tmp_path: Path) -> None:
    old = Deb("t", "1", files={"etc/c": b"1"}, control=conffiles("etc/c"))
    new = Deb("t", "2", control={"conffiles": b"remove-on-upgrade /etc/c\n"})
    assert "remove-on-upgrade" in refused(tmp_path, Case([old], [new]))


def test_an_obsolete_conffile_that_comes_back_is_known(tmp_path: Path) -> None:
    old = Deb("t", "1", files={"etc/c": b"1", "etc/d": b"1"}, control=conffiles("etc/c", "etc/d"))
    middle = Deb("t", "2", files={"etc/d": b"2"}, control=conffiles("etc/d"))
    new = Deb("t", "3", files={"etc/c": b"3", "etc/d": b"2"}, control=conffiles("etc/c", "etc/d"))
    judged(tmp_path / "back", Case([old, middle], [new]))
    judged(tmp_path / "stays", Case([old, middle], [Deb("t", "3", files={"etc/d": b"2"}, control=conffiles("etc/d"))]))


def test_a_file_becomes_a_conffile(tmp_path: Path) -> None:
    old = Deb("t", "1", files={"etc/c": b"1"})
    new = Deb("t", "2", files={"etc/c": b"2"}, control=conffiles("etc/c"))
    judged(tmp_path, Case([old], [new]))


def test_a_conffile_becomes_a_file(tmp_path: Path) -> None:
    old = Deb("t", "1", files={"etc/c": b"1"}, control=conffiles("etc/c"))
    new = Deb("t", "2", files={"etc/c": b"2"})
    judged(tmp_path / "same", Case([old], [new]))
    judged(tmp_path / "mine", Case([old], [new], writes(etc__c="mine")))


def _takes(conf: bool, *, first: bool, owner: Owner = lambda _root: None) -> Case:
    control = conffiles("etc/m") if conf else {}
    lender = Deb("lender", "1", files={"etc/m": b"1", "etc/stays": b"1"}, control=control)
    taker = Deb("taker", "1", files={"usr/share/taker": b"1"})
    lends = Deb("lender", "2", files={"etc/stays": b"2"})
    takes = Deb("taker", "2", "amd64", "Replaces: lender (<< 2)\n", {"etc/m": b"2"}, control)
    return Case([lender, taker], [takes, lends] if first else [lends, takes], owner)


@pytest.mark.parametrize("conf", [False, True])
@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("owner", [lambda _root: None, writes(etc__m="mine")])
def test_a_file_moves_to_another_package(tmp_path: Path, owner: Owner, *, conf: bool, first: bool) -> None:
    judged(tmp_path, _takes(conf=conf, first=first, owner=owner))


def test_a_file_is_taken_from_a_package_that_stays(tmp_path: Path) -> None:
    case = _takes(conf=True, first=True)
    judged(tmp_path / "conffile", Case(case.old, case.new[:1]))
    case = _takes(conf=False, first=True)
    judged(tmp_path / "file", Case(case.old, case.new[:1]))


def test_a_file_of_another_package_is_not_taken_without_leave(tmp_path: Path) -> None:
    other = Deb("other", files={"usr/share/x": b"1"})
    new = Deb("t", "2", files={"usr/share/x": b"2"})
    assert refused(tmp_path / "a", Case([Deb("t", "1"), other], [new])) == "t: /usr/share/x belongs to other"
    new = Deb("t", "2", "amd64", "Replaces: other (<< 1)\n", {"usr/share/x": b"2"})
    assert refused(tmp_path / "b", Case([Deb("t", "1"), other], [new])) == "t: /usr/share/x belongs to other"


def test_a_package_that_would_disappear_is_a_reason(tmp_path: Path) -> None:
    other = Deb("other", files={"usr/share/x": b"1"})
    new = Deb("t", "2", "amd64", "Replaces: other\n", {"usr/share/x": b"2"})
    assert "would disappear" in refused(tmp_path, Case([Deb("t", "1"), other], [new]))


def _divert(root: Path, *lines: str) -> None:
    (root / "var/lib/dpkg/diversions").write_text("".join(f"{line}\n" for line in lines))


def test_a_diverted_file_goes_where_it_is_diverted_to(tmp_path: Path) -> None:
    def owner(root: Path) -> None:
        _divert(root, "/usr/bin/t", "/usr/bin/t.real", ":", "/usr/bin/gone", "/usr/bin/gone.real", ":")
        for name in ("t", "gone"):
            (root / f"usr/bin/{name}").rename(root / f"usr/bin/{name}.real")
            (root / f"usr/bin/{name}").write_text("mine")

    old, new = pair({"usr/bin/t": b"1", "usr/bin/gone": b"1"}, {"usr/bin/t": b"2"})
    tree = judged(tmp_path, Case(old, new, owner))
    assert tree["usr/bin/t.real"][4][0] == b"2"  # type: ignore[index]


def test_the_package_that_diverts_puts_its_own_file_in_place(tmp_path: Path) -> None:
    def owner(root: Path) -> None:
        _divert(root, "/usr/bin/t", "/usr/bin/t.distrib", "wrap")
        (root / "usr/bin/t").rename(root / "usr/bin/t.distrib")

    tool = [Deb("t", version, files={"usr/bin/t": version.encode()}) for version in ("1", "2")]
    wrap = [Deb("wrap", v, files={"usr/bin/t": b"w" if v == "2" else b"", "usr/bin/w": b""}) for v in ("1", "2")]
    plain = Deb("wrap", "1", files={"usr/bin/w": b""})
    tree = judged(tmp_path, Case([tool[0], plain], [wrap[1], tool[1]], owner))
    assert tree["usr/bin/t"][4][0] == b"w"  # type: ignore[index]


def test_a_diverted_conffile_is_decided_where_it_is_diverted_to(tmp_path: Path) -> None:
    def owner(root: Path) -> None:
        _divert(root, "/etc/c", "/etc/c.real", ":")
        (root / "etc/c").rename(root / "etc/c.real")
        (root / "etc/c").write_text("mine")

    judged(tmp_path, Case(*CONF, owner))


def test_a_path_that_something_was_diverted_to_is_refused(tmp_path: Path) -> None:
    old, new = pair({}, {"usr/bin/x.real": b"2"})
    owner: Owner = lambda root: _divert(root, "/usr/bin/x", "/usr/bin/x.real", ":")  # noqa: E731
    assert "is where /usr/bin/x was diverted to" in refused(tmp_path, Case(old, new, owner))


def _override(*lines: str) -> Owner:
    def owner(root: Path) -> None:
        (root / "etc").mkdir(exist_ok=True)
        (root / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\ngames:x:5:60::/:/bin/sh\n")
        (root / "etc/group").write_text("root:x:0:\ngames:x:60:\n")
        (root / "var/lib/dpkg/statoverride").write_text("".join(f"{line}\n" for line in lines))

    return owner


def test_overrides_give_files_and_new_folders_owner_and_mode(tmp_path: Path) -> None:
    owner = _override(
        "root games 4750 /usr/bin/t", "games games 2770 /srv/fresh", "#7 #8 700 /srv/old", "root games 600 /etc/c"
    )
    old, new = pair(
        {"usr/bin/t": b"1", "srv/old/": b"", "srv/old/f": b""},
        {"usr/bin/t": b"2", "srv/old/f": b"", "srv/fresh/f": b"", "etc/c": b"2", "etc/link": Link("c")},
    )
    new = [Deb("t", "2", files=new[0].files, control=conffiles("etc/c"))]
    old = [Deb("t", "1", files={path: data for path, data in old[0].files.items() if not path.endswith("/")})]
    judged(tmp_path, Case(old, new, owner))


def test_an_override_for_a_user_that_is_not_there_is_a_reason(tmp_path: Path) -> None:
    old, new = pair({"usr/bin/t": b"1"}, {"usr/bin/t": b"2"})
    assert "statoverride" in refused(tmp_path, Case(old, new, _override("nobody-here root 600 /usr/bin/x")))


@pytest.mark.parametrize(
    "rules",
    [
        ("path-exclude=/usr/share/doc/*", "path-include=/usr/share/doc/*/copyright"),
        ("path-exclude=/usr/share/[!dl]*", "path-exclude=/usr/share/locale/[[:alpha:]]*"),
        (r"path-exclude=/usr/share/doc/\*", r"path-exclude=/usr/share/doc/t/c\hangelog"),
        ("path-exclude=/usr/share/[^d]*/*", "path-exclude=/usr/share/doc/[", "path-exclude=*/[a-c]hangelo?"),
    ],
)
def test_filters_are_read_as_dpkg_reads_them(tmp_path: Path, rules: tuple[str, ...]) -> None:
    names = ["doc/t/copyright", "doc/t/changelog", "locale/de/x", "locale/1/x", "man/man1/t.1", "doc/t/n/NEWS"]
    before, options = config(*rules)
    old, new = pair(*({f"usr/share/{name}": data for name in names} for data in (b"1", b"2")))
    judged(tmp_path, Case(old, new, before=before, options=options))


def test_files_that_a_new_filter_leaves_out_go(tmp_path: Path) -> None:
    before, options = config("path-exclude=/usr/share/doc/*")
    old, new = pair({"usr/share/doc/t/a": b"1", "usr/t": b"1"}, {"usr/share/doc/t/a": b"2", "usr/t": b"2"})
    root_options = options
    case = Case(old, new, owner=before, options=root_options)
    judged(tmp_path, Case(case.old, case.new, owner=before, options=options))


def test_hard_links_stay_links_and_change_their_groups(tmp_path: Path) -> None:
    old = Deb("t", "1", files={"u/a": b"1", "u/alone": b"1"}, hardlinks={"u/b": "u/a", "u/c": "u/a"})
    new = Deb("t", "2", files={"u/a": b"2", "u/b": b"3"}, hardlinks={"u/c": "u/b", "u/alone": "u/a"})
    judged(tmp_path, Case([old], [new]))


def test_a_hard_link_to_a_file_that_a_filter_leaves_out_is_a_reason(tmp_path: Path) -> None:
    before, options = config("path-exclude=/u/a")
    new = Deb("t", "2", files={"u/a": b"2"}, hardlinks={"u/b": "u/a"})
    assert "which a path filter leaves out" in refused(
        tmp_path, Case([Deb("t", "1")], [new], before=before, options=options)
    )


def test_what_becomes_of_kinds(tmp_path: Path) -> None:
    old, new = pair(
        {
            "u/file-link": b"1",
            "u/file-folder": b"1",
            "u/link-file": Link("file-link"),
            "u/folder-file/x": b"",
            "u/s/y": b"1",
        },
        {
            "u/file-link": Link("link-file"),
            "u/file-folder/in": b"2",
            "u/link-file": b"2",
            "u/folder-file": b"2",
            "u/s": Link("u"),
        },
    )
    judged(tmp_path, Case(old, new))


def test_a_folder_of_the_image_s_owner_gives_way_to_a_file(tmp_path: Path) -> None:
    old, new = pair({"u/a": b"1"}, {"u/a": b"1", "u/b": b"2"})
    judged(tmp_path, Case(old, new, writes(u__b__mine="mine")))


def test_a_file_of_the_image_s_owner_gives_way(tmp_path: Path) -> None:
    old, new = pair({"u/a": b"1"}, {"u/a": b"1", "u/b": b"2", "u/d/e": b"2"})
    judged(tmp_path, Case(old, new, writes(u__b="mine", u__d="mine")))


def test_modes_owners_and_times_are_the_new_ones_but_for_folders_that_are_there(tmp_path: Path) -> None:
    old = Deb("t", "1", files={"u/a": b"1", "u/d/x": b"1"}, modes={"u/a": 0o4755, "u/d": 0o755})
    new = Deb(
        "t", "2", files={"u/a": b"2", "u/d/x": b"1", "u/n/x": b""}, modes={"u/a": 0o2711, "u/d": 0o700, "u/n": 0o1777}
    )

    def owner(root: Path) -> None:
        os.chown(root / "u/d", 5, 60)
        os.setxattr(root / "u/a", "user.mine", b"1")
        os.setxattr(root / "u/d", "user.mine", b"1")

    judged(tmp_path, Case([old], [new], owner))


def test_folders_that_are_empty_go_and_others_stay(tmp_path: Path) -> None:
    files = {"u/deep/er/f": b"", "u/own/f": b"", "u/shared/f": b"", "u/f": b""}
    old, new = pair(files, {"u/f": b""})
    other = Deb("other", files={"u/shared/o/p": b""})
    judged(tmp_path, Case([*old, other], new, writes(u__own__mine="mine")))


def test_a_path_moves_through_a_link_between_folders(tmp_path: Path) -> None:
    def before(root: Path) -> None:
        (root / "usr/lib").mkdir(parents=True)
        (root / "lib").symlink_to("usr/lib")

    old, new = pair({"lib/t/a": b"1", "usr/lib/t/b": b"1"}, {"usr/lib/t/a": b"2", "lib/t/b": b"2"})
    judged(tmp_path / "both", Case(old, new, before=before))
    old, new = pair({"lib/t/a": b"1"}, {"usr/lib/t/a": b"2"})
    judged(tmp_path / "away", Case(old, new, before=before))


def test_what_lies_in_a_folder_that_the_owner_moved_is_found(tmp_path: Path) -> None:
    def owner(root: Path) -> None:
        shutil.move(root / "srv/t", root / "srv/else")
        (root / "srv/t").symlink_to("else")

    old, new = pair({"srv/t/a": b"1", "srv/t/gone": b"1"}, {"srv/t/a": b"2", "srv/t/new": b"2"})
    judged(tmp_path, Case(old, new, owner))


def test_architectures_of_one_package_share_their_files(tmp_path: Path) -> None:
    def make(version: str, text: bytes) -> list[Deb]:
        return [
            Deb(
                "t",
                version,
                arch,
                "Multi-Arch: same\n",
                {"u/shared": text, f"u/{arch}": text, f"u/old{text.decode()}": b""},
            )
            for arch in ("amd64", "i386")
        ]

    def before(root: Path) -> None:
        (root / "var/lib/dpkg").mkdir(parents=True)
        (root / "var/lib/dpkg/arch").write_text("amd64\ni386\n")

    judged(tmp_path, Case(make("1", b"1"), make("2", b"2"), before=before))


def test_a_package_becomes_one_for_several_architectures_and_back(tmp_path: Path) -> None:
    plain, same = Deb("t", "1", files={"u/a": b"1"}), Deb("t", "2", "amd64", "Multi-Arch: same\n", {"u/a": b"2"})
    judged(tmp_path / "there", Case([plain], [same]))
    judged(tmp_path / "back", Case([same], [Deb("t", "3", files={"u/a": b"3"})]))
    judged(tmp_path / "all", Case([same], [Deb("t", "3", "all", files={"u/a": b"3"})]))


def test_the_record_is_as_dpkg_writes_it(tmp_path: Path) -> None:
    fields = "Essential: yes\nPriority: Required\nSection: base\nMulti-Arch: foreign\nSource: s (1:2)\nOrigin: O\n"
    more = "Bugs: https://b.example\nX-Odd: a\n b\n .\n c\nHomepage: https://h.example\nEnhances: e\nSuggests: f|g\n"
    old = Deb("t", "1:1.0~rc1-1+b1", "all", fields + more, {"u/a": b"1"}, {"shlibs": b"a 1 b\n"})
    new = Deb("t", "1:1.0-1", "all", more + fields.replace("yes", "no"), {"u/a": b"2"}, {"symbols": b"x\n"})
    judged(tmp_path, Case([old, Deb("held")], [new]))


def test_states_that_are_not_whole_are_a_reason(tmp_path: Path) -> None:
    old, new = pair({"u/a": b"1"}, {"u/a": b"2"})
    for number, state in enumerate(("install ok unpacked", "install ok half-installed", "install reinstreq installed")):

        def owner(root: Path, state: str = state) -> None:
            path = root / "var/lib/dpkg/status"
            path.write_text(path.read_text().replace("install ok installed", state))

        root, _, _ = prepare(tmp_path / str(number), Case(old, new, owner))
        db = open_database(open_tree(root))
        assert db is not None
        assert db.packages[0].fixed
