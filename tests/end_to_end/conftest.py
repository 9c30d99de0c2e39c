import pytest

from tests.simulators.world import World


@pytest.fixture
async def world(tmp_path):
    async with World(tmp_path / "world") as world:
        (world.folder / "proxy.json").write_text(world.config().model_dump_json())
        yield world
