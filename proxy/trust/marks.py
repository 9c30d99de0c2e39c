"""High-water marks: the newest index date seen of every package source, so that an older index is refused.

Owns the value `Marks`, its signed document and the check. Many suites carry no Valid-Until: without a mark, whoever
stands between admend and a mirror could serve last year's index, correctly signed, for ever. The document is a DSSE
envelope, kept in the mirror; its payload type is part of the signed text, so no other signature of the same key passes.
Format: https://github.com/secure-systems-lab/dsse/blob/v1.0.2/envelope.md
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from proxy.errors import MalformedInput, TrustFailure
from proxy.oci.manifest import render_json
from proxy.trust.keys import SigningKey, VerifyKey

PAYLOAD_TYPE = "application/vnd.admend.marks.v1+json"
MAX_MARKS = 4 << 20  # bytes of the document: some 40,000 sources


@dataclass(frozen=True, slots=True)
class Marks:
    """By source label, the newest index date seen (UTC)."""

    dates: Mapping[str, datetime] = field(default_factory=dict)

    def merge(self, other: "Marks") -> "Marks":
        """Return the newer date of every source; the order of merging does not matter."""
        merged = dict(self.dates)
        for source, date in other.dates.items():
            merged[source] = max(date, merged.get(source, date))
        return Marks(merged)


def check_mark(marks: Marks, source: str, date: datetime) -> None:
    """Raise TrustFailure when an index of `source` dated `date` is older than one seen before."""
    seen = marks.dates.get(source)
    if seen is not None and date < seen:
        raise TrustFailure(
            f"source {source}: its index is dated {date.isoformat()}, but one of {seen.isoformat()} was seen before: "
            "an outdated mirror or a rollback; use another mirror, or remove the mark if the older index is right"
        )


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Document(_Strict):
    marks: dict[Annotated[str, Field(max_length=4096)], AwareDatetime]


class _EnvelopeSignature(_Strict):
    keyid: Annotated[str, Field(max_length=64)] = ""
    sig: Annotated[str, Field(max_length=1024)]


class _Envelope(_Strict):
    payload_type: Annotated[str, Field(alias="payloadType", max_length=255)]
    payload: str
    signatures: Annotated[list[_EnvelopeSignature], Field(min_length=1, max_length=16)]


def render_marks(marks: Marks) -> bytes:
    """Return the unsigned document: sources sorted, dates in UTC."""
    dates = {source: marks.dates[source].astimezone(UTC).isoformat() for source in sorted(marks.dates)}
    return render_json({"marks": dates})


def parse_marks(document: bytes, *, where: str = "high-water marks") -> Marks:
    """Parse what `render_marks` wrote."""
    _check_size(document, where)
    try:
        parsed = _Document.model_validate_json(document)
    except ValidationError as error:
        raise MalformedInput(f"not high-water marks: {_describe(error)}", file=where) from error
    return Marks({source: date.astimezone(UTC) for source, date in parsed.marks.items()})


def sign_marks(marks: Marks, key: SigningKey) -> bytes:
    """Return the signed document, to be kept where every replica finds it."""
    payload = render_marks(marks)
    signature = base64.b64encode(key.sign(_signed_text(payload))).decode("ascii")
    return render_json(
        {
            "payloadType": PAYLOAD_TYPE,
            "payload": base64.b64encode(payload).decode("ascii"),
            "signatures": [{"keyid": key.public.key_id, "sig": signature}],
        }
    )


def verify_marks(document: bytes, keys: Sequence[VerifyKey], *, where: str = "high-water marks") -> Marks:
    """Return the marks of a signed document.

    Raises:
        MalformedInput: it is not such a document.
        TrustFailure: none of `keys` signed it.
    """
    _check_size(document, where)
    try:
        envelope = _Envelope.model_validate_json(document)
        payload = base64.b64decode(envelope.payload, validate=True)
        signatures = [base64.b64decode(item.sig, validate=True) for item in envelope.signatures]
    except ValidationError as error:
        raise MalformedInput(f"not a signed document: {_describe(error)}", file=where) from error
    except ValueError as error:  # binascii.Error is one; so is text that is not ASCII
        raise MalformedInput(f"not a signed document: {error}", file=where) from error
    if envelope.payload_type != PAYLOAD_TYPE:
        raise MalformedInput("a signed document of another kind", file=where, text=envelope.payload_type)
    text = _signed_text(payload)
    if not any(key.made(text, signature) for key in keys for signature in signatures):
        names = ", ".join(key.short_id for key in keys) or "none are configured"
        raise TrustFailure(f"{where}: none of the trusted keys ({names}) signed this document")
    return parse_marks(payload, where=where)


def _signed_text(payload: bytes) -> bytes:
    """Return DSSE's pre-authentication encoding of the payload and its type."""
    kind = PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def _check_size(document: bytes, where: str) -> None:
    if len(document) > 2 * MAX_MARKS:
        raise MalformedInput(f"longer than {2 * MAX_MARKS} bytes", file=where)


def _describe(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(str(part) for part in first['loc']) or 'document'}: {first['msg']}"
