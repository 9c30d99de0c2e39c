"""Several proxies behind the webhook: who is asked, who rests, and what a silent one costs."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from certs.holdings import Wanted
from certs.rotate import reconcile
from certs.serving import ServingContext
from certs.store import FolderStore
from proxy.api import Outcome, ResolveRequest
from tests.webhook.table import answer
from webhook.config import ProxyClientConfig
from webhook.replicas import FIRST_PAUSE, LONGEST_PAUSE, LOOKUP_EVERY, Replica, Replicas
from webhook.resolver import ProxyResolver

NGINX = "docker.io/library/nginx:1.25"
GOOD = answer(NGINX, Outcome.PATCHED)
PENDING = answer(NGINX, Outcome.PENDING)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Server:
    """A proxy that answers after `delay` seconds, dry runs with `known` at once, and counts."""

    def __init__(self, delay: float = 0.0, known: Any = GOOD, full: Any = GOOD) -> None:
        self.delay, self.known, self.full = delay, known, full
        self.asked: Counter[str] = Counter()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        question = ResolveRequest.model_validate_json(await request.read())
        self.asked["dry" if question.dry_run else "full"] += 1
        if not question.dry_run:
            await asyncio.sleep(self.delay)
        found = self.known if question.dry_run else self.full
        return web.Response(text=found.model_dump_json(), content_type="application/json")


@asynccontextmanager
async def serving(*servers: Server, tls: Any = None) -> AsyncIterator[list[str]]:
    urls, runners = [], []
    for server in servers:
        app = web.Application()
        app.router.add_post("/v1/resolve", server.handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        runners.append(runner)
        urls.append(f"{'https' if tls else 'http'}://127.0.0.1:{runner.addresses[0][1]}")
    try:
        yield urls
    finally:
        for runner in runners:
            await runner.cleanup()


async def resolve(resolver: ProxyResolver, image: str = NGINX, seconds: float = 5.0, **fields: Any) -> Any:
    return await resolver.resolve(ResolveRequest(image=image, **fields), time.monotonic() + seconds)


async def order(replicas: Replicas, key: str = "x") -> list[str]:
    return [each.url for each in await replicas.order(key)]


async def image_of(resolver: ProxyResolver, url: str) -> str:
    """Return an image about which the replica at `url` is asked first."""
    for number in range(99):
        if (await order(resolver._replicas, f"image{number}"))[0] == url:
            return f"image{number}"
    raise AssertionError("no image has this replica first")


async def test_each_image_has_its_own_first_replica_and_every_webhook_the_same() -> None:
    urls = [f"http://127.0.0.1:{port}" for port in range(1, 4)]
    one, two = Replicas(urls), Replicas(urls[::-1])
    firsts: Counter[str] = Counter()
    for number in range(300):
        ranked = await order(one, f"image{number}")
        assert await order(two, f"image{number}") == ranked
        firsts[ranked[0]] += 1
    assert all(60 < count < 140 for count in firsts.values())


async def test_a_replica_that_goes_moves_only_the_images_that_were_its_own() -> None:
    urls = [f"http://127.0.0.1:{port}" for port in range(1, 4)]
    before, after = Replicas(urls), Replicas(urls[:2])
    for number in range(100):
        first = (await order(before, f"image{number}"))[0]
        assert first == urls[2] or (await order(after, f"image{number}"))[0] == first


async def test_a_replica_that_failed_rests_longer_each_time_and_is_first_again_when_it_answers() -> None:
    clock = Clock()
    replicas = Replicas(["http://127.0.0.1:1", "http://127.0.0.1:2"], clock=clock)
    first, second = await replicas.order("x")
    pauses = []
    for _ in range(8):
        replicas.failed(first)
        pauses.append(first.rests_until - clock.now)
        assert (await replicas.order("x"))[0] is second
        clock.now = first.rests_until
        assert (await replicas.order("x"))[0] is first
    assert pauses[:3] == [FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE]
    assert pauses[-1] == LONGEST_PAUSE
    replicas.succeeded(first)
    replicas.failed(first)
    assert first.rests_until == clock.now + FIRST_PAUSE


async def test_a_replica_much_busier_than_the_others_steps_back() -> None:
    replicas = Replicas(["http://127.0.0.1:1", "http://127.0.0.1:2"])
    first, second = await replicas.order("x")
    first.outstanding = 7
    assert (await replicas.order("x"))[0] is first
    first.outstanding, second.outstanding = 20, 5
    assert (await replicas.order("x"))[0] is second
    first.outstanding, second.outstanding = 20, 20
    assert (await replicas.order("x"))[0] is first


async def test_a_name_stands_for_all_its_addresses_and_is_looked_up_again_without_keeping_anybody_waiting() -> None:
    clock, answers = Clock(), [["10.0.0.1", "10.0.0.2"], ["10.0.0.2", "fd00::3"]]
    gate = asyncio.Event()
    gate.set()

    async def lookup(host: str, port: int) -> list[str]:
        await gate.wait()
        assert (host, port) == ("proxies", 8443)
        return answers.pop(0)

    replicas = Replicas(["https://proxies:8443"], lookup=lookup, clock=clock)
    before = await replicas.order("x")
    assert {(each.url, each.host) for each in before} == {
        ("https://10.0.0.1:8443", "proxies"),
        ("https://10.0.0.2:8443", "proxies"),
    }
    clock.now = LOOKUP_EVERY
    gate.clear()
    assert await replicas.order("x") == before
    gate.set()
    await asyncio.sleep(0.01)
    after = await replicas.order("x")
    assert {each.url for each in after} == {"https://10.0.0.2:8443", "https://[fd00::3]:8443"}
    assert next(each for each in after if "0.2" in each.url) in before
    await replicas.close()


async def test_a_look_up_that_fails_leaves_the_addresses_known_so_far() -> None:
    clock, known = Clock(), True

    async def lookup(host: str, port: int) -> list[str]:
        if not known:
            raise OSError("name server is away")
        return ["10.0.0.1"]

    replicas = Replicas(["https://proxies"], lookup=lookup, clock=clock)
    assert await order(replicas) == ["https://10.0.0.1:443"]
    known, clock.now = False, LOOKUP_EVERY
    await replicas.order("x")
    await asyncio.sleep(0.01)
    assert await order(replicas) == ["https://10.0.0.1:443"]
    assert await order(Replicas(["https://proxies"], lookup=lookup)) == ["https://proxies"]


async def test_by_its_address_a_replica_must_still_have_the_certificate_of_its_name(tmp_path: Path) -> None:
    reconcile(FolderStore(tmp_path), Wanted(("proxies.admend.svc",)))
    tls = ServingContext(tmp_path / "tls.crt", tmp_path / "tls.key").context

    async def lookup(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    async with serving(Server(), tls=tls) as (url,):
        port = url.rpartition(":")[2]
        for host, good in (("proxies.admend.svc", True), ("others.admend.svc", False)):
            config = ProxyClientConfig(urls=(f"https://{host}:{port}",), ca_file=tmp_path / "ca.crt")
            resolver = ProxyResolver(config, lookup=lookup)
            found = await resolve(resolver)
            await resolver.close()
            assert (found == GOOD) is good
            assert good or "certificate" in found.reason.lower()


async def test_while_one_replica_is_silent_another_gives_what_it_knows_and_the_silent_one_rests() -> None:
    silent, knows = Server(delay=60.0), Server()
    async with serving(silent, knows) as urls:
        resolver = ProxyResolver(ProxyClientConfig(urls=tuple(urls)))
        image = await image_of(resolver, urls[0])
        start = time.monotonic()
        assert (await resolve(resolver, image, 1.0)).outcome is Outcome.PATCHED
        assert time.monotonic() - start < 0.6
        assert (silent.asked, knows.asked) == ({"full": 1}, {"dry": 1})
        await resolver.close()


async def test_a_hedge_never_starts_a_second_patch_and_pending_beats_nothing() -> None:
    silent, knows_nothing = Server(delay=60.0), Server(known=PENDING)
    async with serving(silent, knows_nothing) as urls:
        resolver = ProxyResolver(ProxyClientConfig(urls=tuple(urls)))
        image = await image_of(resolver, urls[0])
        start = time.monotonic()
        found = await resolve(resolver, image, 0.8)
        assert time.monotonic() - start < 0.85
        assert found.outcome is Outcome.PENDING
        assert f"{urls[0]}: no answer within" in found.reason
        assert knows_nothing.asked == {"dry": 1}
        assert (await order(resolver._replicas, image))[0] == urls[1]
        await resolver.close()


async def test_a_slow_patch_is_waited_for_though_the_hedge_knows_nothing() -> None:
    slow, other = Server(delay=0.6), Server(known=PENDING)
    async with serving(slow, other) as urls:
        resolver = ProxyResolver(ProxyClientConfig(urls=tuple(urls)))
        image = await image_of(resolver, urls[0])
        assert (await resolve(resolver, image, 1.5)).outcome is Outcome.PATCHED
        assert (slow.asked, other.asked) == ({"full": 1}, {"dry": 1})
        await resolver.close()


@pytest.mark.parametrize("always", [True, False])
async def test_a_tag_that_must_be_asked_anew_is_not_answered_from_a_cache(always: bool) -> None:
    silent, other = Server(delay=60.0), Server()
    async with serving(silent, other) as urls:
        resolver = ProxyResolver(ProxyClientConfig(urls=tuple(urls)))
        image = await image_of(resolver, urls[0])
        await resolve(resolver, image, 0.8, always=always)
        assert other.asked == ({"full": 1} if always else {"dry": 1})
        await resolver.close()


async def test_a_burst_of_pods_of_new_images_has_each_image_worked_on_by_one_replica() -> None:
    servers = [Server(delay=0.3) for _ in range(3)]
    async with serving(*servers) as urls:
        resolver = ProxyResolver(ProxyClientConfig(urls=tuple(urls)))
        replicas = resolver._replicas
        begun: dict[str, set[str]] = {}
        real = replicas.begin

        def begin(replica: Replica, key: str, *, work: bool) -> Any:
            begun.setdefault(key, set()).add(replica.url)
            return real(replica, key, work=work)

        replicas.begin = begin  # type: ignore[method-assign]
        answers = await asyncio.gather(*(resolve(resolver, f"image{number % 20}") for number in range(200)))
        await resolver.close()
        assert {found.outcome for found in answers} == {Outcome.PATCHED}
        assert all(len(each) == 1 for each in begun.values())
        assert sum(server.asked["full"] for server in servers) == 200
        assert all(server.asked["full"] for server in servers)
        assert all(each.outstanding == 0 and not each.works_on for each in await replicas.order("image0"))
