import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.engine.layerindex import MAGIC, IndexBuilder, LayerIndex
from proxy.engine.scan import scan_layer
from proxy.engine.tar import Kind, Span
from proxy.engine.tarread import Header
from proxy.errors import MalformedInput
from proxy.oci.digest import Digest
from tests.tars import END, member, pax, scan, tree

text = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=30)
odd = st.binary(max_size=20).map(lambda raw: raw.replace(b"\0", b"").decode("utf-8", "surrogateescape"))
number = st.integers(0, 2**32 - 1)


def header(kind: Kind, path: str, target: str, value: int, attrs: dict[str, bytes]) -> Header:
    linked = (target or "x") if kind in {Kind.SYMLINK, Kind.HARDLINK} else ""
    device = (8, value) if kind in {Kind.CHAR, Kind.BLOCK} else (0, 0)
    return Header(path, kind, value & 0o7777, value, value, -value, value, linked, attrs, device)


headers = st.builds(
    header,
    st.sampled_from(Kind),
    text | odd,
    text | odd,
    number,
    st.dictionaries(text, st.binary(max_size=20), max_size=2),
)
spans = st.none() | st.builds(Span, st.sampled_from(["a", "b"]), st.integers(0, 2**40), st.integers(0, 2**40))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(headers, spans, spans), max_size=12), st.lists(text, max_size=3))
def test_what_is_rendered_is_parsed_back(rows, opaque):
    builder = IndexBuilder()
    for one, span, outline in rows:
        builder.add(one, span, outline)
    for path in opaque:
        builder.add_opaque(path)
    index = builder.finish(Digest.of(b"layer"), 12345)
    again = LayerIndex.parse(index.render())
    assert again == index
    assert again.render() == index.render()
    assert [entry.path for entry in again.entries] == [one.path for one, _, _ in rows]
    assert again.entries[:2] == list(again.entries)[:2]


def test_a_damaged_index_is_refused_and_says_what_to_do():
    raw = scan(tree("d a", "f a/b content", "l a/c b")).render()
    for broken in (b"", b"junk", raw[:-1], raw + b"x", raw[:60] + b"\xff" + raw[61:], MAGIC + raw[len(MAGIC) + 1 :]):
        with pytest.raises(MalformedInput, match="scanned again"):
            LayerIndex.parse(broken, where="cache/x.index")


def test_scanning_keeps_what_is_wanted_and_nothing_else():
    captures = io.BytesIO(b"before")
    captures.seek(0, io.SEEK_END)
    raw = member("var/lib/dpkg/status", b"x" * 300_000) + member("usr/bin/tool", b"y" * 700_000) + member("empty")
    index = _scan(raw + member("var/lib/dpkg/lock", b"z") + END, captures)
    status, tool, empty, lock = index.entries
    assert (status.content, lock.content) == (Span("c", 6, 300_000), Span("c", 300_006, 1))
    assert (tool.content, tool.size, empty.content) == (None, 700_000, b"")
    assert captures.getvalue() == b"before" + b"x" * 300_000 + b"z"


def _scan(raw: bytes, captures: io.BytesIO) -> LayerIndex:
    return scan_layer(
        io.BytesIO(raw),
        "",
        keep=lambda path: path.startswith("var/lib/dpkg"),
        captures=captures,
        captures_name="c",
        where="layer",
    )


def test_whiteouts_and_opaque_directories_are_told_apart_from_files():
    index = scan(
        tree(
            "f a/.wh.gone",
            "f .wh.top",
            "f b/.wh..wh..opq",
            "f .wh..wh..opq",
            "f .wh..wh.plnk/1.2 x",
            "f .wh..wh.aufs x",
        )
    )
    assert [(entry.path, entry.kind) for entry in index.entries] == [("a/gone", Kind.WHITEOUT), ("top", Kind.WHITEOUT)]
    assert index.opaque == ("b", "")


def test_a_name_that_only_contains_the_mark_is_a_file():
    assert [entry.kind for entry in scan(tree("f a.wh.b x", "f d.wh.e/f x")).entries] == [Kind.FILE, Kind.FILE]


@pytest.mark.parametrize("line", ["f .wh.", "f a/.wh..", "f a/.wh...", "f .wh.a/b x", "d .wh.a/.wh.b"])
def test_whiteouts_that_hide_nothing_or_hold_something_are_refused(line):
    with pytest.raises(MalformedInput, match="whiteout"):
        scan(tree(line))


def test_xattrs_of_a_layer_survive_the_index():
    index = scan(pax({"SCHILY.xattr.security.capability": b"\1\0\0\2"}) + member("bin/ping", b"x") + END)
    assert LayerIndex.parse(index.render()).entries[0].xattrs == {"security.capability": b"\1\0\0\2"}
