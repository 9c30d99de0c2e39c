"""The client towards the outside: attempts, bounds, proxies and credentials."""

import asyncio
import logging
import socket
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from aiohttp import web

from proxy.egress import Egress, EgressPolicy, Purpose
from proxy.errors import TrustFailure, UpstreamUnavailable
from tests.proxy.egress.outside import LOOPBACK, make_certificate, opened, serve


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
async def test_a_passing_failure_is_tried_again(status: int) -> None:
    answers = [status, status, 200]

    async with (
        serve(lambda _: web.Response(status=answers.pop(0))) as host,
        opened(EgressPolicy(named=LOOPBACK, backoff=0.001)) as egress,
    ):
        assert (await egress.fetch(f"http://{host}/", limit=10)).status == 200
        assert egress.requests == {(host, status): 2, (host, 200): 1}


async def test_retry_after_is_honoured_as_seconds_and_as_a_date() -> None:
    waits = ["1", format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True), ""]

    def limited(_: web.Request) -> web.Response:
        wait = waits.pop(0)
        return web.Response(status=429, headers={"Retry-After": wait}) if wait else web.Response()

    async with serve(limited) as host, opened(EgressPolicy(named=LOOPBACK, backoff=0.001)) as egress:
        start = asyncio.get_running_loop().time()
        assert (await egress.fetch(f"http://{host}/", limit=10)).status == 200
        assert asyncio.get_running_loop().time() - start >= 1.0


async def test_a_wait_longer_than_the_deadline_is_reported_not_waited_for() -> None:
    async with (
        serve(lambda _: web.Response(status=429, headers={"Retry-After": "3600"})) as host,
        opened(EgressPolicy(named=LOOPBACK)) as egress,
    ):
        with pytest.raises(UpstreamUnavailable, match="answered 429") as caught:
            await egress.fetch(f"http://{host}/", limit=10)
        assert caught.value.retry_after == 3600
        assert egress.requests == {(host, 429): 1}


async def test_attempts_end() -> None:
    async with (
        serve(lambda _: web.Response(status=503)) as host,
        opened(EgressPolicy(named=LOOPBACK, backoff=0.001, attempts=3)) as egress,
    ):
        with pytest.raises(UpstreamUnavailable, match=r"answered 503 \(3 attempts\)"):
            await egress.fetch(f"http://{host}/", limit=10)
        assert egress.requests == {(host, 503): 3}


async def test_an_unreachable_host_is_unavailable() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    async with opened(EgressPolicy(named=LOOPBACK, backoff=0.001, attempts=2)) as egress:
        with pytest.raises(UpstreamUnavailable, match=rf"127\.0\.0\.1:{port}/ cannot be reached"):
            await egress.fetch(f"http://127.0.0.1:{port}/", limit=10)
        assert egress.requests == {(f"127.0.0.1:{port}", 0): 2}


async def test_a_name_that_does_not_exist_is_said_to_be_so() -> None:
    async def resolve(host: str, port: int) -> tuple[str, ...]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    egress = Egress(EgressPolicy(), resolve=resolve)
    with pytest.raises(UpstreamUnavailable, match=r"the host nowhere\.example does not exist"):
        await egress.fetch("https://nowhere.example/", limit=10)
    await egress.close()


async def test_a_silent_server_times_out() -> None:
    gone = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        await writer.wait_closed()
        gone.set()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with opened(EgressPolicy(named=LOOPBACK, timeout=0.1, attempts=1)) as egress:
        with pytest.raises(UpstreamUnavailable, match="cannot be reached"):
            await egress.fetch(f"http://127.0.0.1:{port}/", limit=10)
    await gone.wait()
    server.close()
    await server.wait_closed()


async def test_a_body_over_its_limit_is_refused() -> None:
    async with serve(lambda _: web.Response(body=b"x" * 100)) as host, opened(EgressPolicy(named=LOOPBACK)) as egress:
        with pytest.raises(TrustFailure, match="longer than the 99 bytes"):
            await egress.fetch(f"http://{host}/", limit=99)


async def test_a_compressed_body_is_handed_over_as_it_is() -> None:
    def zipped(request: web.Request) -> web.Response:
        assert request.headers["Accept-Encoding"] == "identity"
        return web.Response(body=b"\x1f\x8bnot unpacked", headers={"Content-Encoding": "gzip"})

    async with serve(zipped) as host, opened(EgressPolicy(named=LOOPBACK)) as egress:
        assert (await egress.fetch(f"http://{host}/", limit=99)).body == b"\x1f\x8bnot unpacked"


