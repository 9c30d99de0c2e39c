"""Values that follow their files."""

import os

import pytest

from certs.following import Followed


def parse(file):
    text = file.read_text()
    if text == "bad":
        raise ValueError("bad text")
    return text


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "value"
    path.write_text("one")
    return path


def follow(file):
    return Followed("values", [file], lambda: parse(file), (ValueError,))


def replace(file, text):
    new = file.with_suffix(".new")
    new.write_text(text)
    new.replace(file)


def test_the_value_follows_its_file(file):
    followed = follow(file)
    assert followed.current == "one"
    replace(file, "two")
    assert followed.current == "two"


def test_a_file_that_cannot_be_used_leaves_the_last_good_value_and_is_told_once(file, caplog):
    followed = follow(file)
    replace(file, "bad")
    assert [followed.current for _ in range(3)] == ["one"] * 3
    assert caplog.text.count("cannot be loaded") == 1
    file.unlink()
    assert followed.current == "one"
    replace(file, "three")
    assert followed.current == "three"


def test_the_first_load_may_fail(file):
    replace(file, "bad")
    with pytest.raises(ValueError, match="bad text"):
        follow(file)


def test_a_file_that_did_not_change_is_not_read_again(file):
    followed = follow(file)
    stat = file.stat()
    file.write_text("six")  # in place, of the same length and time: what a look at the file cannot tell
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert followed.current == "one"
