import io

import pytest

from proxy.engine.rootfs import RootFS, extract_layer
from proxy.engine.scan import scan_layer
from proxy.engine.tar import Kind, Span
from proxy.errors import AdmendError, MalformedInput
from tests.tars import END, member, scan, tree


def fs(*layers: tuple[str, ...] | bytes) -> RootFS:
    captures = io.BytesIO()
    raws = (layer if isinstance(layer, bytes) else tree(*layer) for layer in layers)
    return RootFS(
        [scan(raw, captures) for raw in raws],
        lambda span: captures.getvalue()[span.offset : span.offset + span.size],
    )


def paths(root: RootFS, path: str = "") -> list[str]:
    return [entry.path for entry in root.walk(path)]


def test_a_later_layer_replaces_removes_and_adds():
    root = fs(("d etc", "f etc/a 1", "f etc/b 1", "f etc/c 1"), ("f etc/a 2", "f etc/.wh.b", "f etc/d 2"))
    assert paths(root) == ["etc", "etc/a", "etc/c", "etc/d"]
    assert root.read("etc/a") == b"2"
    assert root.read("/etc/c") == b"1"
    assert root.read("etc/b") is None
    assert root.get("etc/b") is None


def test_a_whiteout_hides_lower_layers_only_wherever_it_stands():
    for lines in (("f a/.wh.x", "f a/x new"), ("f a/x new", "f a/.wh.x")):
        assert fs(("f a/x old",), lines).read("a/x") == b"new"


def test_a_whiteout_of_a_directory_takes_all_below_it():
    root = fs(("d a", "f a/b/c 1", "f a-b 1", "f ab 1"), ("f .wh.a",))
    assert paths(root) == ["a-b", "ab"]


def test_a_whiteout_beside_the_same_directory_leaves_only_the_new_content():
    root = fs(("d a", "f a/old 1"), ("f .wh.a", "d a", "f a/new 1"))
    assert paths(root) == ["a", "a/new"]


def test_an_opaque_directory_hides_all_that_is_below_and_nothing_of_its_own():
    for lines in (("f a/.wh..wh..opq", "f a/new 2"), ("d a 700", "f a/new 2", "f a/.wh..wh..opq")):
        root = fs(("d a", "f a/old 1", "d a/sub", "f a/sub/x 1", "f b 1"), lines)
        assert paths(root) == ["a", "a/new", "b"]


def test_an_opaque_root_hides_everything():
    assert paths(fs(("f a/b 1", "f c 1"), ("f .wh..wh..opq", "f d 1"))) == ["d"]


def test_a_whiteout_of_what_is_not_there_is_harmless():
    assert paths(fs(("f a 1",), ("f .wh.b", "f c/.wh.d"))) == ["a", "c"]


def test_a_file_replaces_a_directory_and_the_reverse():
    root = fs(("d a", "f a/x 1", "f b 1"), ("f a 2", "f b/y 2"))
    assert paths(root) == ["a", "b", "b/y"]
    assert root.get("a").kind is Kind.FILE
    assert root.get("b").kind is Kind.DIR


def test_a_directory_over_a_directory_merges_and_takes_the_new_metadata():
    root = fs(("d tmp 1777", "f tmp/a 1", "d var 700", "f var/x 1"), ("d tmp 755", "f tmp/b 2", "f var/y 2"))
    assert paths(root, "tmp") == ["tmp/a", "tmp/b"]
    assert root.get("tmp").mode == 0o755
    assert root.get("var").mode == 0o700  # only implied in the upper layer


def test_a_directory_over_a_symlink_replaces_it_as_overlayfs_does():
    root = fs(("d usr/lib", "f usr/lib/a 1", "l lib usr/lib"), ("f lib/b 2",))
    assert paths(root, "lib") == ["lib/b"]
    assert root.get("lib").kind is Kind.DIR
    assert root.read("lib/a") is None
    assert root.read("usr/lib/a") == b"1"


