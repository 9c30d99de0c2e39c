"""A whole proxy with a probe: what it answers while nodes are not known to reach its mirror."""

from pathlib import Path

import httpx

from proxy.api import ResolveRequest
from proxy.canary import CANARY, build_canary
from proxy.config import ClusterConfig, ProbeConfig
from proxy.serve import Proxy
from tests.proxy.kube.test_probe import SET
from tests.simulators.kube_api import serve_kube_api, write_kubeconfig
from tests.simulators.world import World
from tests.support import until


async def test_answers_are_held_until_every_node_has_pulled_the_canary(tmp_path: Path) -> None:
    async with World(tmp_path / "world") as world:
        with serve_kube_api() as api:
            probe = ProbeConfig(daemonset="admend-probe", every=0.05, grace=0.0)
            file = Path(write_kubeconfig(api, tmp_path))
            cluster = ClusterConfig(namespace="admend", kubeconfig=file, probe=probe)
            async with Proxy(world.config(cluster=cluster)) as proxy:
                ask = ResolveRequest(image=world.add_image(), wait_seconds=30)
                held = await proxy.resolve.resolve(ask)
                assert held.outcome == "patched"
                assert "there is no DaemonSet admend-probe" in held.hold
                failed = await proxy.resolve.resolve(ResolveRequest(image="Not A Reference"))
                assert failed.hold == held.hold
                async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{proxy.port}", trust_env=False) as http:
                    canary = await http.get(f"/v2/{CANARY.host}/{CANARY.repository}/manifests/{CANARY.tag}")
                    assert canary.headers["docker-content-digest"] == str(build_canary().top.digest)
                    assert "admend_mirror_proven 0.0\n" in (await http.get("/metrics")).text
                    api.put(SET, ready_set())
                    await until(lambda: proxy.cluster_work is not None and not proxy.cluster_work.hold())
                    assert "admend_mirror_proven 1.0\n" in (await http.get("/metrics")).text
                assert (await proxy.resolve.resolve(ask)).hold == ""


async def test_without_a_probe_nothing_is_held_and_no_canary_put(tmp_path: Path) -> None:
    async with World(tmp_path / "world") as world:
        with serve_kube_api() as api:
            cluster = ClusterConfig(namespace="admend", kubeconfig=Path(write_kubeconfig(api, tmp_path)))
            async with Proxy(world.config(cluster=cluster)) as proxy:
                answer = await proxy.resolve.resolve(ResolveRequest(image=world.add_image(), wait_seconds=30))
                assert (answer.outcome, answer.hold) == ("patched", "")
                assert await proxy.mirror.get_manifest(proxy.mirror.name_for(CANARY)) is None


def ready_set() -> dict[str, object]:
    """Return the DaemonSet of a cluster with one node, which is ready."""
    labels = {"app": "probe"}
    numbers = ("desiredNumberScheduled", "numberReady", "updatedNumberScheduled", "currentNumberScheduled")
    return {
        "metadata": {"name": "admend-probe", "generation": 1},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c"}]}},
        },
        "status": {**dict.fromkeys(numbers, 1), "numberMisscheduled": 0, "observedGeneration": 1},
    }
