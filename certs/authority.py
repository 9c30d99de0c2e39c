"""A small certificate authority: pure functions from names and a time to certificates.

Owns what admend's certificates look like (RFC 5280): ECDSA P-256, random serials, a few minutes backdated, leafs
that live for weeks and say what they are for. Refuses names that are no host names or addresses, and never reads a
clock, a disk or a network.
"""

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from certs.errors import CertificateError

CA_LIFETIME = timedelta(days=730)
LEAF_LIFETIME = timedelta(days=30)
BACKDATE = timedelta(minutes=5)  # clocks of a cluster's nodes differ by less
RENEWAL_SHARE = 2 / 3  # of the lifetime, as kubelet and cert-manager do: one third is left for trouble
MAX_NAME = 253  # RFC 1035, section 2.3.4, as text
MAX_COMMON_NAME = 64  # RFC 5280, ub-common-name
MAX_NAMES = 100

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z")
_COMMON_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._:@/-]*\Z")


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey = field(repr=False)

    @classmethod
    def parse(cls, certificate: bytes, key: bytes, *, what: str) -> Self:
        """Parse a PEM certificate and its PEM key; `what` names them in errors."""
        secret = parse_key(key, what=what)
        first = parse_certificates(certificate, what=what)[0]
        if not same_key(first, secret):
            raise CertificateError(f"{what}: the private key is not that of the certificate")
        return cls(first, secret)

    @property
    def certificate_pem(self) -> bytes:
        """The certificate, PEM."""
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """The private key, PEM (PKCS #8), not encrypted: keep it 0600."""
        return render_key(self.key)


def make_key() -> ec.EllipticCurvePrivateKey:
    """Make a new key on the curve P-256."""
    return ec.generate_private_key(ec.SECP256R1())


def issue_ca(now: datetime, lifetime: timedelta = CA_LIFETIME) -> Identity:
    """Make a self-signed authority that may sign leafs only; every one has a name of its own."""
    key = make_key()
    serial = x509.random_serial_number()
    name = _common_name(f"admend authority {serial & 0xFFFFFFFF:08x}")
    builder = _begin(name, name, key, (now, now + lifetime), serial)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_key_usage(signs_certificates=True), critical=True)
    builder = builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False
    )
    return Identity(builder.sign(key, hashes.SHA256()), key)


def issue_server(
    ca: Identity, dns_names: Iterable[str], ips: Iterable[str], now: datetime, lifetime: timedelta = LEAF_LIFETIME
) -> Identity:
    """Make a serving certificate for host names and addresses.

    Raises:
        CertificateError: a name is no host name or address, there is none, there are too many, or the CA has expired.
    """
    names = subject_names(dns_names, ips)
    return _issue_leaf(ca, "admend server", (now, now + lifetime), ExtendedKeyUsageOID.SERVER_AUTH, names)


def issue_client(ca: Identity, name: str, now: datetime, lifetime: timedelta = LEAF_LIFETIME) -> Identity:
    """Make a client certificate whose common name is `name`."""
    return _issue_leaf(ca, name, (now, now + lifetime), ExtendedKeyUsageOID.CLIENT_AUTH, ())


def needs_renewal(certificate: x509.Certificate, now: datetime) -> bool:
    """Say whether two thirds of the lifetime are over, or the certificate is not valid yet (a clock was set back)."""
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return now < start or now >= renewal_time(start, end)


def renewal_time(start: datetime, end: datetime) -> datetime:
    """Return when a certificate with this validity is due for renewal."""
    return start + (end - start) * RENEWAL_SHARE


def is_expired(certificate: x509.Certificate, now: datetime) -> bool:
    """Say whether the certificate is past its end."""
    return now >= certificate.not_valid_after_utc


