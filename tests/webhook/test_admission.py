import asyncio
import json
import time
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest

from proxy.api import Outcome, ResolveRequest, ResolveResponse
from proxy.oci.digest import Digest
from proxy.oci.reference import ImageRef
from proxy.provenance import PROVENANCE, UNPATCHED, parse_provenance
from tests.webhook.table import (
    MIRROR,
    NOW,
    STRANGER,
    TableResolver,
    admit,
    answer,
    apply_edits,
    make_admitter,
    patched_digest,
    read_request,
    sign,
    source_digest,
)
from webhook.admission import DEFAULT_TIMEOUT, MAX_IMAGES, parse_timeout
from webhook.review import Decision, parse_review

NGINX = "docker.io/library/nginx:1.25"
REF = ImageRef.parse(NGINX)
PATCHED = f"{MIRROR}/docker.io/library/nginx@{patched_digest(NGINX)}"


def review(*images: str, **metadata: Any) -> Any:
    """Return a review that creates a pod with one container per image."""
    document = read_request("create-single-container")
    pod = document["request"]["object"]
    template = pod["spec"]["containers"][0]
    pod["spec"]["containers"] = [{**template, "name": f"c{at}", "image": image} for at, image in enumerate(images)]
    pod["metadata"] |= metadata
    return document


def update(document: Any, **changes: Any) -> Any:
    """Return the review of an update of the pod in `document`, with fields of the pod's metadata changed."""
    request = {**document["request"], "operation": "UPDATE", "oldObject": document["request"]["object"]}
    pod = request["object"]
    request["object"] = {**pod, "metadata": {**pod["metadata"], **changes}}
    return {**document, "request": request}


def table(outcome: Outcome, **changes: Any) -> TableResolver:
    return TableResolver({NGINX: answer(NGINX, outcome, **changes)})


def image_after(document: Any, decision: Decision, index: int = 0) -> str:
    pod = apply_edits(document["request"]["object"], [edit.to_json() for edit in decision.edits])
    return str(pod["spec"]["containers"][index]["image"])


BAD_ANSWERS = {
    "no signature": ({"signature": None}, "no signature"),
    "a signature of a stranger": ({"signature": sign(REF, STRANGER)}, "none of the trusted keys"),
    "another repository": (
        {"signature": sign(REF, source_repository="docker.io/library/httpd")},
        "for the source repository docker.io/library/httpd",
    ),
    "another source digest": ({"signature": sign(REF, source_digest=Digest.of(b"x"))}, "for the source digest"),
    "another patched digest": ({"signature": sign(REF, patched_digest=Digest.of(b"x"))}, "for the patched digest"),
    "another place in the mirror": (
        {"signature": sign(REF, patched_repository=f"{MIRROR}/docker.io/library/httpd")},
        "for the patched repository",
    ),
    "another policy": ({"signature": sign(REF, policy_hash="policy-2")}, "for the policy hash policy-2"),
    "an old signature": ({"signature": sign(REF, signed_at=NOW - timedelta(days=8))}, "older than"),
    "a signature from the future": ({"signature": sign(REF, signed_at=NOW + timedelta(hours=1))}, "in the future"),
    "no base64": ({"signature": sign(REF).model_copy(update={"payload": "*"})}, "not base64"),
    "another mirror": ({"patched": PATCHED.replace("mirror", "evil")}, "its place is"),
    "another image of the mirror": ({"patched": PATCHED.replace("nginx", "httpd")}, "its place is"),
    "a tag for the patched image": ({"patched": f"{MIRROR}/docker.io/library/nginx:1.25"}, "without a digest"),
    "another source": ({"source": f"docker.io/library/httpd@{source_digest(NGINX)}"}, "not docker.io/library/nginx"),
    "a source without a digest": ({"source": NGINX}, "without a digest"),
    "no source": ({"source": ""}, "no source digest"),
    "nonsense": ({"patched": "Not A Reference"}, "not a reference"),
}


@pytest.mark.parametrize(("changes", "says"), BAD_ANSWERS.values(), ids=BAD_ANSWERS)
async def test_answer_that_does_not_hold_is_treated_as_failed(changes: dict[str, Any], says: str) -> None:
    document, resolver = review(NGINX), table(Outcome.PATCHED, **changes)
    decision = await admit(document, resolver)
    (event,) = decision.events
    assert decision.allowed
    assert image_after(document, decision) == NGINX
    assert (event.level, event.outcome, event.verdict) == ("error", Outcome.FAILED, "keep")
    assert event.reason.startswith("trust-failure: ")
    assert says in event.reason
    assert event.upgrades == ()
    denied = await admit(document, resolver, mode="enforce")
    assert not denied.allowed
    assert says in denied.message


