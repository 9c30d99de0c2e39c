"""Release files, signed within or beside: whose signature they carry, what they say, whether that was asked for.

Owns the trust in a package source: everything else is trusted through the digests listed here. Only the text that the
signature covers is ever parsed. A source's Signed-By narrows the trusted keys down and never adds one. Refuses unsigned
files, foreign keys, another suite's or codename's release, dates in the future and releases whose Valid-Until has
passed.
Specifications: Debian's DebianRepository/Format page, apt-secure(8), RFC 4880 section 7.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from proxy.engine.families.dpkg.detached import split_signatures
from proxy.engine.families.dpkg.sourcelist import SIGNED_BY, SIGNED_BY_KEY
from proxy.engine.family import PackageSource
from proxy.errors import MalformedInput, TrustFailure
from proxy.oci.digest import Digest

if TYPE_CHECKING:
    from pysequoia import Sig

MAX_SIZE = 32 << 20  # the largest in Debian has 0.2 MB
CLOCK_MARGIN = timedelta(minutes=10)  # apt allows 10 seconds; hosts that patch images need not run a time service

_CLEAR_SIGNED = b"-----BEGIN PGP SIGNED MESSAGE-----"
_ENTRY = re.compile(r" +([0-9a-f]{64}) +([0-9]{1,12}) +(\S+)")


@dataclass(frozen=True, slots=True)
class Listed:
    """A file that the release lists, with what its bytes must be; sizes in bytes."""

    digest: Digest
    size: int


@dataclass(frozen=True, slots=True)
class Release:
    """A release: its fields (but for the lists of digests), the files of its SHA256 list, and its dates (UTC)."""

    fields: Mapping[str, str]
    files: Mapping[str, Listed]
    date: datetime
    valid_until: datetime | None


def open_signed(signed: bytes, source: PackageSource, keyrings: Mapping[str, bytes]) -> bytes:
    """Return the text that a good signature by one of the source's keyrings covers; raises TrustFailure."""
    if not signed.startswith(_CLEAR_SIGNED):
        raise TrustFailure(f"{source.label}: InRelease carries no signature (it is no clear-signed text); refused")
    text = _verify(signed, None, source, _certificates(source, keyrings), "InRelease")
    if text is None:
        raise TrustFailure(f"{source.label}: InRelease signs nothing; refused")
    return text


def open_detached(text: bytes, signature: bytes, source: PackageSource, keyrings: Mapping[str, bytes]) -> bytes:
    """Return `text`, which one of the signatures of a Release.gpg must cover; raises TrustFailure."""
    from pysequoia import Sig  # noqa: PLC0415 - as in `_verify`

    certificates = _certificates(source, keyrings)
    failure: TrustFailure | None = None
    for packet in split_signatures(signature, f"{source.label} Release.gpg"):
        try:
            _verify(text, Sig.from_bytes(packet), source, certificates, "Release.gpg")
        except TrustFailure as error:
            failure = failure or error
        except (RuntimeError, ValueError) as error:  # all that pysequoia raises for a packet that it cannot read
            raise MalformedInput(
                f"a signature that cannot be read ({error})", file=f"{source.label} Release.gpg"
            ) from error
        else:
            return text
    raise failure or TrustFailure(f"{source.label}: Release.gpg signs nothing; refused")


def _verify(
    data: bytes, signature: "Sig | None", source: PackageSource, certificates: list[object], file: str
) -> bytes | None:
    from pysequoia import verify  # noqa: PLC0415 - loads a large library that other paths do not need

    signers: list[str] = []

    def store(key_ids: list[str]) -> list[object]:
        signers.extend(key_ids)
        return certificates

    try:
        text = verify(bytes=data, store=store, signature=signature).bytes
    except RuntimeError as error:  # all that pysequoia raises
        cause = str(error).split("\n", 1)[0].rstrip(".")
        by = f"signed by {', '.join(sorted(set(signers)))}; " if signers else ""
        raise TrustFailure(
            f"{source.label}: {file} has no good signature by a key of {' or '.join(source.keys)}"
            f" ({by}{cause}); refused"
        ) from error
    return None if text is None else bytes(text)


