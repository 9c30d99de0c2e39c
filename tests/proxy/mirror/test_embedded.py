import asyncio
import json
import time
from pathlib import Path

import pytest

from proxy.blobs import BlobStore
from proxy.errors import AdmendError, MalformedInput, ResourceExhausted, TrustFailure
from proxy.mirror import EmbeddedMirror, Naming, patched_tag
from proxy.mirror.tags import superseded_tag
from proxy.oci.digest import Digest
from proxy.oci.manifest import Manifest
from proxy.oci.reference import ImageRef
from tests.simulators.images import Built, build, build_index

NAME = ImageRef.parse("mirror.example:5000/docker.io/library/nginx")
SRC = "src-" + "ab" * 16
DAY = 86400.0


async def put(mirror: EmbeddedMirror, built: Built, folder: Path, *tags: str, name: ImageRef = NAME) -> Digest:
    await mirror.put_image(name, built.top, built.children, built.files(folder), tags=tags)
    return built.top.digest


async def test_an_image_is_found_by_digest_and_by_tag(mirror: EmbeddedMirror, tmp_path: Path) -> None:
    built = build_index(build("one"), build("two"))
    digest = await put(mirror, built, tmp_path / "b", "1.25", SRC)
    for ref in (NAME.with_digest(digest), NAME.with_tag("1.25"), NAME.with_tag(patched_tag(digest))):
        assert await mirror.get_manifest(ref) == built.top
    assert await mirror.get_manifest(NAME.with_digest(built.children[0].digest)) == built.children[0]
    assert await mirror.tags(NAME) == tuple(sorted(("1.25", SRC, patched_tag(digest))))
    assert await mirror.get_manifest(NAME.with_tag("2")) is None
    other = ImageRef(NAME.host, "docker.io/library/other", None, digest)
    assert await mirror.get_manifest(other) is None


async def test_everything_is_there_after_a_restart(tmp_path: Path, naming: Naming) -> None:
    first = EmbeddedMirror(tmp_path / "m", naming, 1 << 20)
    digest = await put(first, build("one"), tmp_path / "b", "1.25")
    await first.close()
    again = EmbeddedMirror(tmp_path / "m", naming, 1 << 20)
    manifest = await again.get_manifest(NAME.with_tag("1.25"))
    assert manifest is not None
    assert manifest.digest == digest
    await again.close()


async def test_two_processes_cannot_share_a_folder(mirror: EmbeddedMirror, naming: Naming) -> None:
    with pytest.raises(AdmendError, match="another process"):
        EmbeddedMirror(mirror.layout.root, naming, 1)


async def test_a_missing_blob_is_named_and_nothing_is_visible(mirror: EmbeddedMirror, tmp_path: Path) -> None:
    built = build("one")
    files = built.files(tmp_path / "b")
    gone = files.popitem()[0]
    with pytest.raises(MalformedInput, match=gone.hex):
        await mirror.put_image(NAME, built.top, (), files)
    assert await mirror.tags(NAME) == ()
    assert await mirror.get_manifest(NAME.with_digest(built.top.digest)) is None


async def test_a_file_with_other_content_is_refused(mirror: EmbeddedMirror, tmp_path: Path) -> None:
    built = build("one")
    files = built.files(tmp_path / "b")
    victim = next(iter(files.values()))
    victim.write_bytes(victim.read_bytes()[::-1])
    with pytest.raises(TrustFailure, match="digest is"):
        await mirror.put_image(NAME, built.top, (), files)
    assert await mirror.tags(NAME) == ()


async def test_blobs_of_the_cache_are_linked_not_copied(tmp_path: Path, naming: Naming) -> None:
    cache = BlobStore(tmp_path / "cache", 1 << 20)
    mirror = EmbeddedMirror(tmp_path / "m", naming, 1 << 20, cache=cache)
    built = build("one")
    for data in built.data.values():
        await cache.put_bytes(data)
    await mirror.put_image(NAME, built.top, (), {digest: cache.path(digest) for digest in built.data})
    for digest in built.data:
        assert mirror.blobs.path(digest).samefile(cache.path(digest))
    await mirror.close()


