"""The fixed answers that the expected responses are written for, a resolver of them, and a small RFC 6902 applier.

tests/data/admission/README.md explains both the answers and the decisions.
"""

import base64
import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from proxy.api import Outcome, ResolveRequest, ResolveResponse, SignatureInfo, SkipInfo, UpgradeInfo
from proxy.audit import AuditLog
from proxy.oci.digest import Digest
from proxy.oci.naming import Naming
from proxy.oci.reference import ImageRef
from proxy.trust import Claim, SigningKey, sign_claim
from webhook.admission import Admitter
from webhook.answer import Trust
from webhook.config import WebhookConfig
from webhook.review import Decision, parse_review

DATA = Path(__file__).resolve().parent.parent / "data" / "admission"
NOW = datetime(2026, 11, 22, 12, 30, tzinfo=UTC)
KEY = SigningKey._of(ec.derive_private_key(0xADE17D, ec.SECP256R1()))
STRANGER = SigningKey._of(ec.derive_private_key(0x57A6E4, ec.SECP256R1()))
MIRROR = "mirror.example:5000"
NAMING = Naming.parse(MIRROR)
TRUST = Trust((KEY.public,), NAMING, timedelta(days=7), "policy-1")

UPGRADES = (UpgradeInfo(package="libssl3", from_version="3.0.11-1", to_version="3.0.15-1", source="openssl"),)

OUTCOMES = {
    "gcr.io/distroless/base-debian12:latest": Outcome.PATCHED,
    "docker.io/library/nginx:latest": Outcome.PATCHED,
    "docker.io/library/busybox:1.36": Outcome.PATCHED,
    "ghcr.io/org/sidecar@sha256:9b2b3e4a7e2f0f6c54a0f3f2c6a1b7d8e9f0a1b2c3d4e5f60718293a4b5c6d7e": Outcome.CLEAN,
    "docker.io/istio/proxyv2:1.22.0": Outcome.BLOCKED,
    "quay.io/org/tool:v2@sha256:1f2b3e4a7e2f0f6c54a0f3f2c6a1b7d8e9f0a1b2c3d4e5f60718293a4b5c6d7e": Outcome.UNSUPPORTED,
    "registry.example.com:5000/team/migrate:1.4.2": Outcome.PENDING,
    "docker.io/library/python:3.11-alpine3.19": Outcome.PENDING,
    "gcr.io/distroless/base-debian12:debug": Outcome.FAILED,
}
REASONS = {
    Outcome.UNSUPPORTED: "no package database",
    Outcome.PENDING: "the patch is under way and goes on in the background",
    Outcome.FAILED: "upstream-unavailable: gcr.io answered 503",
}


def source_digest(image: str) -> Digest:
    """Return the digest that a reference has upstream."""
    return ImageRef.parse(image).digest or Digest.of(f"source of {image}".encode())


def patched_digest(image: str) -> Digest:
    """Return the digest of its patched image."""
    return Digest.of(f"patched {image}".encode())


def sign(image: ImageRef, key: SigningKey = KEY, **changes: Any) -> SignatureInfo:
    """Return a signature over the claim for `image`, with some of its fields changed."""
    claim: dict[str, Any] = {
        "source_repository": image.name,
        "source_digest": source_digest(str(image)),
        "patched_repository": NAMING.name_for(image).name,
        "patched_digest": patched_digest(str(image)),
        "policy_hash": "policy-1",
        "signed_at": NOW - timedelta(hours=1),
    }
    signed = sign_claim(Claim(**claim | changes), key)
    payload, signature = base64.b64encode(signed.payload), base64.b64encode(signed.signature)
    return SignatureInfo(key_id=key.public.key_id, payload=payload.decode(), signature=signature.decode())


def answer(text: str, outcome: Outcome, **changes: Any) -> ResolveResponse:
    """Return a well-formed answer for an image, with some of its fields changed."""
    image = ImageRef.parse(text)
    fields: dict[str, Any] = {"outcome": outcome, "image": str(image), "reason": REASONS.get(outcome, "")}
    if outcome not in {Outcome.PENDING, Outcome.FAILED}:
        fields["source"] = str(image.with_digest(source_digest(str(image))))
    if outcome is Outcome.PATCHED:
        fields["patched"] = str(NAMING.name_for(image).with_digest(patched_digest(str(image))))
        fields |= {"upgrades": UPGRADES, "fixed": ("CVE-2024-5535",), "signature": sign(image)}
    if outcome is Outcome.BLOCKED:
        skip = SkipInfo(package="libc6", installed="2.35-1", available="2.35-2", reason="held by the image")
        fields["skipped"] = (skip,)
    return ResolveResponse(**fields | changes)


@dataclass
class TableResolver:
    """Answers from a table and remembers what it was asked; an image that is not in the table is an error."""

    answers: Mapping[str, ResolveResponse] = field(
        default_factory=lambda: {image: answer(image, outcome) for image, outcome in OUTCOMES.items()}
    )
    asked: list[ResolveRequest] = field(default_factory=list)

    async def resolve(self, request: ResolveRequest, deadline: float, accept: Any = None) -> ResolveResponse:
        self.asked.append(request)
        found = self.answers[request.image]
        if request.dry_run and found.outcome is Outcome.PENDING:
            return found.model_copy(update={"reason": "a dry run patches nothing; no result is cached"})
        return found


def make_config(**settings: Any) -> WebhookConfig:
    """Return a configuration for the table's mirror."""
    fixed = {"proxy": {"urls": ["https://proxy.example"]}, "mirror": {"reference": MIRROR}, "trust": {"keys": ["key"]}}
    return WebhookConfig.model_validate(fixed | settings)


def make_admitter(resolver: Any, log: StringIO | None = None, **settings: Any) -> Admitter:
    """Return an admitter at a fixed time."""
    return Admitter(make_config(**settings), resolver, TRUST, AuditLog(log or StringIO()), now=lambda: NOW)


async def admit(review: Mapping[str, Any], resolver: Any = None, **settings: Any) -> Decision:
    """Return the decision on a review, given as JSON values."""
    request = parse_review(json.dumps(review).encode())
    return await make_admitter(resolver or TableResolver(), **settings).admit(request, 10.0)


def read_request(name: str) -> Any:
    """Return a recorded review."""
    return json.loads((DATA / "requests" / f"{name}.json").read_bytes())


def apply_edits(document: Any, edits: Any) -> Any:
    """Return `document` with a JSON Patch (RFC 6902: add, remove, replace, test) applied; strict as the standard."""
    result = copy.deepcopy(document)
    for edit in edits:
        *path, last = [part.replace("~1", "/").replace("~0", "~") for part in edit["path"].split("/")[1:]]
        parent = result
        for part in path:
            parent = parent[int(part)] if isinstance(parent, list) else parent[part]
        if edit["op"] == "add":
            if isinstance(parent, list):
                parent.insert(len(parent) if last == "-" else int(last), edit["value"])
            else:
                parent[last] = edit["value"]
            continue
        place: Any = int(last) if isinstance(parent, list) else last
        if edit["op"] == "remove":
            del parent[place]
        elif edit["op"] == "replace":
            assert parent[place] is not None
            parent[place] = edit["value"]
        elif edit["op"] == "test":
            assert parent[place] == edit["value"]
        else:
            raise AssertionError(f"an operation that is not expected here: {edit}")
    return result
