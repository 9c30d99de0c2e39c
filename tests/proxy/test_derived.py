"""What the cache holds beside blobs: what goes, and what is never taken from under a job."""

import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.derived import Derived, Group, choose, find_groups, mark_used
from proxy.jobs import EPOCH

HOUR, DAY = 3600.0, 86400.0
SCAN = ("json", "index", "captures")


@pytest.fixture
def cache(tmp_path):
    def put(name, age, size=10):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * size)
        os.utime(path, (time.time() - age,) * 2)
        return path

    return put


def names(root):
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


async def test_what_was_not_used_for_long_goes_and_what_was_used_stays(tmp_path, cache):
    for suffix in SCAN:
        cache(f"layers/{EPOCH}/aa.{suffix}", 9 * DAY)
        cache(f"layers/{EPOCH}/bb.{suffix}", 2 * DAY)
    cache(f"packages/{EPOCH}/cc.payload", 9 * DAY)
    cache(f"packages/{EPOCH}/cc.data", 9 * DAY)
    cache("sources/dd.json", 9 * DAY)
    cache("sources/dd.0123.index", 2 * DAY)  # the index was used, so its state stays too
    cache("blobs/sha256/ee", 9 * DAY)
    freed = await Derived(tmp_path, 1 << 30, 7 * DAY).prune()
    assert freed == 50
    assert names(tmp_path) == sorted(
        [*(f"layers/{EPOCH}/bb.{s}" for s in SCAN), "sources/dd.json", "sources/dd.0123.index", "blobs/sha256/ee"]
    )


async def test_other_epochs_and_leftovers_go_after_an_hour(tmp_path, cache):
    cache("layers/0-old/aa.json", 2 * HOUR)
    cache("packages/0-old/bb.payload", HOUR / 2)
    cache(f"layers/{EPOCH}/.tmp-abc", 2 * HOUR)
    cache(f"layers/{EPOCH}/.tmp-def", HOUR / 2)
    cache(f"layers/{EPOCH}/0a1b.new", 2 * HOUR)
    cache(f"layers/{EPOCH}/cc.json", 2 * HOUR)
    await Derived(tmp_path, 1 << 30, 7 * DAY).prune()
    assert names(tmp_path) == sorted(
        ["packages/0-old/bb.payload", f"layers/{EPOCH}/.tmp-def", f"layers/{EPOCH}/cc.json"]
    )
    assert not (tmp_path / "layers/0-old").exists()


async def test_the_least_recently_used_goes_first_when_there_is_too_much(tmp_path, cache):
    for hours, name in ((5, "a"), (4, "b"), (3, "c"), (0, "d")):
        cache(f"packages/{EPOCH}/{name}.payload", hours * HOUR, 100)
    derived = Derived(tmp_path, 250, 7 * DAY)
    assert await derived.prune() == 200
    assert names(tmp_path) == [f"packages/{EPOCH}/{name}.payload" for name in "cd"]
    assert derived.used == 200
    assert await derived.prune() == 0


async def test_what_is_used_between_the_decision_and_the_removal_stays(tmp_path, cache, monkeypatch):
    marker = cache(f"packages/{EPOCH}/aa.payload", 9 * DAY)
    data = cache(f"packages/{EPOCH}/aa.data", 9 * DAY)

    def use_meanwhile(*arguments, **options):
        doomed = choose(*arguments, **options)
        assert mark_used(marker)
        return doomed

    monkeypatch.setattr("proxy.derived.choose", use_meanwhile)
    assert await Derived(tmp_path, 1 << 30, 7 * DAY).prune() == 0
    assert marker.exists()
    assert data.exists()


async def test_an_empty_cache_and_odd_things_in_it_are_no_trouble(tmp_path):
    derived = Derived(tmp_path / "nothing", 1, 1.0)
    assert await derived.prune() == 0
    (tmp_path / "layers").write_text("a file")
    (tmp_path / f"packages/{EPOCH}/folder").mkdir(parents=True)
    outside = tmp_path / "outside"
    outside.write_text("kept")
    (tmp_path / f"packages/{EPOCH}/link.data").symlink_to(outside)
    os.utime(tmp_path / f"packages/{EPOCH}/link.data", (0, 0), follow_symlinks=False)
    await Derived(tmp_path, 1, 1.0).prune()
    assert outside.exists()
    assert (tmp_path / f"packages/{EPOCH}/folder").exists()
    assert not (tmp_path / f"packages/{EPOCH}/link.data").is_symlink()


def test_the_file_that_says_that_the_others_are_complete_goes_first(tmp_path, cache):
    for suffix in SCAN:
        cache(f"layers/{EPOCH}/aa.{suffix}", 0)
    (group,) = find_groups(tmp_path)
    assert group.paths[0].suffix == ".json"


def test_a_use_is_noted_and_a_missing_file_is_told(tmp_path, cache):
    old = cache("sources/a.index", DAY)
    assert mark_used(old)
    assert time.time() - old.stat().st_mtime < 60
    assert not mark_used(tmp_path / "sources/b.index")


GROUPS = st.lists(
    st.builds(
        Group,
        st.just(()),
        st.integers(0, 1000),
        st.floats(0, 2e6, allow_nan=False),
        st.booleans(),
    ),
    unique_by=lambda group: group.used,
    max_size=30,
)


@given(GROUPS, st.integers(0, 5000), st.floats(0, 2e6))
def test_recent_use_protects_and_the_limits_hold_for_all_else(groups, max_bytes, max_age):
    now = 2e6
    doomed = choose(groups, now, max_bytes=max_bytes, max_age=max_age, grace=HOUR)
    stay = [group for group in groups if group not in doomed]
    assert all(now - group.used > HOUR for group in doomed)
    spare = [group for group in stay if now - group.used > HOUR]
    assert all(group.lasting and now - group.used <= max_age for group in spare)
    assert not spare or sum(group.size for group in stay) <= max_bytes
    assert len(doomed) == len(set(doomed))
