"""Records of several replicas over one mirror: what is made from newer sources stays."""

import asyncio
from datetime import UTC, datetime

import pytest

from proxy.api import Outcome, SourceDate
from proxy.errors import TrustFailure, UpstreamUnavailable
from proxy.oci.artifact import render_artifact
from proxy.oci.digest import Digest
from proxy.oci.reference import ImageRef
from proxy.records import RECORD_TYPE, Record, Records, source_tag
from proxy.trust import SigningKey
from tests.simulators.images import build

NAME = ImageRef("mirror.example", "docker.io/library/nginx")
KEY = "ab" * 16
SIGNING = SigningKey.generate()
DAYS = [datetime(2026, 1, day, tzinfo=UTC).isoformat() for day in range(1, 32)]


def record(days, patched="", outcome=Outcome.PATCHED):
    now = datetime.now(UTC)
    dates = tuple(SourceDate(source=name, date=DAYS[day]) for name, day in days.items())
    source = f"docker.io/library/nginx@sha256:{'0' * 64}"
    return Record(key=KEY, outcome=outcome, source=source, patched=patched, as_of=dates, checked=now, signed=now)


@pytest.fixture
def mirror(either_mirror):
    return either_mirror


only_embedded = pytest.mark.parametrize("either_mirror", ["embedded"], indirect=True)


class Overtaken:
    """A mirror before whose next exchanges another replica gets its way."""

    def __init__(self, mirror, *others):
        self._mirror, self._others = mirror, list(others)

    def __getattr__(self, name):
        return getattr(self._mirror, name)

    async def exchange_tag(self, ref, digest, expected):
        if self._others:
            await self._others.pop(0)()
        return await self._mirror.exchange_tag(ref, digest, expected)


@pytest.mark.parametrize(
    ("mine", "theirs", "newer"),
    [
        ({"a": 2}, {"a": 1}, True),
        ({"a": 1}, {"a": 1}, False),
        ({"a": 1}, {"a": 2}, False),
        ({"a": 2, "b": 1}, {"a": 1, "b": 2}, False),
        ({"a": 2, "b": 1}, {"a": 1, "b": 1}, True),
        ({"a": 1, "b": 1}, {"a": 1}, False),  # a source that is new here makes nothing newer
        ({"a": 1}, {"a": 1, "b": 1}, False),  # nor one that was taken out of the configuration
        ({"a": 2}, {"a": 1, "b": 1}, True),
        ({}, {"a": 1}, False),
    ],
)
def test_a_record_is_newer_only_by_the_sources_that_both_have(mine, theirs, newer):
    assert record(mine).newer_than(record(theirs)) is newer


async def test_a_replica_with_older_sources_is_given_the_record_of_newer_ones(mirror):
    newer, older = Records(mirror, SIGNING), Records(mirror, SIGNING)
    held = await newer.save(NAME, record({"a": 5}))
    assert await older.save(NAME, record({"a": 4}, outcome=Outcome.CLEAN)) == held
    assert await older.load(NAME, KEY) == held


async def test_a_writer_that_is_overtaken_reads_again_and_yields_to_newer_sources(mirror):
    other = Records(mirror, SIGNING)
    newest = record({"a": 9})
    late = Records(Overtaken(mirror, lambda: other.save(NAME, newest)), SIGNING)
    assert await late.save(NAME, record({"a": 8})) == newest
    assert await other.load(NAME, KEY) == newest


async def test_a_writer_that_is_overtaken_by_older_sources_still_has_its_way(mirror):
    other = Records(mirror, SIGNING)
    first, newest = record({"a": 1}), record({"a": 9})
    late = Records(Overtaken(mirror, lambda: other.save(NAME, first)), SIGNING)
    assert await late.save(NAME, newest) == newest
    assert await other.load(NAME, KEY) == newest


async def test_a_writer_that_never_gets_its_turn_gives_up_and_says_so(mirror):
    other = Records(mirror, SIGNING)
    many = [lambda: other.save(NAME, record({"a": 1}))] * 40
    with pytest.raises(UpstreamUnavailable, match="other replicas"):
        await Records(Overtaken(mirror, *many), SIGNING).save(NAME, record({"a": 2}))


