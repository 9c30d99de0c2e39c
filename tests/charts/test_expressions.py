"""What the API server evaluates itself agrees with what the webhook would have decided."""

import json
import subprocess

import pytest

from proxy.oci.naming import Naming
from tests.charts.rendering import config, of_kind, one, render
from tests.support import require_tool
from webhook.config import Mode, SelectionConfig
from webhook.policy import pass_over, select
from webhook.review import parse_review
from webhook.stance import find_foreign

pytestmark = pytest.mark.interop
DIGEST = "@sha256:" + "a" * 64
SKIPPED = "system-node-critical"
POLICY = "enforce with policy"


def evaluate(*asked):
    """Return what each (expression, variables) comes to."""
    command = [require_tool("cel-evaluate")]
    done = subprocess.run(command, input=json.dumps(asked), capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def pod(*images, annotations=None, owner=None, **spec):
    metadata = {"name": "p", **({"annotations": annotations} if annotations is not None else {})}
    if owner is not None:
        metadata["ownerReferences"] = owner
    containers = [{"name": f"c{at}", "image": image} for at, image in enumerate(images or ("nginx",))]
    return {"metadata": metadata, "spec": {"containers": containers, **spec}}


def owner(kind, api="apps/v1", **more):
    return {"kind": kind, "apiVersion": api, "name": "o", "uid": "1", **more}


def conditions(name, request_object, before=None):
    """Return what each matchCondition of the enforce entry, or of the policy if there is one, says of a request."""
    policies = of_kind(render(name), "ValidatingAdmissionPolicy")
    spec = next(iter(policies.values()))["spec"] if policies else None
    held = (spec or one(render(name), "MutatingWebhookConfiguration")["webhooks"][1])["matchConditions"]
    request = {"operation": "UPDATE" if before else "CREATE"}
    variables = {"object": request_object, "oldObject": before, "request": request}
    return dict(
        zip([each["name"] for each in held], evaluate(*[(each["expression"], variables) for each in held]), strict=True)
    )


PODS = {
    "plain": pod(),
    "annotated": pod(annotations={"a": "b"}),
    "mirror": pod(annotations={"kubernetes.io/config.mirror": "x"}),
    "windows": pod(os={"name": "windows"}),
    "linux": pod(os={"name": "linux"}, nodeSelector={"kubernetes.io/os": "linux"}),
    "windows by selector": pod(nodeSelector={"kubernetes.io/os": "windows"}),
    "with another selector": pod(nodeSelector={"disk": "fast"}),
}


@pytest.mark.parametrize("name", PODS)
def test_conditions_leave_out_only_what_the_webhook_would_pass_over(name):
    found = conditions("default", PODS[name])
    passed = bool(pass_over(read(PODS[name]), SelectionConfig(), Mode.ENFORCE))
    assert all(found.values()) is not passed
    assert not any(isinstance(each, dict) for each in found.values())


def read(document):
    """Return the pod as the webhook reads it from a request."""
    kind, resource = {"group": "", "version": "v1", "kind": "Pod"}, {"group": "", "version": "v1", "resource": "pods"}
    about = {"uid": "1", "kind": kind, "resource": resource, "operation": "CREATE", "namespace": "shop"}
    request = {**about, "object": document}
    review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}
    return parse_review(json.dumps(review).encode()).pod


def test_pods_of_the_systems_priority_classes_are_left_out_unless_the_values_say_otherwise():
    assert conditions("default", pod(priorityClassName=SKIPPED))["not-critical"] is False
    assert conditions("default", pod(priorityClassName="team"))["not-critical"] is True
    assert "not-critical" not in conditions("policy on the mirror only", pod(priorityClassName=SKIPPED))


def test_an_update_counts_when_an_image_changed_or_an_ephemeral_container_came():
    old, ephemeral = pod("a", "b"), {"ephemeralContainers": [{"name": "debug", "image": "busybox"}]}
    changed = {
        "nothing": (pod("a", "b"), False),
        "a label": (pod("a", "b", annotations={"x": "y"}), False),
        "an image": (pod("a", "c"), True),
        "an init container's": (pod("a", "b", initContainers=[{"name": "i", "image": "x"}]), True),
        "a debugger": (pod("a", "b", **ephemeral), True),
        "no image at all": ({"metadata": {}, "spec": {"containers": [{"name": "c0"}, {"name": "c1"}]}}, True),
    }
    found = {name: conditions("default", new, old)["an-image-is-new"] for name, (new, _) in changed.items()}
    assert found == {name: expected for name, (_, expected) in changed.items()}


