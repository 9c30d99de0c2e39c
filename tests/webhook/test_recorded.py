"""Every recorded request, in every mode, against the response written down in tests/data/admission/expected."""

import base64
import json
from io import StringIO
from typing import Any

import pytest

from proxy.api import Outcome
from tests.webhook.table import DATA, OUTCOMES, TableResolver, apply_edits, make_admitter, read_request
from webhook.config import Mode
from webhook.review import parse_review, render_review

NAMES = sorted(file.stem for file in (DATA / "requests").glob("*.json"))


async def answer_recorded(name: str, mode: str) -> tuple[dict[str, Any], TableResolver]:
    """Return what the expected file holds: the response with its patch decoded, and the audit lines."""
    log, resolver = StringIO(), TableResolver()
    request = parse_review((DATA / "requests" / f"{name}.json").read_bytes())
    decision = await make_admitter(resolver, log, mode=mode).admit(request, 5.0)
    review = json.loads(render_review(request.uid, decision))
    if "patch" in review["response"]:
        review["response"]["patch"] = json.loads(base64.b64decode(review["response"]["patch"], validate=True))
    events = [json.loads(line) for line in log.getvalue().splitlines()]
    for event in events:
        assert event.pop("milliseconds") >= 0
        assert (event.pop("schema_version"), event.pop("event"), event.pop("trace_id")) == (1, "admission", "")
    return {"review": review, "audit": events}, resolver


@pytest.mark.parametrize("mode", [mode.value for mode in Mode])
@pytest.mark.parametrize("name", NAMES)
async def test_recorded_request_gets_the_expected_response(name: str, mode: str) -> None:
    found, _ = await answer_recorded(name, mode)
    assert found == json.loads((DATA / "expected" / f"{name}.{mode}.json").read_bytes())


@pytest.mark.parametrize("mode", [mode.value for mode in Mode])
@pytest.mark.parametrize("name", NAMES)
async def test_edits_of_a_recorded_request_change_images_and_our_metadata_only(name: str, mode: str) -> None:
    found, _ = await answer_recorded(name, mode)
    before = read_request(name)["request"]["object"]
    edits = found["review"]["response"].get("patch", [])
    assert without_ours(apply_edits(before, edits)) == without_ours(before)
    if mode == "audit":
        assert edits == []


async def test_recorded_requests_ask_for_each_image_once_and_for_nothing_else() -> None:
    for name in NAMES:
        _, resolver = await answer_recorded(name, "permissive")
        asked = [request.image for request in resolver.asked]
        assert len(asked) == len(set(asked))
        assert all(request.dry_run == (name == "create-dry-run") for request in resolver.asked)
        if name in {"create-static-mirror-pod", "create-windows", "create-arm64-opted-out", "update-label-only"}:
            assert asked == []


async def test_pull_policy_and_secrets_are_passed_on() -> None:
    _, resolver = await answer_recorded("create-replicaset-pod-init-sidecar-digest-refs", "permissive")
    by_image = {request.image: request for request in resolver.asked}
    assert by_image["docker.io/library/nginx:latest"].always
    assert not by_image["docker.io/istio/proxyv2:1.22.0"].always
    assert {request.pull_secrets for request in resolver.asked} == {("regcred",)}
    assert {request.namespace for request in resolver.asked} == {"shop"}


def test_the_table_has_every_outcome() -> None:
    assert set(OUTCOMES.values()) == set(Outcome)


def test_there_is_one_expected_file_for_each_request_and_mode() -> None:
    expected = {f"{name}.{mode.value}" for name in NAMES for mode in Mode}
    assert {file.stem for file in (DATA / "expected").glob("*.json")} == expected
    assert NAMES


def without_ours(pod: dict[str, Any]) -> dict[str, Any]:
    """Return the pod without images and without what admend owns of its metadata."""
    spec = dict(pod["spec"])
    for name in ("containers", "initContainers", "ephemeralContainers"):
        if name in spec:
            spec[name] = [{key: value for key, value in item.items() if key != "image"} for item in spec[name]]
    metadata = dict(pod["metadata"])
    for name in ("annotations", "labels"):
        rest = {key: value for key, value in (metadata.get(name) or {}).items() if not key.startswith("admend.dev/")}
        metadata[name] = rest
    return {**pod, "metadata": metadata, "spec": spec}
