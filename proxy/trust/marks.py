"""High-water marks: the newest index date seen of every package source, so that an older index is refused.

Owns the value `Marks`, its signed document and the check. Many suites carry no Valid-Until: without a mark, whoever
stands between admend and a mirror could serve last year's index, correctly signed, for ever. The document is a DSSE
envelope, kept in the mirror; its payload type is part of the signed text, so no other signature of the same key passes.
Format: https://github.com/secure-systems-lab/dsse/blob/v1.0.2/envelope.md
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from proxy.errors import MalformedInput, TrustFailure
from proxy.oci.manifest import render_json
from proxy.trust.envelope import describe_invalid, sign_document, verify_document
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
        raise MalformedInput(f"not high-water marks: {describe_invalid(error)}", file=where) from error
    return Marks({source: date.astimezone(UTC) for source, date in parsed.marks.items()})


def sign_marks(marks: Marks, key: SigningKey) -> bytes:
    """Return the signed document, to be kept where every replica finds it."""
    return sign_document(PAYLOAD_TYPE, render_marks(marks), key)


def verify_marks(document: bytes, keys: Sequence[VerifyKey], *, where: str = "high-water marks") -> Marks:
    """Return the marks of a signed document.

    Raises:
        MalformedInput: it is not such a document.
        TrustFailure: none of `keys` signed it.
    """
    payload = verify_document(document, PAYLOAD_TYPE, keys, where=where, limit=MAX_MARKS)
    return parse_marks(payload, where=where)


def _check_size(document: bytes, where: str) -> None:
    if len(document) > 2 * MAX_MARKS:
        raise MalformedInput(f"longer than {2 * MAX_MARKS} bytes", file=where)
