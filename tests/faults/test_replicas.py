"""Many proxies over one mirror agree without locks, and killing any of them loses nothing.

Each is a process of its own with caches of its own; the webhook is asked over TLS. A kill hits the replica that is
working on an image, at a random moment of that work; some are orderly ends. `ADMEND_KILLS` says how many there are.
"""

import asyncio
import os
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path

import httpx
import pytest

from certs.holdings import CA_CERT, SERVER_CERT, SERVER_KEY, Wanted
from certs.rotate import reconcile
from certs.serving import client_context
from certs.store import FolderStore
from proxy.api import Outcome
from proxy.marks import MarkBook
from proxy.oci.reference import ImageRef
from proxy.records import source_tag
from proxy.serve import Proxy
from proxy.trust import SigningKey
from tests.end_to_end.test_killed import told
from tests.end_to_end.tools import run
from tests.faults.answers import admit, webhook_before
from tests.faults.replicas import REGISTRIES, Replica, configure, replicas
from tests.faults.test_clocks import is_believed
from tests.proxy.asking import ask
from tests.simulators.world import FIXED_AGAIN, TOKEN, World
from tests.support import until
from webhook.config import Mode
from webhook.serve import Webhook

KILLS = int(os.environ.get("ADMEND_KILLS", "4"))
DEADLINE = 10.0  # seconds, the API server's default
PODS = 4  # of each new image
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM)  # a crash, more often than an orderly end

pytestmark = pytest.mark.parametrize("kind", ["own", pytest.param("docker-registry", marks=pytest.mark.interop)])


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    folder = tmp_path / "keys"
    reconcile(FolderStore(folder), Wanted(dns_names=("localhost",), ips=("127.0.0.1",)))
    (folder / "authorities.crt").write_bytes((folder / CA_CERT).read_bytes())
    key = SigningKey.generate()
    key.save(folder / "signing.pem")
    (folder / "signing.pub").write_bytes(key.public.render_pem())
    return folder


@asynccontextmanager
async def beside(world: World, registry: str, keys: Path, count: int) -> AsyncIterator[list[Proxy]]:
    """Run proxies in this process, with empty caches."""
    async with AsyncExitStack() as stack:
        names = [f"beside{number}-{time.perf_counter_ns()}" for number in range(count)]
        made = [Proxy(configure(world, registry, name, keys)) for name in names]
        yield [await stack.enter_async_context(each) for each in made]


async def check_mirror(proxy: Proxy, image: str) -> str:
    """Check what the mirror holds of an image, in every form, and return the patched reference."""
    answer = await ask(proxy, image)
    assert answer.outcome is Outcome.PATCHED, answer.reason
    assert is_believed(answer, image, proxy.keys.signing.public, proxy.config.mirror.reference)
    patched = ImageRef.parse(answer.patched)
    name = ImageRef(patched.host, patched.repository)
    assert patched.digest is not None
    tags = await proxy.mirror.tags(name)
    (key,) = {tag.removeprefix("src-").partition(".")[0] for tag in tags if tag.startswith("src-")}
    assert {tag for tag in tags if tag.startswith("src-")} == {source_tag(key), f"{source_tag(key)}.result"}
    record = await proxy.resolve._records.load(name, key)
    assert record is not None
    assert record.patched == str(patched.digest)
    pointed = await proxy.mirror.get_manifest(name.with_tag(source_tag(key)))
    assert pointed is not None
    assert pointed.digest == patched.digest
    source = await proxy.resolve._publisher.find_source(patched)
    assert source is not None
    assert str(source) == answer.source
    return answer.patched


async def test_replicas_that_see_images_first_at_the_same_moment_agree(kind: str, tmp_path: Path, keys: Path) -> None:
    async with World(tmp_path / "world") as world, REGISTRIES[kind](tmp_path / "registry") as registry:
        images = [world.add_image() for _ in range(3)]
        async with beside(world, registry, keys, 3) as proxies:
            answers = await asyncio.gather(*(ask(proxy, image) for image in images for proxy in proxies))
            patched = Counter(answer.patched for answer in answers)
            assert len(patched) == len(images)
            assert set(patched.values()) == {len(proxies)}
            for image in images:
                assert {await check_mirror(proxy, image) for proxy in proxies} < set(patched)


