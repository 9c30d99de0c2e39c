"""Stanzas and relationship fields."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.engine.families.dpkg.deb822 import Stanza, iter_stanzas, parse_relations, parse_stanzas, render_stanzas
from proxy.engine.family import Constraint
from proxy.errors import MalformedInput
from tests.support import data_path

names = st.from_regex(r"[A-Za-z][A-Za-z0-9-]{0,12}", fullmatch=True)
words = st.text(st.characters(blacklist_categories=("Cc", "Cs", "Z")), min_size=1, max_size=20)
values = st.builds(lambda first, rest: "\n ".join([first, *rest]), words, st.lists(words, max_size=3))
stanzas = st.lists(st.tuples(names, values), min_size=1, max_size=8, unique_by=lambda item: item[0].lower())


@given(st.lists(stanzas, max_size=5))
def test_rendered_stanzas_parse_to_the_same(fields: list[list[tuple[str, str]]]) -> None:
    made = [Stanza.of(one) for one in fields]
    data = render_stanzas(made)
    assert parse_stanzas(data) == made
    assert [list(stanza.items()) for stanza in iter_stanzas(io.BytesIO(data))] == fields
    assert render_stanzas(parse_stanzas(data)) == data


@given(st.binary(max_size=200))
def test_any_bytes_parse_or_are_refused(data: bytes) -> None:
    try:
        found = parse_stanzas(data)
    except MalformedInput:
        return
    assert b"".join(stanza.raw for stanza in found).replace(b"\n", b"") == data.replace(b"\n", b"")


def test_names_are_compared_without_case_and_order_is_kept() -> None:
    (stanza,) = parse_stanzas(b"Package: a\nX-Thing:b\nDescription: c\n d\n .\n e\n")
    assert stanza.get("PACKAGE") == "a"
    assert stanza.get("x-thing") == "b"
    assert stanza.items()[2] == ("Description", "c\n d\n .\n e")
    assert "Version" not in stanza


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"A: b\nnot a field\n", 2),
        (b"A: b\n\nB: c\nb: d\n", 4),
        (b"A: b\n \n c\n", 2),
        (b" a\n", 1),
        (b"-A: b\n", 1),
        (b"A: b\0\n", 1),
    ],
)
def test_a_wrong_line_is_named(data: bytes, line: int) -> None:
    with pytest.raises(MalformedInput, match=f"^status:{line}: "):
        parse_stanzas(data, "status")


def test_a_missing_field_is_named() -> None:
    with pytest.raises(MalformedInput, match="status:3: a stanza without the field Version"):
        parse_stanzas(b"A: b\n\nPackage: c\n", "status")[1].need("Version")


def test_comments_and_blank_lines_of_hand_written_files_are_left_out() -> None:
    data = b"# first\nTypes: deb\n# inside\nURIs: a\n  \t\nTypes: c\n"
    assert [stanza.get("Types") for stanza in parse_stanzas(data, comments=True)] == ["deb", "c"]


def test_an_endless_stanza_is_refused_while_it_is_read() -> None:
    class Endless:
        def read(self, size: int, /) -> bytes:
            return b"A" * size

    with pytest.raises(MalformedInput, match="refused"):
        next(iter_stanzas(Endless(), "x"))


def test_relations_are_alternatives_of_constraints() -> None:
    assert parse_relations("a (>= 1) | b:any, c [amd64], d(<<2) , e (> 3),", arch="arm64") == (
        (Constraint("a", ">=", "1"), Constraint("b", arch="any")),
        (Constraint("d", "<", "2"),),
        (Constraint("e", ">=", "3"),),
    )
    assert parse_relations("c [!arm64 !i386], d [any]", arch="amd64") == ((Constraint("c"),), (Constraint("d"),))


@pytest.mark.parametrize("text", ["a b", "a (1)", "a (>= )", "(>= 1)", "a |", "a (>= 1", "a~b"])
def test_a_wrong_relation_is_refused(text: str) -> None:
    with pytest.raises(MalformedInput):
        parse_relations(text)


@pytest.mark.data
def test_a_real_packages_file_comes_out_byte_for_byte() -> None:
    import lzma  # noqa: PLC0415 - only here

    data = lzma.decompress(data_path("repo-metadata/debian-bullseye-security/Packages.amd64.xz").read_bytes())
    found = list(iter_stanzas(io.BytesIO(data)))
    assert len(found) > 500
    assert render_stanzas(found) == data
    assert all(parse_relations(stanza.get("Depends")) or not stanza.get("Depends") for stanza in found)
