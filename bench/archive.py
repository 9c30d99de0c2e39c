"""A caching copy of package archives on loopback, in a process of its own.

    python bench/archive.py PORT FOLDER NAME=ADDRESS...

Serves GET /NAME/PATH from FOLDER; what is not there yet is fetched from ADDRESS/PATH once and kept. So admend and apt
read the same bytes from the same server, and only the first run asks the outside. Release files and what is not
named by its hash are fetched again after some hours; when the archive does not answer, the kept copy serves.
"""

import asyncio
import hashlib
import os
import sys
import time
from collections import defaultdict
from email.utils import parsedate_to_datetime
from pathlib import Path

import aiohttp
from aiohttp import web

FRESH = 12 * 3600.0  # seconds; a run must see one state of the archive
PIECE = 256 << 10


class Cache:
    """The routes of the archive, and what was fetched of them.

    Args:
        folder: where files are kept, under the hash of their path (the server guesses no types from names then).
        routes: addresses by the first part of the path.
    """

    def __init__(self, folder: Path, routes: dict[str, str]) -> None:
        self._folder, self._routes = folder, routes
        self._locks: defaultdict[Path, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._absent: set[Path] = set()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """GET or HEAD of one file."""
        name, path = request.match_info["name"], request.match_info["path"]
        if name not in self._routes:
            raise web.HTTPNotFound
        file = self._folder / hashlib.sha256(f"{self._routes[name]} {path}".encode()).hexdigest()
        async with self._locks[file]:
            if file not in self._absent and not _fresh(file, path):
                await self._fetch(f"{self._routes[name].rstrip('/')}/{path}", file)
        if not _kept(file):
            raise web.HTTPNotFound
        return web.FileResponse(file, chunk_size=PIECE, headers={"Content-Type": "application/octet-stream"})

    async def _fetch(self, url: str, file: Path) -> None:
        try:
            async with aiohttp.ClientSession(trust_env=True, auto_decompress=False) as session, session.get(url) as got:
                if got.status in {404, 410}:
                    self._absent.add(file)
                    return
                got.raise_for_status()
                part = file.with_suffix(".part")
                with part.open("wb") as out:
                    async for piece in got.content.iter_chunked(PIECE):
                        out.write(piece)
                if modified := got.headers.get("Last-Modified"):
                    stamp = parsedate_to_datetime(modified).timestamp()
                    os.utime(part, (time.time(), stamp))
                part.rename(file)
        except (aiohttp.ClientError, TimeoutError) as error:
            if not _kept(file):
                raise web.HTTPBadGateway(text=f"{url}: {error}\n") from error


def _kept(file: Path) -> bool:
    return file.exists()


def _fresh(file: Path, path: str) -> bool:
    """Say whether the kept copy, if any, still serves: files named by hash or version never change."""
    if not _kept(file):
        return False
    moving = path.startswith("dists/") and "/by-hash/" not in path
    return not moving or time.time() - file.stat().st_ctime < FRESH


def main() -> None:
    """Serve until the process is ended."""
    port, folder, *routes = sys.argv[1:]
    Path(folder).mkdir(parents=True, exist_ok=True)
    cache = Cache(Path(folder), dict(route.split("=", 1) for route in routes))
    app = web.Application()
    app.router.add_get("/{name}/{path:.+}", cache.answer)
    web.run_app(app, host="127.0.0.1", port=int(port), access_log=None, print=None)


if __name__ == "__main__":
    main()
