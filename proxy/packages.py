"""Package files: fetched by hash into the blob store and unpacked once each, in a worker.

Owns the pairing of fetch and unpack. What is unpacked is cached by the package file's digest, since many images
need the same upgrade.
"""

import asyncio
from collections import Counter
from pathlib import Path

from proxy.blobs import BlobStore
from proxy.codec import encode
from proxy.derived import mark_used
from proxy.egress import Egress, Purpose
from proxy.engine.family import Candidate, Fetch
from proxy.errors import TrustFailure, UpstreamRefused
from proxy.flight import SingleFlight
from proxy.jobs import EPOCH
from proxy.oci.digest import Digest
from proxy.pool import WorkerPool

MAX_PACKAGE = 4 << 30  # bytes
FETCHES = 4  # at once: the first one asked for (the largest) is there sooner, and archives dislike more


class Packages:
    """Fetches and unpacks; shared by all patches of a process."""

    def __init__(self, root: Path, store: BlobStore, pool: WorkerPool, egress: Egress) -> None:
        self._root, self._store, self._pool, self._egress = root, store, pool, egress
        self._fetching = asyncio.Semaphore(FETCHES)
        self._unpacks: SingleFlight[Digest, str] = SingleFlight()
        self.lookups = Counter[str]()  # unpacked packages that were there (hit) or were made (miss)

    async def unpacked(self, family: str, candidate: Candidate) -> str:
        """Return the cache name of the unpacked package.

        Raises TrustFailure when the index gave no digest or the file has another, UpstreamRefused when the source
        no longer has the file.
        """
        digest = candidate.fetch.digest
        if digest is None:
            raise TrustFailure(f"{candidate.fetch.url}: the source's index names no digest for it; refused")
        return await self._unpacks.run(digest, lambda: self._unpack(family, candidate, digest))

    async def _unpack(self, family: str, candidate: Candidate, digest: Digest) -> str:
        name = f"packages/{EPOCH}/{digest.hex}"
        known = self._root / f"{name}.payload"
        there = mark_used(known)
        self.lookups["hit" if there else "miss"] += 1
        if there:
            return name
        with self._store.pin([digest]):
            async with self._fetching:
                archive = await fetch_into(self._store, self._egress, candidate.fetch)
            await self._pool.run(
                "unpack",
                root=str(self._root),
                family=family,
                package=encode(candidate.package),
                archive=str(archive),
                name=name,
            )
        return name


async def fetch_into(store: BlobStore, egress: Egress, fetch: Fetch) -> Path:
    """Fetch a file that is known by its digest into the store, unless it is there; returns its path."""
    if fetch.digest is None:
        raise TrustFailure(f"{fetch.url}: fetched by digest only; refused")
    if store.has(fetch.digest, fetch.size):
        return store.path(fetch.digest)
    async with egress.stream("GET", fetch.url, purpose=Purpose.SOURCE) as response:
        if response.status != 200:  # noqa: PLR2004 - HTTP OK
            raise UpstreamRefused(f"{fetch.url}: the source answered {response.status}", status=response.status)
        limit = fetch.limit if fetch.size is None else fetch.size
        return await store.ingest(fetch.digest, fetch.size, response.stream(), fetch.url, limit)
