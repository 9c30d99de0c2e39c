"""Uploads, mounts, deletions."""

import io
import random
from collections.abc import Callable
from typing import BinaryIO

import pytest

from proxy.errors import ResourceExhausted, TrustFailure, Unsupported, UpstreamRefused, UpstreamUnavailable
from proxy.oci.digest import Digest
from proxy.oci.manifest import OCI_MANIFEST, Descriptor, Manifest, parse_manifest, render_json
from proxy.oci.reference import ImageRef
from proxy.registry import Registry, push
from tests.simulators.registry import Faults, RegistrySimulator, make_layer

DATA = random.Random(2).randbytes(3_000_000)
BLOB = Descriptor("application/octet-stream", Digest.of(DATA), len(DATA))


def opener(data: bytes = DATA) -> Callable[[], BinaryIO]:
    return lambda: io.BytesIO(data)


def methods(upstream: RegistrySimulator) -> list[str]:
    return [request.method for request in upstream.requests]


async def test_a_blob_goes_up_in_one_piece(upstream: RegistrySimulator, registry: Registry, ref: ImageRef) -> None:
    await registry.push_blob(ref, BLOB, opener())
    assert upstream.blobs["team/app"][BLOB.digest] == DATA
    assert methods(upstream) == ["HEAD", "POST", "PUT"]
    assert "Transfer-Encoding" not in upstream.requests[-1].headers


async def test_a_blob_that_is_there_is_not_sent_again(
    upstream: RegistrySimulator, registry: Registry, ref: ImageRef
) -> None:
    upstream.add_blob("team/app", DATA)
    await registry.push_blob(ref, BLOB, opener())
    assert methods(upstream) == ["HEAD"]


@pytest.mark.parametrize("relative", [False, True])
async def test_a_blob_goes_up_in_chunks(
    relative: bool, upstream: RegistrySimulator, registry: Registry, ref: ImageRef
) -> None:
    upstream.faults.relative_location = relative
    await registry.push_blob(ref, BLOB, opener(), chunk=1 << 20)
    assert upstream.blobs["team/app"][BLOB.digest] == DATA
    assert methods(upstream) == ["HEAD", "POST", "PATCH", "PATCH", "PATCH", "PUT"]
    sent = [request.headers["Content-Range"] for request in upstream.requests if request.method == "PATCH"]
    assert sent == ["0-1048575", "1048576-2097151", "2097152-2999999"]


async def test_a_registry_that_takes_no_whole_blob_gets_chunks(
    upstream: RegistrySimulator, registry: Registry, ref: ImageRef
) -> None:
    upstream.faults.only_chunks = True
    await registry.push_blob(ref, BLOB, opener())
    assert upstream.blobs["team/app"][BLOB.digest] == DATA


async def test_chunks_shrink_until_they_are_taken(
    upstream: RegistrySimulator, registry: Registry, ref: ImageRef
) -> None:
    upstream.faults.only_chunks, upstream.faults.max_chunk = True, 1 << 20
    await registry.push_blob(ref, BLOB, opener())
    assert upstream.blobs["team/app"][BLOB.digest] == DATA


async def test_chunks_that_are_never_taken_are_given_up(
    upstream: RegistrySimulator, registry: Registry, ref: ImageRef
) -> None:
    upstream.faults.only_chunks, upstream.faults.max_chunk = True, 1
    with pytest.raises(UpstreamRefused, match="takes no chunk"):
        await registry.push_blob(ref, BLOB, opener())
    assert BLOB.digest not in upstream.blobs["team/app"]


async def test_an_empty_blob_goes_up_both_ways(upstream: RegistrySimulator, registry: Registry, ref: ImageRef) -> None:
    empty = Descriptor("", Digest.of(b""), 0)
    for chunk in (None, 1 << 20):
        upstream.blobs.clear()
        await registry.push_blob(ref, empty, opener(b""), chunk=chunk)
        assert upstream.blobs["team/app"] == {empty.digest: b""}


