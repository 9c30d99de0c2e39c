"""Manifests, blobs and tags, and what becomes of those that are wrong."""

import random
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from proxy.egress import Egress, EgressPolicy
from proxy.errors import MalformedInput, TrustFailure, UpstreamRefused, UpstreamUnavailable
from proxy.oci.digest import Digest
from proxy.oci.manifest import Descriptor, Index, Manifest
from proxy.oci.reference import ImageRef
from proxy.registry import Registry
from tests.simulators.registry import RegistrySimulator, make_layer

LAYER = make_layer({"data": random.Random(1).randbytes(300_000)})


@pytest.fixture
def image(upstream: RegistrySimulator) -> Manifest:
    return upstream.add_image("team/app", "v1", [LAYER])


async def collect(stream: AsyncIterator[bytes]) -> bytes:
    return b"".join([piece async for piece in stream])


async def test_a_tag_and_a_digest_give_the_same_manifest(image: Manifest, registry: Registry, ref: ImageRef) -> None:
    assert await registry.get_manifest(ref) == image
    assert await registry.get_manifest(ref.with_digest(image.digest)) == image


async def test_docker_images_and_indexes_are_pulled_too(
    upstream: RegistrySimulator, registry: Registry, ref: ImageRef
) -> None:
    docker = upstream.add_image("team/app", "docker", [LAYER], docker=True)
    index = upstream.add_index("team/app", {"linux/amd64": docker}, "index")
    assert await registry.get_manifest(ref.with_tag("docker")) == docker
    found = await registry.get_manifest(ref.with_tag("index"))
    assert isinstance(found, Index)
    assert found == index


async def test_a_blob_arrives_whole(image: Manifest, registry: Registry, ref: ImageRef) -> None:
    data = await collect(registry.stream_blob(ref, image.layers[0]))
    assert Digest.of(data) == image.layers[0].digest


async def test_a_manifest_that_is_not_the_pinned_one_is_refused(
    upstream: RegistrySimulator, image: Manifest, registry: Registry, ref: ImageRef
) -> None:
    upstream.faults.wrong_manifest = True
    with pytest.raises(TrustFailure, match="digest is"):
        await registry.get_manifest(ref.with_digest(image.digest))


async def test_a_manifest_that_is_not_the_announced_one_is_refused(
    upstream: RegistrySimulator, image: Manifest, registry: Registry, ref: ImageRef
) -> None:
    upstream.faults.wrong_manifest = True
    with pytest.raises(TrustFailure, match="Docker-Content-Digest"):
        await registry.get_manifest(ref)


@pytest.mark.parametrize("digest", ["sha256:" + "0" * 64, "nonsense"])
async def test_a_lying_digest_header_is_refused(
    digest: str, upstream: RegistrySimulator, image: Manifest, registry: Registry, ref: ImageRef
) -> None:
    upstream.faults.header_digest = digest
    with pytest.raises(TrustFailure):
        await registry.get_manifest(ref)
    with pytest.raises(TrustFailure):
        await registry.head_manifest(ref.with_digest(image.digest))


async def test_a_manifest_without_an_end_is_cut_off(
    upstream: RegistrySimulator, image: Manifest, registry: Registry, ref: ImageRef
) -> None:
    upstream.faults.huge_manifest = True
    with pytest.raises(TrustFailure, match="longer than the 4194304 bytes"):
        await registry.get_manifest(ref)


async def test_head_gives_a_descriptor_without_a_body(
    upstream: RegistrySimulator, image: Manifest, registry: Registry, ref: ImageRef
) -> None:
    assert await registry.head_manifest(ref) == image.descriptor
    assert [request.method for request in upstream.requests] == ["HEAD"]


@pytest.mark.parametrize("fault", ["no_head", "no_head_digest"])
async def test_a_head_that_says_too_little_is_followed_by_get(
    fault: str, upstream: RegistrySimulator, image: Manifest, registry: Registry, ref: ImageRef
) -> None:
    setattr(upstream.faults, fault, True)
    assert await registry.head_manifest(ref) == image.descriptor
    assert [request.method for request in upstream.requests] == ["HEAD", "GET"]
    assert await registry.head_manifest(ref.with_tag("absent")) is None


