import base64
import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from proxy.errors import MalformedInput, TrustFailure
from proxy.oci.digest import Digest
from proxy.oci.manifest import OCI_MANIFEST, Descriptor, Manifest, parse_manifest, render_json
from proxy.trust import (
    Attachment,
    Signature,
    is_signature,
    parse_signatures,
    payload_descriptors,
    render_referrer,
    render_tag_manifest,
    signature_tag,
)

SIGNATURES = (Signature(b"first payload", b"\x30\x01"), Signature(b"second payload", b"\x30\x02"))
SUBJECT = render_tag_manifest(()).manifest


def reader(attachment: Attachment) -> Callable[[Descriptor], bytes]:
    return lambda layer: attachment.blobs[layer.digest]


def with_layer(attachment: Attachment, **fields: object) -> Manifest:
    """Return the attachment's manifest with fields of its first layer replaced."""
    document = json.loads(attachment.manifest.raw)
    document["layers"][0].update(fields)
    parsed = parse_manifest(render_json(document), OCI_MANIFEST)
    assert isinstance(parsed, Manifest)
    return parsed


@pytest.mark.parametrize("attachment", [render_tag_manifest(SIGNATURES), render_referrer(SUBJECT, SIGNATURES)])
def test_signatures_come_back_from_either_manifest(attachment: Attachment) -> None:
    assert parse_signatures(attachment.manifest, reader(attachment)) == SIGNATURES
    config = attachment.manifest.config
    assert len(attachment.blobs[config.digest]) == config.size
    assert {layer.digest for layer in attachment.manifest.layers} | {config.digest} == set(attachment.blobs)
    assert all(Digest.of(data) == digest for digest, data in attachment.blobs.items())


def test_the_tag_is_cosigns() -> None:
    assert signature_tag(Digest("sha256", "ab" * 32)) == f"sha256-{'ab' * 32}.sig"


def test_referrer_names_its_subject_and_artifact_type() -> None:
    manifest = render_referrer(SUBJECT, SIGNATURES).manifest
    assert manifest.subject == SUBJECT.descriptor
    assert is_signature(replace(manifest.descriptor, artifact_type=manifest.artifact_type))
    assert manifest.config.media_type == manifest.artifact_type
    assert not is_signature(manifest.descriptor)


def test_same_signatures_give_the_same_manifest() -> None:
    assert render_tag_manifest(SIGNATURES).manifest.digest == render_tag_manifest(SIGNATURES).manifest.digest


def test_layers_of_other_kinds_are_not_signatures() -> None:
    attachment = render_tag_manifest(SIGNATURES)
    manifest = with_layer(attachment, mediaType="application/vnd.dsse.envelope.v1+json")
    assert parse_signatures(manifest, reader(attachment)) == SIGNATURES[1:]
    assert [layer.digest for layer in payload_descriptors(manifest)] == [Digest.of(b"second payload")]


def test_blob_that_is_not_what_the_manifest_says_is_refused() -> None:
    attachment = render_tag_manifest(SIGNATURES)
    with pytest.raises(TrustFailure, match="digest is"):
        parse_signatures(attachment.manifest, lambda layer: b"x" * layer.size)
    with pytest.raises(TrustFailure, match="longer"):
        parse_signatures(attachment.manifest, lambda layer: b"x" * (layer.size + 1))


def test_large_payload_is_refused_before_it_is_read() -> None:
    manifest = with_layer(render_tag_manifest(SIGNATURES), size=1 << 30)

    def never(layer: Descriptor) -> bytes:
        raise AssertionError(layer)

    with pytest.raises(MalformedInput, match="at the most"):
        parse_signatures(manifest, never)


def test_too_many_signatures_are_refused() -> None:
    attachment = render_tag_manifest(SIGNATURES * 40)
    with pytest.raises(MalformedInput, match="80 signatures"):
        payload_descriptors(attachment.manifest)


@pytest.mark.parametrize("text", ["not base64!", "é", base64.b64encode(bytes(2000)).decode()])
def test_annotation_that_is_no_signature_is_refused(text: str) -> None:
    attachment = render_tag_manifest(SIGNATURES)
    manifest = with_layer(attachment, annotations={"dev.cosignproject.cosign/signature": text})
    with pytest.raises(MalformedInput, match="signature"):
        parse_signatures(manifest, reader(attachment))
