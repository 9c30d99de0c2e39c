"""The client towards the outside: addresses and redirects."""

import socket
from asyncio.selector_events import BaseSelectorEventLoop as SelectorLoop
from typing import Any

import pytest
from aiohttp import web

from proxy.egress import Egress, EgressPolicy, Purpose
from proxy.errors import TrustFailure
from tests.proxy.egress.outside import LOOPBACK, opened, serve

FORBIDDEN = [
    "10.1.2.3",
    "169.254.169.254",
    "127.0.0.1",
    "127.8.8.8",
    "[::1]",
    "192.168.0.1",
    "[::ffff:10.0.0.1]",
    "2130706433",
]


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Every address that a socket was asked to connect to."""
    seen: list[object] = []
    original = SelectorLoop.sock_connect

    async def note(loop: SelectorLoop, sock: socket.socket, address: Any) -> None:
        seen.append(address)
        await original(loop, sock, address)

    monkeypatch.setattr(SelectorLoop, "sock_connect", note)
    return seen


async def test_a_named_loopback_server_is_reached(connections: list[object]) -> None:
    async with serve(lambda _: web.Response(text="hello")) as host, opened(EgressPolicy(named=LOOPBACK)) as egress:
        answer = await egress.fetch(f"http://{host}/x", limit=10)
        assert (answer.status, answer.body) == (200, b"hello")
        assert egress.requests == {(host, 200): 1}
    assert len(connections) == 1


@pytest.mark.parametrize("host", FORBIDDEN)
@pytest.mark.parametrize("purpose", list(Purpose))
async def test_an_address_that_is_not_public_is_refused_without_a_connection(
    host: str, purpose: Purpose, connections: list[object]
) -> None:
    async with opened(EgressPolicy()) as egress:
        with pytest.raises(TrustFailure, match=r"not a public address.*upstream\.private"):
            await egress.fetch(f"https://{host}:5000/v2/", limit=10, purpose=purpose)
    assert connections == []


async def test_a_name_that_resolves_to_a_private_address_is_refused(connections: list[object]) -> None:
    async with opened(EgressPolicy(), registry_example="10.0.0.7") as egress:
        with pytest.raises(TrustFailure, match=r"registry\.example:443 resolves to 10\.0\.0\.7"):
            await egress.fetch("https://registry.example/v2/", limit=10)
    assert connections == []


async def test_one_private_address_among_public_ones_is_refused(connections: list[object]) -> None:
    async def resolve(host: str, port: int) -> tuple[str, ...]:
        return ("8.8.8.8", "127.0.0.1")

    egress = Egress(EgressPolicy(), resolve=resolve)
    with pytest.raises(TrustFailure, match=r"resolves to 127\.0\.0\.1"):
        await egress.fetch("https://registry.example/v2/", limit=10)
    await egress.close()
    assert connections == []


async def test_a_name_that_resolves_anew_is_checked_anew(connections: list[object]) -> None:
    async with serve(lambda _: web.Response(text="secret", headers={"Connection": "close"})) as host:
        port = host.split(":")[1]
        policy = EgressPolicy(named=frozenset({"first.example"}), plain_http=frozenset({"first.example"}))
        async with opened(policy, first_example="127.0.0.1", second_example="127.0.0.1") as egress:
            assert (await egress.fetch(f"http://first.example:{port}/", limit=10)).body == b"secret"
            with pytest.raises(TrustFailure):
                await egress.fetch(f"http://second.example:{port}/", limit=10, purpose=Purpose.SOURCE)
    assert len(connections) == 1


@pytest.mark.parametrize("target", ["http://127.0.0.1:1/", "https://10.0.0.1/", "https://169.254.169.254/latest/"])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_to_a_private_address_is_refused(target: str, status: int, connections: list[object]) -> None:
    def redirect(_: web.Request) -> web.Response:
        return web.Response(status=status, headers={"Location": target})

    async with serve(redirect) as host, opened(EgressPolicy(named=frozenset({host}))) as egress:
        with pytest.raises(TrustFailure):
            await egress.fetch(f"http://{host}/", limit=10)
    assert len(connections) == 1


async def test_a_redirect_away_from_tls_is_refused() -> None:
    def redirect(_: web.Request) -> web.Response:
        return web.Response(status=307, headers={"Location": "http://cdn.example/blob"})

    async with serve(redirect) as host, opened(EgressPolicy(named=frozenset({host}))) as egress:
        with pytest.raises(TrustFailure, match="without TLS"):
            await egress.fetch(f"http://{host}/", limit=10)


async def test_endless_redirects_are_refused() -> None:
    def redirect(_: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": "/again"})

    async with serve(redirect) as host, opened(EgressPolicy(named=LOOPBACK)) as egress:
        with pytest.raises(TrustFailure, match="more than 5 redirects"):
            await egress.fetch(f"http://{host}/", limit=10)
        assert egress.requests[host, 302] == 6


async def test_credentials_stay_within_their_origin() -> None:
    seen: dict[str, str | None] = {}

    def first(request: web.Request) -> web.Response:
        seen[f"first{request.path}"] = request.headers.get("Authorization")
        target = "/here" if request.path == "/" else f"http://{second_host}/there"
        return web.Response(status=307, headers={"Location": target, "Set-Cookie": "a=b; Path=/"})

    def second(request: web.Request) -> web.Response:
        seen["second"] = request.headers.get("Authorization")
        seen["cookie"] = request.headers.get("Cookie")
        return web.Response(text="ok")

    async with serve(first) as host, serve(second) as second_host, opened(EgressPolicy(named=LOOPBACK)) as egress:
        answer = await egress.fetch(f"http://{host}/", limit=10, headers={"authorization": "Bearer x"})
        assert answer.body == b"ok"
    assert seen == {"first/": "Bearer x", "first/here": "Bearer x", "second": None, "cookie": None}


async def test_a_body_is_never_redirected_to_another_host() -> None:
    def redirect(_: web.Request) -> web.Response:
        return web.Response(status=307, headers={"Location": "http://localhost:1/"})

    async with serve(redirect) as host, opened(EgressPolicy(named=LOOPBACK)) as egress:
        with pytest.raises(TrustFailure, match="redirects a body"):
            await egress.fetch(f"http://{host}/", method="PUT", content=b"secret", limit=10)
