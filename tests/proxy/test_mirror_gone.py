"""The mirror goes away, forgets or stalls: nobody is told to run an image that it has not vouched for lately."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from proxy import witness
from proxy.api import Outcome, ResolveResponse
from proxy.config import MirrorConfig
from proxy.errors import UpstreamUnavailable
from proxy.oci.digest import Digest
from proxy.oci.reference import ImageRef
from proxy.serve import Proxy
from proxy.witness import Witness
from tests.proxy.asking import ask
from tests.simulators.registry import Faults, RegistrySimulator
from tests.simulators.world import FIXED_AGAIN, World

DOWN = Faults(refuse=403)
UP = Faults()


class Site:
    """A world, a registry as its mirror, and proxies between them."""

    def __init__(self, world: World, there: RegistrySimulator) -> None:
        self.world, self.there = world, there

    def proxy(self, folder: str = "proxy", **changes: Any) -> Proxy:
        mirror = MirrorConfig(reference="mirror.example", registry=self.there.host)
        return Proxy(self.world.config(folder, mirror=mirror, **changes))

    def forget(self, answer: ResolveResponse) -> None:
        """Take the patched image out of the registry, as its own clean-up might."""
        ref = ImageRef.parse(answer.patched)
        assert ref.digest is not None
        del self.there.manifests[ref.repository][ref.digest]


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with World(tmp_path / "world") as world, RegistrySimulator() as there:
        yield Site(world, there)


def is_refused(answer: ResolveResponse) -> bool:
    said = "the mirror does not say whether it has" in answer.reason
    return answer.outcome is Outcome.FAILED and said and "pods keep their own images until it does" in answer.reason


async def test_the_mirrors_word_holds_for_its_time_and_no_longer(site: Site) -> None:
    async with site.proxy(mirror_ttl=1.0, negative_ttl=0.0) as proxy:
        image = site.world.add_image()
        assert (await ask(proxy, image)).outcome is Outcome.PATCHED
        said = time.monotonic()
        site.there.faults = DOWN
        within = await ask(proxy, image)
        assert time.monotonic() < said + 1.0
        assert within.outcome is Outcome.PATCHED
        await asyncio.sleep(1.1)
        assert is_refused(await ask(proxy, image))
        assert is_refused(await ask(proxy, image, dry_run=True))
        site.there.faults = UP
        assert (await ask(proxy, image)).outcome is Outcome.PATCHED


async def test_an_image_that_needs_no_mirror_needs_none(site: Site) -> None:
    async with site.proxy(mirror_ttl=0.0) as proxy:
        image = site.world.add_image(version="1.0-1+deb12u1")
        assert (await ask(proxy, image)).outcome is Outcome.CLEAN
        site.there.faults = DOWN
        assert (await ask(proxy, image)).outcome is Outcome.CLEAN


async def test_a_restarted_proxy_believes_no_older_word(site: Site) -> None:
    image = site.world.add_image()
    async with site.proxy() as proxy:
        assert (await ask(proxy, image)).outcome is Outcome.PATCHED
    site.there.faults = DOWN
    async with site.proxy() as proxy:
        assert is_refused(await ask(proxy, image))


async def test_a_stale_record_is_no_way_round_the_mirror(site: Site) -> None:
    async with site.proxy(refresh_seconds=0.0, mirror_ttl=0.0, negative_ttl=0.0) as proxy:
        image = site.world.add_image()
        assert (await ask(proxy, image)).outcome is Outcome.PATCHED
        site.there.faults = DOWN
        assert is_refused(await ask(proxy, image))
        site.world.publish(FIXED_AGAIN, month=3)  # and with newer packages it could not even be pushed
        assert is_refused(await ask(proxy, image))


async def test_an_image_that_was_pushed_and_cannot_be_had_is_not_given_out(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with site.proxy(mirror_ttl=0.0, negative_ttl=0.0) as proxy:
        image = site.world.add_image()
        publisher = proxy.resolve._publisher
        real = publisher.publish

        async def publish_and_fall(*arguments: Any) -> Any:
            kept = await real(*arguments)
            site.there.faults = DOWN
            return kept

        monkeypatch.setattr(publisher, "publish", publish_and_fall)
        assert is_refused(await ask(proxy, image))
        site.there.faults = UP
        assert (await ask(proxy, image)).outcome is Outcome.PATCHED


async def test_an_image_that_the_mirror_forgot_is_made_again(site: Site) -> None:
    async with site.proxy(mirror_ttl=0.0) as proxy:
        image = site.world.add_image()
        first = await ask(proxy, image)
        site.forget(first)
        again = await ask(proxy, image)
        assert (again.outcome, again.patched) == (Outcome.PATCHED, first.patched)
        ref = ImageRef.parse(again.patched)
        assert ref.digest in site.there.manifests[ref.repository]


async def test_an_image_that_vanishes_while_its_record_is_confirmed_is_not_given_out(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with site.proxy(refresh_seconds=0.0, mirror_ttl=0.0, negative_ttl=0.0) as proxy:
        image = site.world.add_image()
        first = await ask(proxy, image)
        real = proxy.resolve._confirm

        async def confirm_and_lose(*arguments: Any) -> Any:
            kept = await real(*arguments)
            site.forget(first)
            return kept

        monkeypatch.setattr(proxy.resolve, "_confirm", confirm_and_lose)
        lost = await ask(proxy, image)
        assert lost.outcome is Outcome.FAILED
        assert f"the mirror does not have {first.patched}" in lost.reason
        monkeypatch.undo()
        assert (await ask(proxy, image)).outcome is Outcome.PATCHED


async def test_a_mirror_that_stalls_costs_no_more_than_the_callers_time(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(witness, "PATIENCE", 0.1)
    async with site.proxy(mirror_ttl=0.0) as proxy:
        image = site.world.add_image()
        assert (await ask(proxy, image)).outcome is Outcome.PATCHED
        site.there.faults = Faults(delay=5.0)
        start = time.monotonic()
        late = await ask(proxy, image, wait=0.4)
        assert 0.3 < time.monotonic() - start < 2.0
        assert late.outcome is Outcome.FAILED
        assert "the mirror has not said in time whether it has" in late.reason


async def test_the_embedded_mirror_is_asked_too(tmp_path: Path) -> None:
    async with World(tmp_path / "world") as world, Proxy(world.config(mirror_ttl=0.0)) as proxy:
        image = world.add_image()
        first = await ask(proxy, image)
        await proxy.mirror.delete(ImageRef.parse(first.patched))
        again = await ask(proxy, image)
        assert (again.outcome, again.patched) == (Outcome.PATCHED, first.patched)
        assert await proxy.mirror.get_manifest(ImageRef.parse(again.patched)) is not None


class Asked:
    """A mirror that counts its questions and answers when it is let."""

    def __init__(self) -> None:
        self.count, self.go = 0, asyncio.Event()

    async def get_manifest(self, _: ImageRef) -> object:
        self.count += 1
        await self.go.wait()
        return object()


async def test_many_who_ask_at_once_are_one_question_and_its_answer_counts_from_when_it_was_put() -> None:
    mirror: Any = Asked()
    asked = Witness(mirror, 0.3)
    ref = ImageRef("mirror.example", "x", digest=Digest.of(b"x"))
    waiting = [asyncio.create_task(asked.serves(ref, time.monotonic() + 5)) for _ in range(50)]
    await asyncio.sleep(0.2)
    mirror.go.set()
    assert all(await asyncio.gather(*waiting))
    assert mirror.count == 1
    assert await asked.serves(ref, 0.0)
    assert mirror.count == 1
    await asyncio.sleep(0.15)
    assert await asked.serves(ref, 0.0)
    assert mirror.count == 2
    await asked.close()


async def test_a_word_that_comes_late_is_there_for_the_next_who_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(witness, "PATIENCE", 0.05)
    mirror: Any = Asked()
    asked = Witness(mirror, 60.0)
    ref = ImageRef("mirror.example", "x", digest=Digest.of(b"x"))
    with pytest.raises(UpstreamUnavailable, match="has not said in time"):
        await asked.serves(ref, 0.0)
    mirror.go.set()
    await asyncio.sleep(0.01)
    assert await asked.serves(ref, 0.0)
    assert mirror.count == 1
    await asked.close()
