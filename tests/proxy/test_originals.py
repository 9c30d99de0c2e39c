"""Blobs of originals through the mirror: by whom they are not known, while they come, and when they come wrong."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from proxy.oci.digest import Digest
from proxy.oci.reference import ImageRef
from proxy.serve import Proxy
from tests.simulators.registry import make_layer
from tests.simulators.world import World

SIZE = 3 << 20


@dataclass(frozen=True)
class Site:
    """A world with one large blob, and a proxy that has never heard of it."""

    world: World
    proxy: Proxy
    client: httpx.AsyncClient
    path: str
    digest: Digest
    data: bytes

    @property
    def fetches(self) -> int:
        return self.world.upstream.count("GET", f"blobs/{self.digest}")


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with World(tmp_path / "world") as world, Proxy(world.config()) as proxy:
        noise = b"".join(Digest.of(str(number).encode()).hex.encode() for number in range(SIZE // 32))
        manifest = world.upstream.add_image("team/large", "1", [make_layer({"noise": noise})])
        digest = manifest.layers[0].digest
        (data,) = {blobs[digest] for blobs in world.upstream.blobs.values() if digest in blobs}
        name = proxy.mirror.name_for(ImageRef.parse(f"{world.upstream.host}/team/large:1"))
        base = f"http://127.0.0.1:{proxy.port}"
        async with httpx.AsyncClient(base_url=base, trust_env=False, timeout=10) as client:
            yield Site(world, proxy, client, f"/v2/{name.repository}/blobs/{digest}", digest, data)


async def test_a_blob_is_found_by_a_proxy_that_never_saw_its_manifest(site: Site) -> None:
    told = await site.client.head(site.path)
    assert (told.status_code, told.headers["content-length"]) == (200, str(len(site.data)))
    assert site.fetches == 0
    answer = await site.client.get(site.path)
    assert (answer.status_code, answer.headers["docker-content-digest"]) == (200, str(site.digest))
    assert answer.content == site.data
    await site.client.get(site.path)
    assert site.fetches == 1


async def test_many_clients_cost_one_fetch(site: Site) -> None:
    answers = await asyncio.gather(*(site.client.get(site.path) for _ in range(12)))
    assert all(answer.content == site.data for answer in answers)
    assert site.fetches == 1


async def test_a_fetch_goes_on_when_its_client_leaves(site: Site) -> None:
    async with site.client.stream("GET", site.path) as answer:
        async for _ in answer.aiter_bytes(1024):
            break
    for _ in range(200):
        if site.proxy.engine.store.has(site.digest):
            break
        await asyncio.sleep(0.02)
    assert (await site.client.get(site.path)).content == site.data
    assert site.fetches == 1


async def test_a_blob_that_is_not_what_it_should_be_is_never_given_whole(site: Site) -> None:
    site.world.upstream.faults.wrong_blob = True
    with pytest.raises(httpx.RemoteProtocolError):
        await site.client.get(site.path)
    assert not site.proxy.engine.store.has(site.digest)
    site.world.upstream.faults.wrong_blob = False
    assert (await site.client.get(site.path)).content == site.data


async def test_a_blob_that_the_upstream_does_not_have_is_unknown(site: Site) -> None:
    path = site.path.rpartition("/")[0] + f"/{Digest.of(b'none')}"
    answer = await site.client.get(path)
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (404, "BLOB_UNKNOWN")


async def test_a_blob_of_a_registry_that_wants_a_login_is_not_given_to_anybody(site: Site) -> None:
    site.world.upstream.faults.auth, site.world.upstream.faults.anonymous = "bearer", False
    answer = await site.client.get(site.path)
    assert answer.status_code in {401, 403, 404}
    assert site.fetches == 0


async def test_an_upstream_that_is_away_is_told(site: Site) -> None:
    site.world.upstream.faults.errors, site.world.upstream.faults.error_status = -1, 503
    answer = await site.client.get(site.path)
    assert answer.status_code == 503
