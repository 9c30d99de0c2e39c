"""The proxy's own routes over HTTP: who may ask, what is refused, health and figures."""

from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from proxy.serve import Proxy
from proxy.server import MAX_REQUEST
from tests.simulators.world import LOGIN, TOKEN, World

pytestmark = pytest.mark.asyncio(loop_scope="module")

BEARER = {"Authorization": f"Bearer {TOKEN}"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with World(tmp_path_factory.mktemp("world")) as opened:
        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(world: World) -> AsyncIterator[httpx.AsyncClient]:
    async with Proxy(world.config()) as proxy:
        base = f"http://127.0.0.1:{proxy.port}"
        async with httpx.AsyncClient(base_url=base, trust_env=False, timeout=30) as opened:
            yield opened


async def test_a_resolve_is_answered_with_one_document(world: World, client: httpx.AsyncClient) -> None:
    image = world.add_image()
    answer = await client.post("/v1/resolve", json={"image": image, "wait_seconds": 30}, headers=BEARER)
    document = answer.json()
    assert (answer.status_code, document["outcome"], document["image"]) == (200, "patched", image)
    assert {tuple(item) for item in document["upgrades"]} == {("package", "from", "to", "source", "effect", "reason")}
    assert document["milliseconds"] > 0


async def test_the_password_is_as_good_as_the_token(world: World, client: httpx.AsyncClient) -> None:
    name, _, password = LOGIN.partition(":")
    body = {"image": world.add_image(), "wait_seconds": 30}
    assert (await client.post("/v1/resolve", json=body, auth=(name, password))).status_code == 200


@pytest.mark.parametrize(
    "headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic dXNlcjp3cm9uZw=="}]
)
async def test_nobody_resolves_without_credentials(
    world: World, client: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    asked = len(world.upstream.requests)
    answer = await client.post("/v1/resolve", json={"image": world.add_image()}, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
    assert len(world.upstream.requests) == asked


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b"", "body"),
        (b"{", "body"),
        (b"{}", "image"),
        (b'{"image": ""}', "image"),
        (b'{"image": "a", "wait_seconds": -1}', "wait_seconds"),
        (b'{"image": ["a"]}', "image"),
    ],
)
async def test_a_body_that_is_no_request_is_refused_and_its_fault_named(
    client: httpx.AsyncClient, body: bytes, named: str
) -> None:
    answer = await client.post("/v1/resolve", content=body, headers=BEARER)
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed-input")
    assert answer.json()["message"].startswith(f"{named}: ")


async def test_a_request_of_a_newer_webhook_is_answered(world: World, client: httpx.AsyncClient) -> None:
    body = {"image": world.add_image(), "wait_seconds": 30, "what_the_next_version_asks": {"more": [1]}}
    answer = await client.post("/v1/resolve", json=body, headers=BEARER)
    assert (answer.status_code, answer.json()["outcome"]) == (200, "patched")


async def test_a_body_over_the_limit_is_refused(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/resolve", content=b" " * (MAX_REQUEST + 1), headers=BEARER)
    assert (answer.status_code, answer.json()["code"]) == (413, "too-large")


@pytest.mark.parametrize("image", ["team/UPPER", "a b", "host:port/x", "x@sha256:short"])
async def test_a_reference_that_is_none_fails_with_its_text(client: httpx.AsyncClient, image: str) -> None:
    answer = await client.post("/v1/resolve", json={"image": image}, headers=BEARER)
    assert (answer.status_code, answer.json()["outcome"]) == (200, "failed")
    assert image.removeprefix("x@") in answer.json()["reason"]


async def test_an_upstream_on_a_private_address_is_refused_unless_it_is_named(client: httpx.AsyncClient) -> None:
    body = {"image": "169.254.169.254/latest/meta-data:1", "wait_seconds": 5}
    answer = await client.post("/v1/resolve", json=body, headers=BEARER)
    assert answer.json()["outcome"] == "failed"
    assert "169.254.169.254" in answer.json()["reason"]


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_health_needs_no_credentials(client: httpx.AsyncClient, path: str) -> None:
    assert (await client.get(path)).status_code == 200


async def test_metrics_count_the_outcomes(world: World, client: httpx.AsyncClient) -> None:
    await client.post("/v1/resolve", json={"image": world.add_image(), "wait_seconds": 30}, headers=BEARER)
    text = (await client.get("/metrics")).text
    assert 'resolves_total{outcome="patched"}' in text
