"""Which requests reach the webhook: entries by mode, namespaces by label, and nothing that must start before admend."""

import pytest

from tests.charts.rendering import NAMESPACE, VALUES, config, of_kind, one, render
from webhook.config import Mode

pytestmark = pytest.mark.interop
MODES = ("permissive", "enforce", "audit")


def selects(selector, labels):
    """Say whether a label selector takes an object with these labels, as the API server does."""
    for each in selector.get("matchExpressions", ()):
        value = labels.get(each["key"])
        if each["operator"] == "In" and value not in each["values"]:
            return False
        if each["operator"] == "NotIn" and value in each["values"]:
            return False
        assert each["operator"] in {"In", "NotIn"}
    return selector.get("matchLabels", {}).items() <= labels.items()


def mode_of(objects, name, label):
    """Return the modes of the entries that take a namespace of that name and label."""
    labels = {"kubernetes.io/metadata.name": name} | ({"admend.dev/admission": label} if label is not None else {})
    hooks = one(objects, "MutatingWebhookConfiguration")["webhooks"]
    return [hook["name"].partition(".")[0] for hook in hooks if selects(hook["namespaceSelector"], labels)]


def test_there_is_one_entry_per_mode_and_only_enforce_fails_closed(objects):
    hooks = one(objects, "MutatingWebhookConfiguration")["webhooks"]
    assert [hook["name"] for hook in hooks] == [f"{mode}.admend.dev" for mode in MODES]
    assert [hook["clientConfig"]["service"]["path"] for hook in hooks] == [f"/mutate/{mode}" for mode in MODES]
    assert {hook["clientConfig"]["service"]["path"] for hook in hooks} <= {f"/mutate/{mode}" for mode in Mode}
    assert [hook["failurePolicy"] for hook in hooks] == ["Ignore", "Fail", "Ignore"]


def test_every_entry_is_called_for_new_pods_new_images_and_ephemeral_containers(objects):
    for hook in one(objects, "MutatingWebhookConfiguration")["webhooks"]:
        assert (hook["sideEffects"], hook["reinvocationPolicy"]) == ("NoneOnDryRun", "IfNeeded")
        assert hook["matchPolicy"] == "Equivalent"
        assert hook["admissionReviewVersions"] == ["v1"]
        called = {(operation, *rule["resources"]) for rule in hook["rules"] for operation in rule["operations"]}
        assert called == {("CREATE", "pods"), ("UPDATE", "pods"), ("UPDATE", "pods/ephemeralcontainers")}
        service = hook["clientConfig"]["service"]
        assert of_kind(objects, "Service")[service["name"]]["spec"]["ports"][0]["port"] == service["port"]
        assert service["namespace"] == NAMESPACE


def test_the_certificate_keeper_keeps_this_configuration_and_no_upgrade_takes_its_bundle_away(objects):
    found = one(objects, "MutatingWebhookConfiguration")
    assert all("caBundle" not in hook["clientConfig"] for hook in found["webhooks"])
    if config(objects, "certs").authority:
        assert config(objects, "certs").cluster.webhook_configuration == found["metadata"]["name"]
    else:
        certificate = one(objects, "Certificate", "-tls")["metadata"]["name"]
        mark = found["metadata"]["annotations"]["cert-manager.io/inject-ca-from"]
        assert mark == f"{NAMESPACE}/{certificate}"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("default", {None: [], "enabled": ["permissive"], "typo": []}),
        ("enforce with policy", {None: [], "enabled": ["enforce"], "typo": []}),
        ("opt-out", {None: ["permissive"], "enabled": ["permissive"], "typo": ["permissive"]}),
    ],
)
def test_a_namespaces_label_chooses_its_mode(name, expected):
    expected |= {mode: [mode] for mode in MODES} | {"disabled": []}
    assert {label: mode_of(render(name), "team-a", label) for label in expected} == expected


def test_no_label_brings_in_what_must_start_before_admend(objects):
    for namespace in ("kube-system", NAMESPACE):
        for label in (None, "enabled", *MODES):
            assert mode_of(objects, namespace, label) == []
    certs = config(objects, "certs")
    assert certs.authority or mode_of(objects, "cert-manager", "enforce") == []


def test_the_proxy_looks_at_the_namespaces_that_the_webhook_does(objects):
    cluster = config(objects, "proxy").cluster
    if cluster is not None:
        hook = one(objects, "MutatingWebhookConfiguration")["webhooks"][0]
        [excluded] = [
            each["values"]
            for each in hook["namespaceSelector"]["matchExpressions"]
            if each["key"] == "kubernetes.io/metadata.name"
        ]
        assert list(cluster.namespaces.exclude) == excluded
        assert cluster.namespaces.opt_in == (objects is not render("opt-out"))


def test_the_policy_takes_the_namespaces_of_mode_enforce_and_skips_what_the_webhook_skips(objects):
    for name, binding in of_kind(objects, "ValidatingAdmissionPolicyBinding").items():
        hook = one(objects, "MutatingWebhookConfiguration")["webhooks"][1]
        match = binding["spec"]["matchResources"]
        assert match["namespaceSelector"] == hook["namespaceSelector"]
        assert match["objectSelector"] == hook["objectSelector"]
        policy = one(objects, "ValidatingAdmissionPolicy")
        assert binding["spec"]["policyName"] == name == policy["metadata"]["name"]
        conditions = policy["spec"]["matchConditions"]
        assert [each for each in conditions if each in hook["matchConditions"]] == hook["matchConditions"]


def test_there_is_a_policy_only_where_one_is_asked_for():
    asked = {name for name, values in VALUES.items() if values.get("validatingPolicy", {}).get("enabled")}
    assert {name for name in VALUES if of_kind(render(name), "ValidatingAdmissionPolicy")} == asked
