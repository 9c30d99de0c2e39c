"""Lists of the API server, read page by page by the real kubernetes client."""

from datetime import UTC
from pathlib import Path

import pytest

from proxy.config import ClusterConfig
from proxy.errors import MalformedInput, UpstreamRefused
from proxy.kube import pods
from proxy.kube.cluster import Cluster
from proxy.kube.pods import Found, list_namespaces, list_pods
from tests.simulators.kube_api import make_status, serve_kube_api, write_kubeconfig
from tests.simulators.kube_fleet import put_namespace, put_pod


@pytest.fixture
def site(tmp_path: Path):
    with serve_kube_api() as api:
        cluster = Cluster(ClusterConfig(namespace="admend", kubeconfig=Path(write_kubeconfig(api, tmp_path))))
        yield api, cluster
        cluster.close()


async def collect(cluster):
    found = []
    came = await list_pods(cluster, found.extend, begin=found.clear)
    return came, found


async def test_all_pods_come_in_pages(site, monkeypatch):
    api, cluster = site
    monkeypatch.setattr(pods, "PAGE", 2)
    for number in range(5):
        put_pod(api, "shop", "web", "nginx:1", number=number)
    came, found = await collect(cluster)
    assert came == Found(5, 0)
    assert sorted(pod.name for pod in found) == [f"web-7d4f8c9b5d-{number}" for number in range(5)]
    asked = [target for _, target in api.requests]
    assert len(asked) == 3
    assert all("limit=2" in target and "fieldSelector=status.phase" in target for target in asked)


async def test_what_matters_of_a_pod_is_kept(site):
    api, cluster = site
    path = put_pod(
        api,
        "shop",
        "web",
        "nginx:1",
        annotations={"admend.dev/patch": "false", "other": "x"},
        nodeSelector={"kubernetes.io/arch": "arm64"},
        imagePullSecrets=[{"name": "login"}],
        initContainers=[{"name": "init", "image": "busybox"}],
    )
    api.objects[path]["status"]["containerStatuses"] = [
        {"name": "app", "imageID": "docker-pullable://docker.io/library/nginx@sha256:" + "a" * 64},
        {"name": "other", "imageID": ""},
    ]
    _, (pod,) = await collect(cluster)
    assert pod.images == {"init": "busybox", "app": "nginx:1"}
    assert pod.annotations == {"admend.dev/patch": "false"}
    assert (pod.architectures, pod.pull_secrets, pod.service_account) == (("arm64",), ("login",), "default")
    assert pod.running == {"app": "sha256:" + "a" * 64}
    assert pod.controller is not None
    assert pod.controller.name == "web-7d4f8c9b5d"
    assert (pod.ready, pod.deleting, pod.windows) == (True, False, False)
    assert pod.created.tzinfo == UTC


@pytest.mark.parametrize(
    "damage",
    [
        {"spec": "nothing"},
        {"metadata": {"name": 7, "namespace": "shop"}},
        {"metadata": {"name": "x", "creationTimestamp": "yesterday"}},
        {"spec": {"containers": [{"image": "nginx"}]}},
    ],
)
async def test_a_pod_that_is_none_is_counted_and_passed_over(site, damage):
    api, cluster = site
    path = put_pod(api, "shop", "odd", "nginx:1")
    api.objects[path] |= damage
    put_pod(api, "shop", "web", "nginx:1")
    came, found = await collect(cluster)
    assert came == Found(1, 1)
    assert len(found) == 1


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
async def test_a_pod_that_is_over_is_passed_over(site, phase):
    api, cluster = site
    path = put_pod(api, "shop", "once", "nginx:1", kind="Job")
    api.objects[path]["status"]["phase"] = phase
    assert await collect(cluster) == (Found(0, 0), [])


async def test_a_list_that_was_forgotten_on_the_way_is_begun_again(site, monkeypatch):
    api, cluster = site
    monkeypatch.setattr(pods, "PAGE", 2)
    for number in range(5):
        put_pod(api, "shop", "web", "nginx:1", number=number)
    answer, gone = api.answer, [True]

    def once(method, target, body):
        if "continue=" in target and gone:
            gone.pop()
            return make_status(410)
        return answer(method, target, body)

    monkeypatch.setattr(api, "answer", once)
    came, found = await collect(cluster)
    assert (came.pods, len(found)) == (5, 5)


async def test_a_list_that_is_forgotten_each_time_is_an_error(site, monkeypatch):
    api, cluster = site
    api.refused_paths["/pods$"] = 410
    with pytest.raises(UpstreamRefused, match="cannot list pods"):
        await collect(cluster)


async def test_an_answer_that_is_no_list_is_an_error(site, monkeypatch):
    api, cluster = site
    monkeypatch.setattr(api, "answer", lambda *_: (200, {"kind": "Status"}))
    with pytest.raises(MalformedInput, match="no list"):
        await collect(cluster)


async def test_namespaces_come_with_their_labels(site):
    api, cluster = site
    put_namespace(api, "shop", admission="enforce")
    put_namespace(api, "other")
    assert await list_namespaces(cluster) == {"shop": {"admend.dev/admission": "enforce"}, "other": {}}
