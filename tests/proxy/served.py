"""A mirror behind /v2/ on loopback for tests, and a client of it."""

import base64
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import ClientResponse, ClientSession, web

from proxy.access import Access
from proxy.mirror import EmbeddedMirror, Naming
from proxy.oci.manifest import Index, Manifest
from proxy.rights import Rights
from proxy.v2 import Hooks, add_v2_routes
from tests.simulators.images import Built


def basic(username: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()


AUTH = basic("admend", "secret")
REPO = "docker.io/library/nginx"


class Served:
    """A mirror behind /v2/ on loopback, and a client of it."""

    def __init__(self, mirror: EmbeddedMirror, session: ClientSession, url: str) -> None:
        self.mirror, self.session, self.url = mirror, session, url

    async def __call__(self, method: str, path: str, **options: Any) -> ClientResponse:
        auth = options.pop("auth", AUTH if method not in {"GET", "HEAD"} else None)
        headers = {**options.pop("headers", {}), **({"Authorization": auth} if auth else {})}
        response = await self.session.request(method, f"{self.url}{path}", headers=headers, **options)
        await response.read()
        return response

    async def push(self, built: Built, *tags: str, repository: str = REPO) -> None:
        for digest, data in built.data.items():
            created = await self("POST", f"/v2/{repository}/blobs/uploads/?digest={digest}", data=data)
            assert created.status == 201
        for child in built.children:
            assert (await self.put_manifest(child, str(child.digest), repository)).status == 201
        for tag in tags or (str(built.top.digest),):
            assert (await self.put_manifest(built.top, tag, repository)).status == 201

    async def put_manifest(self, manifest: Manifest | Index, reference: str, repository: str = REPO) -> ClientResponse:
        headers = {"Content-Type": manifest.media_type}
        return await self("PUT", f"/v2/{repository}/manifests/{reference}", data=manifest.raw, headers=headers)


Serve = Callable[..., Awaitable[Served]]


@asynccontextmanager
async def serving(tmp_path: Path) -> AsyncIterator[Serve]:
    """Serve mirrors until the end."""
    cleanups: list[Callable[[], Awaitable[object]]] = []

    async def start(
        access: Access | None = None,
        hooks: Hooks | None = None,
        max_bytes: int = 100 << 20,
        tls: ssl.SSLContext | None = None,
        rights: dict[str, Any] | None = None,
    ) -> Served:
        mirror = EmbeddedMirror(tmp_path / "mirror", Naming("mirror.example"), max_bytes, grace=0.0)
        app = web.Application()
        add_v2_routes(
            app,
            mirror,
            access or Access("admend", "secret", "token"),
            hooks,
            Rights(mirror.visibility, **(rights or {})),
        )
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
        await site.start()
        host, port = runner.addresses[0][:2]
        session = ClientSession()
        cleanups.extend((session.close, runner.cleanup, mirror.close))
        return Served(mirror, session, f"{'https' if tls else 'http'}://{host}:{port}")

    yield start
    for cleanup in cleanups:
        await cleanup()


def code(body: str) -> str:
    found: str = json.loads(body)["errors"][0]["code"]
    return found
