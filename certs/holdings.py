"""Everything that admend holds in certificates, as a value, and how it is written into named files.

Owns the names of the files and the rules of rotation; reads no clock, disk or network. The same files stand in a
folder, in a Secret, or in a volume that a Secret is mounted as:

    ca.crt       every authority that is trusted now: the one that signs, its successor, those that signed before
    ca.key       key of the authority that signs
    ca-next.crt  the successor, already trusted, not yet signing;  ca-next.key  its key
    tls.crt tls.key        the serving certificate      client.crt client.key  the client certificate

The keys that sign images stand beside them (see `signing`).

How an authority is replaced without a moment in which somebody distrusts somebody:
 1. two thirds of its life are over: a successor is made and trusted beside it;
 2. `OVERLAP` later everyone has read the new bundle: the successor signs, and leafs are issued again;
 3. the old one stays trusted until it expires.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from cryptography import x509

from certs.authority import (
    BACKDATE,
    Identity,
    common_name_of,
    is_expired,
    is_signed_by,
    issue_ca,
    issue_client,
    issue_server,
    names_of,
    needs_renewal,
    parse_certificates,
    parse_key,
    render_certificates,
    same_key,
    subject_names,
)
from certs.errors import CertificateError
from certs.signing import SIGNING_FILES, SIGNING_KEY, SIGNING_NEXT, parse_signing, render_signing, renew_signing

OVERLAP = timedelta(hours=24)  # a kubelet shows a changed Secret within minutes; people's copies take longer
CA_CERT, CA_KEY = "ca.crt", "ca.key"
NEXT_CERT, NEXT_KEY = "ca-next.crt", "ca-next.key"
SERVER_CERT, SERVER_KEY = "tls.crt", "tls.key"
CLIENT_CERT, CLIENT_KEY = "client.crt", "client.key"
# Keys before what they belong to, the bundle before leafs: what a writer leaves half-way, the next pass mends.
FILES = (
    *(NEXT_KEY, NEXT_CERT, CA_KEY, CA_CERT),
    *(SERVER_KEY, SERVER_CERT, CLIENT_KEY, CLIENT_CERT, *SIGNING_FILES),
)
SECRET_FILES = frozenset({CA_KEY, NEXT_KEY, SERVER_KEY, CLIENT_KEY, SIGNING_KEY, SIGNING_NEXT})

Files = Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What there must be: a serving certificate for these names, a client one of that name, a signing key.

    Without `authority` the certificates are somebody else's matter, and only the signing key is kept.
    """

    dns_names: tuple[str, ...] = ()
    ips: tuple[str, ...] = ()
    client: str | None = None
    signing: bool = False
    authority: bool = True


@dataclass(frozen=True, slots=True)
class Holdings:
    """The authorities and the leafs."""

    authority: Identity
    successor: Identity | None = None
    retired: tuple[x509.Certificate, ...] = ()
    server: Identity | None = None
    client: Identity | None = None

    @property
    def trusted(self) -> tuple[x509.Certificate, ...]:
        """Every authority that is trusted now; the one that signs comes first."""
        after = (self.successor.certificate,) if self.successor else ()
        return (self.authority.certificate, *after, *self.retired)


def renew(holdings: Holdings | None, wanted: Wanted, now: datetime) -> Holdings:
    """Return the holdings as they must be now; equal to the ones given when nothing is due.

    Raises:
        CertificateError: a wanted name cannot stand in a certificate.
    """
    held = _renew_authority(holdings, now) if holdings else Holdings(issue_ca(now))
    server, client = held.server, held.client
    if wanted.dns_names or wanted.ips:
        names = subject_names(wanted.dns_names, wanted.ips)
        if server is None or _is_due(server, held, now) or set(names_of(server.certificate)) != set(names):
            server = issue_server(held.authority, wanted.dns_names, wanted.ips, now)
    if wanted.client and (
        client is None or _is_due(client, held, now) or common_name_of(client.certificate) != wanted.client
    ):
        client = issue_client(held.authority, wanted.client, now)
    return replace(held, server=server, client=client)


