"""What the chart's pods may do: on their nodes, in the cluster, and on the network."""

import json
from collections import defaultdict

import pytest

from tests.charts.rendering import NAMESPACE, config, of_kind, one, pods, render

pytestmark = pytest.mark.interop


def test_every_pod_meets_the_restricted_standard(objects):
    volumes = {"configMap", "secret", "emptyDir", "persistentVolumeClaim", "projected"}
    for pod in pods(objects).values():
        spec = pod["spec"]
        assert not {"hostNetwork", "hostPID", "hostIPC", "hostUsers"} & set(spec)
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert (spec["securityContext"].get("runAsUser", 0) > 0) == (objects is not render("private images"))
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert all(len(volumes & set(each)) == 1 for each in spec.get("volumes", ()))
        assert all(each["emptyDir"]["sizeLimit"] for each in spec.get("volumes", ()) if "emptyDir" in each)
        for container in spec["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["readOnlyRootFilesystem"] is True
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert "privileged" not in context
            assert container["resources"]["limits"]["memory"]
            assert not any("hostPort" in port for port in container.get("ports", ()))


def test_secrets_are_mounted_for_their_reader_only(objects):
    for pod in pods(objects).values():
        for volume in pod["spec"].get("volumes", ()):
            source = volume.get("secret") or volume.get("projected")
            assert source is None or volume["name"] == "vendor" or source["defaultMode"] == 0o440


def test_every_pod_runs_under_a_service_account_of_its_own_and_the_webhook_never_gets_a_token(objects):
    accounts = of_kind(objects, "ServiceAccount")
    assert not any(each["automountServiceAccountToken"] for each in accounts.values())
    for name, pod in pods(objects).items():
        if name.startswith("Pod/"):
            assert pod["spec"]["automountServiceAccountToken"] is False
            continue
        assert f"/{pod['spec']['serviceAccountName']}" == name.removeprefix("Deployment").removeprefix("DaemonSet")
        assert pod["spec"]["serviceAccountName"] in accounts
        part = name.rpartition("-")[2]
        asks = part == "certs" or (part == "proxy" and config(objects, "proxy").cluster is not None)
        assert pod["spec"]["automountServiceAccountToken"] is asks


def rules_of(objects, part):
    """Return the rules bound to one part's account: (namespace or "", group, resource, names) -> verbs."""
    rules = {
        (each["kind"], each["metadata"].get("namespace", ""), each["metadata"]["name"]): each["rules"]
        for each in objects
        if "rules" in each
    }
    found = defaultdict(set)
    for kind in ("Role", "ClusterRole"):
        bindings = [each for each in objects if each["kind"] == f"{kind}Binding"]
        for binding in bindings:
            [subject] = binding["subjects"]
            assert (subject["kind"], subject["namespace"]) == ("ServiceAccount", NAMESPACE)
            if not subject["name"].endswith(f"-{part}"):
                continue
            name, namespace = (binding["metadata"].get(key, "") for key in ("name", "namespace"))
            assert binding["roleRef"] == {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name}
            for rule in rules[kind, namespace, name]:
                [group], [resource] = rule["apiGroups"], rule["resources"]
                key = (namespace, group, resource, *rule.get("resourceNames", ()))
                found[key] |= set(rule["verbs"])
    return found


CERTS = {
    (NAMESPACE, "", "secrets", "admend-certs"): {"get", "update"},
    (NAMESPACE, "", "secrets"): {"create"},
    (NAMESPACE, "coordination.k8s.io", "leases", "admend-certs"): {"get", "update"},
    (NAMESPACE, "coordination.k8s.io", "leases"): {"create"},
}
KEEPER = ("", "admissionregistration.k8s.io", "mutatingwebhookconfigurations", "admend-system-admend")
PROBE = {
    (NAMESPACE, "apps", "daemonsets", "admend-probe"): {"get"},
    (NAMESPACE, "", "pods"): {"list"},
}
LEASE = {
    (NAMESPACE, "coordination.k8s.io", "leases", "admend-proxy"): {"get", "update"},
    (NAMESPACE, "coordination.k8s.io", "leases"): {"create"},
}
WALK = {("", "", "namespaces"): {"list"}, ("", "", "pods"): {"list"}}
TELL = {("", "apps", "replicasets"): {"get"}, ("", "", "events"): {"create"}}
EVICT = {(namespace, "", "pods/eviction"): {"create"} for namespace in ("team-a", "team-b")}
USUAL = PROBE | LEASE | WALK | TELL
READS = {(f"team-{team}", "", resource): {"get"} for team in ("a", "b") for resource in ("serviceaccounts", "secrets")}
GRANTS = {(f"team-{team}", "", "secrets", "admend-mirror"): {"update"} for team in ("a", "b")}
GRANTS |= {(f"team-{team}", "", "secrets"): {"get", "create"} for team in ("a", "b")}
REVIEWS = {("", "authentication.k8s.io", "tokenreviews"): {"create"}}


@pytest.mark.parametrize(
    ("name", "certs", "proxy"),
    [
        ("default", CERTS | {KEEPER: {"get", "patch"}}, USUAL),
        ("bare", CERTS | {KEEPER: {"get", "patch"}}, {}),
        ("cert-manager", CERTS, USUAL),
        ("cert-manager with an issuer", CERTS, USUAL | {key: READS[key] for key in READS if key[0] == "team-a"}),
        ("private images", CERTS | {KEEPER: {"get", "patch"}}, USUAL | REVIEWS | READS | GRANTS),
        ("restarts", CERTS | {KEEPER: {"get", "patch"}}, PROBE | LEASE | WALK | EVICT),
        ("restarts everywhere", CERTS | {KEEPER: {"get", "patch"}}, USUAL | {("", "", "pods/eviction"): {"create"}}),
    ],
)
def test_each_process_has_exactly_the_rights_of_what_is_switched_on(name, certs, proxy):
    found = render(name)
    assert rules_of(found, "certs") == certs
    assert rules_of(found, "proxy") == proxy
    assert rules_of(found, "webhook") == rules_of(found, "probe") == {}


def test_nobody_has_a_right_to_everything(objects):
    for each in of_kind(objects, "Role", "ClusterRole").values():
        assert "*" not in json.dumps(each["rules"])
        assert not any(
            {"escalate", "bind", "impersonate", "deletecollection"} & set(rule["verbs"]) for rule in each["rules"]
        )
        assert not any(each["kind"] == "ClusterRole" and "secrets" in rule["resources"] for rule in each["rules"]), (
            "secrets are read in namespaces that were named"
        )


def test_every_role_is_bound_and_every_binding_has_its_role(objects):
    for kind in ("Role", "ClusterRole"):
        assert set(of_kind(objects, kind)) == set(of_kind(objects, f"{kind}Binding"))


def test_every_pod_of_the_release_is_under_a_network_policy_that_names_both_directions():
    found = render("default")
    policies = of_kind(found, "NetworkPolicy")
    for name, pod in pods(found).items():
        labels = pod["metadata"]["labels"].items()
        chosen = [each for each in policies.values() if each["spec"]["podSelector"]["matchLabels"].items() <= labels]
        assert len(chosen) == (0 if name.startswith("Pod/") else 1)
        assert all(each["spec"]["policyTypes"] == ["Ingress", "Egress"] for each in chosen)


def test_the_webhook_reaches_the_proxy_and_name_service_and_nothing_else():
    policy = one(render("default"), "NetworkPolicy", "-webhook")["spec"]
    dns, proxy = policy["egress"]
    assert {(each["port"], each["protocol"]) for each in dns["ports"]} == {
        (port, protocol) for port in (53, 5353) for protocol in ("UDP", "TCP")
    }
    assert proxy["to"][0]["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "proxy"
    assert [each["port"] for each in proxy["ports"]] == [8443]
    assert policy["ingress"] == [{"ports": [{"port": "https", "protocol": "TCP"}]}]


def test_the_proxy_never_reaches_metadata_services_and_nodes_pull_from_an_embedded_mirror_only():
    embedded = one(render("default"), "NetworkPolicy", "-proxy")["spec"]
    blocks = [each["ipBlock"] for each in embedded["egress"][1]["to"]]
    assert [each["except"] for each in blocks] == [["169.254.169.254/32"], ["fd00:ec2::254/128"]]
    assert {"ipBlock": {"cidr": "0.0.0.0/0"}} in embedded["ingress"][0]["from"]
    external = one(render("external registry"), "NetworkPolicy", "-proxy")["spec"]
    assert not any("ipBlock" in each for each in external["ingress"][0]["from"])
    assert 5443 in [each["port"] for each in external["egress"][1]["ports"]]
    bare = one(render("no persistence"), "NetworkPolicy", "-proxy")["spec"]
    assert [each["port"] for each in bare["egress"][1]["ports"]] == [80, 443]  # no API server without a reason
