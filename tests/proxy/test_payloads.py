"""Unpacked packages as files."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.engine.family import Constraint, Package, Payload
from proxy.engine.tar import Entry, Kind, Span
from proxy.errors import MalformedInput
from proxy.payloads import parse_payload, render_payload

NUMBERS = st.integers(0, 1 << 40)
NAMES = st.text(st.characters(codec="utf-8") | st.integers(0xDC80, 0xDCFF).map(chr), min_size=1, max_size=20)
CONTENTS = st.none() | st.binary(max_size=20) | st.builds(Span, NAMES, NUMBERS, NUMBERS)
ENTRIES = st.builds(
    Entry,
    NAMES,
    st.sampled_from(Kind),
    NUMBERS,
    NUMBERS,
    NUMBERS,
    NUMBERS,
    NUMBERS,
    NAMES,
    CONTENTS,
    st.dictionaries(NAMES, st.binary(max_size=9), max_size=2),
    st.tuples(NUMBERS, NUMBERS),
)
PACKAGE = Package("tool", "1:1.0~rc1-1", "arm64", requires=((Constraint("lib", ">=", "2"),),), fields={"Size": "1"})


@given(st.lists(ENTRIES, max_size=8), st.dictionaries(NAMES, st.binary(max_size=20), max_size=3))
def test_a_payload_comes_back_as_it_was(entries: list[Entry], control: dict[str, bytes]) -> None:
    payload = Payload(PACKAGE, control, tuple(entries))
    assert parse_payload(render_payload(payload)) == payload


@given(st.binary(max_size=40))
def test_bytes_that_are_no_payload_are_refused(raw: bytes) -> None:
    with pytest.raises(MalformedInput):
        parse_payload(raw)


def rows(**changes: object) -> bytes:
    document = json.loads(render_payload(Payload(PACKAGE, {}, (Entry("a", Kind.FILE, content=b""),))))
    columns = ("path", "kind", "mode", "uid", "gid", "mtime", "size", "target", "content", "xattrs", "major", "minor")
    for name, value in changes.items():
        document["entries"][0][columns.index(name)] = value
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    "changes",
    [
        {"path": 7},
        {"kind": "portal"},
        {"mode": "7"},
        {"size": True},
        {"size": 1.5},
        {"target": None},
        {"content": "not base64"},
        {"content": ["file", 1]},
        {"xattrs": ["a"]},
        {"minor": None},
    ],
)
def test_a_damaged_row_is_refused_with_the_file_named(changes: dict[str, object]) -> None:
    assert parse_payload(rows()).entries[0].path == "a"
    with pytest.raises(MalformedInput, match=r"^it.payload: does not read"):
        parse_payload(rows(**changes), "it.payload")
