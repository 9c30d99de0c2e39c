"""Many images at once that have layers and packages in common: each is pulled, scanned and unpacked once."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from proxy.api import Outcome
from proxy.config import WorkersConfig
from proxy.serve import Proxy
from tests.proxy.asking import ask
from tests.simulators.registry import make_layer
from tests.simulators.world import World, make_packages, make_rootfs

EIGHT = range(8)


async def test_eight_images_at_once_share_what_they_have_in_common(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs: Counter[str] = Counter()
    running: Counter[str] = Counter()
    async with World(tmp_path) as world:
        base = make_layer(make_rootfs(make_packages("1.0-1")))
        for number in EIGHT:
            own = make_layer({"srv/own": str(number).encode()})
            world.upstream.add_image(f"team/app{number}", "1", [base, own])
        async with Proxy(world.config(workers=WorkersConfig(count=2))) as proxy:
            real = proxy.engine.pool.run

            async def run(job: str, **arguments: Any) -> Any:
                jobs[job] += 1
                running["most"] = max(running["most"], len(proxy.engine.pool.pids))
                return await real(job, **arguments)

            monkeypatch.setattr(proxy.engine.pool, "run", run)
            images = [f"{world.upstream.host}/team/app{number}:1" for number in EIGHT]
            answers = await asyncio.gather(*(ask(proxy, image) for image in images))
    assert {answer.outcome for answer in answers} == {Outcome.PATCHED}
    assert len({answer.patched for answer in answers}) == len(EIGHT)
    assert (jobs["unpack"], jobs["scan"] + jobs["scan_early"]) == (2, 1 + len(EIGHT))
    assert jobs["refresh"] <= 2 * 4  # two suites, each in a few steps
    assert running["most"] == 2
    fetched = [path for path in world.source.requests if path.endswith(".deb")]
    assert len(fetched) == len(set(fetched)) == 2
    pulled = [seen.path for seen in world.upstream.requests if "/blobs/" in seen.path]
    assert len(pulled) == len(set(pulled))
