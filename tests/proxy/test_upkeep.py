"""The clean-up of a proxy that runs for long."""

import asyncio
import logging
import os
import time

import httpx
import pytest

from proxy.api import Outcome, ResolveRequest
from proxy.derived import Derived
from proxy.errors import UpstreamUnavailable
from proxy.jobs import EPOCH
from proxy.mirror import EmbeddedMirror, Naming, patched_tag
from proxy.oci.reference import ImageRef
from proxy.serve import Proxy
from proxy.upkeep import Upkeep
from tests.simulators.images import build
from tests.simulators.world import World

NAME = ImageRef("mirror.example", "docker.io/library/nginx")
SRC = "src-" + "ab" * 16


@pytest.fixture
async def mirror(tmp_path):
    opened = EmbeddedMirror(tmp_path / "mirror", Naming("mirror.example"), 100 << 20)
    for text in ("older", "newer"):
        image = build(text)
        await opened.put_image(NAME, image.top, (), image.files(tmp_path / text))
        await opened.move_tag(NAME.with_tag(SRC), image.top.digest)
    yield opened
    await opened.close()


@pytest.fixture
def old_scan(tmp_path):
    path = tmp_path / f"cache/layers/{EPOCH}/aa.json"
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    os.utime(path, (1, 1))
    return path


def upkeep(tmp_path, mirror, *, every=3600.0):
    return Upkeep(mirror, Derived(tmp_path / "cache", 1 << 30, 86400.0), retain=0.0, every=every)


def held(mirror):
    tags = mirror.layout.tags(NAME.repository)
    return {text for text in ("older", "newer") if patched_tag(build(text).top.digest) in tags}


async def until(true):
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110 - there is nothing to be told by
            await asyncio.sleep(0.01)


async def test_superseded_images_and_old_scans_go_and_the_log_names_them(tmp_path, mirror, old_scan, caplog):
    caplog.set_level(logging.INFO)
    keeper = upkeep(tmp_path, mirror)
    assert await keeper.run()
    assert held(mirror) == {"newer"}
    assert not old_scan.exists()
    assert str(build("older").top.digest) in caplog.text
    assert time.time() - keeper.succeeded < 60


async def test_an_image_that_a_live_pod_runs_stays(tmp_path, mirror):
    keeper = upkeep(tmp_path, mirror)

    async def running():
        return {build("older").top.digest}

    keeper.in_use = running
    assert await keeper.run()
    assert held(mirror) == {"older", "newer"}


async def test_nothing_is_removed_while_it_is_unknown_what_pods_run_and_the_cache_is_pruned_all_the_same(
    tmp_path, mirror, old_scan, caplog
):
    keeper = upkeep(tmp_path, mirror)

    async def unknown():
        raise UpstreamUnavailable("the API server does not answer")

    keeper.in_use = unknown
    assert not await keeper.run()
    assert held(mirror) == {"older", "newer"}
    assert not old_scan.exists()
    assert "tried again in 3600 s: the API server does not answer" in caplog.text
    assert keeper.succeeded == 0


async def test_a_pass_that_fails_is_followed_by_the_next(tmp_path, mirror, monkeypatch):
    keeper, passes = upkeep(tmp_path, mirror, every=0.01), []
    real = mirror.retain

    async def fail_twice(seconds, in_use):
        passes.append(seconds)
        if len(passes) < 3:
            raise (OSError("disk"), ValueError("a surprise"))[len(passes) - 1]
        return await real(seconds, in_use)

    monkeypatch.setattr(mirror, "retain", fail_twice)
    async with keeper:
        await until(lambda: keeper.succeeded)
        assert held(mirror) == {"newer"}
    count = len(passes)
    await asyncio.sleep(0.05)
    assert len(passes) == count >= 3


async def test_a_whole_proxy_patches_on_when_everything_made_from_blobs_was_pruned_under_it(tmp_path):
    async with World(tmp_path / "world") as world, Proxy(world.config(derived_max_bytes=1)) as proxy:
        first = await proxy.resolve.resolve(ResolveRequest(image=world.add_image(), wait_seconds=30))
        folder = proxy.config.cache
        made = [path for name in ("layers", "packages", "sources") for path in (folder / name).rglob("*.*")]
        assert len(made) > 5
        assert await proxy.upkeep.run()
        assert all(path.exists() for path in made)  # used just now
        for path in made:
            os.utime(path, (1, 1))
        assert await proxy.upkeep.run()
        assert not any(path.is_file() for path in made)
        second = await proxy.resolve.resolve(ResolveRequest(image=world.add_image(), wait_seconds=30))
        async with httpx.AsyncClient(trust_env=False) as http:
            figures = (await http.get(f"http://127.0.0.1:{proxy.port}/metrics")).text.splitlines()
    assert (first.outcome, second.outcome) == (Outcome.PATCHED, Outcome.PATCHED), second.reason
    assert "admend_cache_derived_bytes 0.0" in figures
    shown = {line.split()[0]: float(line.split()[1]) for line in figures if line.startswith("admend_")}
    assert 0 < shown["admend_mirror_bytes"] < shown["admend_mirror_limit_bytes"]
    assert shown["admend_cache_blob_bytes"] > 0
    assert shown["admend_upkeep_success_timestamp_seconds"] > time.time() - 60
