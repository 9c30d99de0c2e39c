"""The real kubernetes client against an API server on loopback."""

import base64
import json

import pytest
from kubernetes import client

from certs.cluster import SecretStore, open_cluster, publish_bundle, publish_from
from certs.config import ClusterConfig
from certs.errors import CertificateError
from certs.holdings import CA_CERT, SIGNING_PUBLIC, Wanted
from certs.rotate import reconcile
from tests.simulators.kube_api import serve_kube_api

SECRET = "/api/v1/namespaces/admend/secrets/admend-certs"
HOOKS = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/admend"
WANTED = Wanted(("admend-webhook.admend.svc",), (), "admend-webhook", signing=True)


@pytest.fixture
def kube():
    with serve_kube_api() as api:
        yield api


@pytest.fixture
def connection(kube):
    with client.ApiClient(client.Configuration(host=kube.url)) as connected:
        yield connected


@pytest.fixture
def store(connection):
    return SecretStore(client.CoreV1Api(connection), "admend", "admend-certs")


@pytest.fixture
def hooks(connection):
    return client.AdmissionregistrationV1Api(connection)


def hook_configuration(*bundles):
    hook = {"admissionReviewVersions": ["v1"], "sideEffects": "NoneOnDryRun", "fieldOfTheFuture": {"kept": True}}
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": "admend"},
        "webhooks": [
            {**hook, "name": f"h{number}.admend.dev", "clientConfig": {"caBundle": bundle} if bundle else {}}
            for number, bundle in enumerate(bundles)
        ],
    }


def test_the_first_pass_makes_the_secret_and_the_second_leaves_it(kube, store):
    assert reconcile(store, WANTED)
    assert not reconcile(store, WANTED)
    assert kube.writes == [("POST", SECRET.rpartition("/")[0])]
    assert store.read()[SIGNING_PUBLIC].startswith(b"-----BEGIN PUBLIC KEY-----")


def test_a_changed_name_replaces_the_certificate_and_leaves_other_keys_of_the_secret(kube, store):
    reconcile(store, WANTED)
    kube.objects[SECRET]["data"]["note"] = "a2VwdA=="
    assert reconcile(store, Wanted(("other.admend.svc",), (), "admend-webhook"))
    assert kube.objects[SECRET]["data"]["note"] == "a2VwdA=="


def test_of_two_that_start_at_once_one_makes_the_authority_and_the_other_takes_it(kube, store, connection):
    other = SecretStore(client.CoreV1Api(connection), "admend", "admend-certs")
    kube.before_write = lambda: reconcile(other, WANTED)
    assert not reconcile(store, WANTED)
    assert [method for method, _ in kube.writes] == ["POST", "POST"]
    assert store.read() == other.read()


def test_a_write_that_lost_the_race_reads_again(kube, store):
    reconcile(store, WANTED)
    kube.before_write = lambda: kube.put(SECRET, dict(kube.objects[SECRET]))
    assert reconcile(store, Wanted(("other.admend.svc",)))
    assert [method for method, _ in kube.writes] == ["POST", "PUT", "PUT"]


@pytest.mark.parametrize("status", [401, 403, 500])
def test_a_refusal_of_the_api_server_is_a_clear_error(kube, store, status):
    kube.refuse = status
    with pytest.raises(
        CertificateError, match=f"Secret admend/admend-certs cannot be read: the API server said {status}"
    ):
        reconcile(store, WANTED)


def test_an_api_server_that_is_not_there_is_a_clear_error():
    configuration = client.Configuration(host="http://127.0.0.1:9")
    configuration.retries = False
    with client.ApiClient(configuration) as connected:
        store = SecretStore(client.CoreV1Api(connected), "admend", "admend-certs")
        with pytest.raises(CertificateError, match="no answer"):
            reconcile(store, WANTED)


def test_data_that_is_not_base64_is_a_clear_error(kube, store):
    kube.put(SECRET, {"metadata": {"name": "admend-certs"}, "data": {CA_CERT: "***"}})
    with pytest.raises(CertificateError, match="not base64"):
        reconcile(store, WANTED)


def test_the_authorities_are_written_into_every_webhook_and_nothing_else_is_touched(kube, store, hooks):
    reconcile(store, WANTED)
    kube.put(HOOKS, hook_configuration(None, "b2xk"))
    assert publish_from(store, hooks, "admend")
    wanted = base64.b64encode(store.read()[CA_CERT]).decode()
    for hook in kube.objects[HOOKS]["webhooks"]:
        assert hook["clientConfig"]["caBundle"] == wanted
        assert hook["fieldOfTheFuture"] == {"kept": True}
    assert not publish_from(store, hooks, "admend")


def test_without_an_authority_nothing_is_published(kube, store, hooks):
    kube.put(HOOKS, hook_configuration("b2xk"))
    assert not publish_from(store, hooks, "admend")
    assert kube.writes == []


def test_a_bundle_that_lost_the_race_is_written_again_over_what_the_other_wrote(kube, hooks):
    kube.put(HOOKS, hook_configuration("b2xk"))
    kube.before_write = lambda: kube.put(HOOKS, hook_configuration("b2xk", "b2xk"))
    assert publish_bundle(hooks, "admend", b"new")
    assert [hook["clientConfig"]["caBundle"] for hook in kube.objects[HOOKS]["webhooks"]] == ["bmV3", "bmV3"]


def test_a_configuration_that_is_not_there_is_a_clear_error(hooks):
    with pytest.raises(CertificateError, match=r"MutatingWebhookConfiguration admend cannot be kept: .*404"):
        publish_bundle(hooks, "admend", b"new")


def test_a_kubeconfig_opens_the_cluster(kube, tmp_path):
    file = tmp_path / "kubeconfig"
    place = {"name": "x", "cluster": {"server": kube.url}}
    context = {"name": "x", "context": {"cluster": "x", "user": "x"}}
    file.write_text(
        json.dumps(
            {"clusters": [place], "contexts": [context], "users": [{"name": "x", "user": {}}], "current-context": "x"}
        )
    )
    kube.put(HOOKS, hook_configuration(None))
    store, after_pass = open_cluster(
        ClusterConfig(namespace="admend", secret="admend-certs", webhook_configuration="admend", kubeconfig=file)
    )
    assert reconcile(store, WANTED)
    assert after_pass()


def test_outside_of_a_cluster_without_a_kubeconfig_is_a_clear_error():
    with pytest.raises(CertificateError, match="no way into the cluster"):
        open_cluster(ClusterConfig(namespace="admend", secret="x"))
