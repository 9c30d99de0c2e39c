"""The probe's judgement, by the real kubernetes client over an API server on loopback."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from proxy.config import ClusterConfig, ProbeConfig
from proxy.kube.cluster import Cluster
from proxy.kube.probe import PAGE, Probe
from tests.simulators.kube_api import KubeApi, serve_kube_api, write_kubeconfig
from tests.support import until

IMAGE = "localhost:30500/admend.internal/canary:1"
SET = "/apis/apps/v1/namespaces/admend/daemonsets/admend-probe"
LABELS = {"app": "probe"}
RUNNING = {"running": {"startedAt": "2026-11-22T12:00:00Z"}}
BACKOFF = {"waiting": {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "canary": x509\n\x1b[31m'}}


class Clock:
    """A clock that goes when it is told to."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Site:
    """An API server with a probe DaemonSet, and a probe that is looked at by hand."""

    def __init__(self, api: KubeApi, cluster: Cluster) -> None:
        self.api, self.clock, self.missing = api, Clock(), ""
        config = ProbeConfig(daemonset="admend-probe", grace=300, every=0.05)
        self.probe = Probe(cluster, config, canary=lambda: self.missing, clock=self.clock)

    def put_set(self, desired: int, ready: int, updated: int | None = None, *, generation: int = 1) -> None:
        status = {"desiredNumberScheduled": desired, "numberReady": ready, "observedGeneration": 1}
        status |= {"updatedNumberScheduled": desired if updated is None else updated}
        status |= {"currentNumberScheduled": desired, "numberMisscheduled": 0}
        template = {"metadata": {"labels": LABELS}, "spec": {"containers": [{"name": "c", "image": IMAGE}]}}
        spec = {"selector": {"matchLabels": LABELS}, "template": template}
        metadata = {"name": "admend-probe", "namespace": "admend", "generation": generation}
        self.api.put(SET, {"metadata": metadata, "spec": spec, "status": status})

    def put_pod(self, node: str, state: dict[str, Any] | None, image: str = IMAGE, **status: Any) -> None:
        statuses = [{"name": "c", "image": image, "imageID": "", "ready": False, "restartCount": 0, "state": state}]
        document = {
            "metadata": {"name": f"probe-{node}", "namespace": "admend", "labels": LABELS},
            "spec": {"nodeName": node or None, "containers": [{"name": "c", "image": image}]},
            "status": {"phase": "Pending", "containerStatuses": statuses if state else None, **status},
        }
        self.api.put(f"/api/v1/namespaces/admend/pods/probe-{node}", document)

    async def hold(self, seconds: float = 0.0) -> str:
        """Look once, so many seconds later, and return the reason to hold."""
        self.clock.now += seconds
        await self.probe.look()
        assert self.probe.proven is (self.probe.hold() == "")
        return self.probe.hold()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with serve_kube_api() as api:
        cluster = Cluster(ClusterConfig(namespace="admend", kubeconfig=Path(write_kubeconfig(api, tmp_path))))
        yield Site(api, cluster)
        cluster.close()


async def test_before_the_first_look_nothing_is_proven(site: Site) -> None:
    assert "not been looked at yet" in site.probe.hold()
    assert not site.probe.proven


async def test_ready_on_every_node_is_the_proof_and_asks_for_no_pods(site: Site) -> None:
    site.put_set(3, 3)
    assert await site.hold() == ""
    assert not any("/pods" in target for _, target in site.api.requests)


@pytest.mark.parametrize(
    ("numbers", "says"),
    [
        ({"desired": 0, "ready": 0}, "the probe runs on no node yet"),
        ({"desired": 3, "ready": 2}, "0 of 3 nodes have pulled"),
        ({"desired": 3, "ready": 3, "updated": 2}, "0 of 3 nodes have pulled"),
        ({"desired": 3, "ready": 3, "generation": 2}, "not taken up the newest probe"),
    ],
)
async def test_anything_less_is_none(site: Site, numbers: dict[str, int], says: str) -> None:
    site.put_set(**numbers)
    assert says in await site.hold()


async def test_the_reason_counts_nodes_names_some_with_their_errors_and_says_what_to_do(site: Site) -> None:
    site.put_set(7, 1)
    site.put_pod("node-a", RUNNING)
    site.put_pod("node-b", BACKOFF)
    site.put_pod("node-c", {"waiting": {"reason": "ContainerCreating"}})
    site.put_pod("node-d", None)
    unscheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/7 fit"}
    for node in ("node-e", "node-f"):
        site.put_pod(node, None, conditions=[unscheduled])
    reason = await site.hold()
    assert "1 of 7 nodes have pulled the canary from the mirror" in reason
    assert 'node-b: ImagePullBackOff: Back-off pulling image "canary": x509' in reason
    assert "node-c: ContainerCreating; node-d: not started yet; and 2 more" in reason
    assert "docs/nodes.md" in reason
    assert "DaemonSet admend/admend-probe" in reason
    assert reason.isprintable()


