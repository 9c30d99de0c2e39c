"""The rendered objects must fit together, and each configuration file must fit the model that reads it."""

import re

import pytest

from certs.holdings import FILES, subject_names
from certs.signing import SIGNING_FILES
from proxy.canary import CANARY
from proxy.config import FleetConfig
from proxy.oci.naming import Naming
from tests.charts.rendering import CHART, DIGEST, HOSTILE, NAMESPACE, VALUES, config, helm, of_kind, one, pods, render
from webhook.admission import MAX_TIMEOUT

pytestmark = pytest.mark.interop
PARTS = ("webhook", "proxy", "certs")


@pytest.mark.parametrize("name", VALUES)
def test_helm_lint_has_nothing_to_say(name):
    done = helm("lint", "--strict", str(CHART), values=VALUES[name])
    assert done.returncode == 0, done.stdout


def test_every_configuration_file_is_what_its_process_reads(objects):
    for part in PARTS:
        config(objects, part)


def test_webhook_and_proxy_agree_on_the_mirror(objects):
    webhook, proxy = config(objects, "webhook"), config(objects, "proxy")
    assert (webhook.mirror.reference, webhook.mirror.naming) == (proxy.mirror.reference, proxy.mirror.naming)


def test_the_webhook_finds_every_proxy_under_a_name_in_the_certificate(objects):
    webhook, proxy = config(objects, "webhook"), config(objects, "proxy")
    [url] = webhook.proxy.urls
    host, _, port = url.removeprefix("https://").partition(":")
    name, namespace, _ = host.split(".")
    service = of_kind(objects, "Service")[name]
    assert namespace == NAMESPACE
    assert service["spec"]["clusterIP"] == "None"
    assert int(port) == proxy.listen.port
    if config(objects, "certs").authority:
        names = config(objects, "certs").dns_names
        subject_names(names, config(objects, "certs").ips)
    else:
        names = one(objects, "Certificate", "-tls")["spec"]["dnsNames"]
    assert host in names


def test_only_the_webhooks_own_client_certificate_opens_the_proxy(objects):
    [name] = config(objects, "proxy").auth.client_names
    certs = config(objects, "certs")
    assert name == (certs.client if certs.authority else one(objects, "Certificate", "-client")["spec"]["commonName"])


