"""Cosign-compatible signatures over patched images, and signed documents. No network."""

from proxy.trust.attach import (
    SIGNATURE_ARTIFACT,
    Attachment,
    Signature,
    is_signature,
    parse_signatures,
    payload_descriptors,
    render_referrer,
    render_tag_manifest,
    signature_tag,
)
from proxy.trust.envelope import sign_document, verify_document
from proxy.trust.keys import FollowedKeys, KeyRing, SigningKey, VerifyKey
from proxy.trust.marks import Marks, check_mark, sign_marks, verify_marks
from proxy.trust.payload import Claim, parse_payload, render_payload
from proxy.trust.verify import check_claim, find_key, sign_claim, verify_attached, verify_signature

__all__ = [
    "SIGNATURE_ARTIFACT",
    "Attachment",
    "Claim",
    "FollowedKeys",
    "KeyRing",
    "Marks",
    "Signature",
    "SigningKey",
    "VerifyKey",
    "check_claim",
    "check_mark",
    "find_key",
    "is_signature",
    "parse_payload",
    "parse_signatures",
    "payload_descriptors",
    "render_payload",
    "render_referrer",
    "render_tag_manifest",
    "sign_claim",
    "sign_document",
    "sign_marks",
    "signature_tag",
    "verify_attached",
    "verify_document",
    "verify_marks",
    "verify_signature",
]
