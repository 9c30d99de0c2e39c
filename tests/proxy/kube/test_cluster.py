"""Calls to an API server on loopback, by the real kubernetes client."""

from pathlib import Path

import pytest

from proxy.config import ClusterConfig
from proxy.errors import MalformedInput, UpstreamRefused, UpstreamUnavailable
from proxy.kube.cluster import Cluster
from tests.simulators.kube_api import serve_kube_api, write_kubeconfig


@pytest.fixture
def kube():
    with serve_kube_api() as api:
        yield api


@pytest.fixture
def cluster(kube, tmp_path):
    opened = Cluster(ClusterConfig(namespace="admend", kubeconfig=Path(write_kubeconfig(kube, tmp_path))))
    yield opened
    opened.close()


async def test_lists_come_in_pieces_and_by_label(kube, cluster):
    for number in range(5):
        labels = {"app": "web" if number % 2 else "db"}
        metadata = {"name": f"p{number}", "namespace": "shop", "labels": labels}
        kube.put(f"/api/v1/namespaces/shop/pods/p{number}", {"metadata": metadata})
    first = await cluster.ask("list pods", cluster.core.list_pod_for_all_namespaces, limit=3)
    rest = await cluster.ask(
        "list pods", cluster.core.list_pod_for_all_namespaces, limit=3, _continue=first.metadata._continue
    )
    assert [pod.metadata.name for pod in (*first.items, *rest.items)] == ["p0", "p1", "p2", "p3", "p4"]
    web = await cluster.ask("list pods", cluster.core.list_namespaced_pod, "shop", label_selector="app in (web)")
    assert [pod.metadata.name for pod in web.items] == ["p1", "p3"]


@pytest.mark.parametrize(
    ("status", "kind"), [(403, UpstreamRefused), (404, UpstreamRefused), (503, UpstreamUnavailable)]
)
async def test_an_error_names_the_call_and_what_the_api_server_said(kube, cluster, status, kind):
    kube.refuse = status
    with pytest.raises(kind, match=f"cannot list pods: the API server said {status}"):
        await cluster.ask("list pods", cluster.core.list_pod_for_all_namespaces)


async def test_an_api_server_that_is_away_is_unavailable(kube, cluster):
    kube.delay = 1.0
    with pytest.raises(UpstreamUnavailable, match="cannot list pods: no answer"):
        await cluster.ask("list pods", cluster.core.list_pod_for_all_namespaces, _request_timeout=0.2)


def test_without_a_way_into_the_cluster_the_setting_is_named():
    with pytest.raises(MalformedInput, match="cluster: no way into the cluster"):
        Cluster(ClusterConfig(namespace="admend"))
