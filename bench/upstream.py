"""The upstream registry on loopback, in a process of its own: plain, and behind a slow line.

    python bench/upstream.py FOLDER READY

Serves the images of the layout in FOLDER; writes the two ports as JSON to the file READY. `GET /pulls` says how often
the manifest of each repository was pulled (a HEAD is no pull).
"""

import asyncio
import json
import sys
from collections import Counter
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Handler
from shaping import Line

from proxy.access import Access
from proxy.files import writing
from proxy.mirror import EmbeddedMirror, Naming
from proxy.v2 import Hooks, add_v2_routes

MAX_BYTES = 8 << 30
BANDWIDTH, LATENCY = 50e6, 0.030  # bytes per second, seconds


def open_upstream(folder: Path) -> EmbeddedMirror:
    """Open the upstream's layout; one process at a time."""
    return EmbeddedMirror(folder, Naming.parse("upstream.localhost"), MAX_BYTES)


class Pulls:
    """Counts pulls of manifests by repository."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    @web.middleware
    async def count(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Pass a request on."""
        repository, mark, _ = request.path.removeprefix("/v2/").partition("/manifests/")
        if mark and request.method == "GET":
            self._counts[repository] += 1
        return await handler(request)

    async def tell(self, _: web.Request) -> web.Response:
        """GET /pulls."""
        return web.json_response(self._counts)


async def serve(folder: Path, ready: Path) -> None:
    """Serve until the process is ended."""
    pulls = Pulls()
    app = web.Application(middlewares=[pulls.count])
    app.router.add_get("/pulls", pulls.tell)
    add_v2_routes(app, open_upstream(folder), Access(), Hooks())
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    plain = runner.addresses[0][1]
    shaped = await Line(plain, BANDWIDTH, LATENCY).serve()
    with writing(ready) as out:
        out.write(json.dumps({"plain": plain, "shaped": shaped}).encode())
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), Path(sys.argv[2])))