def _certificates(source: PackageSource, keyrings: Mapping[str, bytes]) -> list[object]:
    found = [cert for name in source.keys if name in keyrings for cert in _split(keyrings[name], f"keyring {name!r}")]
    names = " or ".join(repr(name) for name in source.keys) or "(none named)"
    if not found:
        raise TrustFailure(
            f"{source.label}: its keyring {names} is not on this machine; install the distribution's keyring package"
            " or name the keyring in the settings"
        )
    wanted = set(source.options.get(SIGNED_BY, "").split())
    if SIGNED_BY_KEY in source.options:
        block = source.options[SIGNED_BY_KEY].encode()
        wanted |= {_fingerprint(cert) for cert in _split(block, f"{source.label}: its Signed-By ({source.written})")}
    if not wanted:
        return found
    narrowed = [cert for cert in found if _fingerprint(cert) in wanted]
    if not narrowed:
        raise TrustFailure(
            f"{source.label}: its Signed-By ({source.written}) names {', '.join(sorted(wanted))}, which is no key of"
            f" {names} here; if it is to be trusted, add it to sources.keyrings"
        )
    return narrowed


def _split(keyring: bytes, name: str) -> list[object]:
    from pysequoia import Cert  # noqa: PLC0415 - as in `_verify`

    try:
        return list(Cert.split_bytes(keyring))
    except RuntimeError as error:
        raise TrustFailure(f"{name} cannot be read; give an OpenPGP keyring") from error


def _fingerprint(certificate: object) -> str:
    return str(getattr(certificate, "fingerprint", "")).upper()


def parse_release(text: bytes, where: str) -> Release:
    """Parse a Release file; raises MalformedInput."""
    try:
        lines = text.decode().split("\n")
    except UnicodeDecodeError as error:
        raise MalformedInput("a Release file is UTF-8 text", file=where) from error
    fields: dict[str, str] = {}
    files: dict[str, Listed] = {}
    seen: set[str] = set()
    section = ""
    for number, line in enumerate(lines, 1):
        if line[:1] in {" ", "\t"}:
            if section == "SHA256":
                path, listed = _parse_entry(line, where, number)
                if files.setdefault(path, listed) != listed:
                    raise MalformedInput("a path that is listed twice, differently", file=where, line=number, text=path)
        elif line.strip():
            section, colon, value = line.partition(":")
            if not colon or section.lower() in seen:
                raise MalformedInput("not a new `Field: value`", file=where, line=number, text=line)
            seen.add(section.lower())
            fields[section] = value.strip()
    if not files:
        raise MalformedInput("the release lists no SHA256 digests; a source without them cannot be used", file=where)
    until = _parse_date(fields["Valid-Until"], where) if "Valid-Until" in fields else None
    if "Date" not in fields:
        raise MalformedInput("the release has no Date", file=where)
    return Release(fields, files, _parse_date(fields["Date"], where), until)


def _parse_entry(line: str, where: str, number: int) -> tuple[str, Listed]:
    match = _ENTRY.fullmatch(line.rstrip("\r"))
    if match is None:
        raise MalformedInput("not a line of digest, size and path", file=where, line=number, text=line)
    return match[3].removeprefix("./"), Listed(Digest("sha256", match[1]), int(match[2]))


def _parse_date(text: str, where: str) -> datetime:
    try:
        date = parsedate_to_datetime(text)
    except ValueError as error:
        raise MalformedInput("not a date of RFC 2822", file=where, text=text) from error
    return date.astimezone(UTC) if date.tzinfo is not None else date.replace(tzinfo=UTC)


def check_release(release: Release, source: PackageSource, now: datetime) -> None:
    """Check that the release is of the suite that was asked for and is valid at `now`; raises TrustFailure.

    As apt does, the suite asked for must be the release's Suite or Codename, without what follows its last slash
    (``buster/updates``); a flat source names none. `codename` in the source's options is the distribution's, for
    sources that ask for a moving name (``stable``): the release must be of that distribution.
    """
    fields = release.fields
    names = {fields.get("Suite", ""), fields.get("Codename", "")} - {""}
    asked = source.suite.rpartition("/")[0] or source.suite
    if not source.suite.endswith("/") and asked not in names:
        of = " / ".join(sorted(names)) or "no suite"
        raise TrustFailure(f"{source.label}: asked for {asked}, but the release is of {of}; refused")
    expected, found = source.options.get("codename", ""), fields.get("Codename", "")
    if expected and not re.fullmatch(re.escape(expected) + r"([-/].*)?", found):
        raise TrustFailure(f"{source.label}: the image is of {expected}, but the release is of {found}; refused")
    if release.date > now + CLOCK_MARGIN:
        raise TrustFailure(
            f"{source.label}: the release is of {release.date:%Y-%m-%d %H:%M} UTC, in the future; check the clock"
        )
    if (
        release.valid_until is not None
        and release.valid_until < now
        and source.options.get("check-valid-until") != "no"
    ):
        raise TrustFailure(f"{source.label}: the release expired on {release.valid_until:%Y-%m-%d %H:%M} UTC; refused")
