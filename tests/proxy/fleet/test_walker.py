"""A whole proxy that looks after a small cluster: surveys, patches ahead of need, tells, evicts, reports."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from proxy.api import ResolveRequest
from proxy.audit import AuditConfig, FileSinkConfig
from proxy.config import ClusterConfig, FleetConfig, MirrorConfig, RestartConfig
from proxy.fleet.report import State, StatusReport
from proxy.fleet.walker import Fleet
from proxy.oci.reference import ImageRef
from proxy.provenance import Provenance
from proxy.serve import Proxy
from tests.simulators.kube_api import KubeApi, write_kubeconfig
from tests.simulators.kube_fleet import put_deployment, put_pod
from tests.simulators.registry import RegistrySimulator
from tests.simulators.world import FIXED_AGAIN, TOKEN, World
from tests.support import until

HEADERS = {"Authorization": f"Bearer {TOKEN}"}


@asynccontextmanager
async def proxy_for(
    world: World, api: KubeApi, tmp_path: Path, *, refresh: float = 900.0, every: float = 0.05, **fleet: Any
) -> AsyncIterator[Proxy]:
    """Serve a proxy that goes round and round."""
    cluster = ClusterConfig(
        namespace="admend",
        kubeconfig=Path(write_kubeconfig(api, tmp_path)),
        fleet=FleetConfig(every=every, **fleet),
    )
    audit = AuditConfig(stdout=False, file=FileSinkConfig(path=tmp_path / "audit.jsonl"))
    async with Proxy(world.config(refresh_seconds=refresh, cluster=cluster, audit=audit)) as proxy:
        yield proxy


async def looked(proxy: Proxy, rounds: int = 1) -> Fleet:
    """Return the proxy's fleet once it has made so many rounds more."""
    fleet = proxy.fleet
    assert fleet is not None
    wanted = fleet.rounds + rounds
    await until(lambda: fleet.rounds >= wanted)
    return fleet


async def report_of(fleet: Fleet) -> StatusReport:
    report = await fleet.status()
    assert report is not None
    return report


def states(report: StatusReport) -> dict[str, str]:
    return {status.name: status.state.value for status in report.workloads}


async def test_images_of_running_pods_are_patched_before_they_are_asked_for(
    world: World, api: KubeApi, tmp_path: Path
) -> None:
    image = world.add_image()
    put_pod(api, "shop", "web", image)
    put_pod(api, "other", "stranger", world.add_image())
    async with proxy_for(world, api, tmp_path) as proxy:
        report = await report_of(await looked(proxy))
        assert states(report) == {"web": "unpatched"}
        answer = await proxy.resolve.resolve(ResolveRequest(image=image, dry_run=True))
        assert answer.outcome == "patched"
        container = report.workloads[0].containers[0]
        assert (container.image, container.runs, container.patched) == (image, image, answer.patched)
        assert container.published == datetime(2026, 2, 1, tzinfo=UTC)  # of the index that has the fix
        assert container.exposed_seconds is not None
        assert container.exposed_seconds > 0


async def test_what_runs_is_told_from_what_a_new_pod_would_get(world: World, api: KubeApi, tmp_path: Path) -> None:
    image, clean, odd = world.add_image(), world.add_image(version="9"), "registry.example/none:1"
    async with proxy_for(world, api, tmp_path, prewarm={"exclude": ["registry.example/*"]}) as proxy:
        answer = await proxy.resolve.resolve(ResolveRequest(image=image, wait_seconds=30))
        entry = Provenance(image, answer.source.partition("@")[2], answer.patched)
        older = f"{answer.patched[:-4]}0000"
        put_pod(api, "shop", "current", answer.patched, admitted=entry)
        put_pod(api, "shop", "older", older, admitted=Provenance(image, entry.digest, older))
        put_pod(api, "shop", "clean", clean)
        put_pod(api, "shop", "excluded", odd)
        put_pod(api, "shop", "opted-out", image, annotations={"admend.dev/patch": "false"})
        fleet = await looked(proxy, 2)  # the first may have begun before
        report = await report_of(fleet)
        assert states(report) == {
            "older": "outdated",
            "current": "current",
            "clean": "clean",
            "excluded": "excluded",
            "opted-out": "excluded",
        }
        assert report.workloads[0].state is State.OUTDATED  # the worst comes first
        running = next(each for each in report.workloads if each.name == "current").containers[0]
        assert running.running is not None
        assert running.delay_seconds is not None
        assert report.states[State.EXCLUDED] == 2
        assert await fleet.in_use() == {ImageRef.parse(answer.patched).digest, ImageRef.parse(older).digest}