async def test_answer_about_another_digest_than_the_pinned_one_is_refused() -> None:
    pinned = f"docker.io/library/nginx@{Digest.of(b'pinned')}"
    resolver = TableResolver({pinned: answer(NGINX, Outcome.PATCHED)})
    decision = await admit(review(pinned), resolver)
    assert "but the pod pinned" in decision.events[0].reason
    assert decision.events[0].level == "error"


async def test_same_image_in_several_containers_is_asked_for_once_and_always_wins() -> None:
    document = review("nginx:1.25", NGINX, "index.docker.io/library/nginx:1.25")
    document["request"]["object"]["spec"]["containers"][0]["imagePullPolicy"] = "IfNotPresent"
    resolver = table(Outcome.PATCHED)
    decision = await admit(document, resolver)
    assert [request.image for request in resolver.asked] == [NGINX]
    assert resolver.asked[0].always
    assert {image_after(document, decision, index) for index in range(3)} == {PATCHED}


class Hanging:
    """A resolver that never answers, and takes cancellation badly."""

    async def resolve(self, request: ResolveRequest, deadline: float, accept: Any = None) -> ResolveResponse:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(0.2)
            raise
        raise AssertionError("the test is over by now")


@pytest.mark.parametrize(("mode", "allowed"), [("permissive", True), ("enforce", False), ("audit", True)])
async def test_admission_ends_in_time_when_the_resolver_hangs(mode: str, *, allowed: bool) -> None:
    admitter = make_admitter(Hanging(), mode=mode, margin=0.2)
    request = parse_review(_bytes(review(NGINX, "busybox")))
    start = time.monotonic()
    decision = await admitter.admit(request, 0.5)
    assert 0.2 < time.monotonic() - start < 0.5
    assert decision.allowed is allowed
    assert all(event.outcome is Outcome.FAILED and "no answer within" in event.reason for event in decision.events)
    await asyncio.sleep(0.25)  # the hanging tasks end by themselves


async def test_one_slow_image_does_not_cost_the_others_their_answer() -> None:
    class Half(Hanging):
        async def resolve(self, request: ResolveRequest, deadline: float, accept: Any = None) -> ResolveResponse:
            if request.image == NGINX:
                return answer(NGINX, Outcome.PATCHED)
            return await super().resolve(request, deadline)

    document = review(NGINX, "busybox")
    decision = await make_admitter(Half(), margin=0.2).admit(parse_review(_bytes(document)), 0.5)
    assert [event.verdict for event in decision.events] == ["rewrite", "keep"]
    await asyncio.sleep(0.25)


async def test_resolver_that_raises_fails_that_image_only(caplog: pytest.LogCaptureFixture) -> None:
    decision = await admit(review(NGINX, "httpd"), table(Outcome.PATCHED))  # httpd: KeyError
    assert [event.outcome for event in decision.events] == [Outcome.PATCHED, Outcome.FAILED]
    assert "a resolver raised" in caplog.text


async def test_pod_with_too_many_images_gets_answers_for_some() -> None:
    images = [f"docker.io/library/nginx:{number}" for number in range(MAX_IMAGES + 5)]
    resolver = TableResolver({image: answer(image, Outcome.CLEAN) for image in images})
    decision = await admit(review(*images), resolver)
    assert len(resolver.asked) == MAX_IMAGES
    assert sum(event.outcome is Outcome.FAILED for event in decision.events) == 5


async def test_enforce_pins_what_is_clean_blocked_or_unsupported() -> None:
    for outcome in (Outcome.CLEAN, Outcome.BLOCKED, Outcome.UNSUPPORTED):
        document = review("nginx:1.25")
        decision = await admit(document, table(outcome), mode="enforce")
        assert image_after(document, decision) == f"docker.io/library/nginx@{source_digest(NGINX)}"
        assert decision.events[0].verdict == "pin"