async def test_the_tag_of_a_patched_digest_never_moves(mirror: EmbeddedMirror, tmp_path: Path) -> None:
    one = await put(mirror, build("one"), tmp_path / "b")
    two = await put(mirror, build("two"), tmp_path / "b")
    with pytest.raises(MalformedInput, match="only ever"):
        await mirror.move_tag(NAME.with_tag(patched_tag(one)), two)


async def test_a_tag_is_exchanged_only_when_it_is_where_the_writer_thinks(
    mirror: EmbeddedMirror, tmp_path: Path
) -> None:
    digests = [await put(mirror, build(str(number)), tmp_path / "b") for number in range(3)]
    ref = NAME.with_tag(SRC)
    results = await asyncio.gather(*(mirror.exchange_tag(ref, digest, None) for digest in digests))
    assert sorted(results) == [False, False, True]
    current = digests[results.index(True)]
    other = digests[results.index(False)]
    assert not await mirror.exchange_tag(ref, other, other)
    assert await mirror.exchange_tag(ref, other, current)
    found = await mirror.get_manifest(ref)
    assert found is not None
    assert found.digest == other
    with pytest.raises(MalformedInput, match="not there"):
        await mirror.move_tag(ref, Digest.of(b"nothing"))


async def test_referrers_are_listed_by_subject_and_type(mirror: EmbeddedMirror, tmp_path: Path) -> None:
    subject = build("one").top
    assert isinstance(subject, Manifest)
    digest = await put(mirror, build("one"), tmp_path / "b")
    for kind in ("application/a", "application/b"):
        artifact = build(kind, subject=subject, artifact_type=kind)
        assert isinstance(artifact.top, Manifest)
        await mirror.put_artifact(NAME.with_digest(artifact.top.digest), artifact.top, artifact.data)
    ref = NAME.with_digest(digest)
    assert {item.artifact_type for item in await mirror.referrers(ref)} == {"application/a", "application/b"}
    (only,) = await mirror.referrers(ref, "application/a")
    assert await mirror.get_manifest(NAME.with_digest(only.digest)) is not None
    assert await mirror.referrers(NAME.with_digest(Digest.of(b"x"))) == ()


async def test_a_small_blob_is_read_back_checked(mirror: EmbeddedMirror) -> None:
    artifact = build("record")
    assert isinstance(artifact.top, Manifest)
    await mirror.put_artifact(NAME.with_tag(f"{SRC}.result"), artifact.top, artifact.data)
    layer = artifact.top.layers[0]
    assert await mirror.read_blob(NAME, layer, limit=1 << 20) == artifact.data[layer.digest]
    with pytest.raises(TrustFailure, match="over the 3 bytes"):
        await mirror.read_blob(NAME, layer, limit=3)
    path = mirror.blobs.path(layer.digest)
    path.write_bytes(path.read_bytes()[::-1])
    with pytest.raises(TrustFailure, match="damaged"):
        await mirror.read_blob(NAME, layer, limit=1 << 20)


async def test_a_deleted_manifest_takes_its_tags_along_but_not_out_of_an_index(
    mirror: EmbeddedMirror, tmp_path: Path
) -> None:
    built = build_index(build("one"), build("two"))
    digest = await put(mirror, built, tmp_path / "b", "1.25")
    with pytest.raises(MalformedInput, match="part of the index"):
        await mirror.delete(NAME.with_digest(built.children[0].digest))
    assert await mirror.delete(NAME.with_tag("1.25"))
    assert not await mirror.delete(NAME.with_tag("1.25"))
    assert await mirror.delete(NAME.with_digest(digest))
    assert await mirror.tags(NAME) == ()
    assert await mirror.get_manifest(NAME.with_digest(digest)) is None