@dataclass
class Site:
    """Replicas and a webhook before them; `marks` are the newest dates that the mirror has named so far."""

    world: World
    replicas: list[Replica]
    webhook: Webhook
    log: StringIO
    keys: Path
    images: list[str] = field(default_factory=list)
    longest: float = 0.0  # seconds of a first sight
    admissions: int = 0
    interrupted: int = 0  # kills that came before all pods were answered

    async def admit(self, image: str) -> None:
        """Admit a pod; it must be rewritten in time."""
        ca = self.keys / "authorities.crt"
        self.admissions += 1
        found = await admit(self.webhook, self.log, ca, Mode.PERMISSIVE, image, deadline=DEADLINE)
        assert found.line["outcome"] == "patched", found.line["reason"]
        assert "@sha256:" in found.image

    async def first_of(self, image: str) -> Replica:
        """Return the replica that is asked first about an image."""
        ranked = await self.webhook._resolver._replicas.order(image)
        return next(each for each in self.replicas if each.url == ranked[0].url)

    async def admit_and_end(self, seconds: float, number: signal.Signals) -> None:
        """Admit pods of a new image and of known ones; end who works on the new one, start it again."""
        known, new = self.images[-3:], self.world.add_image()
        self.images.append(new)
        victim = await self.first_of(new)
        others = [each for each in self.replicas if each is not victim]
        await until(lambda: any(each.serves for each in others), 30)
        pods = [asyncio.create_task(self.admit(image)) for image in [new] * PODS + known]
        await asyncio.sleep(seconds)
        self.interrupted += any(not pod.done() for pod in pods)
        await victim.end(number)
        victim.start()
        await asyncio.gather(*pods)


@pytest.mark.timeout(60 + 30 * KILLS)
async def test_killing_replicas_while_they_work_loses_nothing(kind: str, tmp_path: Path, keys: Path) -> None:
    async with (
        World(tmp_path / "world") as world,
        REGISTRIES[kind](tmp_path / "registry") as registry,
        replicas(world, registry, keys) as started,
        webhook_before(
            "https://127.0.0.1:1",
            keys,
            listen={"port": 0, "tls": {"cert_file": keys / SERVER_CERT, "key_file": keys / SERVER_KEY}},
            mirror={"reference": registry},
            proxy={"urls": [each.url for each in started], "token_file": world.folder / "token"},
        ) as (webhook, log),
    ):
        site = Site(world, started, webhook, log, keys)
        for _ in range(2):
            site.images.append(world.add_image())
            begin = time.monotonic()
            await site.admit(site.images[-1])
            site.longest = time.monotonic() - begin
        marks: dict[str, str] = {}
        with told(int.from_bytes(os.urandom(4))) as chance:
            await kill_and_look(site, registry, chance, marks)
        assert site.interrupted > 0
        await check_all(site, registry, kind)


async def kill_and_look(site: Site, registry: str, chance: random.Random, marks: dict[str, str]) -> None:
    """Kill again and again, half of the time with newer packages published; marks never go back."""
    async with beside(site.world, registry, site.keys, 1) as (reader,):
        for number in range(KILLS):
            if number == KILLS // 2:
                site.world.publish(FIXED_AGAIN, month=3)
            await site.admit_and_end(chance.uniform(0, site.longest), chance.choice(SIGNALS))
            book = MarkBook(reader.mirror, reader.keys)
            await book._look()
            now = {source: date.isoformat() for source, date in book._marks.dates.items()}
            assert now.keys() >= marks.keys()
            assert all(now[source] >= date for source, date in marks.items())
            marks.update(now)


async def check_all(site: Site, registry: str, kind: str) -> None:
    """Check that every replica goes on, that all agree, and that what the mirror holds is whole and signed."""
    assert len(site.log.getvalue().splitlines()) == site.admissions
    await asyncio.gather(*(each.starting for each in site.replicas if each.starting))
    await asyncio.sleep(0.25)  # by then every record is due to be confirmed, and what a kill left out to be mended
    for image in site.images:
        await site.admit(image)
    async with beside(site.world, registry, site.keys, 1) as (reader,):
        for image in site.images:
            patched = await check_mirror(reader, image)
            answer = await ask(reader, image)
            assert {item.to_version for item in answer.upgrades} == {FIXED_AGAIN}
            if kind == "docker-registry":
                claims = ("cosign", "verify", "--insecure-ignore-tlog=true", "--allow-insecure-registry=true", "--key")
                await run(*claims, site.keys / "signing.pub", patched)
            for each in site.replicas:
                assert await asked_directly(each, site, image) == patched


async def asked_directly(replica: Replica, site: Site, image: str) -> str:
    """Return what one replica says of an image."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    context = client_context(site.keys / CA_CERT)
    async with httpx.AsyncClient(verify=context, trust_env=False, headers=headers, timeout=60) as client:
        answer = await client.post(f"{replica.url}/v1/resolve", json={"image": image, "wait_seconds": 30})
        text: str = answer.raise_for_status().json()["patched"]
        return text
