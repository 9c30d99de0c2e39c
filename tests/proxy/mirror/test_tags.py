import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.mirror.tags import is_source, patched_tag, plan_retention, superseded_tag
from proxy.oci.digest import Digest

ONE, TWO, CHILD = (Digest.of(text) for text in (b"one", b"two", b"child"))
SRC = "src-" + "ab" * 16


def test_only_the_source_tag_itself_is_one() -> None:
    assert is_source(SRC)
    assert not is_source(f"{SRC}.result")
    assert not is_source("src-main")


def test_what_a_source_or_a_person_points_at_stays() -> None:
    for tag in (SRC, "1.25-patched"):
        tags = {patched_tag(ONE): ONE, tag: ONE, superseded_tag(ONE, 0): ONE}
        decided = plan_retention(tags, {}, in_use=set(), now=1e9, retain=1)
        assert (decided.mark, decided.drop) == ((), ())


def test_a_superseded_image_is_marked_first_and_dropped_when_its_time_is_over() -> None:
    tags = {patched_tag(ONE): ONE, SRC: TWO, patched_tag(TWO): TWO, f"{SRC}.result": CHILD}
    assert plan_retention(tags, {}, in_use=set(), now=1000, retain=100).mark == (ONE,)
    tags[superseded_tag(ONE, 1000)] = ONE
    assert plan_retention(tags, {}, in_use=set(), now=1099, retain=100).drop == ()
    assert plan_retention(tags, {}, in_use=set(), now=1100, retain=100).drop == (ONE,)
    tags[superseded_tag(ONE, 1050)] = ONE
    assert plan_retention(tags, {}, in_use=set(), now=1100, retain=100).drop == ()


@pytest.mark.parametrize("used", [ONE, CHILD])
def test_an_image_in_use_stays_by_its_own_digest_and_by_a_platform_s(used: Digest) -> None:
    tags = {patched_tag(ONE): ONE, superseded_tag(ONE, 0): ONE}
    decided = plan_retention(tags, {ONE: {CHILD}}, in_use={used}, now=1e9, retain=1)
    assert (decided.mark, decided.drop) == ((), ())


@given(ages=st.lists(st.integers(0, 10**9), min_size=1, max_size=8, unique=True))
def test_the_oldest_goes_first(ages: list[int]) -> None:
    digests = {Digest.of(str(age).encode()): age for age in ages}
    tags = {tag: d for d, age in digests.items() for tag in (patched_tag(d), superseded_tag(d, age))}
    decided = plan_retention(tags, {}, in_use=set(), now=2e9, retain=1)
    assert [digests[digest] for digest in decided.drop] == sorted(ages)
