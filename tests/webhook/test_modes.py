"""What the modes, held nodes, foreign owners and pins come to for a whole admission."""

import json
from typing import Any

import pytest

from proxy.api import Outcome
from proxy.provenance import PROVENANCE
from tests.webhook.table import TableResolver, admit, answer, make_admitter, source_digest
from tests.webhook.test_admission import NGINX, PATCHED, image_after, review, table
from webhook.config import Mode
from webhook.review import Decision, parse_review

HOLD = "2 of 5 nodes have pulled through the mirror; node-b: ImagePullBackOff: x509; see docs/nodes.md"
ROLLOUT = [{"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "name": "r", "uid": "u", "controller": True}]


async def decide(document: Any, outcome: Outcome, hold: str = "", **settings: Any) -> Decision:
    return await admit(document, table(outcome, hold=hold), **settings)


@pytest.mark.parametrize("mode", Mode)
async def test_held_pod_is_admitted_as_it_is_and_everybody_is_told_why(mode: Mode) -> None:
    document = review(NGINX, annotations={PROVENANCE: "forged"})
    decision = await decide(document, Outcome.PATCHED, HOLD, mode=mode)
    (event,) = decision.events
    assert decision.allowed
    assert decision.edits == ()
    assert (event.verdict, event.outcome, event.mode) == ("would-rewrite", Outcome.PATCHED, mode.value)
    assert event.reason == f"held: {HOLD}"
    assert event.patched == PATCHED
    assert decision.audit_annotations["verdict"] == "would-rewrite"
    assert HOLD in decision.audit_annotations["containers"]
    assert [HOLD in warning for warning in decision.warnings] == ([] if mode is Mode.AUDIT else [True])


@pytest.mark.parametrize(
    ("outcome", "verdict"),
    [(Outcome.CLEAN, "would-pin"), (Outcome.PENDING, "would-deny"), (Outcome.FAILED, "would-deny")],
)
async def test_held_pod_is_not_denied_in_enforce_whatever_its_images_came_to(outcome: Outcome, verdict: str) -> None:
    decision = await decide(review(NGINX), outcome, HOLD, mode="enforce")
    assert decision.allowed
    assert decision.edits == ()
    assert decision.events[0].verdict == verdict
    assert decision.events[0].reason.startswith(f"held: {HOLD}")


async def test_one_held_answer_holds_the_whole_pod() -> None:
    busybox = "docker.io/library/busybox:1"
    held = answer(busybox, Outcome.PATCHED, hold=HOLD)
    resolver = TableResolver({NGINX: answer(NGINX, Outcome.PATCHED), busybox: held})
    decision = await admit(review(NGINX, busybox), resolver)
    assert decision.edits == ()
    assert [event.verdict for event in decision.events] == ["would-rewrite", "would-rewrite"]


async def test_operator_may_have_enforce_deny_what_nodes_could_not_pull() -> None:
    strict = {"mode": "enforce", "enforce": {"held": "deny"}}
    denied = await decide(review(NGINX), Outcome.PATCHED, HOLD, **strict)
    assert not denied.allowed
    assert HOLD in denied.message
    pinned = await decide(review(NGINX), Outcome.CLEAN, HOLD, **strict)  # the upstream's own image needs no mirror
    assert pinned.allowed
    assert image_after(review(NGINX), pinned) == f"docker.io/library/nginx@{source_digest(NGINX)}"
    permissive = await decide(review(NGINX), Outcome.PATCHED, HOLD, enforce={"held": "deny"})
    assert permissive.allowed
    assert permissive.edits == ()


@pytest.mark.parametrize("mode", Mode)
async def test_foreign_owners_pod_is_resolved_and_reported_but_never_changed(mode: Mode) -> None:
    decision = await decide(review(NGINX, ownerReferences=ROLLOUT), Outcome.PATCHED, mode=mode)
    (event,) = decision.events
    assert decision.allowed
    assert decision.edits == ()
    assert (event.verdict, event.patched, event.upgrades_count) == ("would-rewrite", PATCHED, 1)
    assert "to include it, add Rollout.argoproj.io to selection.owners" in event.reason
    listed = {"owners": ("Rollout.argoproj.io",)}
    rewritten = await decide(review(NGINX, ownerReferences=ROLLOUT), Outcome.PATCHED, mode=mode, selection=listed)
    assert bool(rewritten.edits) is (mode is not Mode.AUDIT)


async def test_foreign_owners_pod_costs_nothing_where_it_is_skipped() -> None:
    document, resolver = review(NGINX, ownerReferences=ROLLOUT), TableResolver({})
    decision = await admit(document, resolver, selection={"foreign_owners": "skip"}, mode="enforce")
    assert resolver.asked == []
    assert decision.events[0].verdict == "keep"


async def test_made_up_owner_is_denied_in_enforce_where_the_operator_says_so_and_nowhere_else() -> None:
    for mode, verdict in (("enforce", "deny"), ("permissive", "would-rewrite"), ("audit", "would-deny")):
        document = review(NGINX, ownerReferences=ROLLOUT)
        decision = await decide(document, Outcome.PATCHED, mode=mode, selection={"foreign_owners": "deny"})
        assert decision.allowed is (mode != "enforce")
        assert decision.events[0].verdict == verdict
        assert decision.edits == ()
        assert ("selection.owners" in decision.message) is (mode == "enforce")


@pytest.mark.parametrize(
    ("settings", "pinned"),
    [
        ({}, set()),
        ({"pin": True}, {Outcome.CLEAN}),
        ({"pin": True, "pin_also": ["blocked", "unsupported"]}, {Outcome.CLEAN, Outcome.BLOCKED, Outcome.UNSUPPORTED}),
    ],
)
async def test_permissive_pins_what_the_operator_says(settings: dict[str, Any], pinned: set[Outcome]) -> None:
    for outcome in set(Outcome) - {Outcome.PATCHED}:
        document = review("nginx:1.25")
        decision = await decide(document, outcome, **settings)
        expected = f"docker.io/library/nginx@{source_digest(NGINX)}" if outcome in pinned else "nginx:1.25"
        assert image_after(document, decision) == expected
        assert decision.events[0].verdict == ("pin" if outcome in pinned else "keep")
        assert decision.allowed


async def test_mode_of_the_path_prevails_over_that_of_the_configuration() -> None:
    admitter = make_admitter(table(Outcome.FAILED), mode="enforce")
    found = [await admitter.admit(_parse(review(NGINX)), 5.0, mode) for mode in (None, *Mode)]
    assert [decision.allowed for decision in found] == [False, True, False, True]
    assert [decision.events[0].mode for decision in found] == ["enforce", "permissive", "enforce", "audit"]


async def test_opt_out_may_hold_outside_enforce_only() -> None:
    document = review(NGINX, annotations={"admend.dev/patch": "false"})
    for mode, verdict in (("permissive", "keep"), ("enforce", "rewrite"), ("audit", "would-rewrite")):
        decision = await decide(document, Outcome.PATCHED, mode=mode, selection={"opt_out": "permissive"})
        assert decision.events[0].verdict == verdict


def _parse(document: Any) -> Any:
    return parse_review(json.dumps(document).encode())