OWNERS = {
    "nobody": None,
    "empty": [],
    "ReplicaSet": [owner("ReplicaSet", controller=True)],
    "Job": [owner("Job", "batch/v1", controller=True)],
    "a ReplicaSet of another group": [owner("ReplicaSet", "extensions.example/v1", controller=True)],
    "foreign": [owner("Database", "db.example/v1", controller=True)],
    "listed with its group": [owner("Rollout", "argoproj.io/v1alpha1", controller=True)],
    "listed, of another group": [owner("Rollout", "else.example/v1", controller=True)],
    "listed without a group": [owner("Widget", "any.example/v2", controller=True)],
    "controlled by the second": [owner("Database", "db.example/v1"), owner("ReplicaSet", controller=True)],
    "controlled by nobody": [owner("Database", "db.example/v1"), owner("ReplicaSet")],
}


def test_policy_and_webhook_agree_on_foreign_owners():
    settings = SelectionConfig(owners=("Rollout.argoproj.io", "Widget"))
    for name, owners in OWNERS.items():
        document = pod(owner=owners)
        ours = conditions(POLICY, document)["not-foreign"]
        assert ours is not bool(find_foreign(read(document), settings)), name


def test_the_opt_out_counts_in_the_policy_where_it_counts_in_mode_enforce():
    out = pod(annotations={"admend.dev/patch": "false"})
    assert conditions(POLICY, out)["not-opted-out"] is False
    assert conditions(POLICY, pod(annotations={"admend.dev/patch": "true"}))["not-opted-out"] is True
    assert "not-opted-out" not in conditions("policy on the mirror only", out)


def wrong(name, request_object, before=None):
    """Return the images that a policy finds wrong, whether it admits, and the message."""
    spec = one(render(name), "ValidatingAdmissionPolicy")["spec"]
    request = {"operation": "UPDATE" if before else "CREATE"}
    variables = {"object": request_object, "oldObject": before, "request": request, "variables": {}}
    for each in spec["variables"]:
        [variables["variables"][each["name"]]] = evaluate((each["expression"], variables))
    [rule] = spec["validations"]
    admits, message = evaluate((rule["expression"], variables), (rule["messageExpression"], variables))
    return variables["variables"]["wrong"], admits, message


def test_the_policy_takes_digests_and_names_what_is_none():
    found, admits, message = wrong(POLICY, pod(f"quay.example/a{DIGEST}", "team/app:1", "localhost:5000/x"))
    assert found == ["docker.io/team/app:1", "localhost:5000/x:latest"]
    assert admits is False
    assert "docker.io/team/app:1, localhost:5000/x:latest" in message
    assert wrong(POLICY, pod(f"quay.example/a{DIGEST}", f"nginx:1{DIGEST}"))[1] is True


def test_the_policy_on_the_mirror_takes_nothing_else():
    mirrored = f"localhost:30443/registry.example/a{DIGEST}"
    assert wrong("policy on the mirror only", pod(mirrored, "quay.example/not/included:1"))[1] is True
    assert wrong("policy on the mirror only", pod(f"registry.example/a{DIGEST}"))[0] == [f"registry.example/a{DIGEST}"]


def test_images_that_were_there_before_and_those_that_are_never_pulled_are_not_judged():
    old = pod("a:1", "b:1")
    assert wrong(POLICY, pod("a:1", "c:1"), old)[0] == ["docker.io/library/c:1"]
    never = {"initContainers": [{"name": "i", "image": "x", "imagePullPolicy": "Never"}]}
    assert wrong(POLICY, pod(f"a{DIGEST}", **never))[1] is True


NAMES = (
    "nginx",
    "nginx:1.25",
    "library/nginx",
    "docker.io/nginx",
    "docker.io/library/nginx:1",
    "index.example/nginx",
    "team/nginx",
    "localhost/nginx",
    "localhost:5000/nginx",
    "registry.example/a:v1",
    "registry.example/a:v12",
    "registry.example/deep/a:v2",
    "registry.example:443/a:v1",
    "quay.example/pause:3",
    "quay.example/x/pause-thing",
    "quay.example/pausing/x",
    "[fd00::1]:5000/pause/x",
)


def test_policy_and_webhook_read_and_exclude_images_alike():
    settings = config(render(POLICY), "webhook").selection
    assert "docker.io/library/nginx" in settings.exclude
    choices = select(read(pod(*NAMES)), None, settings, Naming.parse("localhost:30443"), Mode.ENFORCE)
    looked_at = [str(each.reference) for each in choices if each.reference is not None]
    assert 3 < len(looked_at) < len(NAMES) - 3
    assert wrong(POLICY, pod(*NAMES))[0] == looked_at