@pytest.mark.parametrize(
    ("outcome", "setting", "verdict"),
    [
        (Outcome.CLEAN, "leave", "keep"),
        (Outcome.BLOCKED, "deny", "deny"),
        (Outcome.UNSUPPORTED, "admit", "keep"),
        (Outcome.PENDING, "admit", "keep"),
        (Outcome.FAILED, "admit", "keep"),
    ],
)
async def test_enforce_does_as_its_settings_say(outcome: Outcome, setting: str, verdict: str) -> None:
    decision = await admit(review(NGINX), table(outcome), mode="enforce", enforce={outcome.value: setting})
    assert decision.events[0].verdict == verdict
    assert decision.allowed is (verdict != "deny")


async def test_image_that_cannot_be_pinned_for_want_of_a_digest_is_denied() -> None:
    decision = await admit(review(NGINX), table(Outcome.CLEAN, source=""), mode="enforce")
    assert not decision.allowed
    assert "no digest that the image could be pinned to" in decision.message


async def test_pending_pod_is_labelled_and_a_forged_label_is_removed() -> None:
    pending = await admit(review(NGINX, labels={"app": "a"}), table(Outcome.PENDING))
    assert [edit.to_json() for edit in pending.edits] == [
        {"op": "add", "path": "/metadata/labels/admend.dev~1unpatched", "value": "pending"}
    ]
    forged = await admit(review(NGINX, labels={UNPATCHED: "pending"}), table(Outcome.CLEAN))
    assert [edit.to_json() for edit in forged.edits] == [
        {"op": "remove", "path": "/metadata/labels/admend.dev~1unpatched"}
    ]


@pytest.mark.parametrize("value", ["forged", "{}", '{"c0":{"original":"a","digest":"b","image":"c"}}', "[" * 100_000])
async def test_forged_provenance_is_removed_though_nothing_is_rewritten(value: str) -> None:
    document = review(NGINX, annotations={PROVENANCE: value, "other": "stays"})
    decision = await admit(document, table(Outcome.CLEAN))
    pod = apply_edits(document["request"]["object"], [edit.to_json() for edit in decision.edits])
    assert pod["metadata"]["annotations"] == {"other": "stays"}


async def test_forged_provenance_is_overwritten() -> None:
    document = review(NGINX, annotations={PROVENANCE: "forged"})
    decision = await admit(document, table(Outcome.PATCHED))
    pod = apply_edits(document["request"]["object"], [edit.to_json() for edit in decision.edits])
    (entry,) = parse_provenance(pod["metadata"]["annotations"]).values()
    assert (entry.original, entry.digest, entry.image) == (NGINX, str(source_digest(NGINX)), PATCHED)


async def test_provenance_of_a_running_pod_cannot_be_changed_or_removed() -> None:
    document = review(NGINX)
    decision = await admit(document, table(Outcome.PATCHED))
    edits = [edit.to_json() for edit in decision.edits]
    document["request"]["object"] = running = apply_edits(document["request"]["object"], edits)
    for annotations in ({PROVENANCE: "forged"}, {}, None):
        changed = update(document, annotations=annotations)
        again = await admit(changed, TableResolver({}))
        pod = apply_edits(changed["request"]["object"], [edit.to_json() for edit in again.edits])
        assert pod["metadata"]["annotations"] == running["metadata"]["annotations"]
        assert again.events == ()


async def test_second_call_with_the_rewritten_pod_changes_nothing() -> None:
    for mode, outcome in (("permissive", Outcome.PATCHED), ("enforce", Outcome.CLEAN)):
        document, resolver = review("nginx:1.25"), table(outcome)
        first = await admit(document, resolver, mode=mode)
        document["request"]["object"] = apply_edits(
            document["request"]["object"], [edit.to_json() for edit in first.edits]
        )
        second = await admit(document, resolver, mode=mode)
        assert second.edits == ()
        assert second.events[0].verdict == first.events[0].verdict
        assert second.events[0].original == "nginx:1.25"


async def test_reference_into_the_mirror_is_resolved_by_its_original() -> None:
    document, resolver = review(f"{MIRROR}/docker.io/library/nginx:1.25"), table(Outcome.PATCHED)
    decision = await admit(document, resolver)
    assert [request.image for request in resolver.asked] == [NGINX]
    assert image_after(document, decision) == PATCHED


async def test_digest_of_the_mirror_is_asked_for_as_it_is_and_the_newest_patch_is_used() -> None:
    old = f"{MIRROR}/docker.io/library/nginx@{Digest.of(b'an older patch')}"
    document, resolver = review(old), TableResolver({old: answer(NGINX, Outcome.PATCHED)})
    assert image_after(document, await admit(document, resolver)) == PATCHED