async def test_a_fix_that_comes_makes_what_runs_outdated_and_tells_its_deployment(
    world: World, api: KubeApi, tmp_path: Path
) -> None:
    image = world.add_image()
    put_deployment(api, "shop", "web")
    async with proxy_for(world, api, tmp_path, refresh=0.0) as proxy:
        answer = await proxy.resolve.resolve(ResolveRequest(image=image, wait_seconds=30))
        put_pod(api, "shop", "web", answer.patched, admitted=Provenance(image, "sha256:0", answer.patched))
        await looked(proxy, 2)
        assert events(api) == []
        world.publish(FIXED_AGAIN, month=3)
        report = await report_of(await looked(proxy, 4))  # what is told in one round is not told again in the next
        assert states(report) == {"web": "outdated"}
        assert report.workloads[0].containers[0].published == datetime(2026, 3, 1, tzinfo=UTC)
        (event,) = events(api)
        assert event["reason"] == "PatchedImageAvailable"
        assert event["involvedObject"]["uid"] == "d-web"
        assert report.workloads[0].containers[0].patched in event["message"]


def events(api: KubeApi) -> list[dict[str, Any]]:
    return [document for path, document in api.objects.items() if "/events/" in path]


def put_behind(api: KubeApi, image: str, count: int, **more: Any) -> None:
    """Make a Deployment whose pods run an original, made long before it was patched."""
    put_deployment(api, "shop", "web")
    for number in range(count):
        put_pod(api, "shop", "web", image, number=number, age=timedelta(hours=9 - number), **more)


def replace_evicted(api: KubeApi, image: str) -> list[str]:
    """Make a new pod for each that is evicted, as its controller and a webhook would."""
    evicted: list[str] = []

    def again(_namespace: str, name: str) -> None:
        evicted.append(name)
        put_pod(api, "shop", "web", image, number=10 + len(evicted), age=timedelta(0))

    api.on_evict = again
    return evicted


RESTART = RestartConfig(enabled=True, cooldown=0.05, per_minute=600)


async def test_pods_without_a_patch_that_is_there_are_evicted_one_by_one(
    world: World, api: KubeApi, tmp_path: Path
) -> None:
    image = world.add_image()
    async with proxy_for(world, api, tmp_path, restart=RESTART) as proxy:
        patched = (await proxy.resolve.resolve(ResolveRequest(image=image, wait_seconds=30))).patched
        evicted = replace_evicted(api, patched)
        put_behind(api, image, 3)
        await until(lambda: len(evicted) == 3)
        fleet = await looked(proxy, 3)
        assert evicted == [f"web-7d4f8c9b5d-{number}" for number in range(3)]  # the oldest first, each once
        assert states(await report_of(fleet)) == {"web": "current"}
    lines = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    told = [(line["event"], line["verdict"], line["pod"], line["patched"]) for line in lines]
    assert told == [("eviction", "evicted", name, patched) for name in evicted]


async def test_a_pod_that_comes_back_unpatched_is_not_evicted_again(world: World, api: KubeApi, tmp_path: Path) -> None:
    image = world.add_image()
    put_behind(api, image, 2)
    async with proxy_for(world, api, tmp_path, restart=RESTART) as proxy:
        evicted = replace_evicted(api, image)  # as if the webhook were away
        await until(lambda: len(evicted) == 2)
        fleet = await looked(proxy, 5)
        assert len(evicted) == 2
        assert states(await report_of(fleet)) == {"web": "unpatched"}


async def test_a_disruption_budget_is_respected_and_told(world: World, api: KubeApi, tmp_path: Path) -> None:
    put_behind(api, world.add_image(), 2)
    first = "web-7d4f8c9b5d-0"
    api.budgets[f"shop/{first}"] = 2
    async with proxy_for(world, api, tmp_path, restart=RESTART) as proxy:
        fleet = await looked(proxy)
        assert fleet.restarts is not None
        assert fleet.restarts.counts["refused"] > 0
        waits = f"{first} waits: a disruption budget does not allow it now"
        assert (await report_of(fleet)).workloads[0].restart == waits
        await until(lambda: f"/api/v1/namespaces/shop/pods/{first}" not in api.objects)


