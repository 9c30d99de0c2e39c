"""The index of one apt source: asked for, verified from the signature down, stored, and read back by package name.

Owns the order of trust: InRelease, or Release with Release.gpg (signature, suite, dates), then the Packages files by
the digests that it lists. Asks for ``.gz`` before ``.xz``: Debian's xz files need a 64 MiB dictionary and eight times
the time to unpack, for a quarter less to fetch. Refuses indexes that unpack to more than the release says.
Specifications: Debian's DebianRepository/Format page, apt-transport and by-hash in apt.conf(5), deb822(5).

Algorithm (numbers in the code): 1. the signed release: signature, suite, dates; 2. of every component, for the
architecture and for ``all`` where it is listed apart, the first listed form of its Packages file, by hash if the
release says so; 3. where one is absent (mirrors lag), the next form or the plain path; 4. all of them, unpacked piece
by piece, into one file that finds packages by name.
"""

import bz2
import lzma
import re
import zlib
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

from proxy.engine.families.dpkg.deb822 import Stanza, parse_relations
from proxy.engine.families.dpkg.release import (
    MAX_SIZE,
    Release,
    check_release,
    open_detached,
    open_signed,
    parse_release,
)
from proxy.engine.families.dpkg.spool import StanzaReader, write_texts
from proxy.engine.family import (
    VALID_UNTIL,
    Absent,
    Blob,
    Candidate,
    Constraint,
    Fetch,
    Package,
    PackageIndex,
    PackageSource,
    Refresh,
    SourceSettings,
)
from proxy.engine.inflate import open_layer
from proxy.errors import MalformedInput, TrustFailure, Unsupported, UpstreamRefused
from proxy.oci.digest import Digest

MAX_INDEX = 1 << 30  # bytes of Packages text when the release does not say; Debian's main has 50 MB
PIECE = 1 << 16

FORMS = (".gz", ".zst", ".xz", ".bz2", "")
_URL_SAFE = "/+~:=@,!$&'()*;-._"
_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"  # zstd and nothing else, bounded and to its end
_GZIP = 31  # zlib's window size that means a gzip header
_KEPT_FIELDS = (
    "Component",
    "Multi-Arch",
    "Phased-Update-Percentage",
    "Filename",
    "Size",
    "SHA256",
    "Priority",
    "Essential",
    "Protected",
    "Important",
)
_FACTS = (
    "Origin",
    "Label",
    "Suite",
    "Codename",
    "Version",
    "NotAutomatic",
    "ButAutomaticUpgrades",
    "Architectures",
    "Components",
)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A Packages file in the forms (path, request) that may be asked for, best first; `size` is unpacked."""

    path: str
    forms: tuple[tuple[str, Fetch], ...]
    size: int
    component: str = ""


def refresh_source(source: PackageSource, settings: SourceSettings, now: datetime, spool: BinaryIO) -> Refresh:
    """Verify the source's index and write it to `spool`: see `Family.refresh`."""
    folder = source.suite.removeprefix("./") if _is_flat(source) else f"dists/{source.suite}"
    base = f"{source.uri.rstrip('/')}/{folder}".rstrip("/")
    text = yield from _signed_text(source, settings, base)  # (1)
    release = parse_release(text, f"{source.label} Release")
    check_release(release, source, now)
    wanted, missing = _wanted(release, source, base)  # (2)
    found: dict[str, tuple[str, Blob]] = {}
    turn = dict.fromkeys((item.path for item in wanted), 0)
    while pending := [item for item in wanted if item.path not in found]:  # (3)
        answers = yield tuple(item.forms[turn[item.path]][1] for item in pending)
        for item in pending:
            form, request = item.forms[turn[item.path]]
            answer = answers[request]
            if isinstance(answer, Blob):
                found[item.path] = form, answer
                continue
            turn[item.path] += 1
            if turn[item.path] == len(item.forms):
                reason = f"the release lists {item.path}, but the source does not have it ({answer.reason})"
                raise UpstreamRefused(f"{source.label}: {reason}", status=404)
    texts = ((item.component, _unpack(*found[item.path], item, source)) for item in wanted)
    write_texts(texts, spool, source.label)  # (4)
    facts = {name: release.fields[name] for name in _FACTS if name in release.fields}
    if missing:
        facts["missing"] = ", ".join(missing)
    if release.valid_until is not None:
        facts[VALID_UNTIL] = release.valid_until.isoformat()
    return PackageIndex(source, release.date, facts, _spool_blob(source, spool))


