"""The real kubernetes client against an API server on loopback."""

import asyncio
import base64
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from kubernetes import client

from certs.cluster import SecretStore, open_cluster, publish_bundle, publish_from
from certs.config import ClusterConfig
from certs.errors import CertificateError
from certs.holdings import CA_CERT, Wanted
from certs.rotate import keep_fresh, reconcile
from certs.signing import SIGNING_PUBLIC
from tests.simulators.kube_api import serve_kube_api, write_kubeconfig

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


def open_by_kubeconfig(kube, folder):
    file = Path(write_kubeconfig(kube, folder))
    names = {"namespace": "admend", "secret": "admend-certs", "webhook_configuration": "admend"}
    return open_cluster(ClusterConfig(**names, kubeconfig=file))


def test_a_kubeconfig_opens_the_cluster(kube, tmp_path):
    kube.put(HOOKS, hook_configuration(None))
    found = open_by_kubeconfig(kube, tmp_path)
    assert reconcile(found.store, WANTED)
    assert found.after_pass()


@asynccontextmanager
async def keeping(found, every=0.05):
    """Run what a certs process runs."""
    async with found.lease:
        passes = keep_fresh(found.store, WANTED, every=every, after_pass=found.after_pass, lease=found.lease)
        task = asyncio.create_task(passes)
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what is waited for is an object in the API server
            await asyncio.sleep(0.02)


def holds_bundle(kube):
    """Say whether every webhook trusts just what the Secret's authorities are."""
    bundle = kube.objects.get(SECRET, {}).get("data", {}).get(CA_CERT)
    hooks = kube.objects[HOOKS]["webhooks"]
    return bundle is not None and all(hook["clientConfig"].get("caBundle") == bundle for hook in hooks)


async def test_a_secret_that_is_deleted_or_damaged_heals_and_every_webhook_trusts_the_new_authority(kube, tmp_path):
    kube.put(HOOKS, hook_configuration(None, None, None))
    async with keeping(open_by_kubeconfig(kube, tmp_path)):
        await until(lambda: holds_bundle(kube))
        first = dict(kube.objects[SECRET]["data"])
        del kube.objects[SECRET]
        await until(lambda: holds_bundle(kube))
        assert kube.objects[SECRET]["data"]["ca.crt"] != first["ca.crt"]
        kube.put(SECRET, {**kube.objects[SECRET], "data": {**kube.objects[SECRET]["data"], "tls.crt": "Z2FyYmFnZQ=="}})
        await until(lambda: kube.objects[SECRET]["data"]["tls.crt"] != "Z2FyYmFnZQ==")
        kube.put(HOOKS, hook_configuration("b2xk", None, "b2xk"))
        await until(lambda: holds_bundle(kube))


async def test_an_expired_secret_heals(kube, tmp_path, store):
    kube.put(HOOKS, hook_configuration(None))
    reconcile(store, WANTED, datetime.now(UTC).replace(microsecond=0) - timedelta(days=800))
    before = kube.objects[SECRET]["data"]
    async with keeping(open_by_kubeconfig(kube, tmp_path)):
        await until(lambda: holds_bundle(kube))
    after = kube.objects[SECRET]["data"]
    assert after["ca.crt"] != before["ca.crt"]
    assert after["tls.crt"] != before["tls.crt"]
    assert after["signing.pem"] == before["signing.pem"]


async def test_of_two_processes_the_holder_writes_and_the_other_follows_it(kube, tmp_path):
    kube.put(HOOKS, hook_configuration(None))
    first, second = (open_by_kubeconfig(kube, tmp_path) for _ in range(2))
    second.lease.identity = "second"
    async with keeping(second):
        async with keeping(first):
            await until(lambda: holds_bundle(kube))
            assert [first.lease.held, second.lease.held].count(True) == 1
        await until(lambda: second.lease.held)
        del kube.objects[SECRET]
        await until(lambda: holds_bundle(kube))


async def test_an_api_server_that_is_away_is_told_once_and_followed_when_it_is_back(kube, tmp_path, caplog):
    caplog.set_level("INFO")
    kube.put(HOOKS, hook_configuration(None))
    async with keeping(open_by_kubeconfig(kube, tmp_path)):
        await until(lambda: holds_bundle(kube))
        kube.refuse = 503
        await until(lambda: "cannot be renewed" in caplog.text)
        await asyncio.sleep(0.3)
        kube.refuse = None
        await until(lambda: "are kept again" in caplog.text)
    assert caplog.text.count("cannot be renewed") == 1


def test_outside_of_a_cluster_without_a_kubeconfig_is_a_clear_error():
    with pytest.raises(CertificateError, match="no way into the cluster"):
        open_cluster(ClusterConfig(namespace="admend", secret="x"))