async def test_what_is_not_there_is_named(image: Manifest, registry: Registry, ref: ImageRef) -> None:
    assert await registry.head_manifest(ref.with_tag("absent")) is None
    with pytest.raises(UpstreamRefused, match=r"team/app:absent is not in the registry.*manifest unknown") as caught:
        await registry.get_manifest(ref.with_tag("absent"))
    assert caught.value.status == 404
    gone = Descriptor("", Digest.of(b"gone"), 4)
    with pytest.raises(UpstreamRefused, match=f"blob {gone.digest}"):
        await collect(registry.stream_blob(ref, gone))
    assert not await registry.has_blob(ref, gone.digest)
    assert await registry.has_blob(ref, image.layers[0].digest)


@pytest.mark.parametrize("cuts", [1, 2, 5])
async def test_a_blob_that_breaks_off_is_resumed_where_it_ended(
    cuts: int, upstream: RegistrySimulator, image: Manifest, registry: Registry, ref: ImageRef
) -> None:
    upstream.faults.cuts = cuts
    data = await collect(registry.stream_blob(ref, image.layers[0]))
    assert Digest.of(data) == image.layers[0].digest
    assert sum("Range" in request.headers for request in upstream.requests) >= 1


async def test_a_registry_without_ranges_is_read_again_from_the_start(
    upstream: RegistrySimulator, image: Manifest, registry: Registry, ref: ImageRef
) -> None:
    upstream.faults.cuts, upstream.faults.ignore_range = 2, True
    data = await collect(registry.stream_blob(ref, image.layers[0]))
    assert Digest.of(data) == image.layers[0].digest


async def test_a_blob_that_never_arrives_is_unavailable(
    upstream: RegistrySimulator, image: Manifest, registry: Registry, ref: ImageRef
) -> None:
    upstream.faults.cuts, upstream.faults.ignore_range = -1, True
    with pytest.raises(UpstreamUnavailable, match="broke off"):
        await collect(registry.stream_blob(ref, image.layers[0]))
    assert upstream.count(part="/blobs/") < 20


async def test_a_wrong_blob_is_refused(
    upstream: RegistrySimulator, image: Manifest, registry: Registry, ref: ImageRef
) -> None:
    upstream.faults.wrong_blob = True
    with pytest.raises(TrustFailure, match="digest is"):
        await collect(registry.stream_blob(ref, image.layers[0]))


async def test_a_short_blob_is_refused(
    upstream: RegistrySimulator, image: Manifest, registry: Registry, ref: ImageRef
) -> None:
    upstream.faults.short_blob = True
    with pytest.raises(TrustFailure, match="were announced"):
        await collect(registry.stream_blob(ref, image.layers[0]))


async def test_a_blob_longer_than_announced_is_cut_off(
    upstream: RegistrySimulator, image: Manifest, registry: Registry, ref: ImageRef
) -> None:
    seen: list[bytes] = []

    async def take() -> None:
        async for piece in registry.stream_blob(ref, replace(image.layers[0], size=1000)):
            seen.append(piece)  # noqa: PERF401 - what came before the refusal counts

    with pytest.raises(TrustFailure, match="longer than the 1000 bytes"):
        await take()
    assert len(b"".join(seen)) <= 1000


async def test_a_blob_is_followed_to_another_host(
    upstream: RegistrySimulator, image: Manifest, registry: Registry, ref: ImageRef
) -> None:
    async with RegistrySimulator() as storage:
        storage.blobs["team/app"] = upstream.blobs["team/app"]
        upstream.faults.redirect = f"http://{storage.host}"
        data = await collect(registry.stream_blob(ref, image.layers[0]))
    assert Digest.of(data) == image.layers[0].digest


@pytest.mark.parametrize("target", ["http://10.0.0.1", "https://169.254.169.254", "http://127.0.0.2:80"])
async def test_a_blob_on_a_private_address_is_refused(
    target: str, upstream: RegistrySimulator, image: Manifest, egress: Egress, ref: ImageRef
) -> None:
    upstream.faults.redirect = target
    with pytest.raises(TrustFailure):
        await collect(Registry(egress).stream_blob(ref, image.layers[0]))
    assert {host for host, _ in egress.requests if host != upstream.host} <= {target.removeprefix("https://")}
    assert all(status == 0 for (host, status) in egress.requests if host != upstream.host)