async def test_a_superseded_image_goes_after_its_time_unless_it_is_in_use(
    mirror: EmbeddedMirror, tmp_path: Path
) -> None:
    old, used, new = [build_index(build(f"{n}a"), build(f"{n}b")) for n in range(3)]
    for built in (old, used, new):
        await put(mirror, built, tmp_path / "b")
        await mirror.move_tag(NAME.with_tag(SRC), built.top.digest)
    in_use = {used.children[1].digest}
    assert await mirror.retain(DAY, in_use) == ()
    past = time.time() - 2 * DAY
    for built in (old, used):
        descriptor = mirror.layout.tags(NAME.repository)[patched_tag(built.top.digest)]
        for tag in [tag for tag in await mirror.tags(NAME) if tag.startswith(superseded_tag(built.top.digest, 0)[:-1])]:
            mirror.layout.drop_tags(NAME.repository, [tag])
        mirror.layout.set_tag(NAME.repository, superseded_tag(built.top.digest, past), descriptor)
    assert await mirror.retain(DAY, in_use) == (old.top.digest,)
    for built, there in ((old, False), (used, True), (new, True)):
        for manifest in (built.top, *built.children):
            assert (await mirror.get_manifest(NAME.with_digest(manifest.digest)) is not None) is there
        assert all(mirror.blobs.has(digest) is there for digest in built.data)
    assert all(old.top.digest.hex not in tag for tag in await mirror.tags(NAME))


async def test_collection_takes_what_nothing_references_and_leaves_signatures_of_what_stays(
    mirror: EmbeddedMirror, tmp_path: Path
) -> None:
    built = build("one")
    assert isinstance(built.top, Manifest)
    await put(mirror, built, tmp_path / "b")
    signature = build("signature", subject=built.top, artifact_type="application/sig")
    assert isinstance(signature.top, Manifest)
    await mirror.put_artifact(NAME.with_digest(signature.top.digest), signature.top, signature.data)
    orphan = await mirror.blobs.put_bytes(b"orphan")
    pushed = await mirror.blobs.put_bytes(b"pushed just now")
    with mirror.blobs.pin([pushed]):
        await mirror.retain(DAY, set())
    assert not mirror.blobs.has(orphan)
    assert mirror.blobs.has(pushed)
    assert len(await mirror.referrers(NAME.with_digest(built.top.digest))) == 1
    await mirror.delete(NAME.with_digest(built.top.digest))
    await mirror.retain(DAY, set())
    assert mirror.blobs.used == 0
    assert mirror.layout.repositories() == ()