def _signed_text(
    source: PackageSource, settings: SourceSettings, base: str
) -> Generator[tuple[Fetch, ...], Mapping[Fetch, Blob | Absent], bytes]:
    """(1) Ask for InRelease, or Release and Release.gpg where there is none; return the text that is signed."""
    request = Fetch(f"{base}/InRelease", limit=MAX_SIZE)
    answer = (yield (request,))[request]
    if isinstance(answer, Blob):
        return open_signed(_whole(answer), source, settings.keyrings)
    plain, signature = (Fetch(f"{base}/{name}", limit=MAX_SIZE) for name in ("Release", "Release.gpg"))
    answers = yield (plain, signature)
    text, detached = answers[plain], answers[signature]
    if isinstance(text, Absent) and isinstance(detached, Absent):
        release = re.split("[-/]", source.suite, maxsplit=1)[0]
        raise UpstreamRefused(
            f"{source.label}: the source has no InRelease and no Release ({answer.reason}). If this release is at the"
            " end of its life, its files have moved: name the host that keeps them in the setting"
            f" sources.archives, as {(source.keys or ('debian',))[0]}/{release or 'codename'}",
            status=404,
        )
    if isinstance(text, Absent) or isinstance(detached, Absent):
        raise TrustFailure(f"{source.label}: no InRelease, and a Release without its Release.gpg; refused")
    return open_detached(_whole(text), _whole(detached), source, settings.keyrings)


def _whole(blob: Blob) -> bytes:
    with blob.open() as stream:
        return stream.read(MAX_SIZE)


def _is_flat(source: PackageSource) -> bool:
    return source.suite.endswith("/")


def _spool_blob(source: PackageSource, spool: BinaryIO) -> Blob:
    """Return the written spool as a blob: by its name where it has one, else (a buffer) by its content."""
    name, size = getattr(spool, "name", None), spool.seek(0, 2)
    if isinstance(name, str):
        return Blob(name, size, lambda: Path(name).open("rb"))

    def content() -> BinaryIO:
        spool.seek(0)
        return BytesIO(spool.read())

    return Blob(source.label, size, content)


def _wanted(release: Release, source: PackageSource, base: str) -> tuple[list[_Wanted], list[str]]:
    """(2) Return the Packages files to ask for, and the components that the release does not have."""
    if _is_flat(source):
        paths = [("the source", ["Packages"])]
    else:
        apart = "all" in release.fields.get("Architectures", "").split()
        apart = apart and release.fields.get("No-Support-for-Architecture-all", "") != "Packages"
        archs = dict.fromkeys((_listed_arch(release, source), *(["all"] if apart else [])))
        paths = [(name, [f"{name}/binary-{arch}/Packages" for arch in archs]) for name in source.components]
    wanted: list[_Wanted] = []
    missing: list[str] = []
    for component, candidates in paths:
        listed = [item for path in candidates if (item := _forms(release, base, path)) is not None]
        wanted += listed
        if not listed:
            missing.append(component)
    if not wanted:
        raise Unsupported(
            f"{source.label}: the release offers no packages of {' '.join(missing)} for {source.arch}; it has"
            f" components {release.fields.get('Components', '(none)')} and architectures"
            f" {release.fields.get('Architectures', '(none)')}"
        )
    return wanted, missing


def _listed_arch(release: Release, source: PackageSource) -> str:
    """Return the source's architecture; for ``all`` alone any that the release has, since every one lists those."""
    archs = (name for name in release.fields.get("Architectures", "").split() if name != "all")
    return next(archs, source.arch) if source.arch == "all" else source.arch


def _forms(release: Release, base: str, path: str) -> _Wanted | None:
    forms: list[tuple[str, Fetch]] = []
    by_hash = release.fields.get("Acquire-By-Hash", "").lower() == "yes"
    for form in FORMS:
        listed = release.files.get(path + form)
        if listed is None:
            continue
        folder = f"{path}/".rpartition("Packages/")[0]
        address = f"{base}/{folder}by-hash/SHA256/{listed.digest.hex}"
        if by_hash:
            forms.append((form, Fetch(address, listed.digest, listed.size)))
        forms.append((form, Fetch(f"{base}/{path}{form}", listed.digest, listed.size)))
    plain = release.files.get(path)
    size = plain.size if plain is not None else MAX_INDEX
    component = path.removesuffix("/Packages").rpartition("/binary-")[0]
    return _Wanted(path, tuple(forms), size, component) if forms else None


def _unpack(form: str, blob: Blob, wanted: _Wanted, source: PackageSource) -> Iterator[bytes]:
    """(4) Yield the text of a Packages file; raises MalformedInput or TrustFailure."""
    where, seen = f"{source.label} {wanted.path}{form}", 0
    try:
        with blob.open() as stream:
            for piece in _inflate(form, stream):
                seen += len(piece)
                if seen > wanted.size:
                    raise TrustFailure(f"{where}: unpacks to more than the {wanted.size} bytes it may have; refused")
                yield piece
    except MalformedInput as error:
        raise error.within(where) from error.__cause__
    except (lzma.LZMAError, zlib.error, EOFError, OSError) as error:
        raise MalformedInput(f"cannot be unpacked ({error})", file=where) from error


