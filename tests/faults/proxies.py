"""Proxies that fail: a server on loopback, with TLS or without, that writes whatever a fault wants to each question.

A fault is a function of the image that was asked about and the writer; what it writes are bytes on the wire, so it may
break HTTP itself.
"""

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from certs.authority import Identity, issue_ca, issue_client, issue_server
from proxy.api import Outcome
from proxy.oci.digest import Digest
from proxy.oci.reference import ImageRef
from tests.webhook.table import KEY, STRANGER, answer, patched_digest, sign

Fault = Callable[[str, asyncio.StreamWriter], Awaitable[None]]
LONG = timedelta(days=400)


@dataclass
class Served:
    """A server that runs; `questions` are the images that it was asked about."""

    port: int
    questions: list[str] = field(default_factory=list)


@asynccontextmanager
async def failing(fault: Fault, tls: ssl.SSLContext | None) -> AsyncIterator[Served]:
    """Serve POST /v1/resolve with a fault."""
    served = Served(0)
    tasks: set[Any] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
                body = await reader.readexactly(int(fields[b"content-length"]))
                served.questions.append(json.loads(body)["image"])
                await fault(served.questions[-1], writer)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)
    served.port = server.sockets[0].getsockname()[1]
    try:
        yield served
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def http(body: bytes, status: str = "200 OK", length: int | None = None, more: str = "") -> bytes:
    """Return an answer of HTTP; `length` is what it says of its body."""
    size = len(body) if length is None else length
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {size}\r\n{more}\r\n"
    return head.encode() + body


def saying(raw: bytes) -> Fault:
    """Return the fault that answers with these bytes."""

    async def fault(_: str, writer: asyncio.StreamWriter) -> None:
        writer.write(raw)

    return fault


def body(text: str | bytes, **options: Any) -> Fault:
    """Return the fault that answers with this body."""
    return saying(http(text.encode() if isinstance(text, str) else text, **options))


def changed(**fields: Any) -> Fault:
    """Return the fault that answers as a proxy would, but for some fields; one that is called is given the image."""

    async def fault(image: str, writer: asyncio.StreamWriter) -> None:
        given = {name: value(image) if callable(value) else value for name, value in fields.items()}
        good = answer(image, Outcome.PATCHED, signature=sign(ImageRef.parse(image), signed_at=datetime.now(UTC)))
        writer.write(http(good.model_copy(update=given).model_dump_json().encode()))

    return fault


def signed(key: Any = KEY, age: timedelta = timedelta(), **claim: Any) -> Callable[[str], Any]:
    """Return what makes a signature of `age` by `key` with some of its claims changed."""
    return lambda image: sign(ImageRef.parse(image), key, signed_at=datetime.now(UTC) - age, **claim)


def pending(image: str) -> bytes:
    """Return the answer of a proxy that is still at work."""
    reason = "the patch is under way and goes on in the background"
    return http(answer(image, Outcome.PENDING, reason=reason).model_dump_json().encode())


async def hang(_: str, __: asyncio.StreamWriter) -> None:
    """Answer nothing."""
    await asyncio.sleep(60)


async def drip(_: str, writer: asyncio.StreamWriter) -> None:
    """Answer a byte at a time."""
    writer.write(http(b"", length=10_000))
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.02)


async def flood(_: str, writer: asyncio.StreamWriter) -> None:
    """Answer without an end."""
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"40000\r\n" + bytes(0x40000) + b"\r\n")
        await writer.drain()


async def hang_up(_: str, writer: asyncio.StreamWriter) -> None:
    """Close the connection instead of an answer."""
    writer.close()


async def break_off(image: str, writer: asyncio.StreamWriter) -> None:
    """Reset the connection in the midst of the answer."""
    writer.write(http(answer(image, Outcome.PATCHED).model_dump_json().encode()[:200], length=5000))
    await writer.drain()
    writer.transport.abort()


async def still_at_work(image: str, writer: asyncio.StreamWriter) -> None:
    """Answer `pending`."""
    writer.write(pending(image))


