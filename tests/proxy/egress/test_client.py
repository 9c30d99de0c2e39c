"""The client towards the outside: addresses, redirects, attempts, bounds."""

import asyncio
import ipaddress
import logging
import socket
import ssl
from asyncio.selector_events import BaseSelectorEventLoop as SelectorLoop
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from proxy.egress import Egress, EgressPolicy, Purpose
from proxy.errors import TrustFailure, UpstreamUnavailable

Handler = Callable[[web.Request], web.Response]
LOOPBACK = frozenset({"127.0.0.1", "localhost"})
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


@asynccontextmanager
async def serve(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """Answer requests on loopback; gives `127.0.0.1:PORT`."""

    async def answer(request: web.Request) -> web.StreamResponse:
        return handler(request)

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    try:
        yield f"127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def opened(
    policy: EgressPolicy, *, credentials: Mapping[str, str] | None = None, **names: str
) -> AsyncIterator[Egress]:
    """Give a client for which the given names resolve to the given addresses, one after the other."""
    answers = {name.replace("_", "."): addresses.split() for name, addresses in names.items()}

    async def resolve(host: str, port: int) -> tuple[str, ...]:
        if host in answers:
            left = answers[host]
            return (left.pop(0) if len(left) > 1 else left[0],)
        return (host.strip("[]"),) if host != "2130706433" else ("127.0.0.1",)

    egress = Egress(policy, resolve=resolve, credentials=credentials)
    try:
        yield egress
    finally:
        await egress.close()


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


def make_certificate(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """Make a certificate of 127.0.0.1 that signs itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "loopback")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    chain, secret = folder / "cert.pem", folder / "key.pem"
    chain.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    secret.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, secret)
    return context, chain
