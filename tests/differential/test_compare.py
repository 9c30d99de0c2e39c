"""The judge sees what it must see: each kind of difference between two trees, and none where there is none."""

import os
import tarfile

import pytest

from tests.differential.allowed import ALLOWED, MOST, explain, owned_and_allowed
from tests.differential.compare import Difference, Facts, compare
from tests.differential.database import compare_databases
from tests.differential.image import unpack, write_image
from tests.differential.trees import pack
from tests.support import require_root

STATUS = "Package: one\nStatus: install ok installed\nArchitecture: all\nVersion: 1\n\n"
FILE = Facts("file", "0644", "0:0", "", "", ())


@pytest.fixture
def trees(tmp_path):
    """Two equal trees with a small package database."""
    for side in ("ours", "theirs"):
        tree = tmp_path / side
        (tree / "var/lib/dpkg/info").mkdir(parents=True)
        (tree / "var/lib/dpkg/status").write_text(STATUS)
        (tree / "var/lib/dpkg/info/one.list").write_text("/.\n/bin\n/bin/one\n")
        (tree / "usr/bin").mkdir(parents=True)
        (tree / "bin").symlink_to("usr/bin")
        (tree / "usr/bin/one").write_text("one\n")
        (tree / "usr/bin/two").write_text("two\n")
        for path in ("usr/bin/one", "usr/bin/two"):
            os.utime(tree / path, (1, 1))
    return tmp_path / "ours", tmp_path / "theirs"


def change_mode(tree):
    (tree / "usr/bin/one").chmod(0o4755)


def change_content(tree):
    (tree / "usr/bin/one").write_text("uno\n")
    os.utime(tree / "usr/bin/one", (1, 1))


def change_time(tree):
    os.utime(tree / "usr/bin/one", (5, 5))


def change_kind(tree):
    (tree / "usr/bin/one").unlink()
    (tree / "usr/bin/one").mkdir()


def remove(tree):
    (tree / "usr/bin/one").unlink()


def link(tree):
    (tree / "usr/bin/one").unlink()
    (tree / "usr/bin/one").symlink_to("two")


@pytest.mark.parametrize("change", [change_mode, change_content, change_time, change_kind, remove, link])
@pytest.mark.parametrize("side", [0, 1])
def test_a_change_on_either_side_is_found_with_the_package_that_owns_the_path(trees, change, side):
    change(trees[side])
    (found,) = compare(*trees).differences
    assert (found.path, found.owner) == ("usr/bin/one", "one")
    assert found.what
    assert explain(found) is None


def test_equal_trees_have_no_difference(trees):
    found = compare(*trees)
    assert found.differences == ()
    assert found.paths == len(list(trees[0].rglob("*")))
    assert found.owned == {"usr/bin/one": "one"}


def test_files_that_are_one_on_one_side_and_two_on_the_other_differ(trees):
    for tree in trees:
        (tree / "usr/bin/three").write_text("two\n")
    (trees[0] / "usr/bin/three").unlink()
    os.link(trees[0] / "usr/bin/two", trees[0] / "usr/bin/three")
    assert [item.path for item in compare(*trees).differences] == ["usr/bin/three", "usr/bin/two"]


def test_extended_attributes_and_owners_differ(trees):
    require_root()
    os.setxattr(
        trees[0] / "usr/bin/one", "security.capability", bytes.fromhex("0100000200040000000000000000000000000000")
    )
    os.chown(trees[1] / "usr/bin/two", 7, 7)
    assert [item.path for item in compare(*trees).differences] == ["usr/bin/one", "usr/bin/two"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Version: 1", "Version: 2"),
        ("install ok", "hold ok"),
        ("Version: 1\n", "Version: 1\nSection: x\n"),
        (STATUS, ""),
    ],
)
def test_a_record_that_differs_is_told(trees, old, new):
    (trees[1] / "var/lib/dpkg/status").write_text(STATUS.replace(old, new))
    differences, _ = compare_databases(*trees)
    assert len(differences) == 1
    assert "one:all" in differences[0]


def test_the_same_records_in_another_order_are_told(trees):
    other = STATUS.replace("one", "other")
    for tree, text in zip(trees, (STATUS + other, other + STATUS), strict=True):
        (tree / "var/lib/dpkg/status").write_text(text)
    differences, _ = compare_databases(*trees)
    assert "another order" in differences[0]


def test_the_allowed_differences_are_few_and_each_has_a_reason():
    assert len(ALLOWED) <= MOST
    assert all(len(item.reason) > 20 for item in ALLOWED)
    assert len({item.name for item in ALLOWED}) == len(ALLOWED)


def test_a_path_that_a_package_owns_is_never_allowed():
    log = Difference("var/log/dpkg.log", None, FILE)
    assert explain(log) is not None
    assert explain(Difference("var/log/dpkg.log", None, FILE, "one")) is None
    assert owned_and_allowed({"var/log/dpkg.log": "one", "usr/bin/one": "one"}) == [
        "the predicate log matches var/log/dpkg.log of one"
    ]


def test_bytecode_that_only_the_patched_image_has_is_not_allowed():
    path = "usr/lib/python3/dist-packages/__pycache__/six.cpython-311.pyc"
    assert explain(Difference(path, None, FILE)) is not None
    assert explain(Difference(path, FILE, None)) is None
    assert explain(Difference(path, FILE, FILE)) is None


def test_layers_are_applied_as_container_runtimes_do(tmp_path):
    require_root()
    lower = tmp_path / "lower"
    for path in ("gone/a", "hidden/b", "was-a-folder/c", "kept/d"):
        (lower / path).parent.mkdir(parents=True)
        (lower / path).write_text("lower")
    (lower / "was-a-link").symlink_to("kept")
    upper = tmp_path / "upper"
    for path in (".wh.gone", "hidden/.wh..wh..opq", "hidden/e", "was-a-folder", "was-a-link/f"):
        (upper / path).parent.mkdir(parents=True, exist_ok=True)
        (upper / path).write_text("upper")
    for tree in (lower, upper):
        pack(tree, tree.with_suffix(".tar"))
    layout = write_image([tmp_path / "lower.tar", tmp_path / "upper.tar"], tmp_path / "image")
    unpack(layout, tmp_path / "tree", tmp_path)
    found = {str(path.relative_to(tmp_path / "tree")) for path in (tmp_path / "tree").rglob("*") if path.is_file()}
    assert found == {"hidden/e", "was-a-folder", "was-a-link/f", "kept/d"}


def test_a_layer_that_writes_through_a_symlink_is_refused(tmp_path):
    lower = tmp_path / "lower"
    (lower / "real").mkdir(parents=True)
    (lower / "link").symlink_to("real")
    pack(lower, tmp_path / "lower.tar")
    with tarfile.open(tmp_path / "upper.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("link/file"))
    layout = write_image([tmp_path / "lower.tar", tmp_path / "upper.tar"], tmp_path / "image")
    with pytest.raises(AssertionError, match="through the symlink link"):
        unpack(layout, tmp_path / "tree", tmp_path)
