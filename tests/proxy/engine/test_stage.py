"""The tree that an upgrade changes: looking up, changing, and the difference as a layer's entries."""

import contextlib
import io
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.engine.rootfs import RootFS, scan_layer
from proxy.engine.stage import Misplaced, Stage
from proxy.engine.tar import Entry, Kind, Span
from proxy.errors import MalformedInput


def tree(*members: tuple[str, str, bytes | str]) -> RootFS:
    blob, captures = io.BytesIO(), io.BytesIO()
    with tarfile.open(fileobj=blob, mode="w") as archive:
        for path, kind, what in members:
            info = tarfile.TarInfo(path)
            info.mode = 0o755 if kind == "dir" else 0o644
            if kind == "dir":
                info.type = tarfile.DIRTYPE
            elif kind == "link":
                info.type, info.linkname = tarfile.SYMTYPE, str(what)
            data = what if isinstance(what, bytes) else b""
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    blob.seek(0)
    index = scan_layer(blob, "", keep=lambda _: True, captures=captures, captures_name="c", where="layer")
    kept = captures.getvalue()
    return RootFS([index], lambda span: kept[span.offset : span.offset + span.size])


IMAGE = (
    ("bin", "link", "usr/bin"),
    ("usr", "dir", ""),
    ("usr/bin", "dir", ""),
    ("usr/bin/sh", "file", b"shell"),
    ("etc", "dir", ""),
    ("etc/d", "dir", ""),
    ("etc/d/one", "file", b"1"),
    ("etc/d/two", "file", b"2"),
)


@pytest.fixture
def stage() -> Stage:
    return Stage(tree(*IMAGE), 7)


def told(stage: Stage) -> dict[str, str]:
    return {entry.path: entry.kind.value for entry in stage.entries()}


def test_a_file_is_written_through_links_and_keeps_its_owner_and_mode(stage: Stage) -> None:
    stage.change("bin/sh", mode=0o4755, uid=3)
    stage.write("bin/sh", b"other")
    (entry,) = stage.entries()
    assert (entry.path, entry.mode, entry.uid, entry.content) == ("usr/bin/sh", 0o4755, 3, b"other")
    assert stage.read("bin/sh") == stage.read("usr/bin/sh") == b"other"


def test_what_is_as_it_was_leaves_nothing(stage: Stage) -> None:
    stage.change("etc/d/one", mode=0o600)
    stage.change("etc/d/one", mode=0o644)
    stage.make_dir("etc/d")
    stage.symlink("usr/bin", "bin")
    assert told(stage) == {}
    stage.write("new", b"")
    stage.remove("new")
    assert told(stage) == {}


def test_a_removed_tree_is_one_whiteout(stage: Stage) -> None:
    stage.remove_tree("etc/d")
    assert told(stage) == {"etc/d": "whiteout"}
    assert stage.listdir("etc") == []
    assert stage.read("etc/d/one") is None


def test_a_directory_made_anew_hides_what_the_image_has_below_it(stage: Stage) -> None:
    stage.remove_tree("etc/d")
    stage.make_dir("etc/d")
    stage.write("etc/d/two", b"2")
    assert stage.listdir("etc/d") == ["two"]
    found = told(stage)
    assert found["etc/d/one"] == "whiteout"
    assert found["etc/d/two"] == "file"


def test_a_directory_takes_the_place_of_a_link_and_a_link_of_a_directory(stage: Stage) -> None:
    stage.remove("bin")
    stage.make_dir("bin")
    assert stage.listdir("bin") == []
    assert stage.read("usr/bin/sh") == b"shell"
    assert told(stage) == {"bin": "dir"}
    stage.rename("etc/d", "etc/e")
    stage.symlink("e", "etc/d")
    assert stage.read("etc/d/one") == b"1"
    assert told(stage) == {"bin": "dir", "etc/d": "symlink", "etc/e": "dir", "etc/e/one": "file", "etc/e/two": "file"}


def test_nothing_lies_below_a_removed_link(stage: Stage) -> None:
    stage.remove("bin")
    assert stage.get("bin/sh") is None
    with pytest.raises(Misplaced):
        stage.write("bin/sh", b"")


def test_a_directory_that_is_not_empty_stays(stage: Stage) -> None:
    with pytest.raises(Misplaced):
        stage.put(Entry("etc/d", Kind.FILE))
    with pytest.raises(Misplaced):
        stage.remove_dir("etc/d")
    assert told(stage) == {}


def test_another_name_of_a_hard_link_takes_over_the_file(stage: Stage) -> None:
    stage.put(Entry("etc/a", Kind.FILE, content=b"x", size=1))
    stage.put(Entry("etc/b", Kind.HARDLINK, target="etc/a"))
    stage.remove("etc/a")
    assert stage.read("etc/b") == b"x"
    assert told(stage) == {"etc/b": "file"}


NAMES = st.sampled_from(["a", "b", "bin", "usr/bin", "etc/d", "etc/d/one", "etc/d/x", "bin/sh", "etc"])
STEPS = st.tuples(st.sampled_from(["write", "remove_tree", "make_dir", "symlink", "rename"]), NAMES, NAMES)


@settings(deadline=None)
@given(st.lists(STEPS, max_size=12))
def test_the_entries_laid_over_the_image_are_the_stage(steps: list[tuple[str, str, str]]) -> None:
    stage = Stage(tree(*IMAGE), 7)
    try:
        for step in steps:
            with contextlib.suppress(Misplaced):
                take(stage, *step)
        seen = state(stage)
    except MalformedInput:  # a loop of links that the steps made
        return
    again = state(Stage(tree(*IMAGE)))
    for entry in stage.entries():
        if entry.kind is not Kind.DIR or again.get(entry.path, (Kind.DIR,))[0] is not Kind.DIR:
            again = {path: it for path, it in again.items() if not f"{path}/".startswith(f"{entry.path}/")}
        if entry.kind is not Kind.WHITEOUT:
            data = stage.fs.read_span(entry.content) if isinstance(entry.content, Span) else entry.content
            again[entry.path] = (entry.kind, entry.target, data)
    assert again == seen


def take(stage: Stage, what: str, one: str, other: str) -> None:
    if what == "write":
        stage.write(one, other.encode())
    elif what == "symlink":
        stage.symlink(f"/{other}", one)
    elif what == "rename" and not f"{stage.locate(other)}/".startswith(f"{stage.locate(one)}/"):
        stage.rename(one, other)
    elif what in {"remove_tree", "make_dir"}:
        getattr(stage, what)(one)


def state(stage: Stage) -> dict[str, tuple[object, ...]]:
    return {
        entry.path: (entry.kind, entry.target, stage.read(entry.path) if entry.kind is Kind.FILE else None)
        for entry in stage.walk()
    }
