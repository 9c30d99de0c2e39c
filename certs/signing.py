"""The keys that sign patched images, as a value, and how they are written into named files.

Owns their files and the rules of their rotation; reads no clock, disk or network.

    signing.pem         the key that signs now
    signing.pub         every public key that is to be believed: that of the key that signs first, its successor's, then
                        those that signed before
    signing-next.pem    the successor: already believed, not yet signing
    signing-state.json  since when the successor is believed, and until when each older key is

A key is replaced only when somebody asks for it, since verifiers outside of the cluster must learn the new one:
 1. a successor is made and believed beside it;
 2. `OVERLAP` later everyone has read `signing.pub`: the successor signs;
 3. the old key's signatures are believed for `KEPT`; within that time each image in use is signed anew.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from certs.authority import make_key, parse_key, render_key
from certs.errors import CertificateError

OVERLAP = timedelta(minutes=15)  # a kubelet shows a changed Secret within two minutes
KEPT = timedelta(days=30)
SIGNING_KEY, SIGNING_PUBLIC = "signing.pem", "signing.pub"
SIGNING_NEXT, SIGNING_STATE = "signing-next.pem", "signing-state.json"
# The successor before its date, and public keys before the key that signs with them: a writer may stop in between.
SIGNING_FILES = (SIGNING_NEXT, SIGNING_STATE, SIGNING_PUBLIC, SIGNING_KEY)


class _RetiredForm(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    key: str
    until: AwareDatetime


class _StateForm(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    introduced: AwareDatetime | None = None
    retired: tuple[_RetiredForm, ...] = ()


@dataclass(frozen=True, slots=True)
class Retired:
    """A public key (PEM) that signed before, and until when its signatures are believed."""

    key: bytes
    until: datetime


@dataclass(frozen=True, slots=True)
class SigningKeys:
    """The key that signs, its successor and since when that is believed, and the keys that signed before."""

    current: ec.EllipticCurvePrivateKey = field(repr=False)
    successor: ec.EllipticCurvePrivateKey | None = field(default=None, repr=False)
    introduced: datetime | None = None
    retired: tuple[Retired, ...] = ()

    @property
    def believed(self) -> tuple[bytes, ...]:
        """Every public key (PEM) that is believed now, that of the key that signs first."""
        after = (_render_public(self.successor),) if self.successor else ()
        return tuple(dict.fromkeys((_render_public(self.current), *after, *(each.key for each in self.retired))))


def renew_signing(keys: SigningKeys | None, now: datetime) -> SigningKeys:
    """Return the keys as they must be now: a first one, a successor that takes over, old ones dropped at their end."""
    if keys is None:
        return SigningKeys(make_key())
    keys = replace(keys, retired=tuple(each for each in keys.retired if now < each.until))
    if keys.successor is None or keys.introduced is None or now < keys.introduced + OVERLAP:
        return keys
    old = Retired(_render_public(keys.current), now + KEPT)
    return SigningKeys(keys.successor, retired=(old, *keys.retired))


def introduce_successor(keys: SigningKeys | None, now: datetime) -> SigningKeys:
    """Return the keys with a successor that takes over after `OVERLAP`; one that is under way is left as it is."""
    keys = renew_signing(keys, now)
    return keys if keys.successor else replace(keys, successor=make_key(), introduced=now)


def parse_signing(files: Mapping[str, bytes]) -> SigningKeys | None:
    """Read the keys from files; None when there are none yet.

    Raises:
        CertificateError: a key or the state is damaged; nothing of it is made anew silently.
    """
    if SIGNING_KEY not in files:
        return None
    current = parse_key(files[SIGNING_KEY], what=SIGNING_KEY)
    state = _parse_state(files.get(SIGNING_STATE, b"{}"))
    retired = tuple(Retired(each.key.encode(), each.until) for each in state.retired)
    if state.introduced is None or SIGNING_NEXT not in files:
        return SigningKeys(current, retired=retired)
    successor = parse_key(files[SIGNING_NEXT], what=SIGNING_NEXT)
    if _render_public(successor) == _render_public(current):  # the switch was made, its files were about to be removed
        return SigningKeys(current, retired=retired)
    return SigningKeys(current, successor, state.introduced, retired)


def render_signing(keys: SigningKeys) -> dict[str, bytes]:
    """Write the keys as files, in the order in which they should be written."""
    files = {SIGNING_KEY: render_key(keys.current), SIGNING_PUBLIC: b"".join(keys.believed)}
    if keys.successor:
        files[SIGNING_NEXT] = render_key(keys.successor)
    if keys.introduced or keys.retired:
        retired = [{"key": each.key.decode(), "until": each.until.isoformat()} for each in keys.retired]
        introduced = keys.introduced.isoformat() if keys.introduced else None
        files[SIGNING_STATE] = json.dumps({"introduced": introduced, "retired": retired}, indent=1).encode()
    return {name: files[name] for name in SIGNING_FILES if name in files}


def _parse_state(raw: bytes) -> _StateForm:
    try:
        state = _StateForm.model_validate_json(raw)
        for each in state.retired:
            load_pem_public_key(each.key.encode())
    except (ValidationError, ValueError) as error:
        text = f"{SIGNING_STATE} is damaged; bring it back, or remove it: then only the key that signs now is believed"
        raise CertificateError(text) from error
    return state


def _render_public(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return the public half of a key as PEM, as cosign and openssl read it."""
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
