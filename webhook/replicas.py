"""The proxies that may be asked: where they are, which come first, and which are left alone for a while.

Owns the addresses behind the configured URLs (a headless Service has one per replica; they are looked up off the event
loop and kept when a look-up fails), the order for one image, and the memory of failures. Every webhook orders the
replicas of an image alike (rendezvous hashing), so that its single flight and its caches are on one of them; one that
is busier than the others steps back (bounded load), but not for an image that it is working on, and one that failed is
asked last until its pause is over.
"""

import asyncio
import hashlib
import ipaddress
import logging
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

LOOKUP_EVERY = 5.0  # seconds between two look-ups of a name
LOOKUP_TIMEOUT = 2.0  # seconds, of the first look-up; later ones keep nobody waiting
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0  # seconds after a failure
SPARE_LOAD = 8  # questions under way that a replica may have before it can be the busier one
FAIR_SHARE = 1.5  # times the mean of questions under way
MAX_REPLICAS = 64

Lookup = Callable[[str, int], Awaitable[Sequence[str]]]

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Replica:
    """One proxy: `url` is where it is asked, `host` the name that its certificate must have.

    `host` is empty where the URL itself says it. `outstanding` counts the questions under way, `works_on` those that it
    may be working on, by what they are about.
    """

    url: str
    host: str = ""
    outstanding: int = 0
    works_on: Counter[str] = field(default_factory=Counter)
    failures: int = 0
    rests_until: float = 0.0


@dataclass(slots=True)
class _Name:
    """A configured URL and the replicas behind it."""

    url: str
    replicas: dict[str, Replica] = field(default_factory=dict)
    looked_up: float = float("-inf")
    task: asyncio.Task[None] | None = None


async def look_up(host: str, port: int) -> Sequence[str]:
    """Return the addresses of a name, sorted; OSError when there are none."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return sorted({str(item[4][0]) for item in found})


class Replicas:
    """The proxies behind some URLs.

    Args:
        urls: `http(s)://host[:port]`; a host name stands for all of its addresses.
        lookup: turns a name into addresses.
        clock: a monotonic clock.
    """

    def __init__(
        self, urls: Sequence[str], *, lookup: Lookup = look_up, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._names = [_Name(url) for url in urls]
        self._lookup, self._clock = lookup, clock

    async def order(self, key: str) -> list[Replica]:
        """Return all replicas, those to ask first about `key` at the front."""
        await asyncio.gather(*(self._refresh(name) for name in self._names))
        found = [replica for name in self._names for replica in name.replicas.values()]
        now = self._clock()
        ranked = sorted(found, key=lambda each: hashlib.sha256(f"{each.url} {key}".encode()).digest())
        most = max(SPARE_LOAD, FAIR_SHARE * sum(each.outstanding for each in found) / max(1, len(found)))

        def rank(each: Replica) -> tuple[float, bool, bool]:
            # What one is working on is not begun by another as well, however busy the one is.
            return max(0.0, each.rests_until - now), not each.works_on[key], each.outstanding >= most

        return sorted(ranked, key=rank)

    def begin(self, replica: Replica, key: str, *, work: bool) -> Callable[[], None]:
        """Take note that a replica is asked about `key`, for work or for what it knows; call the result at the end."""
        replica.outstanding += 1
        replica.works_on[key] += work

        def end() -> None:
            replica.outstanding -= 1
            replica.works_on[key] -= work
            if not replica.works_on[key]:
                del replica.works_on[key]

        return end

    def succeeded(self, replica: Replica) -> None:
        """Take note that a replica answered."""
        replica.failures, replica.rests_until = 0, 0.0

    def failed(self, replica: Replica) -> None:
        """Take note that a replica did not answer as it should; it rests, longer each time."""
        replica.failures += 1
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(replica.failures - 1, 10))
        replica.rests_until = self._clock() + pause

    async def close(self) -> None:
        """End look-ups that are under way."""
        for name in self._names:
            if name.task is not None:
                name.task.cancel()
                await asyncio.gather(name.task, return_exceptions=True)

    async def _refresh(self, name: _Name) -> None:
        """Look a name up again if it is time; only the first look-up is waited for."""
        if _is_address(urlsplit(name.url).hostname or ""):
            name.replicas = name.replicas or {name.url: Replica(name.url)}
            return
        if self._clock() - name.looked_up >= LOOKUP_EVERY and (name.task is None or name.task.done()):
            name.task = asyncio.create_task(self._look_up(name))
        if not name.replicas and name.task is not None:
            await asyncio.wait([name.task], timeout=LOOKUP_TIMEOUT)
        if not name.replicas:
            name.replicas = {name.url: Replica(name.url)}  # asked by its name, it says itself what is wrong

    async def _look_up(self, name: _Name) -> None:
        parts = urlsplit(name.url)
        host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
        try:
            addresses = (await self._lookup(host, port))[:MAX_REPLICAS]
        except OSError as error:
            name.looked_up = self._clock()
            log.warning("%s cannot be looked up, the addresses known so far are used: %s", host, error)
            return
        name.looked_up = self._clock()
        urls = [f"{parts.scheme}://{_bracket(address)}:{port}" for address in addresses]
        name.replicas = {url: name.replicas.get(url) or Replica(url, host) for url in urls}


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _bracket(address: str) -> str:
    return f"[{address}]" if ":" in address else address
