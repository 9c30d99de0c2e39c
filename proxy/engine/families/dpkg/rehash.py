"""What `openssl rehash` leaves in a folder of certificates: links named by the hash of each one's subject.

Owns that hash (the canonical form of a name), and which links are kept, made and removed. Only what is a certificate of
its own in one file is linked; bundles are not. Refuses (NotReproduced) revocation lists and what it cannot read.
Specification: openssl-rehash(1), openssl-x509(1) -subject_hash; RFC 5280 4.1.2.4, X.690
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from proxy.engine.families.dpkg.findings import NotReproduced
from proxy.engine.stage import Stage
from proxy.engine.tar import Kind
from proxy.errors import AdmendError, MalformedInput

MAX_CERTIFICATES = 10_000
MAX_SAME = 256  # certificates of one subject that openssl links

_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----\r?\n(.*?)-----END \1-----", re.DOTALL)
_CERTIFICATES = frozenset({b"CERTIFICATE", b"X509 CERTIFICATE", b"TRUSTED CERTIFICATE"})
_LISTS = frozenset({b"X509 CRL"})
_FILE = re.compile(r".*\.(?:pem|crt|cer|crl)", re.DOTALL)
_LINK = re.compile(r"([0-9a-f]{8})\.(r?)([0-9]+)")
_SEQUENCE, _SET, _UTF8 = 0x30, 0x31, 0x0C
_TEXTS: Mapping[int, str] = {
    0x0C: "utf-8", 0x13: "latin-1", 0x14: "latin-1", 0x16: "latin-1", 0x1A: "latin-1", 0x1C: "utf-32-be",
    0x1E: "utf-16-be",
}  # fmt: skip
_SPACE = " \t\n\v\f\r"


@dataclass(slots=True)
class _Link:
    """One file that a hash stands for: the number of its present link, whether it shall have one, its digest."""

    file: str
    old: int | None = None
    needed: bool = False
    digest: bytes = b""


@dataclass(slots=True)
class _Bucket:
    links: list[_Link] = field(default_factory=list)


def run_rehash(stage: Stage, folder: str) -> None:
    """Do to `stage` what `openssl rehash FOLDER` would do; raises NotReproduced."""
    buckets: dict[str, _Bucket] = {}
    names = sorted(stage.listdir(folder), key=lambda name: name.encode("utf-8", "surrogateescape"))
    if len(names) > MAX_CERTIFICATES:
        raise NotReproduced(f"a folder with more than {MAX_CERTIFICATES} certificates")
    for name in names:
        there = stage.get(f"{folder}/{name}")
        if there is None:
            continue
        match = _LINK.fullmatch(name) if there.kind is Kind.SYMLINK else None
        if match is not None:
            if match[2]:
                raise NotReproduced(f"/{folder}/{name} is the link of a revocation list")
            _add(buckets.setdefault(match[1], _Bucket()), there.target, int(match[3]))
        elif _FILE.fullmatch(name):
            _add_file(stage, folder, name, buckets)
    for subject, bucket in buckets.items():
        _settle(stage, folder, subject, bucket)


def subject_hash(certificate: bytes) -> str:
    """Return the hash of a certificate's subject (DER in, eight hexadecimal digits out); raises MalformedInput."""
    body = _only(_only(certificate))
    inner = [(tag, value) for tag, value, _ in _elements(body)]
    if inner and inner[0][0] == 0xA0:  # noqa: PLR2004 - the version is there
        inner = inner[1:]
    if len(inner) < 5 or inner[4][0] != _SEQUENCE:  # noqa: PLR2004 - serial, algorithm, issuer, validity, subject
        raise MalformedInput("a certificate without a subject")
    digest = hashlib.sha1(_canonical(inner[4][1]), usedforsecurity=False).digest()
    return f"{int.from_bytes(digest[:4], 'little'):08x}"


def read_certificates(data: bytes) -> list[bytes]:
    """Return the certificates in a PEM file as DER; raises NotReproduced for revocation lists."""
    found = []
    for match in _BLOCK.finditer(data):
        if match[1] in _LISTS:
            raise NotReproduced("a revocation list")
        if match[1] in _CERTIFICATES:
            try:
                found.append(base64.b64decode(b"".join(match[2].split()), validate=True))
            except binascii.Error as error:
                raise MalformedInput("a certificate that is not base64") from error
    return found


