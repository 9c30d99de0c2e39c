"""What goes for the sake of an upgrade, what stays, and the reasons; the family's tests ask the real apt."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.engine.closure import State
from proxy.engine.family import Candidate, Fetch, Installed, Package
from proxy.engine.plan import PlanPolicy, UpgradePlan, plan_upgrades
from proxy.engine.transition import HEAVIER, UNSURE
from tests.proxy.engine.test_plan import compare, package


class Market:
    """Packages that are not installed; `known` are the versions that the sources have of those that are."""

    def __init__(self, new: Sequence[Package], known: Collection[Package]) -> None:
        self._new, self._known = new, known

    def __call__(self, name: str, /) -> Sequence[Candidate]:
        named = [one for one in self._new if one.name == name]
        providing = [one for one in self._new if any(it.name == name for it in one.provides)]
        found = named or (providing if len(providing) == 1 else [])
        return [Candidate(one, Fetch(""), "archive.example") for one in found]

    def offers(self, package: Package) -> bool:
        return package in self._known

    def several(self, name: str) -> bool:
        return not self(name) and sum(any(it.name == name for it in one.provides) for one in self._new) > 1


def plan(
    installed: Sequence[Package],
    available: Sequence[Package],
    *,
    offered: Sequence[Package] = (),
    held: str = "",
    exclude: tuple[str, ...] = (),
    blocked: Mapping[str, str] | None = None,
) -> UpgradePlan:
    there = {one.name for one in installed}
    candidates = {one.name: Candidate(one, Fetch(""), "archive.example") for one in available if one.name in there}
    items = [Installed(one.name, one, "held by the user" if one.name == held else "") for one in installed]
    market = Market([one for one in available if one.name not in there], [*available, *offered])
    policy = PlanPolicy(exclude=exclude, transitions="full")
    return plan_upgrades(items, candidates, compare, policy, blocked, addable=market, market=market)


def told(found: UpgradePlan) -> tuple[dict[str, str], set[str], dict[str, str]]:
    moved = {item.key: item.candidate.package.version for item in found.upgrades}
    return moved, {item.key for item in found.removals}, {item.package: item.reason for item in found.skipped}


TOOL = package("tool", "2", breaks="old")
PAIR = [package("tool", "1"), package("old", "1")]


def test_what_an_upgrade_must_not_be_with_goes_and_the_reason_names_it() -> None:
    found = plan(PAIR, [TOOL])
    assert told(found) == ({"tool": "2"}, {"old"}, {})
    assert [item.reason for item in found.removals] == ["tool 2 must not be with old"]


def test_what_cannot_be_without_it_goes_too() -> None:
    found = plan([*PAIR, package("user", "1", needs="old")], [TOOL])
    assert told(found)[1] == {"old", "user"}
    assert {item.key: item.reason for item in found.removals}["user"] == "needs old: old 1 is removed"


def test_what_takes_its_place_is_added() -> None:
    new = package("new", "2", breaks="old", provides="old")
    installed = [package("tool", "1", needs="old"), package("old", "1"), package("user", "1", needs="old")]
    assert told(plan(installed, [package("tool", "2", needs="new"), new])) == ({"tool": "2", "new": "2"}, {"old"}, {})


@pytest.mark.parametrize("mark", ["Essential", "Protected", "Important"])
def test_an_essential_package_stays_and_the_upgrade_with_it(mark: str) -> None:
    old = replace(PAIR[1], fields={mark: "yes"})
    moved, gone, skipped = told(plan([PAIR[0], old], [TOOL]))
    assert (moved, gone) == ({}, set())
    assert skipped["tool"] == "must not be with old: old 1 stays (it is essential)"


def test_a_package_that_is_held_excluded_or_not_removable_stays() -> None:
    for more, reason in (
        ({"held": "old"}, "held by the user"),
        ({"exclude": ("old",)}, "excluded by policy"),
        ({"blocked": {"old": "its prerm is not understood yet"}}, "its prerm is not understood yet"),
    ):
        moved, gone, skipped = told(plan(PAIR, [TOOL], **more))  # type: ignore[arg-type]
        assert (moved, gone) == ({}, set())
        assert reason in skipped["tool"]


def test_a_package_that_counts_for_more_stays() -> None:
    users = [package(name, "1", needs="old") for name in "ab"]
    moved, gone, skipped = told(plan([*PAIR, *users], [TOOL], offered=[PAIR[1], *users]))
    assert (moved, gone) == ({}, set())
    assert HEAVIER in skipped["tool"]


def test_where_several_could_provide_what_is_missing_nothing_goes() -> None:
    new = [package(name, "1", provides="virtual") for name in "xy"]
    picky = package("picky", "1"), package("picky", "2", needs="virtual")
    moved, gone, skipped = told(plan([*PAIR, picky[0]], [TOOL, picky[1], *new]))
    assert (moved, gone) == ({}, set())
    assert UNSURE in skipped["tool"]


def test_nothing_goes_for_an_upgrade_that_cannot_be() -> None:
    moved, gone, skipped = told(plan(PAIR, [replace(TOOL, requires=package("", "", "nowhere").requires)]))
    assert (moved, gone) == ({}, set())
    assert skipped["tool"].startswith("needs nowhere")


NAMES = st.sampled_from("abcdef")
VERSIONS = st.sampled_from(["1", "2", "3"])
RELATIONS = st.builds(
    lambda name, op, version: f"{name} {op} {version}", NAMES, st.sampled_from(["=", ">=", "<"]), VERSIONS
)
FIELD = st.lists(RELATIONS | NAMES, max_size=2).map(", ".join)


@st.composite
def packages(draw: st.DrawFn) -> list[Package]:
    names = draw(st.lists(NAMES, unique=True, max_size=6))
    made = [package(name, draw(VERSIONS), draw(FIELD), draw(FIELD), draw(st.sampled_from(["", "v"]))) for name in names]
    return [replace(one, fields={"Essential": draw(st.sampled_from(["", "", "", "yes"]))}) for one in made]


@settings(max_examples=150, deadline=None)
@given(packages(), packages())
def test_nothing_is_newly_missing_or_in_conflict_and_what_is_essential_stays(
    installed: list[Package], available: list[Package]
) -> None:
    known = {one.name: one for one in installed}
    newer = [one for one in available if one.name not in known or compare(one.version, known[one.name].version) > 0]
    found = plan(installed, newer)
    gone = {item.key for item in found.removals}
    assert not any(known[key].fields["Essential"] for key in gone)
    before = State(dict(known))
    moved = {item.key: item.candidate.package for item in found.upgrades}
    after = State({key: one for key, one in {**known, **moved}.items() if key not in gone})
    for key, one in after.packages.items():
        for group in one.requires if key not in moved else ():
            met = [any(True for it in group for _ in state.holders(it, one, compare)) for state in (before, after)]
            assert met[1] or not met[0], (key, group)
        for it in one.conflicts:
            hits = {hit for hit in after.holders(it, replace(one, arch=""), compare) if after.packages[hit].name != key}
            old = known.get(key, one)
            assert not hits or any(
                set(before.holders(then, replace(old, arch=""), compare)) >= hits for then in old.conflicts
            ), (key, it)