@only_embedded  # a registry has no compare-and-set
async def test_of_many_writers_at_once_the_newest_sources_hold(mirror):
    replicas = [Records(mirror, SIGNING), Records(mirror, SIGNING)]
    order = [3, 17, 9, 25, 1, 12, 20, 6]
    kept = await asyncio.gather(*(replicas[n % 2].save(NAME, record({"a": day})) for n, day in enumerate(order)))
    assert (await replicas[0].load(NAME, KEY)).as_of[0].date == DAYS[25]
    assert kept[order.index(25)].as_of[0].date == DAYS[25]


async def test_the_tag_of_the_newest_image_does_not_follow_a_record_that_was_overtaken(mirror, tmp_path):
    images = [build(text) for text in ("older", "newer")]
    older, newer = (record({"a": day}, str(item.top.digest)) for day, item in zip((1, 2), images, strict=True))
    for number, item in enumerate(images):
        await mirror.put_image(NAME, item.top, (), item.files(tmp_path / f"image{number}"))
    other = Records(mirror, SIGNING)

    async def overtake():
        await other.save(NAME, newer)
        assert await other.point(NAME, newer)

    late = Records(Overtaken(mirror, overtake), SIGNING)
    await other.save(NAME, older)
    assert not await late.point(NAME, older)
    tag = NAME.with_tag(source_tag(KEY))
    assert (await mirror.get_manifest(tag)).digest == Digest.parse(newer.patched)
    assert not await late.point(NAME, older)
    assert (await mirror.get_manifest(tag)).digest == Digest.parse(newer.patched)


async def test_a_record_whose_writer_was_killed_before_he_set_the_tag_is_mended_and_never_backwards(mirror, tmp_path):
    images = [build(text) for text in ("older", "newer")]
    older, newer = (record({"a": day}, str(item.top.digest)) for day, item in zip((1, 2), images, strict=True))
    for number, item in enumerate(images):
        await mirror.put_image(NAME, item.top, (), item.files(tmp_path / f"image{number}"))
    records, tag = Records(mirror, SIGNING), NAME.with_tag(source_tag(KEY))
    for held in (older, newer):
        await records.save(NAME, held)
        await records.mend(NAME, held)
        assert (await mirror.get_manifest(tag)).digest == Digest.parse(held.patched)
    await records.mend(NAME, older)
    await records.mend(NAME, record({"a": 3}, outcome=Outcome.CLEAN))
    assert (await mirror.get_manifest(tag)).digest == Digest.parse(newer.patched)


@pytest.mark.parametrize("raw", [b"{}", b"not even JSON"])
async def test_a_record_that_does_not_hold_is_overwritten(mirror, raw):
    manifest, blobs = render_artifact(RECORD_TYPE, raw)
    await mirror.put_artifact(NAME.with_tag(f"{source_tag(KEY)}.result"), manifest, blobs)
    records, mine = Records(mirror, SIGNING), record({"a": 1})
    assert await records.save(NAME, mine) == mine
    assert await records.load(NAME, KEY) == mine


async def test_a_record_of_another_key_is_refused_and_overwritten(mirror):
    await Records(mirror, SigningKey.generate()).save(NAME, record({"a": 9}))
    records, mine = Records(mirror, SIGNING), record({"a": 1})
    with pytest.raises(TrustFailure, match="not signed with this proxy's key"):
        await records.load(NAME, KEY)
    assert await records.save(NAME, mine) == mine
    assert await records.load(NAME, KEY) == mine


@only_embedded
async def test_a_record_whose_manifest_is_damaged_on_disk_is_overwritten(mirror):
    records = Records(mirror, SIGNING)
    await records.save(NAME, record({"a": 1}))
    held = await mirror.get_manifest(NAME.with_tag(f"{source_tag(KEY)}.result"))
    mirror.blobs.final(held.digest).write_bytes(b"?" * len(held.raw))
    mine = record({"a": 2})
    assert await records.save(NAME, mine) == mine
    assert await records.load(NAME, KEY) == mine


async def test_a_record_of_another_image_is_refused_even_with_the_right_key(mirror):
    records, other = Records(mirror, SIGNING), ImageRef("mirror.example", "docker.io/library/redis")
    await records.save(NAME, record({"a": 1}))
    held = await mirror.get_manifest(NAME.with_tag(f"{source_tag(KEY)}.result"))
    await mirror.put_artifact(other.with_tag(f"{source_tag(KEY)}.result"), held, {})
    with pytest.raises(TrustFailure, match="another image"):
        await records.load(other, KEY)