def test_each_service_selects_the_pods_of_one_deployment_and_names_a_port_of_theirs(objects):
    for service in of_kind(objects, "Service").values():
        wanted = service["spec"]["selector"].items()
        [pod] = [each for each in pods(objects).values() if wanted <= each["metadata"]["labels"].items()]
        ports = {port["name"] for port in pod["spec"]["containers"][0]["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports


def test_what_selects_pods_selects_its_own(objects):
    found = pods(objects)
    for kind in ("Deployment", "DaemonSet", "PodDisruptionBudget"):
        for name, each in of_kind(objects, kind).items():
            selector = each["spec"]["selector"]["matchLabels"].items()
            selected = [key for key, pod in found.items() if selector <= pod["metadata"]["labels"].items()]
            assert selected == [f"{kind.replace('PodDisruptionBudget', 'Deployment')}/{name}"]
    for pod in found.values():
        for constraint in pod["spec"].get("topologySpreadConstraints", ()):
            assert constraint["labelSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()


def test_an_autoscaler_scales_a_deployment_that_names_no_count(objects):
    deployments = of_kind(objects, "Deployment")
    scaled = {each["spec"]["scaleTargetRef"]["name"] for each in of_kind(objects, "HorizontalPodAutoscaler").values()}
    assert scaled <= set(deployments)
    assert {name for name, each in deployments.items() if "replicas" not in each["spec"]} == scaled


def test_more_than_one_replica_has_a_disruption_budget(objects):
    budgets = of_kind(objects, "PodDisruptionBudget")
    for name, each in of_kind(objects, "Deployment").items():
        if not name.endswith("-certs"):
            assert (name in budgets) == (each["spec"].get("replicas", 2) > 1)


def test_containers_listen_where_their_ports_say(objects):
    for part in ("webhook", "proxy"):
        container = one(objects, "Deployment", f"-{part}")["spec"]["template"]["spec"]["containers"][0]
        assert container["ports"] == [{"name": "https", "containerPort": config(objects, part).listen.port}]
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert container[probe]["httpGet"]["port"] == "https"


def test_a_pod_that_ends_answers_until_nobody_asks_it_and_has_time_for_what_it_was_asked(objects):
    for part in ("webhook", "proxy"):
        spec = one(objects, "Deployment", f"-{part}")["spec"]["template"]["spec"]
        pause = spec["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
        assert spec["terminationGracePeriodSeconds"] >= pause + MAX_TIMEOUT + 5


def test_every_mount_has_its_volume_and_every_volume_exists(objects):
    maps, claims = of_kind(objects, "ConfigMap"), of_kind(objects, "PersistentVolumeClaim")
    for pod in pods(objects).values():
        volumes = {each["name"]: each for each in pod["spec"].get("volumes", ())}
        for container in pod["spec"]["containers"]:
            mounts = [each["name"] for each in container.get("volumeMounts", ())]
            assert sorted(mounts) == sorted(volumes)
        for volume in volumes.values():
            assert "configMap" not in volume or volume["configMap"]["name"] in maps
            claim = volume.get("persistentVolumeClaim", {}).get("claimName")
            assert claim in {None, "held-elsewhere", *claims}


def test_every_certificate_file_that_a_configuration_names_is_mounted_and_made(objects):
    for part in ("webhook", "proxy"):
        spec = one(objects, "Deployment", f"-{part}")["spec"]["template"]["spec"]
        text = config(objects, part).model_dump_json()
        named = {word.partition('"')[0] for word in text.split("/etc/admend/certs/")[1:]}
        assert named == set(_certificate_files(objects, spec))


def test_no_pod_is_given_a_key_that_it_does_not_use(objects):
    secret = config(objects, "certs").cluster.secret
    for name, pod in pods(objects).items():
        given = set(_certificate_files(objects, pod["spec"]))
        assert "ca.key" not in given
        assert ("signing.pem" in given) == (name.startswith("Deployment/") and name.endswith("-proxy"))
        assert secret not in [each.get("secret", {}).get("secretName") for each in pod["spec"].get("volumes", ())]


def _certificate_files(objects, spec):
    """Yield the files of the volume of certificates; each must be one that its Secret holds."""
    cert_manager = {each["spec"]["secretName"] for each in of_kind(objects, "Certificate").values()}
    for volume in spec.get("volumes", ()):
        for source in volume.get("projected", {}).get("sources", ()):
            for item in source["secret"]["items"]:
                if source["secret"]["name"] in cert_manager:
                    assert item["key"] in {"ca.crt", "tls.crt", "tls.key"}
                else:
                    assert source["secret"]["name"] == config(objects, "certs").cluster.secret
                    assert item["key"] == item["path"]
                    assert item["key"] in {*FILES, *SIGNING_FILES}
                yield item["path"]


def test_a_change_of_configuration_starts_new_pods():
    marks = [
        {pod["metadata"].get("annotations", {}).get("admend.dev/config") for pod in pods(render(name)).values()}
        for name in ("default", "external registry")
    ]
    assert marks[0] & marks[1] <= {None}


def test_the_operators_own_keys_win_over_those_of_the_chart():
    proxy, webhook = (config(render("external registry"), part) for part in ("proxy", "webhook"))
    assert proxy.upstream.allow == ("*.example",)
    assert str(proxy.upstream.docker_config) == "/etc/admend/registry/config.json"
    assert proxy.upstream.credential_namespaces == ("team-*",)
    assert webhook.margin == 1.5


def test_a_digest_wins_over_the_tag():
    for name, pod in pods(render("external registry")).items():
        if not name.endswith("-probe"):
            assert pod["spec"]["containers"][0]["image"] == f"registry.example/admend@{DIGEST}"


def test_hostile_texts_stay_texts():
    found = render("hostile texts")
    pod = one(found, "Deployment", "-webhook")["spec"]["template"]
    assert pod["metadata"]["annotations"]["note"] == HOSTILE
    assert pod["metadata"]["annotations"]["admend.dev/config"] != "forged"
    assert pod["metadata"]["labels"]["app.kubernetes.io/name"] == "admend"
    assert pod["spec"]["tolerations"] == [{"key": "k", "value": HOSTILE}]
    assert config(found, "proxy").sources.mirrors == {HOSTILE: HOSTILE}
    assert config(found, "webhook").selection.exclude == ("*\"'\\{{ x }}*", "a.b/c+d(e)|f*")


def test_only_an_embedded_mirror_is_reached_by_nodes_and_has_a_volume(objects):
    service = one(objects, "Service", "-proxy")["spec"]
    deployment = one(objects, "Deployment", "-proxy")["spec"]
    [data] = [each for each in deployment["template"]["spec"]["volumes"] if each["name"] == "data"]
    if config(objects, "proxy").mirror.registry is None:
        assert deployment["replicas"] == 1
        assert deployment["strategy"] == {"type": "Recreate"}  # two pods cannot have one volume
    else:
        assert service["type"] == "ClusterIP"
        assert "emptyDir" in data
        assert not of_kind(objects, "PersistentVolumeClaim", "Ingress")


def test_an_ingress_gives_pulls_and_nothing_else():
    ingress = one(render("ingress"), "Ingress")["spec"]
    [rule] = ingress["rules"]
    [path] = rule["http"]["paths"]
    assert (path["path"], path["pathType"]) == ("/v2", "Prefix")
    assert ingress["tls"] == [{"hosts": ["mirror.example"], "secretName": "mirror-tls"}]
    assert path["backend"]["service"]["name"] in of_kind(render("ingress"), "Service")


def test_the_probe_pulls_the_canary_that_the_proxy_keeps_in_the_mirror(objects):
    proxy = config(objects, "proxy")
    probe = proxy.cluster and proxy.cluster.probe
    found = of_kind(objects, "DaemonSet")
    assert list(found) == ([probe.daemonset] if probe else [])
    for each in found.values():
        pod = each["spec"]["template"]["spec"]
        [container] = pod["containers"]
        assert container["image"] == str(Naming.parse(proxy.mirror.reference, proxy.mirror.naming).name_for(CANARY))
        assert container["imagePullPolicy"] == "Always"
        assert pod["terminationGracePeriodSeconds"] == 1
        assert pod["tolerations"] == [{"operator": "Exists"}]
        assert pod["nodeSelector"] == {"kubernetes.io/os": "linux"}


def test_logs_audit_lines_and_traces_go_where_the_values_say():
    found = render("monitoring")
    webhook, proxy, certs = (config(found, part) for part in PARTS)
    assert {each.log.level for each in (webhook, proxy, certs)} == {"debug"}
    assert not webhook.audit.stdout
    assert webhook.audit.http.url == "https://audit.example/x"
    assert str(webhook.audit.http.token_file) == "/etc/admend/audit/token"
    assert webhook.audit.http.ca_file is None
    for each in (webhook, proxy):
        assert each.tracing.endpoint == "https://collector.example:4318/v1/traces"
        assert each.tracing.attributes == {"deployment.environment.name": "test"}
        assert str(each.tracing.ca_file) == "/etc/admend/tracing/ca.crt"
    assert config(render("default"), "webhook").tracing.endpoint is None
    assert config(render("default"), "proxy").log.format == "json"


def test_every_file_that_a_configuration_names_is_mounted(objects):
    for part in ("webhook", "proxy"):
        spec = one(objects, "Deployment", f"-{part}")["spec"]["template"]["spec"]
        held = set()
        for mount in spec["containers"][0]["volumeMounts"]:
            [volume] = [each for each in spec["volumes"] if each["name"] == mount["name"]]
            sources = [*volume.get("projected", {}).get("sources", ()), volume]
            items = [item for each in sources for item in each.get("secret", {}).get("items", ())]
            held |= {f"{mount['mountPath']}/{item['path']}" for item in items}
        text = config(objects, part).model_dump_json()
        assert set(re.findall(r'"(/etc/admend/[^"]+)"', text)) <= held


def test_private_images_are_for_the_namespaces_that_are_listed():
    proxy = config(render("private images"), "proxy")
    assert proxy.cluster.pull_secrets.enabled
    assert proxy.cluster.pull_secrets.namespaces == ("team-a", "team-b")
    assert proxy.mirror.grants.enabled
    assert proxy.mirror.grants.seconds == 7 * 86400
    assert not config(render("default"), "proxy").cluster.pull_secrets.enabled
    assert config(render("cert-manager with an issuer"), "proxy").upstream.credentials_open


def test_the_fleet_is_looked_after_as_the_values_say():
    default = config(render("default"), "proxy").cluster
    assert default.fleet == FleetConfig()
    assert default.namespaces.default_mode == "permissive"
    some, every = (config(render(name), "proxy") for name in ("restarts", "restarts everywhere"))
    assert some.cluster.fleet.restart.namespaces == ("team-a", "team-b")
    assert str(some.audit.http.ca_file) == "/etc/admend/audit/ca.crt"
    assert every.cluster.namespaces.default_mode == "audit"
    assert every.cluster.fleet.restart.dry_run
    assert config(render("bare"), "proxy").cluster is None
    excluded = config(render("enforce with policy"), "proxy").cluster.fleet.prewarm.exclude
    assert excluded == config(render("enforce with policy"), "webhook").selection.exclude
    included = config(render("policy on the mirror only"), "proxy").cluster.fleet.prewarm.include
    assert included == ("registry.example/*",)


GIB = 1 << 30


def test_mirror_and_caches_stay_within_their_volumes():
    proxy = config(render("existing claim"), "proxy")
    assert proxy.mirror.max_bytes == 20 * GIB
    assert (proxy.cache_max_bytes, proxy.derived_max_bytes) == (2 * GIB, 2 * GIB // 5)
    [cache] = [
        each
        for each in one(render("existing claim"), "Deployment", "-proxy")["spec"]["template"]["spec"]["volumes"]
        if each["name"] == "cache"
    ]
    assert cache["emptyDir"]["sizeLimit"] == "3072Mi"
    assert config(render("default"), "proxy").mirror.max_bytes == 50 * GIB
