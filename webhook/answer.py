"""Whether an answer of the proxy may be used for a pod.

Owns the checks between the two. The proxy is authenticated by TLS, yet a rewritten image is believed only for its
signature: it must name this repository (and this digest, when the pod pinned one), the digest that the pod would run,
its place in the mirror, and a time that is not too long ago. Every refusal is a TrustFailure that says what differs.
"""

import base64
import binascii
import functools
from dataclasses import dataclass
from datetime import datetime, timedelta

from certs.following import Followed
from proxy.api import MIRROR_SECRET, Outcome, ResolveResponse
from proxy.errors import MalformedInput, TrustFailure, Unsupported
from proxy.oci.digest import Digest
from proxy.oci.naming import Naming
from proxy.oci.reference import ImageRef
from proxy.trust import VerifyKey, check_claim
from proxy.trust.payload import parse_payload
from proxy.trust.verify import find_key
from webhook.config import TrustConfig

KNOWN_SIGNATURES = 1024  # of about 1 KiB each; the images of a busy cluster come again and again


@dataclass(frozen=True, slots=True)
class Trust:
    """What signatures are held against."""

    keys: tuple[VerifyKey, ...]
    naming: Naming
    max_age: timedelta
    policy_hash: str | None = None

    @property
    def current(self) -> "Trust":
        """Itself: it follows nothing."""
        return self


class FollowedTrust:
    """What signatures are held against, read again when a file of keys changes.

    Raises:
        MalformedInput: a file cannot be read or holds no public key.
        Unsupported: a key is of another kind.
    """

    def __init__(self, config: TrustConfig, naming: Naming) -> None:
        def read() -> Trust:
            keys = tuple(dict.fromkeys(key for file in config.keys for key in VerifyKey.load_all(file)))
            return Trust(keys, naming, timedelta(seconds=config.max_age), config.policy_hash)

        try:
            self._followed = Followed("public keys", config.keys, read, (MalformedInput, Unsupported))
        except OSError as error:
            where = str(error.filename)
            raise MalformedInput(f"the public key cannot be read: {error.strerror}", file=where) from error

    @property
    def current(self) -> Trust:
        """The keys as the files have them now; the last good ones where they cannot be read."""
        return self._followed.current


@dataclass(frozen=True, slots=True)
class Checked:
    """An answer that may be used: the upstream image by digest (if known), the patched one, the key that signed it."""

    source: ImageRef | None
    patched: ImageRef | None = None
    key_id: str = ""


def check_answer(answer: ResolveResponse, reference: ImageRef, trust: Trust, now: datetime) -> Checked:
    """Return what of the answer may be used for `reference`, the upstream image that the pod named.

    Raises TrustFailure: a name, digest, signature or time does not hold.
    """
    if answer.outcome in {Outcome.PENDING, Outcome.FAILED}:
        return Checked(None)
    source = _check_source(answer, reference)
    if answer.outcome is not Outcome.PATCHED:
        return Checked(source)
    patched = _parse(answer.patched, "patched image")
    if patched.digest is None or patched.tag is not None:
        raise TrustFailure(f"the proxy named the patched image {patched} without a digest alone; refused")
    place = trust.naming.name_for(reference)
    if patched.name != place.name:
        raise TrustFailure(f"the proxy named the patched image {patched.name}, but its place is {place.name}; refused")
    if source is None or source.digest is None:
        raise TrustFailure("the proxy's answer names no source digest for a patched image; refused")
    if answer.pull_secret not in {"", MIRROR_SECRET}:
        raise TrustFailure(f"the proxy named the pull secret {answer.pull_secret!r}, which is not its own; refused")
    key_id = _check_signature(answer, source, patched, trust, now)
    return Checked(source, patched, key_id)


def _check_source(answer: ResolveResponse, reference: ImageRef) -> ImageRef | None:
    if not answer.source:
        return None
    source = _parse(answer.source, "source image")
    if source.name != reference.name:
        raise TrustFailure(f"the proxy's answer is about {source.name}, not {reference.name}; refused")
    if source.digest is None:
        raise TrustFailure(f"the proxy's answer names {source} without a digest; refused")
    if reference.digest is not None and source.digest != reference.digest:
        raise TrustFailure(
            f"the proxy's answer is about {source.digest}, but the pod pinned {reference.digest}; refused"
        )
    return source


def _check_signature(answer: ResolveResponse, source: ImageRef, patched: ImageRef, trust: Trust, now: datetime) -> str:
    if answer.signature is None:
        raise TrustFailure("the proxy's answer for a patched image has no signature; refused")
    try:
        payload = base64.b64decode(answer.signature.payload, validate=True)
        signature = base64.b64decode(answer.signature.signature, validate=True)
    except (binascii.Error, ValueError) as error:
        raise TrustFailure("the signature in the proxy's answer is not base64; refused") from error
    key = _find_key(payload, signature, trust.keys)
    try:
        claim = parse_payload(payload)
    except MalformedInput as error:
        raise TrustFailure(f"signed by the trusted key {key.short_id}, but not as a patched image: {error}") from error
    check_claim(
        claim,
        source_repository=source.name,
        source_digest=source.digest,
        patched_digest=_digest(patched),
        patched_repository=patched.name,
        policy_hash=trust.policy_hash,
        max_age=trust.max_age,
        now=now,
    )
    return key.short_id


@functools.lru_cache(maxsize=KNOWN_SIGNATURES)
def _find_key(payload: bytes, signature: bytes, keys: tuple[VerifyKey, ...]) -> VerifyKey:
    """Return the key that made a signature; what was found once is remembered, what failed is not."""
    return find_key(payload, signature, keys)


def _digest(ref: ImageRef) -> Digest:
    if ref.digest is None:
        raise TrustFailure(f"{ref} has no digest; refused")
    return ref.digest


def _parse(text: str, what: str) -> ImageRef:
    try:
        return ImageRef.parse(text)
    except MalformedInput as error:
        raise TrustFailure(f"the {what} in the proxy's answer is not a reference: {error}") from error
