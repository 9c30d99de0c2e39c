"""Whether a signature is to be believed, and for which image.

Owns the checks between a signature and a rewritten pod: a trusted key made it, over claims that name the image at
hand, not too long ago. Every refusal is a TrustFailure that says what did not match. ECDSA lets anybody derive a second
valid signature over the same text; nothing here takes a signature's bytes for an identity, so it gains nothing.
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from proxy.clocks import MAX_SKEW
from proxy.errors import AdmendError, MalformedInput, TrustFailure
from proxy.oci.digest import Digest
from proxy.oci.manifest import Descriptor, Manifest
from proxy.trust.attach import Signature, parse_signatures
from proxy.trust.keys import SigningKey, VerifyKey
from proxy.trust.payload import MAX_PAYLOAD, Claim, parse_payload, render_payload


def sign_claim(claim: Claim, key: SigningKey) -> Signature:
    """Return the signed payload of `claim`."""
    payload = render_payload(claim)
    return Signature(payload, key.sign(payload))


def find_key(payload: bytes, signature: bytes, keys: Sequence[VerifyKey]) -> VerifyKey:
    """Return the key that made `signature` over `payload`; TrustFailure if it is none of `keys`."""
    if len(payload) > MAX_PAYLOAD:
        raise TrustFailure(f"the signed payload is longer than {MAX_PAYLOAD} bytes; refused")
    for key in keys:
        if key.made(payload, signature):
            return key
    names = ", ".join(key.short_id for key in keys) or "none are configured"
    raise TrustFailure(f"none of the trusted keys ({names}) made this signature over this payload")


def verify_signature(payload: bytes, signature: bytes, keys: Sequence[VerifyKey]) -> Claim:
    """Return the claim that one of `keys` signed; only `check_claim` says whether it is about the image at hand.

    Raises TrustFailure: no trusted key made the signature, or the payload holds no claim of admend.
    """
    key = find_key(payload, signature, keys)
    try:
        return parse_payload(payload)
    except MalformedInput as error:
        raise TrustFailure(f"signed by the trusted key {key.short_id}, but not as a patched image: {error}") from error


def check_claim(
    claim: Claim,
    *,
    source_repository: str | None,
    source_digest: Digest | None,
    patched_digest: Digest,
    patched_repository: str | None,
    policy_hash: str | None,
    max_age: timedelta | None,
    now: datetime,
) -> None:
    """Check that `claim` is about the image at hand; None means that any value will do.

    Args:
        claim: what `verify_signature` returned.
        source_repository: the upstream repository that the pod named, in full (`docker.io/library/nginx`).
        source_digest: the digest that the pod pinned, or that its tag has.
        patched_digest: what the pod would run.
        patched_repository: where in the mirror it would pull from.
        policy_hash: the policy in force.
        max_age: how old the signature may be.
        now: the present, with a time zone.

    Raises:
        TrustFailure: something differs; the text says what, with both values.
    """
    pairs = (
        ("patched digest", claim.patched_digest, patched_digest),
        ("source repository", claim.source_repository, source_repository),
        ("source digest", claim.source_digest, source_digest),
        ("patched repository", claim.patched_repository, patched_repository),
        ("policy hash", claim.policy_hash, policy_hash),
    )
    for name, signed, wanted in pairs:
        if wanted is not None and signed != wanted:
            raise TrustFailure(f"the signature is for the {name} {signed}, not {wanted}")
    age = now - claim.signed_at
    if age < -MAX_SKEW:
        raise TrustFailure(f"the signature is dated {claim.signed_at.isoformat()}, in the future; check both clocks")
    if max_age is not None and age > max_age:
        raise TrustFailure(f"the signature of {claim.signed_at.isoformat()} is older than the {max_age} it may be")


def verify_attached(
    manifests: Sequence[Manifest],
    read_blob: Callable[[Descriptor], bytes],
    keys: Sequence[VerifyKey],
    check: Callable[[Claim], None],
) -> tuple[Claim, VerifyKey]:
    """Return the newest claim among the signatures attached to an image that passes, and its key.

    Args:
        manifests: the image's signature manifests, of the `.sig` tag and referrers alike.
        read_blob: gives the bytes of a layer of theirs.
        keys: the trusted keys.
        check: `check_claim` with everything but the claim filled in.

    Raises:
        TrustFailure: there is no signature, or none passes; the text gives each one's reason.
    """
    passed: list[tuple[Claim, VerifyKey]] = []
    reasons: list[str] = []
    for manifest in manifests:
        try:
            signatures = parse_signatures(manifest, read_blob)
        except (MalformedInput, TrustFailure) as error:
            reasons.append(str(error))
            continue
        for item in signatures:
            try:
                claim = verify_signature(item.payload, item.signature, keys)
                check(claim)
            except AdmendError as error:
                reasons.append(str(error))
            else:
                passed.append((claim, find_key(item.payload, item.signature, keys)))
    if not passed:
        raise TrustFailure("; ".join(dict.fromkeys(reasons)) or "the image is not signed")
    return max(passed, key=lambda pair: pair[0].signed_at)
