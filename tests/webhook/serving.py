"""The webhook over HTTPS on loopback: its keys, settings, a client, and a proxy that demands a client certificate."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from aiohttp import web

from certs.authority import issue_ca, issue_client, issue_server
from certs.serving import ServingContext
from proxy.api import Outcome, ResolveRequest
from proxy.oci.reference import ImageRef
from tests.webhook.table import KEY, MIRROR, answer, sign
from webhook.resolver import Resolver


def make_keys(path: Path) -> Path:
    """Write an authority, a server's and a client's certificate, and the signing key's public half."""
    now = datetime.now(UTC)
    authority = issue_ca(now)
    (path / "ca.crt").write_bytes(authority.certificate_pem)
    server = issue_server(authority, dns_names=["localhost"], ips=["127.0.0.1"], now=now)
    for name, identity in (("server", server), ("client", issue_client(authority, "api-server", now))):
        (path / f"{name}.crt").write_bytes(identity.certificate_pem)
        (path / f"{name}.key").write_bytes(identity.key_pem)
    (path / "signing.pub").write_bytes(KEY.public.render_pem())
    return path


@asynccontextmanager
async def proxying(folder: Path, resolver: Resolver | None = None, *, delay: float = 0.0) -> AsyncIterator[str]:
    """Serve /v1/resolve over HTTPS to clients with a certificate; without a resolver every image is patched."""

    async def resolve(request: web.Request) -> web.Response:
        asked = ResolveRequest.model_validate_json(await request.read())
        await asyncio.sleep(delay)
        found = await resolver.resolve(asked, 0.0) if resolver else answer(asked.image, Outcome.PATCHED)
        if found.outcome is Outcome.PATCHED:
            from_now = sign(ImageRef.parse(asked.image), signed_at=datetime.now(UTC))
            found = found.model_copy(update={"signature": from_now})
        return web.Response(text=found.model_dump_json())

    app = web.Application()
    app.router.add_post("/v1/resolve", resolve)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    tls = ServingContext(folder / "server.crt", folder / "server.key", folder / "ca.crt", require_client=True)
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls.context).start()
    try:
        yield f"https://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def settings(folder: Path, proxy: str, **changes: Any) -> dict[str, Any]:
    files = {key: str(folder / name) for key, name in (("cert_file", "server.crt"), ("key_file", "server.key"))}
    client = {"client_cert_file": str(folder / "client.crt"), "client_key_file": str(folder / "client.key")}
    return {
        "listen": {"port": 0, "tls": files},
        "proxy": {"urls": [proxy], "ca_file": str(folder / "ca.crt"), **client},
        "mirror": {"reference": MIRROR},
        "trust": {"keys": [str(folder / "signing.pub")]},
        **changes,
    }


def client(folder: Path, *, certificate: bool = False) -> httpx.AsyncClient:
    context = ssl.create_default_context(cafile=folder / "ca.crt")
    if certificate:
        context.load_cert_chain(folder / "client.crt", folder / "client.key")
    return httpx.AsyncClient(verify=context, trust_env=False)
