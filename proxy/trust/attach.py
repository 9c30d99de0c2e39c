"""How signatures lie in a registry: cosign's `.sig` tag, and an OCI 1.1 referrer of the signed manifest.

Owns both manifests, written and read. Both hold one layer per signature: the layer is the signed payload, and the
base64 signature is its annotation. Nothing is fetched, pushed or verified here; whoever calls moves the bytes. Refuses
signature manifests with too many or too large layers, and blobs that do not have their descriptor's digest.
Formats: https://github.com/sigstore/cosign/blob/v2.5.0/specs/SIGNATURE_SPEC.md,
https://github.com/opencontainers/image-spec/blob/v1.1.1/manifest.md#guidelines-for-artifact-usage
"""

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from proxy.errors import MalformedInput
from proxy.oci.digest import Digest, DigestCheck
from proxy.oci.manifest import OCI_CONFIG, OCI_MANIFEST, Descriptor, Index, Manifest, parse_manifest, render_json
from proxy.trust.payload import MAX_PAYLOAD

SIMPLE_SIGNING = "application/vnd.dev.cosign.simplesigning.v1+json"
SIGNATURE_ANNOTATION = "dev.cosignproject.cosign/signature"
SIGNATURE_ARTIFACT = "application/vnd.dev.cosign.artifact.sig.v1+json"
MAX_SIGNATURES = 64  # per manifest; one image is signed again now and then, never thousands of times
MAX_ANNOTATION = 1024  # characters of a base64 signature; on P-256 they are 96

_NO_TIME = "0001-01-01T00:00:00Z"  # cosign's configs carry Go's zero time


@dataclass(frozen=True, slots=True)
class Signature:
    """The exact signed bytes, and the signature over them (DER)."""

    payload: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Attachment:
    """What is pushed: the blobs first, then the manifest."""

    manifest: Manifest
    blobs: Mapping[Digest, bytes]


def signature_tag(digest: Digest) -> str:
    """Return the tag that holds the signatures of `digest`: ``sha256-<hex>.sig``."""
    return f"{digest.algorithm}-{digest.hex}.sig"


def render_tag_manifest(signatures: Sequence[Signature]) -> Attachment:
    """Return the manifest that is pushed under `signature_tag`, with its blobs."""
    return _render(signatures, OCI_CONFIG, {})


def render_referrer(subject: Manifest | Index, signatures: Sequence[Signature]) -> Attachment:
    """Return the OCI 1.1 referrer of `subject` that `cosign verify --experimental-oci11` finds, with its blobs."""
    # cosign 2.5 sets the config's media type only, from which registries take the artifact type; both say the same.
    fields = {"artifactType": SIGNATURE_ARTIFACT, "subject": subject.descriptor.to_json()}
    return _render(signatures, SIGNATURE_ARTIFACT, fields)


def is_signature(descriptor: Descriptor) -> bool:
    """Say whether an entry of a referrers list is a signature manifest."""
    return descriptor.artifact_type == SIGNATURE_ARTIFACT


def payload_descriptors(manifest: Manifest) -> tuple[Descriptor, ...]:
    """Return the layers of a signature manifest that hold signed payloads: what `parse_signatures` will read.

    Raises MalformedInput when there are too many or one is too large.
    """
    layers = tuple(
        layer
        for layer in manifest.layers
        if layer.media_type == SIMPLE_SIGNING and SIGNATURE_ANNOTATION in layer.annotations
    )
    if len(layers) > MAX_SIGNATURES:
        raise MalformedInput(
            f"{len(layers)} signatures on one image, {MAX_SIGNATURES} at the most", file=str(manifest.digest)
        )
    for layer in layers:
        if layer.size > MAX_PAYLOAD:
            raise MalformedInput(
                f"a signed payload of {layer.size} bytes, {MAX_PAYLOAD} at the most", file=str(layer.digest)
            )
    return layers


def parse_signatures(manifest: Manifest, read_blob: Callable[[Descriptor], bytes]) -> tuple[Signature, ...]:
    """Return the signatures of a signature manifest of either kind; `read_blob` gives a layer's bytes.

    Raises:
        MalformedInput: a limit is passed, or a signature is not base64.
        TrustFailure: a blob does not have the digest or size of its descriptor.
    """
    found = []
    for layer in payload_descriptors(manifest):
        payload = read_blob(layer)
        check = DigestCheck(layer.digest, size=layer.size, limit=MAX_PAYLOAD, where=f"signed payload {layer.digest}")
        check.update(payload)
        check.finish()
        found.append(Signature(payload, _decode(layer)))
    return tuple(found)


def _decode(layer: Descriptor) -> bytes:
    text = layer.annotations[SIGNATURE_ANNOTATION]
    if len(text) > MAX_ANNOTATION:
        raise MalformedInput(
            f"a signature of {len(text)} characters, {MAX_ANNOTATION} at the most", file=str(layer.digest)
        )
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:  # binascii.Error is one; so is text that is not ASCII
        raise MalformedInput("a signature annotation that is not base64", file=str(layer.digest), text=text) from error


def _render(signatures: Sequence[Signature], config_type: str, fields: Mapping[str, Any]) -> Attachment:
    blobs = {Digest.of(item.payload): item.payload for item in signatures}
    layers = [_layer(item) for item in signatures]
    config = render_json(
        {
            "architecture": "",
            "created": _NO_TIME,
            "history": [{"created": _NO_TIME} for _ in layers],
            "os": "",
            "rootfs": {"type": "layers", "diff_ids": [str(layer.digest) for layer in layers]},
            "config": {},
        }
    )
    blobs[Digest.of(config)] = config
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": Descriptor(config_type, Digest.of(config), len(config)).to_json(),
        "layers": [layer.to_json() for layer in layers],
        **fields,
    }
    manifest = parse_manifest(render_json(document), OCI_MANIFEST)
    if not isinstance(manifest, Manifest):
        raise MalformedInput("a signature manifest is no index")
    return Attachment(manifest, blobs)


def _layer(item: Signature) -> Descriptor:
    annotations = {SIGNATURE_ANNOTATION: base64.b64encode(item.signature).decode("ascii")}
    return Descriptor(SIMPLE_SIGNING, Digest.of(item.payload), len(item.payload), annotations)
