"""Referrers, with and without the registry's help."""

import asyncio
from typing import Any

import pytest

from proxy.errors import MalformedInput, UpstreamRefused
from proxy.oci.manifest import OCI_EMPTY, OCI_INDEX, OCI_MANIFEST, Descriptor, Manifest, parse_manifest, render_json
from proxy.oci.reference import ImageRef
from proxy.registry import Registry
from tests.simulators.registry import RegistrySimulator, make_layer

KIND = "application/vnd.example.signature"


@pytest.fixture(params=[False, True], ids=["api", "fallback"])
def image(request: pytest.FixtureRequest, upstream: RegistrySimulator) -> Manifest:
    upstream.faults.no_referrers = request.param
    upstream.add_blob("team/app", b"{}")
    return upstream.add_image("team/app", "v1", [make_layer({"a": b"1"})])


def make_referrer(upstream: RegistrySimulator, subject: Descriptor, note: str, kind: str = KIND) -> Manifest:
    config = upstream.add_blob("team/app", b"{}", OCI_EMPTY)
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": kind,
        "config": config.to_json(),
        "layers": [config.to_json()],
        "subject": subject.to_json(),
        "annotations": {"note": note},
    }
    manifest = parse_manifest(render_json(document), OCI_MANIFEST)
    assert isinstance(manifest, Manifest)
    return manifest


async def test_pushed_referrers_are_listed_with_their_type_and_annotations(
    upstream: RegistrySimulator, image: Manifest, registry: Registry, ref: ImageRef
) -> None:
    assert await registry.referrers(ref, image.digest) == ()
    first = make_referrer(upstream, image.descriptor, "first")
    other = make_referrer(upstream, image.descriptor, "other", "application/vnd.example.sbom")
    for manifest in (first, other, first):
        await registry.push_referrer(ref.with_digest(manifest.digest), manifest)
    found = await registry.referrers(ref, image.digest)
    assert {item.digest for item in found} == {first.digest, other.digest}
    assert [item.annotations["note"] for item in await registry.referrers(ref, image.digest, KIND)] == ["first"]
    assert {item.artifact_type for item in found} == {KIND, "application/vnd.example.sbom"}
    fallback = f"sha256-{image.digest.hex}" in upstream.tags["team/app"]
    assert fallback is upstream.faults.no_referrers


async def test_referrers_pushed_at_once_are_all_listed(
    upstream: RegistrySimulator, image: Manifest, registry: Registry, ref: ImageRef
) -> None:
    manifests = [make_referrer(upstream, image.descriptor, str(number)) for number in range(8)]
    await asyncio.gather(*(registry.push_referrer(ref.with_digest(item.digest), item) for item in manifests))
    found = await registry.referrers(ref, image.digest)
    assert {item.digest for item in found} == {item.digest for item in manifests}


async def test_an_entry_that_another_writer_lost_is_written_again(
    upstream: RegistrySimulator, registry: Registry, ref: ImageRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream.faults.no_referrers = True
    image = upstream.add_image("team/app", "v1")
    tag, original, left = f"sha256-{image.digest.hex}", upstream._put_manifest, [2]

    async def losing(request, repository, selector):  # type: ignore[no-untyped-def]
        answer = await original(request, repository, selector)
        if selector == tag and left[0]:
            left[0] -= 1
            raw = render_json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []})
            upstream.add_manifest("team/app", raw, OCI_INDEX, tag)
        return answer

    monkeypatch.setattr(upstream, "_put_manifest", losing)
    referrer = make_referrer(upstream, image.descriptor, "kept")
    await registry.push_referrer(ref.with_digest(referrer.digest), referrer)
    assert [item.digest for item in await registry.referrers(ref, image.digest)] == [referrer.digest]


async def test_a_referrer_can_have_a_tag_of_its_own(
    upstream: RegistrySimulator, image: Manifest, registry: Registry, ref: ImageRef
) -> None:
    referrer = make_referrer(upstream, image.descriptor, "tagged")
    await registry.push_referrer(ref.with_tag("signature"), referrer)
    assert await registry.get_manifest(ref.with_tag("signature")) == referrer


async def test_a_fallback_tag_that_is_no_list_is_refused(
    upstream: RegistrySimulator, registry: Registry, ref: ImageRef
) -> None:
    upstream.faults.no_referrers = True
    image = upstream.add_image("team/app", "v1")
    upstream.tags["team/app"][f"sha256-{image.digest.hex}"] = image.digest
    with pytest.raises(MalformedInput, match="is no index"):
        await registry.referrers(ref, image.digest)


async def test_a_refusal_is_not_taken_for_an_empty_list(
    upstream: RegistrySimulator, registry: Registry, ref: ImageRef
) -> None:
    image = upstream.add_image("team/app", "v1")
    upstream.faults.refuse = 403
    with pytest.raises(UpstreamRefused):
        await registry.referrers(ref, image.digest)