async def test_the_environment_is_not_asked_for_a_proxy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    netrc = tmp_path / "netrc"
    netrc.write_text("default login user password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    seen: list[str | None] = []

    def note(request: web.Request) -> web.Response:
        seen.append(request.headers.get("Authorization"))
        return web.Response()

    async with serve(note) as host, opened(EgressPolicy(named=LOOPBACK)) as egress:
        assert (await egress.fetch(f"http://{host}/", limit=10)).status == 200
    assert seen == [None]


async def test_package_sources_go_through_the_configured_proxy_and_registries_do_not() -> None:
    seen: list[str] = []

    def proxy(request: web.Request) -> web.Response:
        seen.append(str(request.raw_path))
        return web.Response(text="from the proxy")

    async with serve(proxy) as host, serve(lambda _: web.Response(text="direct")) as direct:
        policy = EgressPolicy(named=frozenset({direct}), source_proxy=f"http://{host}")
        async with opened(policy) as egress:
            source = await egress.fetch("http://archive.example/dists/x", limit=99, purpose=Purpose.SOURCE)
            assert source.body == b"from the proxy"
            assert (await egress.fetch(f"http://{direct}/", limit=99)).body == b"direct"
            with pytest.raises(TrustFailure):
                await egress.fetch("http://169.254.169.254/latest", limit=99, purpose=Purpose.SOURCE)
    assert seen == ["http://archive.example/dists/x"]


async def test_nothing_of_a_query_or_a_token_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    secret = {"Authorization": "Bearer t0ken"}
    async with (
        serve(lambda _: web.Response(status=503)) as host,
        opened(EgressPolicy(named=LOOPBACK, attempts=1)) as egress,
    ):
        with pytest.raises(UpstreamUnavailable) as caught:
            await egress.fetch(f"http://{host}/?signature=hunter2", limit=9, headers=secret)
    assert "hunter2" not in caplog.text + str(caught.value)
    assert "t0ken" not in caplog.text + str(caught.value)


async def test_loopback_is_asked_whether_it_speaks_tls(tmp_path: Path) -> None:
    context, authority = make_certificate(tmp_path)
    async with serve(lambda _: web.Response(text="x"), context) as secure, serve(lambda _: web.Response()) as plain:
        async with opened(EgressPolicy(named=LOOPBACK, ca_file=authority, attempts=1)) as egress:
            assert await egress.scheme(secure) == "https"
            assert await egress.scheme(plain) == "http"
            assert await egress.scheme("registry.example") == "https"
            assert (await egress.fetch(f"https://{secure}/", limit=9)).body == b"x"
        async with opened(EgressPolicy(named=LOOPBACK, attempts=1)) as stranger:
            with pytest.raises(TrustFailure, match=r"certificate is not trusted.*upstream\.ca_file"):
                await stranger.fetch(f"https://{secure}/", limit=9)


async def test_credentials_go_to_addresses_below_their_prefix_over_tls_and_nowhere_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    seen: list[tuple[str, str]] = []

    def handler(request: web.Request) -> web.Response:
        seen.append((request.path, request.headers.get("Authorization", "")))
        if request.path == "/esm/away":
            return web.Response(status=302, headers={"Location": f"https://{other}/landed"})
        return web.Response(status=503 if request.path == "/esm/broken" else 200)

    context, authority = make_certificate(tmp_path)
    policy = EgressPolicy(named=LOOPBACK, ca_file=authority, attempts=1)
    async with serve(handler, context) as host, serve(handler, context) as other, serve(handler) as plain:
        credentials = {f"https://{host}/esm": "Basic aHVudGVy", f"https://{host}/esm/infra/": "Bearer t0ken"}
        async with opened(policy, credentials=credentials) as egress:
            for url in (f"https://{host}/esm/a", f"https://{host}/esm/infra/b", f"https://{host}/esmeralda"):
                await egress.fetch(url, limit=9, purpose=Purpose.SOURCE)
            await egress.fetch(f"https://{other}/esm/a", limit=9, purpose=Purpose.SOURCE)
            await egress.fetch(f"http://{plain}/esm/a", limit=9, purpose=Purpose.SOURCE)
            await egress.fetch(f"https://{host}/esm/away", limit=9, purpose=Purpose.SOURCE)
            with pytest.raises(UpstreamUnavailable) as caught:
                await egress.fetch(f"https://{host}/esm/broken", limit=9, purpose=Purpose.SOURCE)
    assert seen == [
        ("/esm/a", "Basic aHVudGVy"),
        ("/esm/infra/b", "Bearer t0ken"),
        ("/esmeralda", ""),
        ("/esm/a", ""),
        ("/esm/a", ""),
        ("/esm/away", "Basic aHVudGVy"),
        ("/landed", ""),
        ("/esm/broken", "Basic aHVudGVy"),
    ]
    assert "aHVudGVy" not in caplog.text + str(caught.value)