def test_an_entry_below_a_symlink_of_its_own_layer_lies_where_that_leads():
    root = fs(("d usr/lib", "l lib usr/lib", "f lib/a 1", "f lib/.wh.b", "l up ../../usr", "f up/c 1"))
    assert paths(root, "usr") == ["usr/c", "usr/lib", "usr/lib/a"]
    assert root.get("lib").kind is Kind.SYMLINK


def test_later_members_of_one_layer_replace_earlier_ones():
    root = fs(("f a 1", "f a 2", "d b", "f b/x 1", "f b 2", "l c b", "d c", "f c/y 1"))
    assert root.read("a") == b"2"
    assert paths(root) == ["a", "b", "c", "c/y"]


def test_hard_links_are_the_file_they_name():
    root = fs(("f bin/perl body", "h bin/perl5 bin/perl", "h top /bin/perl5"))
    assert root.read("bin/perl5") == root.read("top") == b"body"
    assert (root.get("top").kind, root.get("top").path, root.get("top").size) == (Kind.FILE, "top", 4)


def test_a_hard_link_keeps_the_file_that_was_there_when_it_was_made():
    root = fs(("f a old", "h b a"), ("f a new",), ("h c b", "f .wh.b"))
    assert (root.read("a"), root.read("c"), root.read("b")) == (b"new", b"old", None)


@pytest.mark.parametrize(
    "layers",
    [
        (("h a missing",),),
        (("h a a",),),
        (("f a 1", "h a a"),),
        (("d d", "h a d"),),
        (("h a b", "f b 1"),),
        (("f x 1", "d d"), ("f .wh.x", "h a nothing")),
    ],
)
def test_a_hard_link_to_no_file_is_refused(layers):
    with pytest.raises(MalformedInput, match="hard link"):
        fs(*layers)


def test_an_entry_below_a_file_of_its_own_layer_is_refused():
    with pytest.raises(MalformedInput, match="no directory"):
        fs(("f a 1", "f a/b 2"))


def test_symlinks_never_leave_the_root():
    root = fs(("d a", "l a/up ../../../../etc", "l abs /etc/passwd", "f etc/passwd root", "l esc ../../../etc/passwd"))
    assert root.resolve("a/up/passwd") == "etc/passwd"
    assert root.read("abs") == root.read("esc") == root.read("a/up/passwd") == b"root"
    assert root.resolve("../../..") == ""
    assert root.locate("a/up") == "a/up"
    assert root.locate("a/up/passwd") == "etc/passwd"
    assert root.get("a/up").target == "../../../../etc"
    assert root.listdir("a/up") == ["passwd"]


def test_symlink_loops_are_refused_where_they_are_met():
    root = fs(("l a b", "l b a", "l self self/x", "d d", "l d/up ../d/up"))
    for path in ("a", "a/x", "self", "d/up/y"):
        with pytest.raises(MalformedInput, match="symlinks"):
            root.resolve(path)
    assert root.get("a").kind is Kind.SYMLINK


def test_forty_symlinks_are_followed_and_forty_one_are_not():
    chain = [f"l s{n} s{n + 1}" for n in range(41)]
    root = fs((*chain, "f s41 end"))
    assert root.read("s1") == b"end"
    with pytest.raises(MalformedInput, match="symlinks"):
        root.read("s0")


def test_a_loop_that_parents_run_into_is_refused():
    with pytest.raises(MalformedInput, match="symlinks"):
        fs(("l a b", "l b a", "f a/x 1"))


def test_paths_that_do_not_exist_resolve_and_read_as_none():
    root = fs(("d a", "f a/b 1", "l dangling nowhere/x"))
    assert root.resolve("a/missing/x") == "a/missing/x"
    assert root.resolve("dangling") == "nowhere/x"
    assert (root.read("dangling"), root.read("a"), root.read("a/b/c"), root.get("a/b/c")) == (None, None, None, None)
    assert (list(root.listdir("a/b")), list(root.listdir("none"))) == ([], [])


