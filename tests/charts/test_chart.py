"""helm renders the chart; its objects must fit together, and its files must fit the models that read them."""

import json
import subprocess
from functools import cache

import pytest
import yaml

from certs.config import CertsConfig
from certs.holdings import FILES, subject_names
from proxy.config import ProxyConfig
from tests.support import REPOSITORY, require_tool
from webhook.config import WebhookConfig

pytestmark = pytest.mark.interop
CHART = str(REPOSITORY / "charts" / "admend")
MODELS = {"proxy": ProxyConfig, "webhook": WebhookConfig, "certs": CertsConfig}
DIGEST = "sha256:" + "a" * 64
VALUES = {
    "default": {},
    "external mirror": {
        "mirror": {"reference": "mirror.example/team", "registry": "mirror.example/team", "naming": "flat"},
        "registryCredentials": {"existingSecret": "registries"},
        "proxy": {"replicas": 3, "service": {"type": "ClusterIP"}, "config": {"upstream": {"allow": ["*.example"]}}},
        "image": {"digest": DIGEST, "pullSecrets": [{"name": "own"}]},
        "mode": "enforce",
        "webhook": {"failurePolicy": "Fail", "replicas": 1, "config": {"selection": {"exclude": ["*/pause*"]}}},
        "certs": {"extraDnsNames": ["mirror.example"], "extraIps": ["10.0.0.9"], "secret": "other-name"},
    },
    "plain": {
        "nameOverride": "patches",
        "listenHost": "::",
        "proxy": {"persistence": {"enabled": False}, "nodeSelector": {"disk": "fast"}, "tolerations": [{"key": "x"}]},
        "webhook": {"namespaceSelector": {}, "objectSelector": {"matchLabels": {"team": "a"}}},
    },
}


def helm(*arguments, values=None):
    command = [require_tool("helm"), *arguments, *(["--values", "-"] if values is not None else [])]
    return subprocess.run(
        command, input=json.dumps(values) if values is not None else None, capture_output=True, text=True, check=False
    )


@cache
def render(name):
    done = helm("template", "admend", CHART, "--namespace", "admend-system", values=VALUES[name])
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


@pytest.fixture(params=VALUES)
def objects(request):
    return render(request.param)


def of_kind(objects, kind):
    return {each["metadata"]["name"]: each for each in objects if each["kind"] == kind}


def pod_specs(objects):
    return {name: each["spec"]["template"]["spec"] for name, each in of_kind(objects, "Deployment").items()}


def config(objects, part):
    [text] = [
        each["data"][f"{part}.yaml"]
        for each in of_kind(objects, "ConfigMap").values()
        if f"{part}.yaml" in each["data"]
    ]
    return MODELS[part].model_validate(yaml.safe_load(text))


@pytest.mark.parametrize("name", VALUES)
def test_helm_lint_has_nothing_to_say(name):
    done = helm("lint", "--strict", CHART, values=VALUES[name])
    assert done.returncode == 0, done.stdout


def test_every_configuration_file_is_what_its_process_reads(objects):
    for part in MODELS:
        config(objects, part)


def test_webhook_and_proxy_agree_on_the_mirror_and_meet_under_a_name_in_the_certificate(objects):
    webhook, proxy, certs = (config(objects, part) for part in ("webhook", "proxy", "certs"))
    assert (webhook.mirror.reference, webhook.mirror.naming) == (proxy.mirror.reference, proxy.mirror.naming)
    host, _, port = webhook.proxy.urls[0].removeprefix("https://").partition(":")
    assert host in certs.dns_names
    assert int(port) == proxy.listen.port
    subject_names(certs.dns_names, certs.ips)


