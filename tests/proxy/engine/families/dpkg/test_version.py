"""Debian versions compare as dpkg compares them."""

import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.engine.families.dpkg.version import compare_versions, split_version
from proxy.errors import MalformedInput
from tests.support import require_tool

part = st.text("0019aZz.+~", min_size=1, max_size=7)
versions = st.builds(
    lambda epoch, upstream, revision: f"{epoch}0{upstream}{revision}",
    st.sampled_from(["", "", "0:", "1:", "12:"]),
    part,
    st.one_of(st.just(""), part.map(lambda text: f"-{text}"), part.map(lambda text: f"-1-{text}")),
)


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("1.0", "1.1"),
        ("1.9", "1.10"),
        ("1.0~rc1", "1.0"),
        ("1.0~~", "1.0~"),
        ("1.0~", "1.0"),
        ("1.0", "1.0a"),
        ("1.0a", "1.0+"),
        ("9", "1:0"),
        ("1.0-1", "1.0-1+deb12u1"),
        ("1.0-1~bpo12+1", "1.0-1"),
        ("3.0.11-1~deb12u2", "3.0.20-1~deb12u2"),
        ("1", "1-0a"),
        ("2.31-13+deb11u9", "2.31-13+deb11u11"),
    ],
)
def test_the_order_of_the_manual_page_holds(older: str, newer: str) -> None:
    assert compare_versions(older, newer) == -1
    assert compare_versions(newer, older) == 1


@pytest.mark.parametrize(("a", "b"), [("1.0", "0:1.0"), ("1.0", "1.0-0"), ("1.00", "1.0"), ("1a", "1a0"), ("007", "7")])
def test_versions_written_differently_can_be_equal(a: str, b: str) -> None:
    assert compare_versions(a, b) == 0


@pytest.mark.parametrize("bad", ["", "1:", ":1", "a:1", "1.0-", "-1", "1 0", "1.0_1", "1.0\n", "٣", "1" * 2000, "1_0"])
def test_what_is_no_version_is_refused(bad: str) -> None:
    with pytest.raises(MalformedInput):
        compare_versions(bad, "1")


def test_a_version_of_very_many_digits_is_compared_without_trouble() -> None:
    assert compare_versions("9" * 1000, "9" * 999) == 1


def test_epoch_upstream_and_revision_are_split_at_the_first_colon_and_the_last_dash() -> None:
    assert split_version("1:2:3-4-5") == (1, "2:3-4", "5")


@given(versions, versions, versions)
def test_the_order_is_total_and_transitive(a: str, b: str, c: str) -> None:
    assert compare_versions(a, b) == -compare_versions(b, a)
    if compare_versions(a, b) <= 0 and compare_versions(b, c) <= 0:
        assert compare_versions(a, c) <= 0


@pytest.mark.interop
@settings(max_examples=150, deadline=None)
@given(versions, versions)
def test_dpkg_agrees(a: str, b: str) -> None:
    dpkg = require_tool("dpkg")
    relation = {-1: "lt", 0: "eq", 1: "gt"}[compare_versions(a, b)]
    assert subprocess.run([dpkg, "--compare-versions", a, relation, b], check=False).returncode == 0
