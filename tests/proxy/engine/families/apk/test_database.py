import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.engine.families.apk.database import (
    Record,
    installed_packages,
    parse_installed,
    parse_wish,
    parse_world,
    render_installed,
)
from proxy.engine.family import Constraint, Installed
from proxy.errors import MalformedInput
from tests.support import data_path

WHERE = "lib/apk/db/installed"
RECORD = b"""\
C:Q1qKcZ+j23xssAXmgQhkOO8dHnbWw=
P:busybox
V:1.36.1-r29
A:x86_64
o:busybox-src
D:so:libc.musl-x86_64.so.1 musl>=1.2 !uclibc-utils !old<2
p:/bin/sh cmd:[=1.36.1-r29 cmd:[[=1.36.1-r29 so:libbb.so
r:busybox-initscripts
x:from a later apk
F:bin
R:busybox
a:0:0:755
Z:Q1fLDUtTHGs5/+kwtPGJ0lXDa90DQ=

"""


def open_packages(data: bytes, world: bytes = b"") -> tuple[Installed, ...]:
    records = parse_installed(data, where=WHERE)
    return installed_packages(records, parse_world(world, where="etc/apk/world"), where=WHERE)


def test_record_becomes_a_package() -> None:
    (item,) = open_packages(RECORD)
    package = item.package
    assert (item.key, package.name, package.version, package.arch) == ("busybox", "busybox", "1.36.1-r29", "x86_64")
    assert (package.source, package.source_version) == ("busybox-src", "1.36.1-r29")
    assert package.requires == ((Constraint("so:libc.musl-x86_64.so.1"),), (Constraint("musl", ">=", "1.2"),))
    assert package.conflicts == (Constraint("uclibc-utils"), Constraint("old", "<", "2"))
    assert package.provides == (
        Constraint("/bin/sh"),
        Constraint("cmd:[", "=", "1.36.1-r29"),
        Constraint("cmd:[[", "=", "1.36.1-r29"),
        Constraint("so:libbb.so"),
    )
    assert package.fields == {
        "C": "Q1qKcZ+j23xssAXmgQhkOO8dHnbWw=",
        "r": "busybox-initscripts",
        "x": "from a later apk",
    }
    assert item.fixed == ""


def test_fields_of_files_come_in_order() -> None:
    (record,) = parse_installed(RECORD, where=WHERE)
    assert list(record.fields())[-4:] == [
        ("F", "bin"),
        ("R", "busybox"),
        ("a", "0:0:755"),
        ("Z", "Q1fLDUtTHGs5/+kwtPGJ0lXDa90DQ="),
    ]
    assert [letter for letter, _ in record.header()] == list("CPVAoDprx")


FIELD = st.builds(
    "{}:{}\n".format, st.sampled_from("PVADpoFRaZxq"), st.text(st.characters(codec="utf-8", exclude_characters="\0\n"))
)
RECORDS = st.lists(st.lists(FIELD, min_size=1).map("".join), max_size=4)


@given(RECORDS, st.sampled_from(["\n", "\n\n", ""]))
def test_any_database_is_written_back_byte_for_byte(records: list[str], end: str) -> None:
    data = ("\n".join(records) + end).encode() if records else b""
    parsed = parse_installed(data, where=WHERE)
    assert render_installed(parsed) == data
    assert len(parsed) == len(records)
    fields = [f"{letter}:{value}" for record in parsed for letter, value in record.fields()]
    assert fields == [line for line in data.decode().split("\n") if line]


def test_line_numbers_count_through_the_file() -> None:
    records = parse_installed(RECORD + b"\n" + RECORD, where=WHERE)
    assert [record.line for record in records] == [1, 16]


@given(st.binary(max_size=60))
def test_garbage_is_refused_or_written_back(data: bytes) -> None:
    try:
        records = parse_installed(data, where=WHERE)
    except MalformedInput:
        return
    assert render_installed(records) == data


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"P:a\nnonsense\nV:1\n\n", r"installed:2: not a field .*'nonsense'"),
        (b"P:a\nV:1", "cut off"),
        (b"P:a\0\nV:1\n\n", "not apk's database"),
        (b"\xc3\xa9:a\n\n", "not a field"),
        (b"P:a\n\n", "without its version"),
        (b"V:1\n\n", "without its name"),
        (b"P:\nV:1\n\n", "without its name"),
        (b"P:a\nV:1\n\nP:a\nV:2\n\n", r"installed:4: the same package twice: 'a'"),
        (b"P:a\nV:1\nV:2\n\n", "a field twice"),
        (b"P:a\nV:1\nD:b==1\n\n", "not a dependency"),
        (b"P:a\nV:1\nD:=1\n\n", "not a dependency"),
    ],
)
def test_damaged_database_is_refused_with_the_place(data: bytes, message: str) -> None:
    with pytest.raises(MalformedInput, match=message):
        open_packages(data)


@pytest.mark.parametrize(
    ("word", "constraint", "refused", "tag"),
    [
        ("a", Constraint("a"), False, ""),
        ("!a", Constraint("a"), True, ""),
        ("a=1.0-r0", Constraint("a", "=", "1.0-r0"), False, ""),
        ("a~1.2", Constraint("a", "~", "1.2"), False, ""),
        ("a=~1.2", Constraint("a", "~", "1.2"), False, ""),
        ("a@edge", Constraint("a"), False, "edge"),
        ("a@edge>1", Constraint("a", ">", "1"), False, "edge"),
        (".deps><Q1abc=", Constraint(".deps", "><", "Q1abc="), False, ""),
        ("pc:gtk+-3.0<=3.24.1", Constraint("pc:gtk+-3.0", "<=", "3.24.1"), False, ""),
    ],
)
def test_dependencies_in_all_their_forms(word: str, constraint: Constraint, refused: bool, tag: str) -> None:
    wish = parse_wish(word, where="world")
    assert (wish.constraint, wish.refused, wish.tag) == (constraint, refused, tag)


@pytest.mark.parametrize("world", [b"busybox=1.36.1-r29\n", b"busybox<2 musl", b"busybox~1.36", b"busybox@edge"])
def test_what_world_holds_is_fixed_with_the_word(world: bytes) -> None:
    (item,) = open_packages(RECORD, world)
    assert item.fixed == f"etc/apk/world holds it: {world.split()[0].decode()}"


@pytest.mark.parametrize("world", [b"", b"busybox\nmusl\n", b"musl=1", b"!busybox"])
def test_what_world_merely_names_may_move(world: bytes) -> None:
    (item,) = open_packages(RECORD, world)
    assert item.fixed == ""


def test_package_that_apk_marked_broken_is_fixed() -> None:
    (item,) = open_packages(RECORD.replace(b"x:from", b"f:fs\nx:from"))
    assert item.fixed == "apk marked it as broken (files are missing, a script failed)"


def test_empty_database_has_no_packages() -> None:
    assert open_packages(b"") == ()
    assert render_installed([Record(b"")]) == b""


@pytest.mark.data
def test_chainguards_database_comes_back_byte_for_byte() -> None:
    data = data_path("pkgdb/chainguard-python3.13-20251017/installed").read_bytes()
    records = parse_installed(data, where=WHERE)
    assert render_installed(records) == data
    packages = {item.key: item.package for item in open_packages(data)}
    assert len(packages) == 23
    assert Constraint("musl") in packages["glibc"].conflicts
    lines = [f"{letter}:{value}".encode() for record in records for letter, value in record.fields()]
    assert lines == [line for line in data.split(b"\n") if line]