def _inflate(form: str, stream: BinaryIO) -> Iterator[bytes]:
    if form == "":
        while piece := stream.read(PIECE):
            yield piece
        return
    if form == ".gz":
        yield from _inflate_gzip(stream)
        return
    if form == ".zst":
        reader = open_layer(stream, _ZSTD, where="a zstd file")
        while piece := reader.read(1 << 20):
            yield piece
        return
    unpacker = bz2.BZ2Decompressor() if form == ".bz2" else lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=256 << 20)
    while not unpacker.eof:
        piece = stream.read(PIECE) if unpacker.needs_input else b""
        if not piece and unpacker.needs_input:
            raise EOFError("it ends too early")
        yield unpacker.decompress(piece, 1 << 20)


def _inflate_gzip(stream: BinaryIO) -> Iterator[bytes]:
    from isal import igzip_lib, isal_zlib  # noqa: PLC0415 - three times as fast as zlib, loaded where needed

    unpacker = isal_zlib.decompressobj(_GZIP)
    try:
        while not unpacker.eof:
            piece = unpacker.unconsumed_tail or stream.read(PIECE)
            if not piece:
                raise EOFError("it ends too early")
            yield unpacker.decompress(piece, 1 << 20)
    except igzip_lib.IsalError as error:  # type: ignore[misc]  # its stub calls the class an instance
        raise EOFError(str(error)) from error


def parse_package(stanza: Stanza) -> Package:
    """Return the package of a Packages or status stanza: Depends and Pre-Depends, Breaks and Conflicts are joined."""
    name, version, arch = (stanza.need(field) for field in ("Package", "Version", "Architecture"))
    where = f"{stanza.where} {name}".strip()
    source, _, source_version = stanza.get("Source").partition("(")
    relations = {
        field: parse_relations(stanza.get(field), arch=arch, where=f"{where} {field}")
        for field in ("Pre-Depends", "Depends", "Provides", "Conflicts", "Breaks", "Recommends")
    }
    return Package(
        name,
        version,
        arch,
        source=source.strip() or name,
        source_version=source_version.strip(" )") or version,
        requires=relations["Pre-Depends"] + relations["Depends"],
        conflicts=_flat(relations["Conflicts"] + relations["Breaks"]),
        provides=_flat(relations["Provides"]),
        recommends=relations["Recommends"],
        fields={field: value for field in _KEPT_FIELDS if (value := stanza.get(field))},
    )


def _flat(groups: tuple[tuple[Constraint, ...], ...]) -> tuple[Constraint, ...]:
    return tuple(constraint for group in groups for constraint in group)


class IndexReader:
    """Looks packages up in an index that `refresh_source` wrote.

    Args:
        index: the index; its file stays open for as long as the reader lives.
    """

    def __init__(self, index: PackageIndex) -> None:
        self.index = index
        self._where = index.source.label
        self._stream = index.blob.open()
        self._stanzas = StanzaReader(self._stream, self._where)

    def __len__(self) -> int:
        return len(self._stanzas)

    def close(self) -> None:
        """Close the index's file."""
        self._stream.close()

    def lookup(self, name: str) -> tuple[Package, ...]:
        """Return every version of the package `name`; `fields` has Filename, Size and SHA256."""
        found = (self._package(raw) for raw in self._stanzas.named(name))
        return tuple(package for package in found if package.name == name)

    def providers(self, name: str) -> tuple[Package, ...]:
        """Return every package that provides `name`."""
        found = (self._package(raw) for raw in self._stanzas.providing(name))
        return tuple(package for package in found if any(one.name == name for one in package.provides))

    def candidate(self, package: Package) -> Candidate:
        """Return where to fetch `package`, which this index offers; raises MalformedInput for a bad address."""
        filename, size, digest = (package.fields.get(field, "") for field in ("Filename", "Size", "SHA256"))
        parts = filename.removeprefix("./").split("/")
        bad_size = not (size.isascii() and size.isdecimal())
        if bad_size or any(part in {"", ".", ".."} for part in parts) or ":" in parts[0]:
            raise MalformedInput(f"{package.name}: no usable Filename and Size", file=self._where, text=filename)
        address = f"{self.index.source.uri.rstrip('/')}/{quote('/'.join(parts), safe=_URL_SAFE)}"
        fetch = Fetch(address, Digest.parse(f"sha256:{digest}"), int(size))
        return Candidate(package, fetch, self._where, self.index.source.security)

    def _package(self, raw: bytes) -> Package:
        return parse_package(Stanza(raw + b"\n", self._where))


def facts_of(index: PackageIndex) -> Mapping[str, str]:
    """Return the release's facts with an absent NotAutomatic and ButAutomaticUpgrades as ``no``."""
    return {"NotAutomatic": "no", "ButAutomaticUpgrades": "no", **index.facts}