def test_each_service_selects_exactly_the_pods_of_one_deployment_and_names_a_port_of_theirs(objects):
    deployments = of_kind(objects, "Deployment")
    for name, service in of_kind(objects, "Service").items():
        wanted = service["spec"]["selector"].items()
        found = [
            each for each in deployments.values() if wanted <= each["spec"]["template"]["metadata"]["labels"].items()
        ]
        assert [each["metadata"]["name"] for each in found] == [name]
        [container] = found[0]["spec"]["template"]["spec"]["containers"]
        ports = {port["name"] for port in container["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports


def test_deployments_and_disruption_budgets_select_their_own_pods(objects):
    for kind in ("Deployment", "PodDisruptionBudget"):
        for name, each in of_kind(objects, kind).items():
            labels = of_kind(objects, "Deployment")[name]["spec"]["template"]["metadata"]["labels"]
            assert each["spec"]["selector"]["matchLabels"].items() <= labels.items()


def test_containers_listen_where_their_ports_say(objects):
    for part in ("webhook", "proxy"):
        [spec] = [spec for name, spec in pod_specs(objects).items() if name.endswith(f"-{part}")]
        assert spec["containers"][0]["ports"][0]["containerPort"] == config(objects, part).listen.port


def test_every_pod_meets_the_restricted_standard(objects):
    for spec in pod_specs(objects).values():
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] == 65532
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert all({"configMap", "secret", "emptyDir", "persistentVolumeClaim"} & set(each) for each in spec["volumes"])
        for container in spec["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["readOnlyRootFilesystem"] is True
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert "privileged" not in context
            assert container["resources"]["limits"]["memory"]


def test_every_mount_has_its_volume_and_every_volume_exists(objects):
    maps, claims = of_kind(objects, "ConfigMap"), of_kind(objects, "PersistentVolumeClaim")
    for spec in pod_specs(objects).values():
        volumes = {each["name"]: each for each in spec["volumes"]}
        [container] = spec["containers"]
        assert {each["name"] for each in container["volumeMounts"]} == set(volumes)
        for volume in volumes.values():
            assert "configMap" not in volume or volume["configMap"]["name"] in maps
            assert "persistentVolumeClaim" not in volume or volume["persistentVolumeClaim"]["claimName"] in claims


def test_every_certificate_file_that_a_configuration_names_is_mounted_and_made(objects):
    specs = pod_specs(objects)
    for part in ("webhook", "proxy"):
        [spec] = [spec for name, spec in specs.items() if name.endswith(f"-{part}")]
        [secret] = [each["secret"] for each in spec["volumes"] if each["name"] == "certs"]
        mounted = {each["path"] for each in secret["items"]}
        text = config(objects, part).model_dump_json()
        named = {word.partition('"')[0] for word in text.split("/etc/admend/certs/")[1:]}
        assert named == mounted <= set(FILES)
        assert secret["secretName"] == config(objects, "certs").cluster.secret
        assert "ca.key" not in mounted
    [webhook] = [spec for name, spec in specs.items() if name.endswith("-webhook")]
    assert "signing.pem" not in json.dumps(webhook)


def test_the_webhook_configuration_never_stops_a_cluster_from_healing(objects):
    [(name, found)] = of_kind(objects, "MutatingWebhookConfiguration").items()
    [hook] = found["webhooks"]
    assert name == config(objects, "certs").cluster.webhook_configuration
    assert (hook["sideEffects"], hook["reinvocationPolicy"]) == ("NoneOnDryRun", "IfNeeded")
    assert hook["matchPolicy"] == "Equivalent"
    assert hook["admissionReviewVersions"] == ["v1"]
    never = {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["kube-system", "admend-system"]}
    assert never in hook["namespaceSelector"]["matchExpressions"]
    service = hook["clientConfig"]["service"]
    assert service["name"] in of_kind(objects, "Service")
    assert (service["namespace"], service["path"]) == ("admend-system", "/mutate")
    assert {resource for rule in hook["rules"] for resource in rule["resources"]} == {
        "pods",
        "pods/ephemeralcontainers",
    }
    assert "caBundle" not in hook["clientConfig"]  # the certs process owns it; an upgrade must not take it away


def test_only_the_certs_process_has_rights_in_the_cluster_and_only_to_its_own_objects(objects):
    accounts = of_kind(objects, "ServiceAccount")
    holders = {
        spec["serviceAccountName"] for spec in pod_specs(objects).values() if spec["automountServiceAccountToken"]
    }
    [holder] = holders
    assert holder.endswith("-certs")
    assert not any(each["automountServiceAccountToken"] for each in accounts.values())
    roles = [*of_kind(objects, "Role").values(), *of_kind(objects, "ClusterRole").values()]
    for rule in (rule for role in roles for rule in role["rules"]):
        assert rule["verbs"] == ["create"] or rule["resourceNames"]
        assert "*" not in json.dumps(rule)
    for kind in ("RoleBinding", "ClusterRoleBinding"):
        for binding in of_kind(objects, kind).values():
            assert [subject["name"] for subject in binding["subjects"]] == [holder]


def test_a_restart_follows_a_change_of_configuration():
    marks = [
        {
            each["spec"]["template"]["metadata"]["annotations"]["admend.dev/config"]
            for each in of_kind(found, "Deployment").values()
        }
        for found in (render("default"), render("external mirror"))
    ]
    assert not marks[0] & marks[1]


def test_the_operators_own_keys_win_over_those_of_the_chart():
    proxy, webhook = config(render("external mirror"), "proxy"), config(render("external mirror"), "webhook")
    assert proxy.upstream.allow == ("*.example",)
    assert str(proxy.upstream.docker_config) == "/etc/admend/registry/config.json"
    assert webhook.selection.exclude == ("*/pause*",)
    assert webhook.mode == "enforce"


def test_a_digest_wins_over_the_tag():
    for spec in pod_specs(render("external mirror")).values():
        assert spec["containers"][0]["image"] == f"registry.example/admend@{DIGEST}"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"proxy": {"replicas": 2}}, "set mirror.registry to run more than one"),
        ({"mode": "sometimes"}, "mode"),
        ({"webhok": {}}, "webhok"),
        ({"webhook": {"timeoutSeconds": 31}}, "timeoutSeconds"),
        ({"image": {"digest": "latest"}}, "digest"),
    ],
)
def test_values_that_cannot_work_are_refused_with_the_reason(values, message):
    done = helm("template", "admend", CHART, values=values)
    assert done.returncode != 0
    assert message in done.stderr
