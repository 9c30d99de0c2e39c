"""Signing keys: ECDSA on P-256 with SHA-256, the kind that `cosign generate-key-pair` makes.

Owns reading and writing of key files and the two operations, sign and verify. Refuses other curves and algorithms, and
cosign's own encrypted private key file (its NaCl secretbox is not in the cryptography library). Public keys are
`PUBLIC KEY` PEM as cosign reads and writes them.
Formats: RFC 5958 (PKCS#8), RFC 5480 (SubjectPublicKeyInfo), RFC 3279 section 2.2.3 (signatures, DER).
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from certs.following import Followed
from proxy.errors import MalformedInput, TrustFailure, Unsupported
from proxy.files import writing

MAX_KEY_FILE = 64 << 10  # bytes; a P-256 key in PEM has under 300
MAX_SIGNATURE = 72  # bytes of a DER signature on P-256
SHORT_ID = 16  # hex digits

_COSIGN_MARKS = (b"ENCRYPTED SIGSTORE PRIVATE KEY", b"ENCRYPTED COSIGN PRIVATE KEY")
_PUBLIC_KEY = re.compile(rb"-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----", re.DOTALL)
_ALGORITHM = ec.ECDSA(hashes.SHA256())


@dataclass(frozen=True, slots=True)
class VerifyKey:
    """A public key. `key_id` is the SHA-256 (hex) of its DER SubjectPublicKeyInfo."""

    key_id: str
    _key: ec.EllipticCurvePublicKey = field(repr=False, compare=False)

    @classmethod
    def parse_pem(cls, pem: bytes, *, where: str = "public key") -> "VerifyKey":
        """Parse a `PUBLIC KEY` PEM; MalformedInput if it is none, Unsupported if it is not ECDSA on P-256."""
        _check_size(pem, where)
        try:
            key = serialization.load_pem_public_key(pem)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise MalformedInput("not a public key in PEM (-----BEGIN PUBLIC KEY-----)", file=where) from error
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
            raise Unsupported(f"{where}: not an ECDSA key on the curve P-256; make one with cosign generate-key-pair")
        return cls._of(key)

    @classmethod
    def load_all(cls, path: Path) -> "tuple[VerifyKey, ...]":
        """Read a file of one or more public keys in PEM; the errors of `parse_pem`, and when it cannot be read."""
        try:
            with path.open("rb") as stream:
                pem = stream.read(MAX_KEY_FILE + 1)
        except OSError as error:
            raise MalformedInput(f"the public key cannot be read: {error.strerror}", file=str(path)) from error
        _check_size(pem, str(path))
        blocks = _PUBLIC_KEY.findall(pem) or [pem]
        return tuple(dict.fromkeys(cls.parse_pem(block, where=str(path)) for block in blocks))

    @classmethod
    def _of(cls, key: ec.EllipticCurvePublicKey) -> "VerifyKey":
        der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        return cls(hashlib.sha256(der).hexdigest(), key)

    @property
    def short_id(self) -> str:
        """The first 16 hex digits of `key_id`, for people and audit lines."""
        return self.key_id[:SHORT_ID]

    def render_pem(self) -> bytes:
        """Return the key as `PUBLIC KEY` PEM, the form that `cosign verify --key` reads."""
        return self._key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)

    def verify(self, data: bytes, signature: bytes) -> None:
        """Check a DER ECDSA-SHA256 signature over `data`; TrustFailure if it is not this key's."""
        if not self.made(data, signature):
            raise TrustFailure(f"the signature was not made by the key {self.short_id}, or the signed text was changed")

    def made(self, data: bytes, signature: bytes) -> bool:
        """Say whether this key made `signature` over `data`; anything but strict DER is no signature."""
        if len(signature) > MAX_SIGNATURE:
            return False
        try:
            self._key.verify(signature, data, _ALGORITHM)
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key; neither its text form nor any error shows it."""

    _key: ec.EllipticCurvePrivateKey = field(repr=False, compare=False)
    public: VerifyKey

    @classmethod
    def generate(cls) -> "SigningKey":
        """Make a new key."""
        return cls._of(ec.generate_private_key(ec.SECP256R1()))

    @classmethod
    def load(cls, path: Path, password: bytes | None = None) -> "SigningKey":
        """Read a PKCS#8 (or SEC 1) PEM file; `password` decrypts an encrypted one.

        Raises:
            MalformedInput: the file cannot be read, is no private key, or its password is missing or wrong.
            Unsupported: not ECDSA on P-256, or cosign's own encrypted format.
        """
        try:
            with path.open("rb") as stream:
                pem = stream.read(MAX_KEY_FILE + 1)
        except OSError as error:
            raise MalformedInput(f"the signing key cannot be read: {error.strerror}", file=str(path)) from error
        return cls.parse_pem(pem, password, where=str(path))

    @classmethod
    def parse_pem(cls, pem: bytes, password: bytes | None = None, *, where: str = "signing key") -> "SigningKey":
        """Parse what `load` reads from a file; the same errors."""
        _check_size(pem, where)
        if any(mark in pem for mark in _COSIGN_MARKS):
            raise Unsupported(
                f"{where}: a private key in cosign's encrypted format, which admend does not read; give it a PKCS#8 "
                "PEM key (openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256); cosign accepts what it signs"
            )
        try:
            key = serialization.load_pem_private_key(pem, password)
        except TypeError as error:  # cryptography's word for a password that is missing, or given in vain
            needs = (
                "is encrypted: give its password" if password is None else "is not encrypted, but a password is given"
            )
            raise MalformedInput(f"the signing key {needs}", file=where) from error
        except (ValueError, UnsupportedAlgorithm):
            # The cause is left out: nothing of a private key belongs into a log.
            raise MalformedInput("not a private key in PKCS#8 PEM, or a wrong password", file=where) from None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
            raise Unsupported(f"{where}: not an ECDSA key on the curve P-256; cosign's key signatures use no other")
        return cls._of(key)

    @classmethod
    def _of(cls, key: ec.EllipticCurvePrivateKey) -> "SigningKey":
        return cls(key, VerifyKey._of(key.public_key()))  # noqa: SLF001 - the two classes are one module's secret

    def render_pem(self, password: bytes | None = None) -> bytes:
        """Return the key as PKCS#8 PEM, encrypted if a password is given."""
        encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
        if password is not None:
            encryption = serialization.BestAvailableEncryption(password)
        return self._key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)

    def save(self, path: Path, password: bytes | None = None) -> None:
        """Write the key to `path`, readable by its owner alone, whole or not at all."""
        with writing(path, durable=True, mode=0o600) as stream:
            stream.write(self.render_pem(password))

    def sign(self, data: bytes) -> bytes:
        """Return the DER ECDSA-SHA256 signature over `data`."""
        return self._key.sign(data, _ALGORITHM)

    @property
    def signing(self) -> "SigningKey":
        """The key itself: it is a key ring of one."""
        return self

    @property
    def accepted(self) -> tuple[VerifyKey, ...]:
        """Its public half alone."""
        return (self.public,)


