"""Publishing the same image again and again: what piles up, and what stays."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from proxy.api import Outcome
from proxy.errors import Unsupported, UpstreamUnavailable
from proxy.oci.reference import ImageRef
from proxy.phases import Phases
from proxy.publish import Publisher
from proxy.records import Record, Records
from proxy.results import PatchResult
from proxy.trust import SIGNATURE_ARTIFACT, SigningKey, render_referrer, sign_claim, signature_tag
from tests.simulators.images import build

NAME = ImageRef("mirror.example", "docker.io/library/nginx")
SOURCE = f"docker.io/library/nginx@sha256:{'0' * 64}"
KEY = SigningKey.generate()
START = datetime.now(UTC) - timedelta(days=3)
IMAGE = build("patched")


class World:
    def __init__(self, folder, mirror):
        self.folder, self.mirror = folder, mirror

    def publisher(self, key=KEY, policy="0" * 64):
        return Publisher(self.mirror, Records(self.mirror, key), key, policy)

    async def publish(self, day, source=SOURCE, **options):
        signed = START + timedelta(days=day)
        record = Record(
            key="ab" * 16,
            outcome=Outcome.PATCHED,
            source=source,
            patched=str(IMAGE.top.digest),
            checked=signed,
            signed=signed,
        )
        blobs = IMAGE.files(self.folder / "image")
        result = PatchResult(Outcome.PATCHED, ImageRef.parse(source).digest, (), "", IMAGE.top, (), blobs)
        return await self.publisher(**options).publish(NAME, record, result, Phases())

    async def signatures(self):
        found = await self.mirror.referrers(NAME.with_digest(IMAGE.top.digest), SIGNATURE_ARTIFACT)
        return {item.digest for item in found}


@pytest.fixture
def world(tmp_path, either_mirror):
    return World(tmp_path, either_mirror)


async def test_a_newer_signature_takes_the_place_of_the_older(world):
    await world.publish(0)
    first = await world.signatures()
    await world.publish(1)
    second = await world.signatures()
    assert len(first) == len(second) == 1
    assert first != second


async def test_signing_anew_leaves_one_signature_and_the_image_its_tags_and_its_record(world):
    record = await world.publish(0)
    tags = await world.mirror.tags(NAME)
    first = await world.signatures()
    renewed = await world.publisher().resign(NAME, record)
    assert renewed.signed > record.signed
    assert len(await world.signatures()) == 1
    assert await world.signatures() != first
    assert await world.mirror.tags(NAME) == tags
    assert await Records(world.mirror, KEY).load(NAME, record.key) == renewed
    assert await world.mirror.get_manifest(NAME.with_tag(signature_tag(IMAGE.top.digest))) is not None


async def test_a_signature_that_says_something_else_or_is_of_another_key_stays(world):
    await world.publish(0)
    await world.publish(1, source=f"docker.io/library/nginx@sha256:{'1' * 64}")
    await world.publish(1, policy="1" * 64)
    await world.publish(1, key=SigningKey.generate())
    assert len(await world.signatures()) == 4
    await world.publish(2)
    assert len(await world.signatures()) == 4


async def test_a_replica_whose_clock_is_behind_removes_no_newer_signature(world):
    await world.publish(1)
    newer = await world.signatures()
    await world.publish(0)
    assert newer < await world.signatures()


async def test_a_referrer_that_mixes_another_keys_signature_in_stays(world):
    await world.publish(0)
    publisher = world.publisher()
    (only,) = await world.signatures()
    manifest = await world.mirror.get_manifest(NAME.with_digest(only))
    (claim,) = await publisher._claims(NAME, manifest)
    mixed = [sign_claim(claim, KEY), sign_claim(replace(claim, policy_hash="f"), SigningKey.generate())]
    attached = render_referrer(IMAGE.top, mixed)
    ref = NAME.with_digest(attached.manifest.digest)
    await world.mirror.put_artifact(ref, attached.manifest, attached.blobs)
    await world.publish(1)
    assert attached.manifest.digest in await world.signatures()


@pytest.mark.parametrize("error", [Unsupported("no deletions here"), UpstreamUnavailable("gone")])
async def test_a_mirror_that_does_not_delete_keeps_all_signatures_and_publishing_goes_on(world, monkeypatch, error):
    async def refuse(ref):
        raise error

    monkeypatch.setattr(world.mirror, "delete", refuse)
    await world.publish(0)
    record = await world.publish(1)
    assert record.signature is not None
    assert len(await world.signatures()) == 2
