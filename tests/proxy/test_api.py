"""What the wire models make of texts that came out of images."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.api import SkipInfo, make_printable


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("its postinst is not understood (\x1b]0;owned\x07)", "its postinst is not understood (?]0;owned?)"),
        ("not a shell script: \x7fELF\x00\x02", "not a shell script: ?ELF??"),
        ("two\nlines\tand a tab", "two lines and a tab"),
        ("a lone \udcff surrogate", "a lone ? surrogate"),
        ("größer, 日本", "größer, 日本"),
    ],
)
def test_a_reason_holds_nothing_that_a_terminal_would_act_upon(written, told):
    assert SkipInfo(package="bash", reason=written).reason == told


@given(st.text(st.characters()))
def test_any_text_becomes_printable_and_keeps_its_length(text):
    made = make_printable(text)
    assert made.isprintable()
    assert len(made) == len(text)
    made.encode()
