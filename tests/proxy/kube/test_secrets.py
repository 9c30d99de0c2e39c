"""Pull secrets: which are read, how their logins are parsed, and that the mirror's own is kept without harm."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.config import ClusterConfig, PullSecretsConfig
from proxy.credentials import Credentials
from proxy.errors import MalformedInput, Unsupported, UpstreamRefused, UpstreamUnavailable
from proxy.kube.cluster import Cluster
from proxy.kube.secrets import MAX_SECRETS, Secrets, render_login
from tests.proxy.closed import KEY, TYPE, secret, secret_path
from tests.simulators.kube_api import KubeApi, serve_kube_api, write_kubeconfig

LOGIN = json.dumps({"auths": {"r.example": {"username": "u", "password": "pa55"}}})
MADE = render_login("mirror.example", "shop", "word")


@pytest.fixture
def kube() -> Iterator[KubeApi]:
    with serve_kube_api() as api:
        yield api


@pytest.fixture
def cluster(kube: KubeApi, tmp_path: Path) -> Iterator[Cluster]:
    opened = Cluster(ClusterConfig(namespace="admend", kubeconfig=Path(write_kubeconfig(kube, tmp_path))))
    yield opened
    opened.close()


@pytest.fixture
def secrets(cluster: Cluster) -> Secrets:
    return Secrets(cluster, PullSecretsConfig(enabled=True, namespaces=("shop", "team-*")))


@pytest.mark.parametrize(
    ("namespace", "covered"),
    [
        ("shop", True),
        ("team-a", True),
        ("bank", False),
        ("", False),
        ("team-/../kube-system", False),
        ("team-.", False),
    ],
)
def test_only_listed_namespaces_are_covered_and_only_what_is_one(
    secrets: Secrets, namespace: str, *, covered: bool
) -> None:
    assert secrets.covers(namespace) is covered


async def test_nothing_is_asked_about_a_namespace_that_is_not_listed(kube: KubeApi, secrets: Secrets) -> None:
    kube.put(secret_path("bank", "pull"), secret(LOGIN))
    found = await secrets.read("bank", ("pull",), "")
    assert found.credentials == ()
    assert "bank" in found.notes[0]
    assert kube.requests == []


async def test_where_reading_is_off_nothing_is_asked(kube: KubeApi, cluster: Cluster) -> None:
    found = await Secrets(cluster, PullSecretsConfig(namespaces=("shop",))).read("shop", ("pull",), "")
    assert "cluster.pull_secrets.enabled" in found.notes[0]
    assert kube.requests == []


async def test_the_names_of_a_pod_are_read_once_each_in_order_and_not_more_than_may_be(
    kube: KubeApi, secrets: Secrets
) -> None:
    names = [f"s{number}" for number in range(MAX_SECRETS + 5)]
    kube.put(secret_path("shop", "s1"), secret(LOGIN))
    found = await secrets.read("shop", (*names[:3], *names), "ignored")
    assert [path.rpartition("/")[2] for _, path in kube.requests] == names[:MAX_SECRETS]
    assert [item.where for item in found.credentials] == ["the pull secret shop/s1"]
    assert found.notes[0] == "the pull secret shop/s0 is not there"
    assert "pa55" not in repr(found)


async def test_an_api_server_that_is_away_is_no_answer(kube: KubeApi, secrets: Secrets) -> None:
    kube.refused_paths[".*"] = 500
    with pytest.raises(UpstreamUnavailable):
        await secrets.read("shop", ("pull",), "")
    with pytest.raises(UpstreamUnavailable):
        await secrets.keep("shop", "admend-mirror", MADE)
    assert kube.writes == []


async def test_the_mirrors_secret_is_made_left_alone_while_it_is_right_and_renewed_when_not(
    kube: KubeApi, secrets: Secrets
) -> None:
    path = secret_path("shop", "admend-mirror")
    await secrets.keep("shop", "admend-mirror", MADE)
    made = kube.objects[path]
    assert (made["type"], base64.b64decode(made["data"][KEY])) == (TYPE, MADE)
    assert made["metadata"]["labels"] == {"app.kubernetes.io/managed-by": "admend"}
    wrote = len(kube.writes)
    await secrets.keep("shop", "admend-mirror", MADE)
    assert len(kube.writes) == wrote
    other = render_login("mirror.example", "shop", "another")
    await secrets.keep("shop", "admend-mirror", other)
    assert base64.b64decode(kube.objects[path]["data"][KEY]) == other
    del kube.objects[path]
    await secrets.keep("shop", "admend-mirror", MADE)
    assert base64.b64decode(kube.objects[path]["data"][KEY]) == MADE


@pytest.mark.parametrize("fault", ["no label", "another type"])
async def test_a_secret_that_somebody_else_made_is_left_alone(kube: KubeApi, secrets: Secrets, fault: str) -> None:
    theirs = secret(LOGIN, kind="Opaque" if fault == "another type" else TYPE)
    if fault == "another type":
        theirs["metadata"]["labels"] = {"app.kubernetes.io/managed-by": "admend"}
    kube.put(secret_path("shop", "admend-mirror"), theirs)
    with pytest.raises(Unsupported, match="is not admend's and is left alone"):
        await secrets.keep("shop", "admend-mirror", MADE)
    assert kube.writes == []


async def test_a_right_that_is_missing_is_named(kube: KubeApi, secrets: Secrets) -> None:
    kube.refused_paths[r".*/secrets/admend-mirror"] = 403
    with pytest.raises(UpstreamRefused, match=r"read the Secret shop/admend-mirror: .*needs a role"):
        await secrets.keep("shop", "admend-mirror", MADE)


async def test_what_a_namespaces_owner_wrote_into_a_key_is_shown_short_and_without_a_login(
    kube: KubeApi, secrets: Secrets
) -> None:
    keys = {"https://user:pa55word@r.example": {"auth": "%"}}, {"x" * 100_000: {"auth": "%"}}, {"a\nb": {"auth": 1}}
    for number, auths in enumerate(keys):
        kube.put(secret_path("shop", f"s{number}"), secret(json.dumps({"auths": auths})))
    found = await secrets.read("shop", ("s0", "s1", "s2"), "")
    assert found.credentials == ()
    assert [len(note) < 300 and note.isprintable() for note in found.notes] == [True] * 3
    assert "r.example" in found.notes[0]
    assert "pa55word" not in found.notes[0]


def test_a_login_is_rendered_as_the_kubelet_reads_it() -> None:
    login = json.loads(MADE)["auths"]["mirror.example"]
    assert base64.b64decode(login.pop("auth")) == b"shop:word"
    assert login == {"username": "shop", "password": "word"}


def test_a_note_never_shows_what_is_in_a_config() -> None:
    with pytest.raises(MalformedInput) as raised:
        Credentials.parse(b'{"auths": {"r.example": {"password": ["pa55"]}}}')
    assert "pa55" not in str(raised.value)