async def test_a_collection_that_is_cut_short_leaves_no_index_with_a_hole(
    mirror: EmbeddedMirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropped: list[Digest] = []
    drop = mirror.layout.drop_manifest

    def note(repository: str, digest: Digest, subject: Digest | None) -> None:
        dropped.append(digest)
        drop(repository, digest, subject)

    indexes = [build_index(*(build(f"{number}{letter}") for letter in "abc")) for number in range(4)]
    for built in indexes:
        digest = await put(mirror, built, tmp_path / "b")
        await mirror.delete(NAME.with_tag(patched_tag(digest)))
    monkeypatch.setattr(mirror.layout, "drop_manifest", note)
    await mirror.retain(0, set())
    assert len(dropped) == 16
    for built in indexes:
        assert all(dropped.index(built.top.digest) < dropped.index(child.digest) for child in built.children)


async def test_pushes_and_collections_side_by_side_leave_every_image_whole(
    mirror: EmbeddedMirror, tmp_path: Path
) -> None:
    async def push(number: int) -> None:
        built = build_index(build(f"{number}a"), build(f"{number}b"))
        await put(mirror, built, tmp_path / str(number), f"t{number}")

    async def collect() -> None:
        for _ in range(10):
            await mirror.retain(0, set())

    await asyncio.gather(collect(), *(push(number) for number in range(20)))
    assert len([tag for tag in await mirror.tags(NAME) if tag.startswith("t")]) == 20
    for tag in await mirror.tags(NAME):
        index = await mirror.get_manifest(NAME.with_tag(tag))
        assert index is not None
        assert mirror.missing(NAME.repository, index) == ()
        for child in index.manifests:  # type: ignore[union-attr]
            manifest = await mirror.get_manifest(NAME.with_digest(child.digest))
            assert manifest is not None
            assert mirror.missing(NAME.repository, manifest) == ()


async def test_what_does_not_fit_is_refused_before_anything_is_written(tmp_path: Path, naming: Naming) -> None:
    mirror = EmbeddedMirror(tmp_path / "m", naming, 4000, grace=0.0)
    first = build("one")
    await put(mirror, first, tmp_path / "b")
    before = set(mirror.blobs)
    large = build_index(*(build(f"{n}" * 2000) for n in range(3)))
    huge = Built(large.top, large.children, large.data)
    mirror.blobs.max_bytes = mirror.blobs.used + 10
    with pytest.raises(ResourceExhausted, match="max_bytes"):
        await put(mirror, huge, tmp_path / "b")
    assert set(mirror.blobs) == before
    assert await mirror.get_manifest(NAME.with_digest(first.top.digest)) == first.top
    await mirror.close()


async def test_unreferenced_blobs_make_room(tmp_path: Path, naming: Naming) -> None:
    mirror = EmbeddedMirror(tmp_path / "m", naming, 4000, grace=0.0)
    await mirror.blobs.put_bytes(b"x" * 3900)
    built = build("one")
    assert await put(mirror, built, tmp_path / "b") == built.top.digest
    await mirror.close()


async def test_the_index_of_the_layout_lists_every_tag(tmp_path: Path, naming: Naming) -> None:
    mirror = EmbeddedMirror(tmp_path / "m", naming, 1 << 20)
    digest = await put(mirror, build("one"), tmp_path / "b", "1.25")
    await mirror.close()
    document = json.loads((mirror.layout.root / "index.json").read_bytes())
    names = {item["annotations"]["org.opencontainers.image.ref.name"]: item["digest"] for item in document["manifests"]}
    assert names == {f"docker.io/library/nginx:{tag}": str(digest) for tag in ("1.25", patched_tag(digest))}


async def test_a_damaged_tag_file_is_passed_over(
    tmp_path: Path, naming: Naming, caplog: pytest.LogCaptureFixture
) -> None:
    mirror = EmbeddedMirror(tmp_path / "m", naming, 1 << 20)
    digest = await put(mirror, build("one"), tmp_path / "b", "good", "bad")
    await mirror.close()
    (tmp_path / "m" / "repositories" / NAME.repository / "_tags" / "bad").write_bytes(b"{")
    again = EmbeddedMirror(tmp_path / "m", naming, 1 << 20)
    assert await again.tags(NAME) == ("good", patched_tag(digest))
    assert "damaged" in caplog.text
    await again.close()


async def test_a_full_disk_leaves_what_was_there_and_takes_pushes_again_when_freed(
    tiny_disk: Path, tmp_path: Path, naming: Naming
) -> None:
    mirror = EmbeddedMirror(tiny_disk / "m", naming, 1 << 30, grace=0.0)
    built = build("one")
    await put(mirror, built, tmp_path / "b", "1")
    ballast = tiny_disk / "ballast"
    with pytest.raises(OSError, match="No space"):
        ballast.write_bytes(b"x" * (1 << 20))
    second = build_index(build("two"), build("three"))
    with pytest.raises(ResourceExhausted, match="full"):
        await put(mirror, second, tmp_path / "b", "1")
    assert await mirror.get_manifest(NAME.with_tag("1")) == built.top
    ballast.unlink()
    await put(mirror, second, tmp_path / "b", "1")
    await mirror.close()
    again = EmbeddedMirror(tiny_disk / "m", naming, 1 << 30)
    assert await again.get_manifest(NAME.with_tag("1")) == second.top
    await again.close()
