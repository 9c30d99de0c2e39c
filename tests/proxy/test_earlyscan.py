"""Layers that are scanned while they are pulled: the same results, and nothing of what was not checked."""

import asyncio
import gzip
import random
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from proxy import earlyscan
from proxy.api import Outcome
from proxy.jobs import EPOCH
from proxy.oci.manifest import Manifest
from proxy.serve import Proxy
from tests.proxy.asking import ask
from tests.simulators.registry import make_layer
from tests.simulators.world import World, make_packages, make_rootfs

pytestmark = pytest.mark.asyncio(loop_scope="module")

FILLER = 6 << 20  # bytes that do not compress


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with World(tmp_path_factory.mktemp("world")) as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="module")
async def proxy(world: World, tmp_path: Path) -> AsyncIterator[Proxy]:
    async with Proxy(world.config(f"proxy-{tmp_path.name}")) as opened:
        yield opened


@pytest.fixture
def jobs(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count the jobs that gave a result, by name; and those that gave up."""
    counted: Counter[str] = Counter()
    real = proxy.engine.pool.run

    async def run(job: str, **arguments: Any) -> Any:
        answer = await real(job, **arguments)
        counted[job if answer is not None or job == "unpack" else f"{job} gave up"] += 1
        return answer

    monkeypatch.setattr(proxy.engine.pool, "run", run)
    return counted


def layer_of(seed: int) -> bytes:
    filler = random.Random(seed).randbytes(FILLER)
    return make_layer({**make_rootfs(make_packages("1.0-1")), "srv/filler": filler})


def push(world: World, name: str, seed: int) -> Manifest:
    return world.upstream.add_image(name, "1", [layer_of(seed)])


def scans_of(proxy: Proxy) -> set[str]:
    folder = proxy.config.cache / "layers" / EPOCH
    return {path.name for path in folder.glob("*") if path.suffix in {".index", ".captures", ".json"}}


async def test_a_layer_is_scanned_while_it_is_pulled_and_once_only(
    world: World, proxy: Proxy, jobs: Counter[str]
) -> None:
    manifest = await asyncio.to_thread(push, world, "team/early", 1)
    answer = await ask(proxy, f"{world.upstream.host}/team/early:1")
    assert (answer.outcome, len(answer.upgrades)) == (Outcome.PATCHED, 2)
    assert (jobs["scan_early"], jobs["scan"]) == (1, 0)
    name = manifest.layers[0].digest.hex
    assert scans_of(proxy) == {f"{name}.index", f"{name}.captures", f"{name}.json"}


async def test_what_comes_out_is_what_a_scan_afterwards_gives(
    world: World, proxy: Proxy, jobs: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (layer,) = (await asyncio.to_thread(push, world, "team/same", 2)).layers
    early = await ask(proxy, f"{world.upstream.host}/team/same:1")
    index = (proxy.config.cache / "layers" / EPOCH / f"{layer.digest.hex}.index").read_bytes()
    monkeypatch.setattr(earlyscan, "SHARE", 2.0)
    async with Proxy(world.config("proxy-afterwards")) as other:
        late = await ask(other, f"{world.upstream.host}/team/same:1")
        assert (other.config.cache / "layers" / EPOCH / f"{layer.digest.hex}.index").read_bytes() == index
    assert early.patched == late.patched
    assert jobs["scan_early"] == 1


async def test_of_a_layer_with_a_wrong_digest_nothing_is_believed_or_left(
    world: World, proxy: Proxy, jobs: Counter[str]
) -> None:
    (layer,) = (await asyncio.to_thread(push, world, "team/forged", 3)).layers
    true = world.upstream.blobs["team/forged"][layer.digest]
    forged = await asyncio.to_thread(gzip.compress, layer_of(4), 6, mtime=0)
    assert len(forged) <= len(true)
    world.upstream.blobs["team/forged"][layer.digest] = forged.ljust(len(true), b"\0")
    answer = await ask(proxy, f"{world.upstream.host}/team/forged:1")
    assert answer.outcome is Outcome.FAILED
    assert "digest is" in answer.reason
    for _ in range(500):
        if (ended := jobs["scan_early"] + jobs["scan_early gave up"]) and not scans_of(proxy):
            break
        await asyncio.sleep(0.02)
    assert (ended, jobs["scan"], scans_of(proxy)) == (1, 0, set())


async def test_a_slow_pull_holds_no_worker(
    world: World, proxy: Proxy, jobs: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(earlyscan, "SOON", -1.0)
    await asyncio.to_thread(push, world, "team/slow", 5)
    answer = await ask(proxy, f"{world.upstream.host}/team/slow:1")
    assert answer.outcome is Outcome.PATCHED
    assert (jobs["scan_early"], jobs["scan"]) == (0, 1)