@dataclass(frozen=True)
class Pki:
    """An authority, and certificates of it and of a stranger, as files in a folder."""

    folder: Path

    def make(self) -> None:
        """Write everything."""
        now = datetime.now(UTC)
        authority, stranger, old = issue_ca(now), issue_ca(now), issue_ca(now - LONG)
        self._write("ca", authority)
        self._write("old-ca", old)
        here: Any = {"dns_names": ["localhost"], "ips": ["127.0.0.1"]}
        self._write("server", issue_server(authority, **here, now=now))
        self._write("strange", issue_server(stranger, **here, now=now))
        self._write("misnamed", issue_server(authority, ["other.example"], [], now=now))
        self._write("expired", issue_server(old, **here, now=now - LONG))
        self._write("tomorrow", issue_server(authority, **here, now=now + timedelta(days=1)))
        self._write("client", issue_client(authority, "webhook", now))
        self._write("expired-client", issue_client(old, "webhook", now - LONG))
        both = [(self.folder / f"{name}.crt").read_bytes() for name in ("ca", "old-ca")]
        (self.folder / "authorities.crt").write_bytes(b"".join(both))
        (self.folder / "signing.pub").write_bytes(KEY.public.render_pem())

    def _write(self, name: str, identity: Identity) -> None:
        (self.folder / f"{name}.crt").write_bytes(identity.certificate_pem)
        (self.folder / f"{name}.key").write_bytes(identity.key_pem)

    def serve(self, name: str, *, clients: bool = False) -> ssl.SSLContext:
        """Return a server's context with the certificate `name`; with `clients` it demands one of them."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.folder / f"{name}.crt", self.folder / f"{name}.key")
        if clients:
            context.load_verify_locations(self.folder / "authorities.crt")
            context.verify_mode = ssl.CERT_REQUIRED
        return context


FAULTS: dict[str, tuple[Fault, str]] = {
    "does not answer": (hang, r"no answer within 0\.\d s"),
    "answers a byte at a time": (drip, r"no answer within 0\.\d s"),
    "closes without an answer": (hang_up, "the connection broke off"),
    "closes in the midst of its answer": (break_off, "the connection broke off"),
    "is still at work": (still_at_work, "the patch is under way"),
    "says 500": (body("oops", status="500 Internal Server Error"), "HTTP 500: without a reason"),
    "says 503": (body('{"code": "c", "message": "draining"}', status="503 Service Unavailable"), "HTTP 503: draining"),
    "does not know the webhook": (
        body('{"code": "c", "message": "who are you"}', status="401 Unauthorized"),
        "HTTP 401: who are you; check the client certificate or the token",
    ),
    "redirects": (body("", status="302 Found", more="Location: https://127.0.0.1:1/\r\n"), "HTTP 302"),
    "speaks another protocol": (saying(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"), "not an answer of HTTP"),
    "sends headers without an end": (saying(b"HTTP/1.1 200 OK\r\nX: " + b"x" * (1 << 20)), "not an answer of HTTP"),
    "sends a body without an end": (flood, "more than 4194304 bytes"),
    "sends a huge body": (body(b" " * (5 << 20)), "more than 4194304 bytes"),
    "sends no JSON": (body("<html>the ingress has no such page</html>"), "not an answer of /v1/resolve"),
    "sends no text": (body(b"\xff\xfe\x00"), "not an answer of /v1/resolve"),
    "sends what is packed": (body(b"\x1f\x8b\x08\x00", more="Content-Encoding: gzip\r\n"), "not an answer of /v1/res"),
    "sends JSON without a floor": (body("[" * 100_000), "not an answer of /v1/resolve"),
    "sends another document": (body('{"outcome": "patched"}'), "image: Field required"),
    "sends an outcome that there is not": (body('{"outcome": "fine", "image": "x"}'), "not an answer of /v1/resolve"),
    "names a digest that is none": (
        changed(patched="mirror.example:5000/gcr.io/distroless/base-debian12@sha256:abc"),
        "trust-failure: the patched image in the proxy's answer is not a reference",
    ),
    "names a patched image by tag": (
        changed(patched="mirror.example:5000/gcr.io/distroless/base-debian12:latest"),
        "trust-failure: the proxy named the patched image .* without a digest",
    ),
    "names a foreign registry": (
        changed(patched=f"evil.example/gcr.io/distroless/base-debian12@{Digest.of(b'evil')}"),
        "trust-failure: the proxy named the patched image evil.example/.* but its place is mirror.example:5000/",
    ),
    "names another image's place": (
        changed(patched=f"mirror.example:5000/docker.io/library/nginx@{Digest.of(b'other')}"),
        "trust-failure: the proxy named the patched image .*nginx, but its place is",
    ),
    "answers about another image": (
        changed(source=f"docker.io/library/nginx@{Digest.of(b'other')}"),
        "trust-failure: the proxy's answer is about docker.io/library/nginx",
    ),
    "signs nothing": (changed(signature=None), "trust-failure: .* has no signature"),
    "is not who signed": (changed(signature=signed(STRANGER)), "trust-failure: .*key"),
    "signed another digest": (
        changed(signature=signed(patched_digest=patched_digest("docker.io/library/nginx:latest"))),
        "trust-failure: the signature is for the patched digest",
    ),
    "signed for another policy's repository": (
        changed(signature=signed(patched_repository="mirror.example:5000/x")),
        "trust-failure: the signature is for the patched repository",
    ),
    "has a clock far behind, or the webhook's is ahead": (
        changed(signature=signed(age=timedelta(days=8))),
        "trust-failure: the signature of .* is older than",
    ),
    "has a clock ahead, or the webhook's is behind": (
        changed(signature=signed(age=-timedelta(minutes=10))),
        "trust-failure: the signature is dated .*in the future; check both clocks",
    ),
}
