"""What moves, what stays, and the reasons."""

from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.engine.closure import satisfies
from proxy.engine.family import Candidate, Constraint, Fetch, Installed, Package
from proxy.engine.plan import PlanPolicy, UpgradePlan, plan_upgrades


def compare(a: str, b: str) -> int:
    left, right = ([int(part) for part in text.split(".")] for text in (a, b))
    return (left > right) - (left < right)


def constraint(text: str) -> Constraint:
    name, _, bound = text.partition(" ")
    name, _, arch = name.partition(":")
    op, _, version = bound.partition(" ")
    return Constraint(name, op, version, arch)


def package(name: str, version: str, needs: str = "", breaks: str = "", provides: str = "", **rest: str) -> Package:
    return Package(
        name,
        version,
        rest.get("arch", "amd64"),
        requires=tuple(tuple(constraint(one) for one in group.split(" | ")) for group in needs.split(", ") if group),
        conflicts=tuple(constraint(one) for one in breaks.split(", ") if one),
        provides=tuple(constraint(one) for one in provides.split(", ") if one),
        recommends=tuple((constraint(one),) for one in rest.get("recommends", "").split(", ") if one),
        source=rest.get("source", ""),
        source_version=rest.get("source_version", ""),
    )


def key(item: Package) -> str:
    return item.name if item.arch in {"amd64", "all"} else f"{item.name}:{item.arch}"


def plan(
    installed: list[Package],
    available: list[Package],
    policy: PlanPolicy | None = None,
    *,
    security: tuple[str, ...] = (),
    held: tuple[str, ...] = (),
    blocked: Mapping[str, str] | None = None,
) -> UpgradePlan:
    items = [Installed(key(p), p, "held by the user" if p.name in held else "") for p in installed]
    candidates = {
        key(p): Candidate(p, Fetch(f"https://archive.example/{p.name}"), "archive.example", p.name in security)
        for p in available
    }
    return plan_upgrades(items, candidates, compare, policy, blocked)


def moves(result: UpgradePlan) -> dict[str, str]:
    return {upgrade.key: upgrade.candidate.package.version for upgrade in result.upgrades}


def reasons(result: UpgradePlan) -> dict[str, str]:
    return {skip.package: skip.reason for skip in result.skipped}


def test_everything_newer_moves() -> None:
    result = plan([package("a", "1"), package("b", "1")], [package("a", "2")])
    assert moves(result) == {"a": "2"}
    assert result.skipped == ()


def test_a_held_a_blocked_and_an_excluded_package_stay_with_their_reasons() -> None:
    result = plan(
        [package("a", "1"), package("b", "1"), package("c", "1", source="src"), package("d", "1")],
        [package(name, "2") for name in "abcd"],
        PlanPolicy(exclude=("sr?",)),
        held=("a",),
        blocked={"b": "its postinst is not known"},
    )
    assert moves(result) == {"d": "2"}
    assert reasons(result) == {
        "a": "held by the user",
        "b": "its postinst is not known",
        "c": "excluded by policy",
    }


def test_a_new_dependency_that_is_not_installed_is_a_skip_that_names_it() -> None:
    result = plan([package("a", "1")], [package("a", "2", "libnew")])
    assert moves(result) == {}
    assert reasons(result)["a"] == "needs libnew: the image does not have it, and nothing is added"


def test_a_dependency_that_the_sources_cannot_meet_is_named_with_both_versions() -> None:
    result = plan([package("a", "1"), package("libfoo", "1")], [package("a", "2", "libfoo >= 2")])
    assert reasons(result)["a"] == "needs libfoo (>= 2): the image has libfoo 1 and the sources offer none newer"
    result = plan(
        [package("a", "1"), package("libfoo", "1")], [package("a", "2", "libfoo >= 2"), package("libfoo", "1.5")]
    )
    assert moves(result) == {"libfoo": "1.5"}
    assert reasons(result)["a"] == "needs libfoo (>= 2): the image has libfoo 1 and the sources offer 1.5"


def test_a_dependency_on_a_held_package_says_that_it_is_held() -> None:
    result = plan(
        [package("a", "1"), package("libfoo", "1")],
        [package("a", "2", "libfoo >= 2"), package("libfoo", "2")],
        held=("libfoo",),
    )
    assert "libfoo 1, which stays (held by the user)" in reasons(result)["a"]