class KeyRing(Protocol):
    """The key that signs, and the keys whose signatures are believed (its own public half first)."""

    @property
    def signing(self) -> SigningKey:
        """The key that signs now."""

    @property
    def accepted(self) -> tuple[VerifyKey, ...]:
        """The keys whose signatures are believed now."""


class FollowedKeys:
    """A key ring that follows its files.

    Args:
        signing: the file of the private key.
        trusted: files of public keys that signed before.

    Raises:
        MalformedInput: a file cannot be read or is no key.
        Unsupported: a key is not ECDSA on P-256.
    """

    def __init__(self, signing: Path, trusted: Sequence[Path] = ()) -> None:
        def read() -> tuple[SigningKey, tuple[VerifyKey, ...]]:
            key = SigningKey.load(signing)
            older = (each for file in trusted for each in VerifyKey.load_all(file))
            return key, tuple(dict.fromkeys((key.public, *older)))

        files = (signing, *trusted)
        try:
            self._followed = Followed("signing keys", files, read, (MalformedInput, Unsupported))
        except OSError as error:
            raise MalformedInput(f"the key cannot be read: {error.strerror}", file=str(error.filename)) from error

    @property
    def signing(self) -> SigningKey:
        """The key that signs now."""
        return self._followed.current[0]

    @property
    def accepted(self) -> tuple[VerifyKey, ...]:
        """The keys whose signatures are believed now."""
        return self._followed.current[1]


def _check_size(pem: bytes, where: str) -> None:
    if len(pem) > MAX_KEY_FILE:
        raise MalformedInput(f"a key file has {MAX_KEY_FILE} bytes at the most", file=where)
