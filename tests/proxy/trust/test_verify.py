from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from proxy.errors import MalformedInput, TrustFailure
from proxy.oci.digest import Digest
from proxy.oci.manifest import Descriptor
from proxy.trust import (
    Claim,
    Signature,
    SigningKey,
    check_claim,
    render_referrer,
    render_tag_manifest,
    sign_claim,
    verify_attached,
    verify_signature,
)

KEY, OTHER = SigningKey.generate(), SigningKey.generate()
NOW = datetime(2026, 1, 2, 12, tzinfo=UTC)
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
CLAIM = Claim(
    source_repository="docker.io/library/nginx",
    source_digest=Digest.of(b"source"),
    patched_repository="mirror.example/docker.io/library/nginx",
    patched_digest=Digest.of(b"patched"),
    policy_hash="ab" * 32,
    signed_at=NOW - timedelta(hours=1),
)
EXPECTED: dict[str, Any] = {
    "source_repository": CLAIM.source_repository,
    "source_digest": CLAIM.source_digest,
    "patched_digest": CLAIM.patched_digest,
    "patched_repository": CLAIM.patched_repository,
    "policy_hash": CLAIM.policy_hash,
    "max_age": timedelta(days=1),
    "now": NOW,
}


def test_signed_claim_is_verified_and_comes_back() -> None:
    signed = sign_claim(CLAIM, KEY)
    claim = verify_signature(signed.payload, signed.signature, [OTHER.public, KEY.public])
    assert claim == CLAIM
    check_claim(claim, **EXPECTED)


def test_none_means_that_any_value_will_do() -> None:
    free = dict.fromkeys(("source_repository", "source_digest", "patched_repository", "policy_hash", "max_age"))
    check_claim(replace(CLAIM, signed_at=NOW - timedelta(days=9999)), **{**EXPECTED, **free})


@pytest.mark.parametrize("keys", [[], [OTHER]])
def test_unknown_key_is_refused_and_the_trusted_ones_named(keys: list[SigningKey]) -> None:
    signed = sign_claim(CLAIM, KEY)
    named = OTHER.public.short_id if keys else "none are configured"
    with pytest.raises(TrustFailure, match=named):
        verify_signature(signed.payload, signed.signature, [key.public for key in keys])


def test_changed_payload_is_refused() -> None:
    signed = sign_claim(CLAIM, KEY)
    for payload in (signed.payload + b" ", signed.payload.replace(b"nginx", b"redis"), b"", b" " * (1 << 20)):
        with pytest.raises(TrustFailure):
            verify_signature(payload, signed.signature, [KEY.public])


@pytest.mark.parametrize("signature", [b"", b"\0", b"\x30\x06\x02\x01\x01\x02\x01\x01", bytes(10_000)])
def test_garbage_signature_is_refused(signature: bytes) -> None:
    with pytest.raises(TrustFailure, match="none of the trusted keys"):
        verify_signature(sign_claim(CLAIM, KEY).payload, signature, [KEY.public])


def test_signature_turned_into_its_twin_says_the_same_and_no_more() -> None:
    signed = sign_claim(CLAIM, KEY)
    r, s = decode_dss_signature(signed.signature)
    twin = encode_dss_signature(r, P256_ORDER - s)
    assert verify_signature(signed.payload, twin, [KEY.public]) == CLAIM
    with pytest.raises(TrustFailure):
        verify_signature(signed.payload.replace(b"nginx", b"redis"), twin, [KEY.public])


def test_trusted_keys_signature_over_something_else_is_refused() -> None:
    payload = b'{"critical":{},"optional":null}'
    with pytest.raises(TrustFailure, match="not as a patched image"):
        verify_signature(payload, KEY.sign(payload), [KEY.public])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("patched_digest", Digest.of(b"another image")),
        ("source_digest", Digest.of(b"another source")),
        ("source_repository", "docker.io/library/redis"),
        ("patched_repository", "mirror.example/docker.io/library/redis"),
        ("policy_hash", "cd" * 32),
    ],
)
def test_signature_of_another_image_is_refused_with_both_values(field: str, value: Digest | str) -> None:
    with pytest.raises(TrustFailure) as caught:
        check_claim(CLAIM, **{**EXPECTED, field: value})
    assert str(getattr(CLAIM, field)) in str(caught.value)
    assert str(value) in str(caught.value)
    assert field.replace("_", " ") in str(caught.value)