@pytest.mark.parametrize(
    "case",
    [
        ({"namespaces": ("bank-*",)}, 2, {}, ""),
        ({}, 1, {}, "its only pod is left running: restart.single_pods is off"),
        ({}, 2, {"annotations": {"admend.dev/restart": "false"}}, ""),
        ({}, 2, {"ready": False}, "2 pods to go; waits until web-7d4f8c9b5d-0 is ready"),
        ({"dry_run": True, "cooldown": 3600}, 2, {}, "2 pods to go; the last one went 0 s ago"),
        ({}, 2, {"kind": "Job"}, ""),
        ({}, 2, {"kind": "Postgres"}, ""),
    ],
)
async def test_what_is_not_to_be_evicted_stays(
    world: World, api: KubeApi, tmp_path: Path, case: tuple[Any, int, Any, str]
) -> None:
    given, pods, more, said = case
    put_behind(api, world.add_image(), pods, **more)
    before = set(api.objects)
    async with proxy_for(world, api, tmp_path, restart=RESTART.model_copy(update=given)) as proxy:
        report = await report_of(await looked(proxy, 2))
        assert said in report.workloads[0].restart
    assert before <= set(api.objects)
    asked = [path for _, path in api.requests if "/eviction" in path]
    assert asked == (
        ["/api/v1/namespaces/shop/pods/web-7d4f8c9b5d-0/eviction?dryRun=All"] if "dry_run" in given else []
    )
    told = (tmp_path / "audit.jsonl").read_text()
    assert ('"verdict":"would-be-evicted"' in told) == ("dry_run" in given)


async def test_any_replica_shows_the_report_of_the_one_that_leads(world: World, api: KubeApi, tmp_path: Path) -> None:
    put_pod(api, "shop", "web", world.add_image())
    async with RegistrySimulator() as there, proxy_for(world, api, tmp_path) as alone:
        mirror = MirrorConfig(reference="mirror.example", registry=there.host)
        upstream = alone.config.upstream.model_copy(update={"plain_http": ("127.0.0.1", there.host)})
        settings = alone.config.model_copy(update={"mirror": mirror, "upstream": upstream})
        await alone.__aexit__()
        async with Proxy(settings.model_copy(update={"cache": tmp_path / "one"})) as leader:
            assert states(await report_of(await looked(leader))) == {"web": "unpatched"}
            async with Proxy(settings.model_copy(update={"cache": tmp_path / "two"})) as follower:
                assert follower.fleet is not None
                assert not follower.fleet.leads
                assert await follower.fleet.in_use() is None
                url = f"http://127.0.0.1:{follower.port}/v1/status"
                async with httpx.AsyncClient(trust_env=False) as http:
                    answer = await http.get(url, headers=HEADERS)
                    assert (await http.get(url)).status_code == 401
                report = StatusReport.model_validate_json(answer.text)
                assert states(report) == {"web": "unpatched"}
                assert report.complete
                assert leader.cluster is not None
                assert report.by == leader.cluster.lease.identity


async def test_an_api_server_that_is_away_is_told_and_asked_again(world: World, api: KubeApi, tmp_path: Path) -> None:
    put_pod(api, "shop", "web", world.add_image())
    api.refused_paths["/pods$"] = 503
    async with proxy_for(world, api, tmp_path, every=0.1) as proxy:
        fleet = proxy.fleet
        assert fleet is not None
        await until(lambda: "cannot list pods" in fleet._problem)
        async with httpx.AsyncClient(trust_env=False) as http:
            answer = await http.get(f"http://127.0.0.1:{proxy.port}/v1/status", headers=HEADERS)
            assert (answer.status_code, answer.json()["code"]) == (503, "upstream-unavailable")
        api.refused_paths.clear()
        assert states(await report_of(await looked(proxy))) == {"web": "unpatched"}


async def test_pods_that_are_not_as_pods_are_end_no_list(world: World, api: KubeApi, tmp_path: Path) -> None:
    path = put_pod(api, "shop", "odd", "nginx")
    api.objects[path]["spec"] = "nothing"
    put_pod(api, "shop", "long", "x" * 600)
    put_pod(api, "shop", "web", world.add_image())
    async with proxy_for(world, api, tmp_path) as proxy:
        report = await report_of(await looked(proxy))
        assert (report.unreadable, states(report)) == (1, {"web": "unpatched"})


async def test_without_prewarming_nothing_is_asked_of_an_upstream(world: World, api: KubeApi, tmp_path: Path) -> None:
    put_pod(api, "shop", "web", world.add_image())
    before = len(world.upstream.requests)
    async with proxy_for(world, api, tmp_path, prewarm={"enabled": False}) as proxy:
        assert states(await report_of(await looked(proxy))) == {"web": "unknown"}
    assert len(world.upstream.requests) == before
