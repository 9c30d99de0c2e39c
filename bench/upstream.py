"""The upstream registry on loopback, in a process of its own: plain, and behind a slow line.

    python bench/upstream.py FOLDER READY

Serves the images of the layout in FOLDER; writes the two ports as JSON to the file READY.
"""

import asyncio
import json
import sys
from pathlib import Path

from aiohttp import web
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


async def serve(folder: Path, ready: Path) -> None:
    """Serve until the process is ended."""
    app = web.Application()
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