def is_signed_by(certificate: x509.Certificate, ca: x509.Certificate) -> bool:
    """Say whether `ca` signed `certificate`."""
    try:
        certificate.verify_directly_issued_by(ca)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def same_key(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> bool:
    """Say whether `key` is the private key of `certificate`."""
    shape = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return certificate.public_key().public_bytes(*shape) == key.public_key().public_bytes(*shape)


def names_of(certificate: x509.Certificate) -> tuple[x509.GeneralName, ...]:
    """Return the subject alternative names of a certificate, or none."""
    try:
        return tuple(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return ()


def common_name_of(certificate: x509.Certificate) -> str:
    """Return the subject's common name, or an empty string."""
    found = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else ""


def subject_names(dns_names: Iterable[str], ips: Iterable[str]) -> tuple[x509.GeneralName, ...]:
    """Check host names and addresses and return them without repeats, host names first."""
    names: dict[x509.GeneralName, None] = {x509.DNSName(_checked_host(name)): None for name in dns_names}
    for ip in ips:
        try:
            names[x509.IPAddress(ipaddress.ip_address(ip))] = None
        except ValueError as error:
            raise CertificateError(f"{ip!r} is not an IP address; give host names as DNS names") from error
    if not names:
        raise CertificateError("a serving certificate needs at least one DNS name or IP address")
    if len(names) > MAX_NAMES:
        raise CertificateError(f"{len(names)} names are too many for one certificate; at most {MAX_NAMES}")
    return tuple(names)


def parse_certificates(data: bytes, *, what: str) -> tuple[x509.Certificate, ...]:
    """Parse one or more PEM certificates; `what` names them in errors."""
    try:
        found = x509.load_pem_x509_certificates(data)
    except ValueError as error:
        raise CertificateError(f"{what}: no PEM certificate can be read: {error}") from error
    return tuple(found)


def render_certificates(certificates: Iterable[x509.Certificate]) -> bytes:
    """Render certificates as PEM, in the order given, each once."""
    return b"".join(dict.fromkeys(each.public_bytes(Encoding.PEM) for each in certificates))


def parse_key(data: bytes, *, what: str) -> ec.EllipticCurvePrivateKey:
    """Parse an unencrypted PEM key; only ECDSA keys are admend's."""
    try:
        key = load_pem_private_key(data, None)
    except (ValueError, TypeError) as error:
        raise CertificateError(f"{what}: the private key is not an unencrypted PEM key") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise CertificateError(f"{what}: the private key is not an ECDSA key")
    return key


def render_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Render a private key as PEM (PKCS #8), not encrypted."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _issue_leaf(
    ca: Identity,
    subject: str,
    validity: tuple[datetime, datetime],
    usage: x509.ObjectIdentifier,
    names: tuple[x509.GeneralName, ...],
) -> Identity:
    now, end = validity[0], min(validity[1], ca.certificate.not_valid_after_utc)
    if end <= now:
        raise CertificateError("the certificate authority has expired; it signs no more certificates")
    key = make_key()
    issuer = ca.certificate
    builder = _begin(_common_name(subject), issuer.subject, key, (now, end), x509.random_serial_number())
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_key_usage(signs_certificates=False), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    identifier = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    builder = builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False
    )
    return Identity(builder.sign(ca.key, hashes.SHA256()), key)


def _begin(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    validity: tuple[datetime, datetime],
    serial: int,
) -> x509.CertificateBuilder:
    now, end = validity
    builder = x509.CertificateBuilder(subject_name=subject, issuer_name=issuer, serial_number=serial)
    builder = builder.public_key(key.public_key()).not_valid_before(now - BACKDATE).not_valid_after(end)
    return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _common_name(text: str) -> x509.Name:
    if len(text) > MAX_COMMON_NAME or not _COMMON_NAME.match(text):
        raise CertificateError(
            f"{text[:120]!r} cannot be a certificate's name: letters, digits and ' ._:@/-', at most {MAX_COMMON_NAME}"
        )
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _checked_host(name: str) -> str:
    lowered = name.lower().removesuffix(".")
    labels = lowered.removeprefix("*.").split(".")
    if len(lowered) > MAX_NAME or not all(_LABEL.match(label) for label in labels):
        raise CertificateError(f"{name[:120]!r} is not a host name (ASCII labels; a wildcard only as the first label)")
    if labels[-1].isdigit():
        raise CertificateError(f"{name[:120]!r} looks like an IP address; give it as one")
    return lowered