def test_packages_that_require_equal_versions_move_together_or_not_at_all() -> None:
    old = [package("lib", "1"), package("lib-dev", "1", "lib = 1")]
    new = [package("lib", "2"), package("lib-dev", "2", "lib = 2")]
    assert moves(plan(old, new)) == {"lib": "2", "lib-dev": "2"}
    result = plan(old, new, held=("lib-dev",))
    assert moves(result) == {}
    assert reasons(result)["lib"] == "lib-dev 1 needs lib (= 1) and stays (held by the user)"


def test_a_security_update_pulls_in_what_it_needs_though_that_is_no_security_update() -> None:
    old = [package("lib", "1"), package("tool", "1"), package("other", "1")]
    new = [package("lib", "2"), package("tool", "2", "lib >= 2"), package("other", "2")]
    assert moves(plan(old, new, PlanPolicy(scope="security"), security=("tool",))) == {"lib": "2", "tool": "2"}


def test_what_was_pulled_in_for_a_package_that_stays_is_not_moved() -> None:
    old = [package("lib", "1"), package("tool", "1")]
    new = [package("lib", "2"), package("tool", "2", "lib >= 2, missing")]
    assert moves(plan(old, new, PlanPolicy(scope="security"), security=("tool",))) == {}


def test_a_staying_dependant_that_can_follow_is_pulled_in() -> None:
    old = [package("lib", "1"), package("tool", "1", "lib < 2")]
    new = [package("lib", "2"), package("tool", "2", "lib >= 2")]
    assert moves(plan(old, new, PlanPolicy(only={"lib": ""}))) == {"lib": "2", "tool": "2"}


def test_a_move_that_breaks_a_staying_package_does_not_happen() -> None:
    result = plan([package("lib", "1"), package("x", "1")], [package("lib", "2", breaks="x < 2")])
    assert moves(result) == {}
    assert reasons(result)["lib"] == "must not be with x (< 2): x 1 stays (the sources offer none newer)"


def test_a_move_into_a_conflict_of_a_staying_package_does_not_happen() -> None:
    result = plan([package("lib", "1"), package("x", "1", breaks="lib >= 2")], [package("lib", "2")])
    assert moves(result) == {}
    assert "x 1 must not be with lib (>= 2)" in reasons(result)["lib"]


def test_of_two_moves_that_conflict_one_still_happens() -> None:
    result = plan(
        [package("a", "1"), package("b", "1")],
        [package("a", "2", breaks="b >= 2"), package("b", "2", breaks="a >= 2")],
    )
    assert len(moves(result)) == 1
    assert len(result.skipped) == 1


def test_alternatives_and_provided_names_with_versions_count() -> None:
    old = [package("a", "1"), package("mta", "1", provides="mail = 3"), package("c", "1", provides="virtual")]
    assert moves(plan(old, [package("a", "2", "nothing | mail >= 2, virtual")])) == {"a": "2"}
    assert moves(plan(old, [package("a", "2", "mail >= 4")])) == {}
    assert moves(plan(old, [package("a", "2", "virtual >= 1")])) == {}


def test_what_the_image_lacked_before_does_not_block() -> None:
    old = [package("libc", "1", "libgcc"), package("ssl", "1", "libc >= 1")]
    new = [package("libc", "2", "libgcc >= 5"), package("ssl", "2", "libc >= 2")]
    assert moves(plan(old, new)) == {"libc": "2", "ssl": "2"}


def test_the_same_package_for_two_architectures_stays_in_step() -> None:
    old = [package("lib", "1"), package("lib", "1", arch="i386")]
    result = plan(old, [package("lib", "2")])
    assert moves(result) == {}
    assert "lib:i386" in reasons(result)["lib"]
    assert moves(plan(old, [package("lib", "2"), package("lib", "2", arch="i386")])) == {"lib": "2", "lib:i386": "2"}


def test_a_foreign_library_does_not_satisfy_a_native_program() -> None:
    foreign, program = package("lib", "2", arch="i386"), package("a", "1")
    assert not satisfies(foreign, Constraint("lib"), program, compare)
    assert satisfies(foreign, Constraint("lib", arch="any"), program, compare)
    assert satisfies(foreign, Constraint("lib", arch="i386"), program, compare)


