"""Patterns of path filters against the C library's own fnmatch."""

import ctypes

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.engine.families.dpkg.filters import translate_pattern

LIBC = ctypes.CDLL(None)
PIECES = ["/", "a", "b", "*", "?", "[", "]", "!", "^", "-", "\\", "[ab]", "[!a]", "[[:alpha:]]", "[a-c]", ".", "[]a]"]


@settings(deadline=None, max_examples=400)
@given(st.lists(st.sampled_from(PIECES), max_size=7).map("".join), st.text("/ab-].[!^\\", max_size=5))
def test_a_pattern_matches_what_the_c_library_matches(pattern: str, name: str) -> None:
    expected = LIBC.fnmatch(pattern.encode(), name.encode(), 0) == 0
    assert (translate_pattern(pattern).match(name) is not None) == expected


@pytest.mark.parametrize("pattern", ["*" * 200 + "b", "*a" * 12 + "b"])
def test_a_pattern_of_many_wildcards_is_matched_in_no_time(pattern: str) -> None:
    assert translate_pattern(pattern).match("/usr/share/" + "a" * 200) is None
