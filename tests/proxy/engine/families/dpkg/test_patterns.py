"""Patterns match as the C library matches them, and none takes for ever."""

import contextlib
import ctypes
import subprocess
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.engine.families.dpkg.patterns import MAX_PATTERN, matches
from proxy.errors import MalformedInput
from tests.support import require_tool

WORDS = ["", "a", "ab", "abc", "libc6", "libssl3", "x.y", "a+b", "[a]", "aaa", "1.0-1", "A", "a-b", "*", "a]b", "\\"]
EXPRESSIONS = [
    "a", "^a", "a$", "^a$", "^$", "", ".", "a.c", "a*", "^a*$", "(ab)+", "a|b", "^(a|lib.*)$", "lib(c|ssl)[0-9]",
    "[^a-c]", "[]a]", "[a-]", "[[:digit:]]+", "^[[:alpha:]]+$", "a{2}", "^a{2,}$", "^a{1,2}$", "a{0,1}b", "(a|)b",
    "\\.", "\\+", "x\\.y", "((a)(b))c", "(a*)*b", "a**", "^[[:space:]]*$", "a?b?c?$", "LIB",
]  # fmt: skip


@pytest.mark.interop
@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_an_expression_matches_as_grep_matches(expression: str) -> None:
    grep = require_tool("grep")
    for word in WORDS:
        told = subprocess.run([grep, "-Eiq", "--", expression], input=f"{word}\n".encode(), check=False).returncode == 0
        assert matches(f"/{expression}/", word) == told, word


@pytest.mark.parametrize(
    ("pattern", "word", "same"),
    [
        ("*", "", True),
        ("a*", "abc", True),
        ("*c", "abc", True),
        ("a?c", "abc", True),
        ("a?", "abc", False),
        ("[a-c]b*", "bbx", True),
        ("[!a]", "b", True),
        ("[^a]", "a", False),
        ("[]]", "]", True),
        ("[a", "[a", True),
        ("\\*", "*", True),
        ("\\*", "a", False),
        ("[\\]]", "]", True),
        ("A", "a", False),
        ("/a/b", "/a/b", True),
        ("**a**", "bab", True),
    ],
)
def test_a_shell_pattern_matches_all_of_a_text(pattern: str, word: str, same: bool) -> None:
    assert (ctypes.CDLL(None).fnmatch(pattern.encode(), word.encode(), 0) == 0) == same
    assert matches(pattern, word) == same


@pytest.mark.parametrize(
    "bad",
    [
        "/(/",
        "/)/",
        "/[a/",
        "/*a/",
        "/a{2/",
        "/a{3,2}/",
        "/a{999}/",
        "/\\w/",
        "/a\\/",
        "/(a)\\1/",
        "/[[:odd:]]/",
        "/[[=a=]]/",
    ],
)
def test_an_expression_that_is_not_followed_is_refused(bad: str) -> None:
    with pytest.raises(MalformedInput):
        matches(bad, "a")


@given(st.text("a*?[]!^-\\|(){},1.$+/", max_size=40), st.text("ab]1", max_size=30))
@example("/(a*)*(a*)*(a*)*b/", "a" * 60)
@example("*a" * 100, "a" * 99 + "b")
@example("/((((a{9}){9}){9}){9}){9}/", "a")
@example("/" + "(a|b)*" * 40 + "c/", "ab" * 60)
def test_no_pattern_takes_for_ever(pattern: str, text: str) -> None:
    began = time.process_time()
    with contextlib.suppress(MalformedInput):
        matches(pattern, text)
    assert time.process_time() - began < 1


def test_a_pattern_without_end_is_refused() -> None:
    with pytest.raises(MalformedInput, match="more than"):
        matches("a" * (MAX_PATTERN + 1), "a")