@pytest.mark.parametrize(
    ("only", "reason"),
    [
        ({"ghost": "2"}, "the report names it, but the image does not have it"),
        ({"a": "3"}, "the report asks for 3, the sources offer 2"),
        ({"a": "1"}, "the image already has 1; the report asks for 1 or newer"),
        ({"b": "2"}, "the report asks for 2, the sources offer nothing newer"),
    ],
)
def test_a_report_that_cannot_be_met_says_why(only: dict[str, str], reason: str) -> None:
    result = plan([package("a", "1"), package("b", "1")], [package("a", "2")], PlanPolicy(only=only))
    assert moves(result) == {}
    assert list(reasons(result).values()) == [reason]


def test_a_report_names_packages_by_source_and_fixed_versions_of_the_source() -> None:
    old = package("libx1", "5", source="x", source_version="1")
    new = package("libx1", "6", source="x", source_version="2")
    assert moves(plan([old], [new], PlanPolicy(only={"x": "2"}))) == {"libx1": "6"}
    assert moves(plan([old], [new], PlanPolicy(only={"libx1": "2"}))) == {"libx1": "6"}


def test_a_report_in_a_security_only_plan_says_when_the_fix_is_no_security_update() -> None:
    result = plan([package("a", "1")], [package("a", "2")], PlanPolicy("security", {"a": "2"}))
    assert reasons(result) == {"a": "the sources offer a newer version, but no security source does"}


NAMES = ["a", "b", "c", "d", "e"]
bounds = st.builds(
    lambda name, op, version: f"{name} {op} {version}" if op else name,
    st.sampled_from([*NAMES, "v"]),
    st.sampled_from(["", "=", ">=", "<"]),
    st.sampled_from(["1", "2"]),
)
groups = st.lists(st.lists(bounds, min_size=1, max_size=2).map(" | ".join), max_size=3).map(", ".join)
several = st.lists(bounds, max_size=2).map(", ".join)


def worlds(version: str) -> st.SearchStrategy[list[Package]]:
    one = st.builds(
        lambda name, needs, breaks, provides: package(name, version, needs, breaks, provides),
        st.sampled_from(NAMES),
        groups,
        several,
        st.sampled_from(["", "", "v", "v = 1", "v = 2"]),
    )
    return st.lists(one, max_size=5, unique_by=lambda item: item.name)


def wrongs(state: list[Package]) -> tuple[set[tuple[str, frozenset[str]]], set[tuple[str, str]]]:
    unmet = {
        (p.name, frozenset(c.name for c in group))
        for p in state
        for group in p.requires
        if not any(satisfies(q, c, p, compare) for q in state for c in group)
    }
    hits = {
        (p.name, q.name)
        for p in state
        for q in state
        for c in p.conflicts
        if q.name != p.name and satisfies(q, c, p, compare)
    }
    return unmet, hits


@settings(max_examples=300, deadline=None)
@given(worlds("1"), worlds("2"), st.sampled_from([None, {"a": ""}, {"b": "2", "c": ""}]))
def test_the_result_violates_nothing_that_the_image_did_not(
    old: list[Package], new: list[Package], only: dict[str, str] | None
) -> None:
    result = plan(old, new, PlanPolicy(only=only))
    final = {p.name: p for p in old} | {u.key: u.candidate.package for u in result.upgrades}
    unmet_before, hits_before = wrongs(old)
    unmet, hits = wrongs(list(final.values()))
    assert hits <= hits_before
    for name, names in unmet:
        assert any(name == owner and names & lacked for owner, lacked in unmet_before)
    installed = {p.name for p in old}
    assert set(final) == installed
    tried = {p.name for p in new} & installed & set(only if only is not None else NAMES)
    assert tried <= moves(result).keys() | reasons(result).keys()
    assert plan(old, new, PlanPolicy(only=only)) == result


def test_a_version_that_would_lack_what_it_recommends_stays_if_the_old_one_had_all() -> None:
    newer = package("a", "2", recommends="extra")
    result = plan([package("a", "1")], [newer])
    assert moves(result) == {}
    assert result.skipped[0].reason == "recommends extra: the image does not have it, and nothing is added"
    assert moves(plan([package("a", "1", recommends="other")], [newer])) == {"a": "2"}
    assert moves(plan([package("a", "1"), package("extra", "1")], [newer])) == {"a": "2"}


def test_what_was_sent_back_for_a_package_that_stays_moves_after_all() -> None:
    there = [package("b", "1"), package("c", "1"), package("f", "1")]
    result = plan(there, [package("b", "2", "c < 2"), package("c", "2", breaks="f")])
    assert moves(result) == {"b": "2"}
    assert [skip.package for skip in result.skipped] == ["c"]