def renew_files(files: Files, wanted: Wanted, now: datetime) -> dict[str, bytes]:
    """Return all files as they must be now; equal to the ones given when nothing is due.

    Raises:
        CertificateError: what is there is damaged, or a wanted name cannot stand in a certificate.
    """
    signing = parse_signing(files)
    after = render_holdings(renew(parse_holdings(files), wanted, now)) if wanted.authority else {}
    if signing or wanted.signing:
        after |= render_signing(renew_signing(signing, now))
    return {name: after[name] for name in FILES if name in after}


def parse_holdings(files: Files) -> Holdings | None:
    """Read holdings from files; None when there is no authority yet.

    A leaf that cannot be read counts as none, since it can be made again; an authority cannot.

    Raises:
        CertificateError: the authority's files are damaged, or its key is missing.
    """
    if CA_CERT not in files:
        return None
    bundle = parse_certificates(files[CA_CERT], what=CA_CERT)
    if CA_KEY not in files:
        raise CertificateError(f"{CA_KEY} is missing: bring it back, or remove {CA_CERT} to start with a new authority")
    key = parse_key(files[CA_KEY], what=CA_KEY)
    own = next((each for each in bundle if same_key(each, key)), None)
    if own is None:
        raise CertificateError(f"{CA_KEY} is not the key of any certificate in {CA_CERT}; bring back those that belong")
    successor = _parse_leaf(files, NEXT_CERT, NEXT_KEY)
    if successor and successor.certificate == own:
        successor = None  # the switch was made, its files were about to be removed
    others = {own, successor.certificate if successor else own}
    return Holdings(
        authority=Identity(own, key),
        successor=successor,
        retired=tuple(each for each in bundle if each not in others),
        server=_parse_leaf(files, SERVER_CERT, SERVER_KEY),
        client=_parse_leaf(files, CLIENT_CERT, CLIENT_KEY),
    )


def render_holdings(holdings: Holdings) -> dict[str, bytes]:
    """Write holdings as files, in the order in which they should be written."""
    pairs = {
        (NEXT_CERT, NEXT_KEY): holdings.successor,
        (SERVER_CERT, SERVER_KEY): holdings.server,
        (CLIENT_CERT, CLIENT_KEY): holdings.client,
    }
    files = {CA_KEY: holdings.authority.key_pem, CA_CERT: render_certificates(holdings.trusted)}
    for (cert_name, key_name), identity in pairs.items():
        if identity:
            files |= {key_name: identity.key_pem, cert_name: identity.certificate_pem}
    return {name: files[name] for name in FILES if name in files}


def _renew_authority(held: Holdings, now: datetime) -> Holdings:
    successor = held.successor
    if successor and is_expired(successor.certificate, now):
        successor = None
    if successor is None and needs_renewal(held.authority.certificate, now):
        successor = issue_ca(now)
    held = replace(held, successor=successor, retired=tuple(each for each in held.retired if not is_expired(each, now)))
    if successor is None:
        return held
    introduced = successor.certificate.not_valid_before_utc + BACKDATE
    expired = is_expired(held.authority.certificate, now)
    if not expired and now < introduced + OVERLAP:
        return held
    old = () if expired else (held.authority.certificate,)
    return replace(held, authority=successor, successor=None, retired=(*old, *held.retired))


def _is_due(leaf: Identity, held: Holdings, now: datetime) -> bool:
    return needs_renewal(leaf.certificate, now) or not is_signed_by(leaf.certificate, held.authority.certificate)


def _parse_leaf(files: Files, cert_name: str, key_name: str) -> Identity | None:
    if cert_name not in files or key_name not in files:
        return None
    try:
        return Identity.parse(files[cert_name], files[key_name], what=cert_name)
    except CertificateError:
        return None
