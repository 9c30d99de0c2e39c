import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import MalformedInput
from tests.webhook.table import read_request
from webhook.pod import Edit, Owner, Pod
from webhook.review import Decision, parse_review, render_review


def parse(document: Any) -> Any:
    return parse_review(json.dumps(document).encode())


def parse_pod(spec: dict[str, Any] | None = None, **metadata: Any) -> Pod:
    document = read_request("create-single-container")
    document["request"]["object"] = {"metadata": metadata, "spec": spec or {}}
    pod = parse(document).pod
    assert isinstance(pod, Pod)
    return pod


BROKEN: dict[str, tuple[Any, str]] = {
    "a list": ([], "document"),
    "an empty object": ({}, "apiVersion"),
    "v1beta1": (read_request("create-windows") | {"apiVersion": "admission.k8s.io/v1beta1"}, "apiVersion"),
    "another kind": (read_request("create-windows") | {"kind": "Pod"}, "kind"),
    "no request": ({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"}, "request"),
}


@pytest.mark.parametrize(("document", "says"), BROKEN.values(), ids=BROKEN)
def test_what_is_no_review_is_refused_with_the_field_that_is_wrong(document: Any, says: str) -> None:
    with pytest.raises(MalformedInput, match=rf"not an AdmissionReview of admission\.k8s\.io/v1: {says}"):
        parse(document)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("uid", ""),
        ("uid", "x" * 129),
        ("operation", "PATCH"),
        ("dryRun", "yes"),
        ("object", None),
        ("object", []),
        ("namespace", "n" * 254),
        ("namespace", ""),
        ("namespace", None),
    ],
)
def test_fields_that_are_used_are_strict(place: str, value: Any) -> None:
    document = read_request("create-single-container")
    document["request"][place] = value
    with pytest.raises(MalformedInput):
        parse(document)


@pytest.mark.parametrize(
    "spec", [{"containers": {}}, {"containers": [{"image": 5}]}, {"containers": [None]}, {"nodeSelector": ["x"]}]
)
def test_pod_of_another_shape_is_refused(spec: dict[str, Any]) -> None:
    with pytest.raises(MalformedInput):
        parse_pod(spec)


@given(st.binary(max_size=200))
def test_noise_is_refused_and_nothing_else_happens(body: bytes) -> None:
    with pytest.raises(MalformedInput):
        parse_review(body)


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(MalformedInput):
        parse_review(b'{"request":' + b"[" * 1_000_000)


def test_null_and_absent_mean_the_same() -> None:
    keys = ("containers", "initContainers", "ephemeralContainers", "volumes", "nodeSelector", "affinity", "os")
    nulls = parse_pod(dict.fromkeys((*keys, "imagePullSecrets")), annotations=None, ownerReferences=None)
    assert nulls == parse_pod()


def test_recorded_replicaset_pod_is_read_in_full() -> None:
    request = parse(read_request("create-replicaset-pod-init-sidecar-digest-refs"))
    pod = request.pod
    assert (pod.name, pod.namespace, pod.owner) == (
        "api-7d9c6b5f4-",
        "shop",
        Owner("ReplicaSet", "apps", "api-7d9c6b5f4"),
    )
    assert [container.name for container in pod.containers] == ["migrate", "mesh", "api", "sidecar", "both"]
    assert pod.pull_secrets == ("regcred",)
    assert pod.containers[1].pointer == "/spec/initContainers/1/image"
    assert request.user == "holdout-admin"


def test_controller_is_chosen_among_owners() -> None:
    owners: list[dict[str, Any]] = [
        {"apiVersion": "v1", "kind": "ConfigMap", "name": "a"},
        {"apiVersion": "batch/v1", "kind": "Job", "name": "b", "controller": True},
    ]
    assert parse_pod(ownerReferences=owners).owner == Owner("Job", "batch", "b")
    assert parse_pod(ownerReferences=owners[:1]).owner == Owner("ConfigMap", "", "a")
    assert parse_pod(ownerReferences=[]).owner is None


def term(*values: str, key: str = "kubernetes.io/arch", operator: str = "In") -> dict[str, Any]:
    return {"matchExpressions": [{"key": key, "operator": operator, "values": list(values)}]}


def affinity(*terms: dict[str, Any]) -> dict[str, Any]:
    required = {"nodeSelectorTerms": list(terms)}
    return {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}}


@pytest.mark.parametrize(
    ("spec", "architectures"),
    [
        ({"nodeSelector": {"kubernetes.io/arch": "arm64"}}, ("arm64",)),
        ({"nodeSelector": {"beta.kubernetes.io/arch": "s390x"}}, ("s390x",)),
        (affinity(term("arm64", "amd64")), ("amd64", "arm64")),
        (affinity(term("arm64"), term("amd64")), ("amd64", "arm64")),
        (affinity(term("arm64"), term("x", key="zone")), ()),
        (affinity(term("arm64", operator="NotIn")), ()),
        (
            affinity(
                {"matchExpressions": term("arm64", "amd64")["matchExpressions"] + term("arm64")["matchExpressions"]}
            ),
            ("arm64",),
        ),
        (affinity(term("arm64"), {"matchFields": []}), ()),
        (affinity(*(term(f"a{number}") for number in range(20))), ()),
        ({"affinity": {"nodeAffinity": None}}, ()),
    ],
)
def test_architectures_come_from_selector_and_required_affinity(
    spec: dict[str, Any], architectures: tuple[str, ...]
) -> None:
    assert parse_pod(spec).architectures == architectures


def test_operating_system_comes_from_either_place() -> None:
    assert parse_pod({"os": {"name": "windows"}}).os == "windows"
    assert parse_pod({"nodeSelector": {"kubernetes.io/os": "windows"}}).os == "windows"
    assert parse_pod().os == "linux"


def test_other_subresources_and_operations_have_no_pod() -> None:
    for changes in ({"subResource": "status"}, {"subResource": "binding"}, {"operation": "CONNECT"}):
        document = read_request("create-single-container")
        document["request"] |= changes
        assert parse(document).pod is None


def test_over_long_secret_names_are_left_out() -> None:
    secrets = [{"name": "s" * 254}, {"name": ""}, {}, {"name": "ok"}, *({"name": f"n{at}"} for at in range(99))]
    found = parse_pod({"imagePullSecrets": secrets}).pull_secrets
    assert found[:2] == ("ok", "n0")
    assert len(found) == 32


def test_denial_carries_no_patch() -> None:
    edits = (Edit("remove", "/x"),)
    response = json.loads(render_review("u", Decision(allowed=False, message="no", edits=edits)))["response"]
    assert response == {
        "uid": "u",
        "allowed": False,
        "status": {"code": 403, "reason": "Forbidden", "message": "no"},
    }