async def test_an_upload_that_breaks_off_is_begun_anew(
    upstream: RegistrySimulator, registry: Registry, ref: ImageRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, left = upstream._upload, [2]

    async def flaky(request, repository, session):  # type: ignore[no-untyped-def]
        if request.method == "PUT" and left[0]:
            left[0] -= 1
            upstream._uploads.pop(session)
            request.transport.abort()
        return await original(request, repository, session)

    monkeypatch.setattr(upstream, "_upload", flaky)
    await registry.push_blob(ref, BLOB, opener())
    assert upstream.blobs["team/app"][BLOB.digest] == DATA
    assert upstream.count("POST") == 3


async def test_a_registry_that_stays_out_of_order_is_unavailable(
    upstream: RegistrySimulator, registry: Registry, ref: ImageRef
) -> None:
    upstream.faults.errors = -1
    with pytest.raises(UpstreamUnavailable):
        await registry.push_blob(ref, BLOB, opener())


@pytest.mark.parametrize("chunk", [None, 1 << 20])
async def test_a_file_that_is_too_short_is_not_uploaded(
    chunk: int | None, upstream: RegistrySimulator, registry: Registry, ref: ImageRef
) -> None:
    with pytest.raises(TrustFailure, match="shorter than its descriptor"):
        await registry.push_blob(ref, BLOB, opener(DATA[:-1]), chunk=chunk)
    assert BLOB.digest not in upstream.blobs["team/app"]


async def test_a_file_with_other_content_is_refused_by_the_registry(
    upstream: RegistrySimulator, registry: Registry, ref: ImageRef
) -> None:
    with pytest.raises(UpstreamRefused, match="digest does not match"):
        await registry.push_blob(ref, BLOB, opener(bytes(len(DATA))))


async def test_a_blob_is_mounted_from_another_repository(
    upstream: RegistrySimulator, registry: Registry, ref: ImageRef
) -> None:
    upstream.add_blob("base/debian", DATA)
    assert await registry.mount_blob(ref, BLOB.digest, "base/debian")
    assert not await registry.mount_blob(ref, Digest.of(b"absent"), "base/debian")
    assert upstream.blobs["team/app"][BLOB.digest] == DATA


@pytest.mark.parametrize("no_mount", [False, True])
async def test_a_push_mounts_where_it_can(
    no_mount: bool, upstream: RegistrySimulator, registry: Registry, ref: ImageRef
) -> None:
    upstream.add_blob("base/debian", DATA)
    upstream.faults.no_mount = no_mount
    await registry.push_blob(ref, BLOB, opener(), mount_from="base/debian")
    assert upstream.blobs["team/app"][BLOB.digest] == DATA
    assert methods(upstream) == (["HEAD", "POST", "PUT"] if no_mount else ["HEAD", "POST"])


@pytest.mark.parametrize("kind", ["bearer", "basic"])
async def test_a_push_logs_in(kind: str, upstream: RegistrySimulator, with_login: Registry, ref: ImageRef) -> None:
    upstream.faults.auth = kind
    upstream.add_blob("base/debian", DATA)
    await with_login.push_blob(ref, BLOB, opener())
    assert await with_login.mount_blob(ImageRef.parse(f"{upstream.host}/other"), BLOB.digest, "base/debian")
    assert upstream.blobs["team/app"][BLOB.digest] == DATA


async def test_a_push_without_a_login_is_refused(
    upstream: RegistrySimulator, registry: Registry, ref: ImageRef
) -> None:
    upstream.faults.auth = "bearer"
    with pytest.raises(UpstreamRefused) as caught:
        await registry.push_blob(ref, BLOB, opener())
    assert caught.value.status == 401


async def test_a_pushed_image_can_be_pulled(upstream: RegistrySimulator, registry: Registry, ref: ImageRef) -> None:
    image = upstream.add_image("elsewhere", "v1", [make_layer({"a": b"1"})])
    for descriptor in (image.config, *image.layers):
        await registry.push_blob(ref, descriptor, opener(upstream.blobs["elsewhere"][descriptor.digest]))
    assert await registry.push_manifest(ref, image) == image.digest
    assert await registry.get_manifest(ref) == image
    await registry.push_manifest(ref.with_digest(image.digest), image)


async def test_a_manifest_is_not_pushed_under_another_digest(
    upstream: RegistrySimulator, registry: Registry, ref: ImageRef
) -> None:
    image = upstream.add_image("elsewhere", "v1")
    with pytest.raises(TrustFailure):
        await registry.push_manifest(ref.with_digest(Digest.of(b"other")), image)
    assert upstream.count() == 0


async def test_a_manifest_over_the_limit_is_not_pushed(registry: Registry, ref: ImageRef) -> None:
    config = Descriptor("", Digest.of(b""), 0)
    huge = Manifest(b" " * (4 << 20 | 1), OCI_MANIFEST, config, ())
    with pytest.raises(ResourceExhausted):
        await registry.push_manifest(ref, huge)


async def test_a_manifest_whose_blobs_are_missing_is_refused(
    upstream: RegistrySimulator, registry: Registry, ref: ImageRef
) -> None:
    document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": BLOB.to_json(), "layers": []}
    manifest = parse_manifest(render_json(document), OCI_MANIFEST)
    with pytest.raises(UpstreamRefused, match="a blob is missing"):
        await registry.push_manifest(ref, manifest)


async def test_tags_and_manifests_are_deleted(upstream: RegistrySimulator, registry: Registry, ref: ImageRef) -> None:
    image = upstream.add_image("team/app", "v1")
    assert await registry.delete_manifest(ref)
    assert not await registry.delete_manifest(ref)
    assert await registry.delete_manifest(ref.with_digest(image.digest))
    assert not upstream.manifests["team/app"]


async def test_a_registry_that_does_not_delete_is_named(
    upstream: RegistrySimulator, registry: Registry, ref: ImageRef
) -> None:
    upstream.add_image("team/app", "v1")
    upstream.faults.no_delete = True
    with pytest.raises(Unsupported, match="does not delete tags"):
        await registry.delete_manifest(ref)


@pytest.mark.parametrize(("times", "taken"), [(2, True), (-1, False)])
async def test_a_manifest_that_is_found_wrong_is_sent_again_a_few_times(
    upstream: RegistrySimulator, registry: Registry, monkeypatch: pytest.MonkeyPatch, times: int, *, taken: bool
) -> None:
    monkeypatch.setattr(push, "PAUSES", (0.0, 0.0, 0.0))
    image = upstream.add_image("team/app", "1", [make_layer({"a": b"a"})])
    before = len(upstream.requests)
    upstream.faults = Faults(errors=times, error_status=400)
    sent = registry.push_manifest(ImageRef.parse(f"{upstream.host}/team/app:2"), image)
    if taken:
        assert await sent == image.digest
    else:
        with pytest.raises(UpstreamRefused, match="answered 400"):
            await sent
    assert [str(seen) for seen in upstream.requests[before:]] == ["PUT /v2/team/app/manifests/2"] * (3 if taken else 4)
