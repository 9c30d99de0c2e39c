"""What keeps a whole pod from being changed: foreign owners, and nodes that are not known to reach the mirror."""

from typing import Any

import pytest

from webhook.config import EnforceConfig, Mode, SelectionConfig
from webhook.pod import Owner, Pod
from webhook.stance import MAX_HOLD, Stance, find_foreign, take_stance
from webhook.verdict import WOULD, Verdict

FOREIGN = Owner("Rollout", "argoproj.io", "r")
PLAIN = [Verdict.REWRITE, Verdict.PIN, Verdict.KEEP, Verdict.DENY]


def take(mode: Mode, hold: str = "", owner: Owner | None = None, held: str = "admit", **selection: Any) -> Stance:
    enforce = EnforceConfig.model_validate({"held": held})
    return take_stance(Pod("p", "n", (), owner=owner), hold, mode, SelectionConfig(**selection), enforce)


def settle(stance: Stance) -> list[str]:
    """Return what becomes of each verdict, where an image would change by all but `keep`."""
    return [stance.apply(verdict, changes=verdict is not Verdict.KEEP).value for verdict in PLAIN]


WOULD_ALL = ["would-rewrite", "would-pin", "keep", "would-deny"]
AS_THEY_ARE = ["rewrite", "pin", "keep", "deny"]


def test_pod_without_reason_is_treated_as_its_mode_says() -> None:
    assert settle(take(Mode.PERMISSIVE)) == settle(take(Mode.ENFORCE)) == AS_THEY_ARE
    assert settle(take(Mode.AUDIT)) == WOULD_ALL
    assert [take(mode).frozen for mode in Mode] == [False, False, True]
    assert all(not take(mode).reason and not take(mode).notes for mode in Mode)


@pytest.mark.parametrize("mode", Mode)
def test_held_pod_is_left_alone_in_every_mode_and_its_author_told(mode: Mode) -> None:
    stance = take(mode, "1 of 3 nodes")
    assert settle(stance) == WOULD_ALL
    assert stance.frozen
    assert stance.reason == "held: 1 of 3 nodes"
    assert bool(stance.notes) is (mode is not Mode.AUDIT)
    assert all("1 of 3 nodes" in note for note in stance.notes)


def test_held_rewrite_is_denied_in_enforce_where_the_operator_says_so() -> None:
    stance = take(Mode.ENFORCE, "1 of 3 nodes", held="deny")
    assert settle(stance) == ["deny", "pin", "keep", "deny"]
    assert not stance.frozen
    assert settle(take(Mode.PERMISSIVE, "1 of 3 nodes", held="deny")) == WOULD_ALL
    assert settle(take(Mode.AUDIT, "1 of 3 nodes", held="deny")) == ["would-deny", "would-pin", "keep", "would-deny"]
    assert settle(take(Mode.ENFORCE, "", held="deny")) == AS_THEY_ARE


@pytest.mark.parametrize("mode", Mode)
def test_foreign_owners_pod_is_told_about_and_never_changed(mode: Mode) -> None:
    for setting in ("audit", "deny", "skip"):
        stance = take(mode, owner=FOREIGN, foreign_owners=setting)
        assert stance.frozen
        assert "add Rollout.argoproj.io to selection.owners" in stance.reason
        if (mode, setting) not in {(Mode.ENFORCE, "deny"), (Mode.AUDIT, "deny")}:
            assert settle(stance) == WOULD_ALL


def test_made_up_owner_opens_nothing_in_enforce_where_foreign_owners_are_denied() -> None:
    stance = take(Mode.ENFORCE, owner=FOREIGN, foreign_owners="deny")
    assert settle(stance) == ["deny", "deny", "keep", "deny"]
    assert stance.apply(Verdict.PIN, changes=False) is Verdict.PIN  # it is at its digest already
    assert settle(take(Mode.AUDIT, owner=FOREIGN, foreign_owners="deny")) == [
        "would-deny",
        "would-deny",
        "keep",
        "would-deny",
    ]


def test_foreign_owners_pod_is_denied_though_it_is_held_too() -> None:
    assert settle(take(Mode.ENFORCE, "1 of 3 nodes", FOREIGN, held="deny", foreign_owners="deny")) == [
        "deny",
        "deny",
        "keep",
        "deny",
    ]
    both = take(Mode.ENFORCE, "1 of 3 nodes", FOREIGN)
    assert settle(both) == WOULD_ALL
    assert "may fight" in both.reason
    assert "1 of 3 nodes" in both.reason


@pytest.mark.parametrize("listed", ["Rollout", "Rollout.argoproj.io"])
def test_listed_owner_is_not_foreign(listed: str) -> None:
    settings = SelectionConfig(owners=(listed,))
    assert not find_foreign(Pod("p", "n", (), owner=FOREIGN), settings)
    assert bool(find_foreign(Pod("p", "n", (), owner=Owner("Rollout", "other.io", "r")), settings)) is (
        listed == "Rollout.argoproj.io"
    )
    assert "add Thing to" in find_foreign(Pod("p", "n", (), owner=Owner("Thing", "", "t")), settings)


def test_what_the_proxy_says_is_told_in_print_and_within_bounds() -> None:
    stance = take(Mode.PERMISSIVE, "\x1b[31m" + "x" * 10_000)
    assert len(stance.held) == MAX_HOLD
    assert stance.held.isprintable()


def test_what_would_have_been_done_stays_that() -> None:
    assert all(WOULD[WOULD[verdict]] is WOULD[verdict] for verdict in Verdict)
