"""Signed documents: a DSSE envelope around bytes of one kind.

Owns the envelope. The kind is part of the signed text, so a document of one kind never passes for another, and no
other signature of the same key passes for either.
Format: https://github.com/secure-systems-lab/dsse/blob/v1.0.2/envelope.md
"""

import base64
from collections.abc import Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from proxy.errors import MalformedInput, TrustFailure
from proxy.oci.manifest import render_json
from proxy.trust.keys import SigningKey, VerifyKey


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Signature(_Strict):
    keyid: Annotated[str, Field(max_length=64)] = ""
    sig: Annotated[str, Field(max_length=1024)]


class _Envelope(_Strict):
    payload_type: Annotated[str, Field(alias="payloadType", max_length=255)]
    payload: str
    signatures: Annotated[list[_Signature], Field(min_length=1, max_length=16)]


def sign_document(kind: str, payload: bytes, key: SigningKey) -> bytes:
    """Return the signed document, to be kept where every replica finds it."""
    signature = base64.b64encode(key.sign(_signed_text(kind, payload))).decode("ascii")
    return render_json(
        {
            "payloadType": kind,
            "payload": base64.b64encode(payload).decode("ascii"),
            "signatures": [{"keyid": key.public.key_id, "sig": signature}],
        }
    )


def verify_document(document: bytes, kind: str, keys: Sequence[VerifyKey], *, where: str, limit: int) -> bytes:
    """Return the payload of a signed document of this kind; `limit` bounds it, in bytes.

    Raises:
        MalformedInput: it is not such a document.
        TrustFailure: none of `keys` signed it.
    """
    if len(document) > 2 * limit:
        raise MalformedInput(f"longer than {2 * limit} bytes", file=where)
    try:
        envelope = _Envelope.model_validate_json(document)
        payload = base64.b64decode(envelope.payload, validate=True)
        signatures = [base64.b64decode(item.sig, validate=True) for item in envelope.signatures]
    except ValidationError as error:
        raise MalformedInput(f"not a signed document: {describe_invalid(error)}", file=where) from error
    except ValueError as error:  # binascii.Error is one; so is text that is not ASCII
        raise MalformedInput(f"not a signed document: {error}", file=where) from error
    if envelope.payload_type != kind:
        raise MalformedInput("a signed document of another kind", file=where, text=envelope.payload_type)
    text = _signed_text(kind, payload)
    if not any(key.made(text, signature) for key in keys for signature in signatures):
        names = ", ".join(key.short_id for key in keys) or "none are configured"
        raise TrustFailure(f"{where}: none of the trusted keys ({names}) signed this document")
    return payload


def describe_invalid(error: ValidationError) -> str:
    """Return what is wrong first, and where, without the value."""
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(str(part) for part in first['loc']) or 'document'}: {first['msg']}"


def _signed_text(kind: str, payload: bytes) -> bytes:
    """Return DSSE's pre-authentication encoding of the payload and its kind."""
    name = kind.encode()
    return b"DSSEv1 %d %b %d %b" % (len(name), name, len(payload), payload)