async def test_other_tenants_image_is_not_reached_through_the_mirror() -> None:
    theirs = f"{MIRROR}/docker.io/tenant/secret@{Digest.of(b'x')}"
    forged = json.dumps({"c0": {"original": NGINX, "digest": "", "image": theirs}})
    resolver = TableResolver({theirs: answer(NGINX, Outcome.PATCHED)})
    decision = await admit(review(theirs, annotations={PROVENANCE: forged}), resolver)
    assert [request.image for request in resolver.asked] == [theirs]  # the forged hint is of another repository
    assert decision.events[0].level == "error"
    assert "not docker.io/tenant/secret" in decision.events[0].reason


async def test_image_named_in_the_mirror_that_has_no_patch_is_pinned_to_its_original() -> None:
    document = review(f"{MIRROR}/docker.io/library/nginx:1.25")
    decision = await admit(document, table(Outcome.CLEAN))
    assert image_after(document, decision) == f"docker.io/library/nginx@{source_digest(NGINX)}"


async def test_dry_run_returns_the_edits_of_a_cached_result() -> None:
    document, resolver = review(NGINX), table(Outcome.PATCHED)
    document["request"]["dryRun"] = True
    decision = await admit(document, resolver)
    assert image_after(document, decision) == PATCHED
    assert resolver.asked[0].dry_run
    assert decision.events[0].dry_run


async def test_provenance_is_left_out_when_the_annotations_are_full() -> None:
    document = review(NGINX, annotations={"big": "x" * (256 * 1024 - 100)})
    decision = await admit(document, table(Outcome.PATCHED))
    assert image_after(document, decision) == PATCHED
    assert all("annotations" not in edit.path for edit in decision.edits)
    assert any("annotations are full" in warning for warning in decision.warnings)


async def test_warnings_are_short_and_plain() -> None:
    reason = "é\r\nSet-Cookie: x" * 100
    images = [f"docker.io/library/nginx:{number}" for number in range(60)]
    resolver = TableResolver({image: answer(image, Outcome.FAILED, reason=reason) for image in images})
    decision = await admit(review(*images), resolver)
    assert decision.warnings
    assert sum(map(len, decision.warnings)) <= 4096
    assert all(len(text) <= 256 and text.isascii() and text.isprintable() for text in decision.warnings)
    assert all(len(text) <= 8192 for text in decision.audit_annotations.values())
    denied = await admit(review(*images), resolver, mode="enforce")
    assert len(denied.message) <= 4096


async def test_stale_answers_are_warned_about() -> None:
    decision = await admit(review(NGINX), table(Outcome.PATCHED, stale=True))
    assert "older than they should be" in decision.warnings[0]


async def test_review_of_something_else_is_admitted_without_a_look() -> None:
    document = review(NGINX)
    document["request"]["resource"]["resource"] = "services"
    document["request"]["kind"]["kind"] = "Service"
    assert await admit(document, TableResolver({})) == Decision()
    deletion = {**read_request("create-single-container")}
    deletion["request"] |= {"operation": "DELETE", "object": None}
    assert await admit(deletion, TableResolver({})) == Decision()


async def test_every_event_is_one_line_of_the_log() -> None:
    log = StringIO()
    admitter = make_admitter(table(Outcome.PATCHED), log)
    decision = await admitter.admit(parse_review(_bytes(review(NGINX, "nginx:1.25"))), 5.0)
    assert log.getvalue().splitlines() == [event.model_dump_json() for event in decision.events]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5s", 5.0),
        ("1m30s", 30.0),
        ("750ms", 0.75),
        ("1.5s", 1.5),
        (None, DEFAULT_TIMEOUT),
        ("", DEFAULT_TIMEOUT),
        ("5", DEFAULT_TIMEOUT),
        ("-5s", DEFAULT_TIMEOUT),
        ("s" * 10_000, DEFAULT_TIMEOUT),
        ("9" * 400 + "s", DEFAULT_TIMEOUT),
    ],
)
def test_timeout_is_read_as_go_writes_it(text: str | None, seconds: float) -> None:
    assert parse_timeout(text) == seconds


def _bytes(document: Any) -> bytes:
    return json.dumps(document).encode()
