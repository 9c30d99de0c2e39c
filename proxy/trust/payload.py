"""What admend signs: cosign's simple-signing payload, with admend's claims in its `optional` part.

Owns the value `Claim` and its JSON form. The signed text names the source repository and digest, the patched
repository and digest, the policy's hash and the time, so that a signature says for which image it was made. Refuses
payloads that lack one of them, have others with the `admend.dev/` prefix, or are not of cosign's type.
Format: https://github.com/sigstore/cosign/blob/v2.5.0/specs/SIGNATURE_SPEC.md#simple-signing
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from proxy.errors import MalformedInput
from proxy.oci.digest import Digest
from proxy.oci.manifest import render_json
from proxy.oci.reference import ImageRef

MAX_PAYLOAD = 64 << 10  # bytes; ours have about 800
PREFIX = "admend.dev/"
SIMPLE_SIGNING_TYPE = "cosign container image signature"

_POLICY = re.compile(r"[A-Za-z0-9][A-Za-z0-9:._+-]{0,127}")
_TIME = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True, slots=True)
class Claim:
    """That `patched_repository@patched_digest` is `source_repository@source_digest`, patched under a policy.

    Repositories are full names, host included, without tag or digest. `signed_at` is in UTC, whole seconds.
    """

    source_repository: str
    source_digest: Digest
    patched_repository: str
    patched_digest: Digest
    policy_hash: str
    signed_at: datetime

    def __post_init__(self) -> None:
        """Refuse names and hashes that would not come back from the JSON form as they are."""
        for name in (self.source_repository, self.patched_repository):
            if ImageRef.parse(name).name != name:
                raise MalformedInput("a claim names repositories in full, without tag or digest", text=name)
        if _POLICY.fullmatch(self.policy_hash) is None:
            raise MalformedInput("a policy hash is letters, digits and :._+-", text=self.policy_hash)
        if self.signed_at.tzinfo is None:
            raise MalformedInput("a claim's time needs a time zone", text=str(self.signed_at))
        object.__setattr__(self, "signed_at", self.signed_at.astimezone(UTC).replace(microsecond=0))


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class _Identity(_Strict):
    reference: Annotated[str, Field(alias="docker-reference", max_length=255)]


class _Image(_Strict):
    digest: Annotated[str, Field(alias="docker-manifest-digest", max_length=255)]


class _Critical(_Strict):
    identity: _Identity
    image: _Image
    type: Literal["cosign container image signature"]


class _Optional(_Strict):
    """Our claims; other tools' entries (cosign's `creator`, `timestamp`, annotations) may stand beside them."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)

    source_repository: Annotated[str, Field(alias=f"{PREFIX}source-repository", max_length=255)]
    source_digest: Annotated[str, Field(alias=f"{PREFIX}source-digest", max_length=255)]
    policy_hash: Annotated[str, Field(alias=f"{PREFIX}policy-hash", max_length=128)]
    signed_at: Annotated[str, Field(alias=f"{PREFIX}signed-at", max_length=64)]


class _Payload(_Strict):
    critical: _Critical
    optional: _Optional


def render_payload(claim: Claim) -> bytes:
    """Return the bytes to sign; `parse_payload` gives the claim back."""
    document: dict[str, Any] = {
        "critical": {
            "identity": {"docker-reference": claim.patched_repository},
            "image": {"docker-manifest-digest": str(claim.patched_digest)},
            "type": SIMPLE_SIGNING_TYPE,
        },
        "optional": {
            f"{PREFIX}policy-hash": claim.policy_hash,
            f"{PREFIX}signed-at": claim.signed_at.strftime(_TIME),
            f"{PREFIX}source-digest": str(claim.source_digest),
            f"{PREFIX}source-repository": claim.source_repository,
        },
    }
    return render_json(document)


def parse_payload(payload: bytes, *, where: str = "signed payload") -> Claim:
    """Parse a payload that admend (or cosign, told to add admend's claims) wrote; MalformedInput says what is wrong."""
    if len(payload) > MAX_PAYLOAD:
        raise MalformedInput(f"a signed payload has {MAX_PAYLOAD} bytes at the most", file=where)
    try:
        document = _Payload.model_validate_json(payload)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "document"
        raise MalformedInput(f"not a payload with admend's claims: {place}: {first['msg']}", file=where) from error
    claims = document.optional
    for key in claims.model_extra or {}:
        if key.startswith(PREFIX):
            raise MalformedInput("an admend claim that this version does not know", file=where, text=key)
    return Claim(
        source_repository=claims.source_repository,
        source_digest=Digest.parse(claims.source_digest),
        patched_repository=document.critical.identity.reference,
        patched_digest=Digest.parse(document.critical.image.digest),
        policy_hash=claims.policy_hash,
        signed_at=_parse_time(claims.signed_at, where),
    )


def _parse_time(text: str, where: str) -> datetime:
    try:
        moment = datetime.strptime(text, _TIME).replace(tzinfo=UTC)
    except ValueError as error:
        raise MalformedInput("a time is written 2001-02-03T04:05:06Z", file=where, text=text) from error
    if moment.strftime(_TIME) != text:
        raise MalformedInput("a time is written 2001-02-03T04:05:06Z", file=where, text=text)
    return moment