def test_listing_is_sorted_and_does_not_take_neighbours():
    root = fs(("f d/b 1", "f d/a/x 1", "f d-e/f 1", "f d.g 1", "f d0 1"))
    assert root.listdir("d") == ["a", "b"]
    assert root.listdir("") == ["d", "d-e", "d.g", "d0"]
    assert paths(root, "d") == ["d/a", "d/a/x", "d/b"]


def test_missing_parents_are_implied_directories():
    entry = fs(("f a/b/c 1",)).get("a/b")
    assert (entry.kind, entry.mode, entry.uid) == (Kind.DIR, 0o755, 0)


def test_the_root_takes_its_metadata_from_its_entry():
    assert fs(member("./", flag=b"5", mode=0o700) + END).get("").mode == 0o700


def test_devices_are_entries_and_nothing_more():
    entry = fs(("c dev/null",)).get("dev/null")
    assert (entry.kind, entry.device) == (Kind.CHAR, (1, 3))
    assert fs(("c dev/null",)).read("dev/null") is None


def test_reading_what_was_not_kept_is_an_error_and_not_none():
    root = RootFS([scan(tree("f a 1"), keep=False)], lambda span: b"")
    with pytest.raises(AdmendError, match="a: its content was not kept"):
        root.read("a")


def test_what_was_not_kept_can_be_fetched_on_demand_each_layer_once():
    asked = []

    def read(place, paths):
        asked.append((place, paths))
        return {path: path.encode() for path in paths}

    lower, upper = scan(tree("f a 1")), scan(tree("f b/c 2", "f e 3", "l d b/c"), keep=False)
    root = RootFS([lower, upper], lambda _: b"", read)
    root.fetch(["d", "e", "a", "nowhere"])
    assert (root.read("d"), root.read("e")) == (b"b/c", b"e")
    assert asked == [(1, {"b/c", "e"})]


def test_a_second_pass_supplies_missing_contents():
    raws = [tree("f lib/a first", "f lib/b bb", "f e"), tree("f lib/a second", "h lib/h lib/a", "f x 1")]
    root = RootFS([scan(raw, keep=False) for raw in raws], lambda span: captures.getvalue()[span.offset :][: span.size])
    assert root.missing(["lib/h", "lib/b", "e", "nothing", "lib"]) == {1: {"lib/a"}, 0: {"lib/b"}}
    captures = io.BytesIO()
    for place, wanted in root.missing(["lib/h", "lib/b"]).items():
        found = extract_layer(
            io.BytesIO(raws[place]), "", wanted, captures=captures, captures_name="more", where="layer"
        )
        root.supply(place, found)
    assert (root.read("lib/h"), root.read("lib/a"), root.read("lib/b")) == (b"second", b"second", b"bb")
    assert root.get("lib/b").content == Span("more", 6, 2)
    assert root.missing(["lib/h", "lib/b"]) == {}


def test_contents_of_another_size_are_not_taken():
    root = RootFS([scan(tree("f a 123"), keep=False)], lambda _: b"")
    with pytest.raises(MalformedInput, match="not the content"):
        root.supply(0, {"a": Span("c", 0, 2)})


def test_a_layer_that_replaces_directories_without_end_is_refused():
    raw = b"".join(member("a/b/", flag=b"5") + member("a/b", b"") for _ in range(1001))
    with pytest.raises(MalformedInput, match="over and over"):
        fs(raw + END)


def test_names_that_are_not_utf_8_are_found():
    root = fs(member(b"caf\xe9", b"x") + END)
    assert root.read("caf\udce9") == b"x"


def test_scanning_closes_nothing_and_reads_to_the_end():
    stream = io.BytesIO(tree("f a 1"))
    scan_layer(stream, "", keep=lambda _: False, captures=io.BytesIO(), captures_name="c", where="layer")
    assert stream.read() == b""
