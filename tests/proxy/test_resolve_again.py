"""What is kept between resolves: newer and older sources, restarts, records."""

import asyncio
from pathlib import Path

import pytest

from proxy.api import Outcome, ResolveResponse
from proxy.oci.reference import ImageRef
from proxy.records import source_tag
from proxy.serve import Proxy
from tests.proxy.asking import ask, manifest_of, name_of, own_world
from tests.simulators.world import FIXED, FIXED_AGAIN, spy_on


async def test_newer_sources_give_a_newer_patched_digest_and_move_the_source_tag(tmp_path: Path) -> None:
    async with own_world(tmp_path) as world, Proxy(world.config(refresh_seconds=1.0)) as proxy:
        image = world.add_image()
        old = await ask(proxy, image)
        key = await only_key(proxy, old)
        world.publish(FIXED_AGAIN, month=3)
        assert (await ask(proxy, image)).patched == old.patched  # not asked yet
        await asyncio.sleep(1.05)
        new = await ask(proxy, image)
        assert new.outcome is Outcome.PATCHED
        assert {item.to_version for item in new.upgrades} == {FIXED_AGAIN}
        assert new.patched != old.patched
        name = ImageRef.parse(new.patched)
        tagged = await manifest_of(proxy, str(ImageRef(name.host, name.repository, source_tag(key))))
        assert tagged.digest == name.digest
        await manifest_of(proxy, old.patched)  # pods may still run it


async def only_key(proxy: Proxy, answer: ResolveResponse) -> str:
    tags = await proxy.mirror.tags(ImageRef.parse(answer.patched))
    (tag,) = [tag for tag in tags if tag.startswith("src-") and "." not in tag]
    return tag.removeprefix("src-")


async def test_unchanged_sources_are_asked_again_and_nothing_is_patched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with own_world(tmp_path) as world, Proxy(world.config(refresh_seconds=0.2)) as proxy:
        patches = spy_on(proxy.engine.patcher, monkeypatch)
        image = world.add_image()
        first = await ask(proxy, image)
        asked = len(world.source.requests)
        await asyncio.sleep(0.25)
        second = await ask(proxy, image)
        assert (second.patched, second.signature) == (first.patched, first.signature)
        assert len(world.source.requests) == asked + 2  # both suites' release files, nothing more
        assert patches == {name_of(image): 1}


async def test_a_clean_image_is_patched_once_its_sources_have_something_newer(tmp_path: Path) -> None:
    async with own_world(tmp_path) as world, Proxy(world.config(refresh_seconds=0.2)) as proxy:
        image = world.add_image(FIXED)
        assert (await ask(proxy, image)).outcome is Outcome.CLEAN
        world.publish(FIXED_AGAIN, month=3)
        await asyncio.sleep(0.25)
        assert (await ask(proxy, image)).outcome is Outcome.PATCHED


async def test_a_source_that_went_back_in_time_does_not_replace_the_newer_result(tmp_path: Path) -> None:
    async with own_world(tmp_path) as world, Proxy(world.config(refresh_seconds=0.2)) as proxy:
        image, other = world.add_image(), world.add_image()
        world.publish(FIXED_AGAIN, month=3)
        newer = await ask(proxy, image)
        world.publish(FIXED, month=2)
        await asyncio.sleep(0.25)
        assert (await ask(proxy, image)).patched == newer.patched
        late = await ask(proxy, other)
        assert {item.to_version for item in late.upgrades} == {FIXED_AGAIN}


async def test_a_proxy_with_an_empty_cache_keeps_the_newer_result_of_a_source_that_went_back(tmp_path: Path) -> None:
    async with own_world(tmp_path) as world:
        image, other = world.add_image(), world.add_image()
        world.publish(FIXED_AGAIN, month=3)
        async with Proxy(world.config(refresh_seconds=0.0)) as proxy:
            newer = await ask(proxy, image)
        world.publish(FIXED, month=2)
        config = world.config(refresh_seconds=0.0, cache=tmp_path / "empty")
        async with Proxy(config) as proxy:
            answer = await ask(proxy, image)
            assert (answer.outcome, answer.patched) == (Outcome.PATCHED, newer.patched)
            refused = await ask(proxy, other)
            assert refused.outcome is Outcome.FAILED
            assert "was seen before" in refused.reason


async def test_a_source_that_does_not_answer_leaves_the_patched_result_in_force(tmp_path: Path) -> None:
    async with own_world(tmp_path) as world:
        image = world.add_image()
        async with Proxy(world.config(refresh_seconds=0.0)) as proxy:
            made = await ask(proxy, image)
        world.publish(FIXED, fault="expired")
        async with Proxy(world.config(refresh_seconds=0.0, cache=tmp_path / "empty")) as proxy:
            answer = await ask(proxy, image)
        assert (answer.outcome, answer.patched) == (Outcome.PATCHED, made.patched)


async def test_a_restarted_proxy_answers_from_its_mirror_without_a_patch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with own_world(tmp_path) as world:
        image = world.add_image()
        async with Proxy(world.config()) as proxy:
            made = await ask(proxy, image)
        asked = len(world.source.requests)
        async with Proxy(world.config(cache=tmp_path / "empty")) as proxy:
            patches = spy_on(proxy.engine.patcher, monkeypatch)
            answer = await ask(proxy, image)
            assert (answer.patched, answer.signature) == (made.patched, made.signature)
            assert patches == {}
        assert len(world.source.requests) == asked
        assert world.upstream.count("GET", "/blobs/") == 2  # those of the first proxy


async def test_a_record_of_another_key_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with own_world(tmp_path) as world:
        image = world.add_image()
        async with Proxy(world.config()) as proxy:
            made = await ask(proxy, image)
        async with Proxy(world.config(signing_key=tmp_path / "other.pem")) as proxy:
            patches = spy_on(proxy.engine.patcher, monkeypatch)
            answer = await ask(proxy, image)
            assert patches == {name_of(image): 1}
        assert answer.patched == made.patched  # the same input gives the same digest
        assert answer.signature is not None
        assert made.signature is not None
        assert answer.signature.key_id != made.signature.key_id