def _add_file(stage: Stage, folder: str, name: str, buckets: dict[str, _Bucket]) -> None:
    path = f"{folder}/{name}"
    there = stage.follow(path)
    if there is None or there.kind not in {Kind.FILE, Kind.HARDLINK}:
        return
    try:
        certificates = read_certificates(stage.read(path) or b"")
        if len(certificates) == 1:
            digest = hashlib.sha1(certificates[0], usedforsecurity=False).digest()
            _add(buckets.setdefault(subject_hash(certificates[0]), _Bucket()), name, None, digest)
    except AdmendError as error:
        raise NotReproduced(f"/{path} is no certificate that can be read ({error})") from error


def _add(bucket: _Bucket, file: str, old: int | None, digest: bytes = b"") -> None:
    if digest and any(link.digest == digest for link in bucket.links):
        return  # the same certificate under another name
    link = next((link for link in bucket.links if link.file == file), None)
    if link is None:
        if sum(link.needed for link in bucket.links) >= MAX_SAME:
            raise NotReproduced(f"more than {MAX_SAME} certificates of one subject")
        link = _Link(file)
        bucket.links.append(link)
    if old is not None and (link.old is None or old < link.old):
        link.old = old
    if digest and not link.needed:
        link.needed, link.digest = True, digest


def _settle(stage: Stage, folder: str, subject: str, bucket: _Bucket) -> None:
    """Keep links with a number below how many are needed, give the others the free numbers, remove the rest."""
    needed = sum(link.needed for link in bucket.links)
    used = {link.old for link in bucket.links if link.old is not None and link.old < needed}
    number = 0
    for link in bucket.links:
        if link.old is not None and link.old < needed:
            continue
        if link.needed:
            while number in used:
                number += 1
            stage.symlink(link.file, f"{folder}/{subject}.{number}")
            used.add(number)
        elif link.old is not None:
            stage.remove(f"{folder}/{subject}.{link.old}")


def _canonical(name: bytes) -> bytes:
    """Return a name in the form that is hashed: texts as UTF-8, small letters, blanks folded; no outer sequence."""
    return b"".join(
        _wrap(_SET, b"".join(sorted(_canonical_part(part) for _, part, _ in _elements(parts))))
        for _, parts, _ in _elements(name)
    )


def _canonical_part(part: bytes) -> bytes:
    elements = list(_elements(part))
    if len(elements) != 2:  # noqa: PLR2004 - type and value
        raise MalformedInput("a name with a part that is no type and value")
    (_, _, kind), (tag, value, whole) = elements
    encoding = _TEXTS.get(tag)
    if encoding is None:
        return _wrap(_SEQUENCE, kind + whole)
    try:
        text = value.decode(encoding)
    except UnicodeDecodeError as error:
        raise MalformedInput("a name that is not text") from error
    folded = " ".join(re.split(f"[{_SPACE}]+", text.strip(_SPACE)))
    lowered = "".join(letter.lower() if letter.isascii() else letter for letter in folded)
    return _wrap(_SEQUENCE, kind + _wrap(_UTF8, lowered.encode()))


def _wrap(tag: int, value: bytes) -> bytes:
    size = len(value)
    if size < 0x80:  # noqa: PLR2004 - the short form
        return bytes((tag, size)) + value
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + value


def _elements(data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Yield the tag, the value and the whole of each element of DER."""
    at = 0
    while at < len(data):
        start, tag = at, data[at]
        size = data[at + 1] if at + 1 < len(data) else 0x80
        at += 2
        if size & 0x80:
            count = size & 0x7F
            if not 1 <= count <= 4 or at + count > len(data):  # noqa: PLR2004 - nothing is larger
                raise MalformedInput("not DER")
            size = int.from_bytes(data[at : at + count], "big")
            at += count
        if at + size > len(data):
            raise MalformedInput("DER that is cut short")
        yield tag, data[at : at + size], data[start : at + size]
        at += size


def _only(data: bytes) -> bytes:
    """Return the value of the first element, which must be a sequence."""
    first = next(_elements(data), None)
    if first is None or first[0] != _SEQUENCE:
        raise MalformedInput("not a certificate")
    return first[1]