def test_old_signature_is_refused_just_after_its_age() -> None:
    check_claim(CLAIM, **{**EXPECTED, "max_age": timedelta(hours=1)})
    with pytest.raises(TrustFailure, match="older than"):
        check_claim(CLAIM, **{**EXPECTED, "max_age": timedelta(minutes=59)})


def test_future_signature_is_refused_beyond_the_clocks_difference() -> None:
    check_claim(replace(CLAIM, signed_at=NOW + timedelta(minutes=5)), **EXPECTED)
    with pytest.raises(TrustFailure, match="in the future"):
        check_claim(replace(CLAIM, signed_at=NOW + timedelta(minutes=6)), **EXPECTED)


def attach(*signed: Signature) -> tuple[list[Any], Callable[[Descriptor], bytes]]:
    """Attach the signatures to an image, the first half as a tag and the rest as a referrer."""
    half = (len(signed) + 1) // 2
    subject = render_tag_manifest(()).manifest
    both = [render_tag_manifest(signed[:half]), render_referrer(subject, signed[half:])]
    blobs = {digest: data for item in both for digest, data in item.blobs.items()}
    return [item.manifest for item in both], lambda layer: blobs[layer.digest]


def test_newest_good_signature_among_bad_ones_is_found() -> None:
    newer = replace(CLAIM, signed_at=CLAIM.signed_at + timedelta(minutes=1))
    manifests, read = attach(
        sign_claim(replace(CLAIM, source_repository="docker.io/library/redis"), KEY),
        sign_claim(CLAIM, OTHER),
        Signature(b"junk", b"junk"),
        sign_claim(CLAIM, KEY),
        sign_claim(newer, KEY),
    )
    found = verify_attached(manifests, read, [KEY.public], partial(check_claim, **EXPECTED))
    assert found == (newer, KEY.public)


def test_every_reason_is_given_when_no_signature_passes() -> None:
    manifests, read = attach(sign_claim(CLAIM, OTHER), sign_claim(replace(CLAIM, policy_hash="0"), KEY))
    with pytest.raises(TrustFailure, match=r"none of the trusted keys.*; .*policy hash"):
        verify_attached(manifests, read, [KEY.public], partial(check_claim, **EXPECTED))


def test_image_without_signatures_is_refused() -> None:
    with pytest.raises(TrustFailure, match="not signed"):
        verify_attached([], lambda _: b"", [KEY.public], partial(check_claim, **EXPECTED))


def test_broken_signature_manifest_does_not_hide_a_good_one() -> None:
    broken = render_tag_manifest([Signature(b"payload", b"x")] * 100)
    good = render_tag_manifest([sign_claim(CLAIM, KEY)])
    read = {**broken.blobs, **good.blobs}
    manifests = [broken.manifest, good.manifest]
    check = partial(check_claim, **EXPECTED)
    assert verify_attached(manifests, lambda layer: read[layer.digest], [KEY.public], check)[0] == CLAIM
    with pytest.raises(TrustFailure, match="100 signatures"):
        verify_attached(manifests[:1], lambda layer: read[layer.digest], [KEY.public], check)


def test_errors_of_the_caller_are_not_swallowed() -> None:
    manifests, _ = attach(sign_claim(CLAIM, KEY))

    def unreachable(layer: Descriptor) -> bytes:
        raise ConnectionError(layer.digest)

    with pytest.raises(ConnectionError):
        verify_attached(manifests, unreachable, [KEY.public], partial(check_claim, **EXPECTED))


def test_claim_with_a_strange_name_cannot_be_signed() -> None:
    with pytest.raises(MalformedInput):
        replace(CLAIM, source_repository="nginx:latest")