async def test_a_pod_without_a_node_is_named_by_itself(site: Site) -> None:
    site.put_set(2, 1)
    site.put_pod("node-a", RUNNING)
    unscheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no room"}
    site.put_pod("", None, conditions=[unscheduled])
    assert "pod probe-: Unschedulable: no room" in await site.hold()


async def test_a_node_that_went_away_after_it_had_pulled_is_no_doubt(site: Site) -> None:
    site.put_set(2, 1)
    site.put_pod("node-a", RUNNING)
    site.put_pod("node-b", RUNNING, conditions=[{"type": "Ready", "status": "False"}])
    assert await site.hold() == ""


async def test_a_pod_of_another_mirror_is_no_proof(site: Site) -> None:
    site.put_set(1, 0)
    site.put_pod("node-a", RUNNING, image="old.example/admend.internal/canary:1")
    assert "0 of 1 nodes" in await site.hold()


async def test_pods_are_counted_over_all_pages(site: Site) -> None:
    count = PAGE + 3
    site.put_set(count, 1)
    for number in range(count):
        site.put_pod(f"node-{number:04}", RUNNING)
    assert await site.hold() == ""


async def test_nodes_that_join_have_time_before_the_proof_is_lost(site: Site) -> None:
    site.put_set(2, 2)
    assert await site.hold() == ""
    site.put_set(3, 2)
    site.put_pod("node-a", RUNNING)
    site.put_pod("node-b", RUNNING)
    site.put_pod("node-c", BACKOFF)
    assert await site.hold(10) == ""
    assert await site.hold(299) == ""
    assert "2 of 3 nodes" in await site.hold(1)
    site.put_pod("node-c", RUNNING)
    assert await site.hold(1) == ""
    site.put_set(4, 3)
    assert await site.hold(1) == ""  # the next one has its own time
    assert await site.hold(299) == ""
    assert "3 of 4 nodes" in await site.hold(1)


async def test_a_proof_that_was_never_there_gets_no_grace(site: Site) -> None:
    site.put_set(1, 0)
    site.put_pod("node-a", BACKOFF)
    assert "0 of 1" in await site.hold()
    assert "0 of 1" in await site.hold(1000)


@pytest.mark.parametrize("status", [401, 403, 429, 500, 503])
async def test_the_last_word_stands_while_the_api_server_refuses(site: Site, status: int) -> None:
    site.api.refuse = status
    assert f"is not known: cannot read the DaemonSet admend-probe: the API server said {status}" in await site.hold()
    site.api.refuse = None
    site.put_set(2, 2)
    assert await site.hold() == ""
    site.api.refuse = status
    assert await site.hold(10_000) == ""
    site.api.refuse = None
    site.put_set(2, 1)
    site.put_pod("node-a", BACKOFF)
    assert await site.hold() == ""
    assert "0 of 2" in await site.hold(300)
    site.api.refuse = status
    assert "0 of 2" in await site.hold()


async def test_a_daemon_set_that_is_not_there_proves_nothing(site: Site) -> None:
    assert "there is no DaemonSet admend-probe" in await site.hold()
    site.put_set(1, 1)
    assert await site.hold() == ""
    del site.api.objects[SET]
    assert await site.hold() == ""
    assert "there is no DaemonSet admend-probe" in await site.hold(300)


async def test_an_answer_of_another_form_leaves_the_last_word_standing(site: Site) -> None:
    site.put_set(1, 1)
    assert await site.hold() == ""
    site.api.put(SET, {"metadata": {"name": "x"}, "status": {"desiredNumberScheduled": "many"}})
    assert await site.hold(10_000) == ""


async def test_a_canary_that_could_not_be_put_is_said_first(site: Site) -> None:
    site.missing = "the registry answered 403"
    site.put_set(1, 0)
    assert (await site.hold()).startswith("the canary is not in the mirror (the registry answered 403); 0 of 1 nodes")


async def test_it_looks_at_the_start_and_again_until_it_ends(site: Site) -> None:
    site.put_set(1, 1)
    async with site.probe as probe:
        assert probe.proven
        site.put_set(2, 1)
        site.clock.now += 1
        await until(lambda: len([target for _, target in site.api.requests if "/pods" in target]) > 1)
        site.clock.now += 300
        await until(lambda: not probe.proven)
    seen = len(site.api.requests)
    await asyncio.sleep(0.15)
    assert len(site.api.requests) == seen