async def test_a_foreign_layer_is_fetched_from_its_url_without_credentials(
    upstream: RegistrySimulator, with_login: Registry, ref: ImageRef
) -> None:
    async with RegistrySimulator() as elsewhere:
        descriptor = elsewhere.add_blob("x", b"foreign")
        url = f"http://{elsewhere.host}/v2/x/blobs/{descriptor.digest}"
        foreign = replace(descriptor, urls=(f"http://{elsewhere.host}/nothing", url))
        upstream.faults.auth = "basic"
        assert await collect(with_login.stream_blob(ref, foreign)) == b"foreign"
        assert all("Authorization" not in request.headers for request in elsewhere.requests)


@pytest.mark.parametrize("url", ["http://10.0.0.1/x", "https://169.254.169.254/x", "file:///etc/passwd"])
async def test_a_layer_url_on_a_private_address_is_refused(
    url: str, upstream: RegistrySimulator, registry: Registry, egress: Egress, ref: ImageRef
) -> None:
    foreign = Descriptor("", Digest.of(b"x"), 1, urls=(url,))
    with pytest.raises((TrustFailure, MalformedInput)):
        await collect(registry.stream_blob(ref, foreign))
    assert {host for host, status in egress.requests if status} == {upstream.host}


async def test_a_layer_url_must_be_an_allowed_upstream(upstream: RegistrySimulator, ref: ImageRef) -> None:
    policy = EgressPolicy(upstreams=(upstream.host,), named=frozenset({"127.0.0.1"}), attempts=1)
    egress = Egress(policy)
    foreign = Descriptor("", Digest.of(b"x"), 1, urls=("https://elsewhere.example/x",))
    with pytest.raises(TrustFailure, match=r"upstream\.allow"):
        await collect(Registry(egress).stream_blob(ref, foreign))
    await egress.close()


async def test_a_throttling_registry_is_waited_for(
    upstream: RegistrySimulator, image: Manifest, registry: Registry, ref: ImageRef
) -> None:
    upstream.faults.throttle = 2
    assert await registry.get_manifest(ref) == image


async def test_a_registry_that_is_out_of_order_is_unavailable(
    upstream: RegistrySimulator, registry: Registry, ref: ImageRef
) -> None:
    upstream.faults.errors = -1
    with pytest.raises(UpstreamUnavailable, match="answered 503"):
        await registry.get_manifest(ref)


async def test_a_refusal_says_what_the_registry_said_in_one_clean_line(
    upstream: RegistrySimulator, registry: Registry, ref: ImageRef
) -> None:
    upstream.faults.refuse = 403
    with pytest.raises(UpstreamRefused, match=r"refuses access to image .*\(403\): refused") as caught:
        await registry.get_manifest(ref)
    assert "\n" not in str(caught.value)


async def test_all_pages_of_tags_are_read(upstream: RegistrySimulator, registry: Registry, ref: ImageRef) -> None:
    image = upstream.add_image("team/app", "v1")
    for number in range(2500):
        upstream.tags["team/app"][f"t{number:04}"] = image.digest
    assert len(await registry.list_tags(ref)) == 2501
    assert upstream.count(part="/tags/list") == 3
    assert await registry.list_tags(ImageRef.parse(f"{upstream.host}/absent")) == ()


async def test_a_next_page_on_another_host_is_refused(
    upstream: RegistrySimulator, image: Manifest, registry: Registry, ref: ImageRef
) -> None:
    upstream.faults.headers = {"Link": '<https://elsewhere.example/v2/x>; rel="next"'}
    with pytest.raises(TrustFailure, match="another host"):
        await registry.list_tags(ref)


async def test_a_list_of_tags_without_an_end_is_given_up(
    upstream: RegistrySimulator, image: Manifest, registry: Registry, ref: ImageRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.registry.pull.MAX_PAGES", 5)
    upstream.faults.headers = {"Link": '</v2/team/app/tags/list?n=1>; rel="next"'}
    with pytest.raises(MalformedInput, match="more than 5 pages"):
        await registry.list_tags(ref)
