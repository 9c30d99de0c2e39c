from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.simulators.kube_api import KubeApi, serve_kube_api
from tests.simulators.kube_fleet import put_namespace
from tests.simulators.world import World


@pytest.fixture
def api() -> Iterator[KubeApi]:
    with serve_kube_api() as api:
        put_namespace(api, "shop", admission="enabled")
        put_namespace(api, "other")
        yield api


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with World(tmp_path / "world") as world:
        yield world
