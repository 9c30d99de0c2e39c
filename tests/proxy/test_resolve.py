"""References to outcomes, through a whole proxy between a simulated registry and a simulated package source."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import pytest_asyncio

from proxy.api import Outcome
from proxy.oci.digest import Digest
from proxy.oci.manifest import Index, Manifest
from proxy.oci.reference import ImageRef
from proxy.serve import Proxy
from proxy.trust import Claim, signature_tag, verify_signature
from tests.proxy.asking import ask, manifest_of, name_of, until
from tests.simulators.world import FIXED, RELEASED, World, spy_on

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with World(tmp_path_factory.mktemp("world")) as opened:
        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def proxy(world: World) -> AsyncIterator[Proxy]:
    config = world.config(tag_ttl=0.5, negative_ttl=0.5)
    async with Proxy(config) as opened:
        yield opened


@pytest.fixture
def patches(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    return spy_on(proxy.engine.patcher, monkeypatch)


@pytest.fixture
def faults(world: World) -> Iterator[Any]:
    yield world.upstream.faults
    world.upstream.faults.delay = 0.0
    world.upstream.faults.refuse = 0


async def test_a_new_image_is_patched_signed_and_kept_under_its_tags(world: World, proxy: Proxy) -> None:
    image = world.add_image()
    answer = await ask(proxy, image)
    assert (answer.outcome, answer.reason, answer.stale) == (Outcome.PATCHED, "", False)
    moved = {item.package: (item.from_version, item.to_version) for item in answer.upgrades}
    assert moved == {"demo": (RELEASED, FIXED), "libdemo1": (RELEASED, FIXED)}
    patched = ImageRef.parse(answer.patched)
    assert patched.repository == name_of(image).replace(":", "_")
    manifest = await manifest_of(proxy, answer.patched)
    assert manifest.digest == patched.digest
    tags = await proxy.mirror.tags(patched)
    assert [tag for tag in tags if tag.startswith("src-") and not tag.endswith(".result")]
    assert signature_tag(manifest.digest) in tags
    assert len(await proxy.mirror.referrers(patched)) == 1


async def test_the_answer_carries_a_signature_that_binds_source_and_patched_image(world: World, proxy: Proxy) -> None:
    import base64  # noqa: PLC0415

    answer = await ask(proxy, world.add_image())
    assert answer.signature is not None
    payload, signature = (base64.b64decode(text) for text in (answer.signature.payload, answer.signature.signature))
    claim: Claim = verify_signature(payload, signature, [proxy.keys.signing.public])
    source, patched = ImageRef.parse(answer.source), ImageRef.parse(answer.patched)
    assert (claim.source_repository, claim.source_digest) == (source.name, source.digest)
    assert (claim.patched_repository, claim.patched_digest) == (patched.name, patched.digest)


async def test_fifty_concurrent_resolves_of_one_new_image_cost_one_patch(
    world: World, proxy: Proxy, patches: Counter[str]
) -> None:
    image = world.add_image()
    path = image.split("/", 1)[1].rpartition(":")[0]
    answers = await asyncio.gather(*(ask(proxy, image) for _ in range(50)))
    assert {answer.patched for answer in answers} == {answers[0].patched}
    assert {answer.outcome for answer in answers} == {Outcome.PATCHED}
    assert patches == {name_of(image): 1}
    assert world.upstream.count("HEAD", f"{path}/manifests/") == 1
    assert world.upstream.count("GET", f"{path}/manifests/") == 1
    assert world.upstream.count("GET", f"{path}/blobs/") == 2  # config and layer


async def test_tags_of_one_digest_cost_one_patch(world: World, proxy: Proxy, patches: Counter[str]) -> None:
    first = world.add_image()
    name = name_of(first).split("/", 1)[1]
    second = world.add_image(name=name, tag="other")
    one, two = await asyncio.gather(ask(proxy, first), ask(proxy, second))
    assert one.patched == two.patched
    assert patches == {name_of(first): 1}


async def test_a_patch_past_the_deadline_is_pending_and_goes_on_in_the_background(
    world: World, proxy: Proxy, patches: Counter[str], faults: Any
) -> None:
    image, warm = world.add_image(), world.add_image()
    assert (await ask(proxy, warm)).outcome is Outcome.PATCHED  # so that only the registry is slow
    faults.delay = 0.15
    start = time.monotonic()
    answer = await ask(proxy, image, wait=0.2)
    assert time.monotonic() - start < 0.5
    assert (answer.outcome, answer.patched) == (Outcome.PENDING, "")
    assert answer.source.startswith(name_of(image) + "@sha256:")
    assert (await until(proxy, image)).outcome is Outcome.PATCHED
    assert patches[name_of(image)] == 1


async def test_a_registry_that_does_not_answer_in_time_is_pending(world: World, proxy: Proxy, faults: Any) -> None:
    image = world.add_image()
    faults.delay = 0.3
    answer = await ask(proxy, image, wait=0.05)
    assert (answer.outcome, answer.source) == (Outcome.PENDING, "")
    assert "has not answered yet" in answer.reason
    faults.delay = 0.0
    assert (await until(proxy, image)).outcome is Outcome.PATCHED


async def test_a_failure_is_remembered_for_a_short_time(world: World, proxy: Proxy, patches: Counter[str]) -> None:
    image = world.add_image()
    name = name_of(image).split("/", 1)[1]
    blobs = world.upstream.blobs[name]
    kept = dict(blobs)
    blobs.clear()
    answer = await ask(proxy, image)
    assert answer.outcome is Outcome.FAILED
    assert "is not in the registry" in answer.reason
    asked = world.upstream.count(part=name)
    blobs.update(kept)
    assert (await ask(proxy, image)).outcome is Outcome.FAILED
    assert world.upstream.count(part=name) == asked
    assert patches[name_of(image)] == 1
    await asyncio.sleep(0.6)  # negative_ttl is 0.5
    assert (await ask(proxy, image)).outcome is Outcome.PATCHED


async def test_an_unknown_image_fails_with_its_name(world: World, proxy: Proxy) -> None:
    answer = await ask(proxy, f"{world.upstream.host}/no/such:image")
    assert answer.outcome is Outcome.FAILED
    assert f"{world.upstream.host}/no/such:image" in answer.reason


async def test_a_tag_is_reused_within_its_time_and_asked_for_again_after_it(world: World, proxy: Proxy) -> None:
    image = world.add_image()
    name = name_of(image).split("/", 1)[1]
    first = await ask(proxy, image)
    world.push(name, "1", text="moved on")
    again = await ask(proxy, image)
    assert again.source == first.source
    assert world.upstream.count("HEAD", name) == 1
    await asyncio.sleep(0.6)  # tag_ttl is 0.5
    assert (await ask(proxy, image)).source != first.source
    assert world.upstream.count("HEAD", name) == 2


async def test_always_asks_the_registry_what_the_tag_points_at_now(world: World, proxy: Proxy) -> None:
    image = world.add_image()
    first = await ask(proxy, image)
    moved = world.push(name_of(image).split("/", 1)[1], "1", text="moved on")
    answer = await ask(proxy, image, always=True)
    assert answer.source != first.source
    assert answer.source.endswith(str(moved.digest))


async def test_a_digest_is_asked_for_once_to_see_that_anybody_may_have_it(world: World, proxy: Proxy) -> None:
    image = world.add_image()
    name = name_of(image).split("/", 1)[1]
    digest = world.upstream.tags[name]["1"]
    answer = await ask(proxy, f"{name_of(image)}:1@{digest}")
    assert answer.outcome is Outcome.PATCHED
    assert answer.source == f"{name_of(image)}@{digest}"
    assert (await ask(proxy, f"{name_of(image)}@{digest}", always=True)).outcome is Outcome.PATCHED
    assert world.upstream.count("HEAD", name) == 1


async def test_a_dry_run_starts_nothing_and_answers_from_the_cache(
    world: World, proxy: Proxy, patches: Counter[str]
) -> None:
    image = world.add_image()
    name = name_of(image).split("/", 1)[1]
    assert (await ask(proxy, image, dry_run=True)).outcome is Outcome.PENDING
    digest = world.upstream.tags[name]["1"]
    assert (await ask(proxy, f"{name_of(image)}@{digest}", dry_run=True)).outcome is Outcome.PENDING
    assert world.upstream.count(part=name) == 0
    assert proxy.resolve.running == 0
    assert patches == {}
    made = await ask(proxy, image)
    asked = world.upstream.count(part=name)
    assert (await ask(proxy, image, dry_run=True)).patched == made.patched
    assert world.upstream.count(part=name) == asked


async def test_an_image_without_newer_packages_is_clean(world: World, proxy: Proxy) -> None:
    image = world.add_image(FIXED)
    answer = await ask(proxy, image)
    assert (answer.outcome, answer.patched, answer.upgrades) == (Outcome.CLEAN, "", ())
    assert len(answer.as_of) == 2


async def test_an_image_without_a_package_database_is_unsupported(world: World, proxy: Proxy) -> None:
    from tests.simulators.registry import make_layer  # noqa: PLC0415

    world.upstream.add_image("team/scratch", "1", [make_layer({"app": b"static"})])
    answer = await ask(proxy, f"{world.upstream.host}/team/scratch:1")
    assert answer.outcome is Outcome.UNSUPPORTED
    assert answer.reason


async def test_a_windows_image_is_unsupported(world: World, proxy: Proxy) -> None:
    world.upstream.add_image("team/windows", "1", [], platform="windows/amd64")
    answer = await ask(proxy, f"{world.upstream.host}/team/windows:1")
    assert answer.outcome is Outcome.UNSUPPORTED
    assert "windows" in answer.reason


async def test_a_mirror_reference_by_digest_or_tag_maps_back_to_its_original(world: World, proxy: Proxy) -> None:
    image = world.add_image()
    made = await ask(proxy, image)
    by_digest = await ask(proxy, made.patched)
    assert (by_digest.outcome, by_digest.patched, by_digest.source) == (Outcome.PATCHED, made.patched, made.source)
    in_mirror = ImageRef.parse(made.patched).name
    by_tag = await ask(proxy, f"{in_mirror}:1")
    assert (by_tag.image, by_tag.patched, by_tag.source) == (image, made.patched, made.source)


async def test_a_digest_in_the_mirror_that_nobody_signed_is_taken_for_an_original(world: World, proxy: Proxy) -> None:
    made = await ask(proxy, world.add_image())
    foreign = f"{ImageRef.parse(made.patched).name}@{Digest.of(b'nothing')}"
    assert (await ask(proxy, foreign)).outcome is Outcome.FAILED


async def test_an_index_holds_the_platforms_asked_for_each_patched(world: World, proxy: Proxy) -> None:
    world.push_index("team/multi", "1")
    image = f"{world.upstream.host}/team/multi:1"
    both = await ask(proxy, image, platforms=("linux/arm64", "linux/amd64"))
    assert both.outcome is Outcome.PATCHED
    index = await manifest_of(proxy, both.patched)
    assert isinstance(index, Index)
    assert [str(item.platform) for item in index.manifests] == ["linux/amd64", "linux/arm64"]
    name = ImageRef.parse(both.patched)
    children = [await manifest_of(proxy, str(name.with_digest(item.digest))) for item in index.manifests]
    assert all(isinstance(child, Manifest) and len(child.layers) == 2 for child in children)
    originals = {item.digest for item in (await original_index(world)).manifests}
    assert originals.isdisjoint(item.digest for item in index.manifests)


async def original_index(world: World) -> Index:
    from proxy.oci.manifest import parse_manifest  # noqa: PLC0415

    digest = world.upstream.tags["team/multi"]["1"]
    index = parse_manifest(*world.upstream.manifests["team/multi"][digest])
    assert isinstance(index, Index)
    return index


async def test_an_index_patched_for_one_platform_holds_only_that(world: World, proxy: Proxy) -> None:
    world.push_index("team/half", "1")
    answer = await ask(proxy, f"{world.upstream.host}/team/half:1", platforms=("linux/arm64",))
    index = await manifest_of(proxy, answer.patched)
    assert isinstance(index, Index)
    assert [str(item.platform) for item in index.manifests] == ["linux/arm64"]
    default = await ask(proxy, f"{world.upstream.host}/team/half:1")
    assert default.patched != answer.patched


async def test_a_platform_that_the_index_lacks_is_named(world: World, proxy: Proxy) -> None:
    world.push_index("team/lacking", "1", ["amd64"])
    answer = await ask(proxy, f"{world.upstream.host}/team/lacking:1", platforms=("linux/s390x",))
    assert answer.outcome is Outcome.FAILED
    assert "linux/s390x" in answer.reason
    assert "linux/amd64" in answer.reason


async def test_the_answer_says_when_its_sources_were_made(world: World, proxy: Proxy) -> None:
    answer = await ask(proxy, world.add_image())
    dates = {item.source.rpartition(" ")[2]: datetime.fromisoformat(item.date) for item in answer.as_of}
    assert dates == {
        "bookworm": datetime(2026, 1, 1, tzinfo=UTC),
        "bookworm-security": datetime(2026, 2, 1, tzinfo=UTC),
    }
