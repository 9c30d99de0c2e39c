"""The Family protocol and its nouns: what the engine needs to know of dpkg, apk or rpm.

A family is one folder under `families` and one entry of `FAMILIES`. It reads a package database from a root file
system, says which sources that system would use, verifies their indexes, chooses candidates by the native tool's own
rules, unpacks packages and records an upgrade as entries of the patch layer. It runs nothing and fetches nothing:
what it needs from outside it asks for as `Fetch`es.
"""

from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import BinaryIO, Protocol

from proxy.engine.rootfs import RootFS
from proxy.engine.tar import Entry
from proxy.oci.digest import Digest

VALID_UNTIL = "valid-until"  # the fact by which a family says when an index expires (ISO 8601)


@dataclass(frozen=True, slots=True)
class Constraint:
    """A package name, perhaps with a version bound: `op` is one of ``< <= = >= >`` or empty for any version.

    apk also writes ``~`` (the version begins so), ``<~``, ``>~`` and ``><`` (the package has this checksum); the plan
    does not read these yet. `arch` is an architecture qualifier as the family writes it (dpkg's ``any``, ``amd64``),
    or empty.
    """

    name: str
    op: str = ""
    version: str = ""
    arch: str = ""

    def __str__(self) -> str:
        arch = f":{self.arch}" if self.arch else ""
        return f"{self.name}{arch} ({self.op} {self.version})" if self.op else f"{self.name}{arch}"


@dataclass(frozen=True, slots=True)
class Package:
    """One version of one binary package, installed or available.

    `requires` is a conjunction of alternatives: of every inner tuple one constraint must hold. `conflicts` holds what
    must not be there (dpkg: Breaks and Conflicts). `provides` names what it also stands for; `=` gives the version.
    `recommends` is as `requires`, and weaker: the native tool keeps a version back that lacks some where the old one
    had all. `fields` carries what the family alone reads, as text by field name.
    """

    name: str
    version: str
    arch: str
    source: str = ""
    source_version: str = ""
    requires: tuple[tuple[Constraint, ...], ...] = ()
    conflicts: tuple[Constraint, ...] = ()
    provides: tuple[Constraint, ...] = ()
    recommends: tuple[tuple[Constraint, ...], ...] = ()
    fields: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Installed:
    """An installed package. `key` is unique in its database (dpkg: name, or name:arch for a foreign one).

    `fixed` is the reason why it must not move (held by the user, half installed), or empty.
    """

    key: str
    package: Package
    fixed: str = ""


@dataclass(frozen=True, slots=True)
class Distribution:
    """What os-release says: ``debian``, ``12``, ``bookworm``; any may be empty. `pretty` is for people."""

    id: str
    version: str = ""
    codename: str = ""
    pretty: str = ""


class InstalledDb(Protocol):
    """An opened package database; what else it holds is the family's own."""

    @property
    def packages(self) -> tuple[Installed, ...]:
        """Every installed package, in the database's order."""

    @property
    def distribution(self) -> Distribution:
        """The distribution that the image says it is."""

    @property
    def arch(self) -> str:
        """The native architecture, as the family writes it (amd64, x86_64)."""

    @property
    def owners(self) -> Mapping[str, tuple[str, ...]]:
        """Which packages (keys) own each path, as far as the database says."""


@dataclass(frozen=True, slots=True)
class Fetch:
    """Asks the shell for one file. With a `digest` the answer is checked (and cached for good); else `limit` bounds it.

    `size` is in bytes, when known.
    """

    url: str
    digest: Digest | None = None
    size: int | None = None
    limit: int = 256 << 20


@dataclass(frozen=True, slots=True)
class Blob:
    """A file that the shell fetched: `open()` gives its bytes as a binary stream; `size` is in bytes."""

    name: str
    size: int
    open: Callable[[], BinaryIO]


@dataclass(frozen=True, slots=True)
class Absent:
    """The source does not have the file (404, 410)."""

    reason: str


@dataclass(frozen=True, slots=True)
class PackageSource:
    """One package source: a suite of an apt archive, an apk repository, an rpm repository.

    `keys` names the keyrings it may be signed with (see `SourceSettings.keyrings`). `written` says where the source
    comes from: a file and line of the image, the machine's apt configuration, the operator's settings.
    """

    family: str
    uri: str
    suite: str = ""
    components: tuple[str, ...] = ()
    arch: str = ""
    keys: tuple[str, ...] = ()
    security: bool = False
    written: str = ""
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """Short name for people: host, path and suite, without credentials."""
        address = self.uri.split("://", 1)[-1].rsplit("@", 1)[-1].rstrip("/")
        return f"{address} {self.suite}".strip()


@dataclass(frozen=True, slots=True)
class SkippedSource:
    """A source that the image names and admend does not use, with the reason."""

    uri: str
    written: str
    reason: str


@dataclass(frozen=True, slots=True)
class SourceSettings:
    """What the operator and the machine say about sources.

    `machine` holds the machine's own package manager configuration, file name to text (for dpkg: /etc/apt). `mirrors`
    maps URI prefixes to URI prefixes. `allowed` are URI prefixes that images may name. `keyrings` maps a keyring's
    name (``debian``, ``ubuntu``) to its bytes. `extra` are the operator's own additional sources. `archives` maps
    releases that are at the end of their life (``debian/stretch``) to the address of the host that keeps them.
    """

    machine: Mapping[str, bytes] = field(default_factory=dict)
    mirrors: Mapping[str, str] = field(default_factory=dict)
    allowed: tuple[str, ...] = ()
    keyrings: Mapping[str, bytes] = field(default_factory=dict)
    extra: tuple[PackageSource, ...] = ()
    archives: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PackageIndex:
    """A verified index of one source, file-backed: `stanzas` gives what a family stored in `refresh`.

    `date` is when the source was made (UTC), for freshness and against rollback; `facts` what candidate selection
    needs (origin, suite, codename, NotAutomatic...).
    """

    source: PackageSource
    date: datetime
    facts: Mapping[str, str]
    blob: Blob


@dataclass(frozen=True, slots=True)
class Candidate:
    """An available version of an installed package: where to fetch it and which source offers it.

    `blocked` is the reason why the native tool's rules keep it back for now (a phased update...), or empty.
    """

    package: Package
    fetch: Fetch
    source: str
    security: bool = False
    blocked: str = ""


@dataclass(frozen=True, slots=True)
class Skip:
    """A package that could move and does not: from, to, and the reason with the blocker's name."""

    package: str
    installed: str
    available: str
    reason: str


@dataclass(frozen=True, slots=True)
class Upgrade:
    """A package that moves: `key` as in `Installed`."""

    key: str
    package: Package
    candidate: Candidate


@dataclass(frozen=True, slots=True)
class Removal:
    """A package that goes for the sake of an upgrade: `key` as in `Installed`; `reason` names that upgrade."""

    key: str
    package: Package
    reason: str


@dataclass(frozen=True, slots=True)
class Payload:
    """An unpacked package: its control files by name, and its paths as entries (content in a spool file)."""

    package: Package
    control: Mapping[str, bytes]
    entries: tuple[Entry, ...]


class NotRecordable(Exception):
    """Packages that cannot be recorded faithfully, in the upgrade that was asked for: reasons by package key."""

    def __init__(self, reasons: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{key}: {reason}" for key, reason in reasons.items()))
        self.reasons = reasons


class Effect(StrEnum):
    """What an upgrade does beside putting its package's files in place (maintainer scripts, triggers).

    `none` is proven to be nothing, `reproduced` is recorded as the native tool would leave it, `unknown` is neither.
    """

    NONE = "none"
    REPRODUCED = "reproduced"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Judgement:
    """Whether a payload can be recorded faithfully: `reason` says why not, or is empty.

    `notes` are what a person should know of an upgrade that goes ahead (a changed conffile that is kept).
    """

    effect: Effect = Effect.NONE
    reason: str = ""
    notes: tuple[str, ...] = ()


class Market(Protocol):
    """What the sources offer beyond the candidates of installed packages."""

    def __call__(self, name: str, /) -> Sequence[Candidate]:
        """Return the candidates of packages that are not installed and have or provide a name, the preferred first."""

    def offers(self, package: Package) -> bool:
        """Say whether a source has this very version of a package."""

    def several(self, name: str) -> bool:
        """Say whether more than one package provides a name, and none of them is preferred: nothing is chosen then."""


Refresh = Generator[tuple[Fetch, ...], Mapping[Fetch, Blob | Absent], PackageIndex]


class Family(Protocol):
    """One package manager's formats and rules. All methods are pure but for the streams they are handed.

    `inspect_only` is empty, or says why images of this family can be read but not patched yet. Such a family offers
    `keeps`, `open` and `compare`; its `sources` skips every source with that reason (at least one), so the image comes
    out as unsupported and nothing is fetched, and the rest raises Unsupported with it.
    """

    name: str
    inspect_only: str

    def keeps(self, path: str) -> bool:
        """Say whether the content of `path` must be kept when a layer is scanned (databases, source lists)."""

    def open(self, fs: RootFS) -> InstalledDb | None:
        """Open the package database; None where this family has none; MalformedInput where it cannot be read."""

    def sources(
        self, fs: RootFS, db: InstalledDb, settings: SourceSettings
    ) -> tuple[tuple[PackageSource, ...], tuple[SkippedSource, ...]]:
        """Return the sources to use, and those that the image names and that are not used, with reasons."""

    def refresh(self, source: PackageSource, settings: SourceSettings, now: datetime, spool: BinaryIO) -> Refresh:
        """Verify the source's index and write it to `spool` in the family's own compact form.

        A generator: yields the files it needs (several at once), is sent the answers, returns the index. It is run
        again from the start with the same answers when more are known, so it must depend on nothing else.
        Raises TrustFailure for a wrong signature, date, suite or hash.
        """

    def candidates(self, fs: RootFS, db: InstalledDb, indexes: Sequence[PackageIndex]) -> Mapping[str, Candidate]:
        """Choose, by the native tool's own rules, at most one candidate newer than each installed package, by key."""

    def additions(self, fs: RootFS, db: InstalledDb, indexes: Sequence[PackageIndex]) -> AbstractContextManager[Market]:
        """Give what finds, by a name, which packages that are not installed the native tool would install for it."""

    def available(self, db: InstalledDb, indexes: Sequence[PackageIndex], name: str) -> tuple[Candidate, ...]:
        """Return every version of the package `name` that the sources offer, newest first."""

    def compare(self, a: str, b: str) -> int:
        """Compare two versions: negative, zero or positive."""

    def unpack(self, package: Package, archive: BinaryIO, spool: BinaryIO, spool_name: str) -> Payload:
        """Unpack one package; file contents go to `spool`, entries name them as `Span(spool_name, ...)`.

        Raises MalformedInput for an archive that is not what `package` says (name, version, architecture).
        """

    def judge(
        self,
        fs: RootFS,
        db: InstalledDb,
        payload: Payload,
        *,
        apply_unknown: bool = False,
        removed: Collection[str] = (),
        unscripted: Collection[str] = (),
    ) -> Judgement:
        """Say whether this payload can be recorded faithfully, and what is worth telling about it.

        With `apply_unknown`, scripts that are not understood are no reason against it: the effect is `unknown` then,
        and a note says what is left out. `removed` and `unscripted` are as in `record`, of packages that go.
        """

    def judge_removal(self, fs: RootFS, db: InstalledDb, key: str, *, apply_unknown: bool = False) -> Judgement:
        """Say the same of the removal of an installed package."""

    def record(
        self,
        fs: RootFS,
        db: InstalledDb,
        payloads: Sequence[Payload],
        *,
        unscripted: Collection[str] = (),
        removed: Collection[str] = (),
    ) -> tuple[Entry, ...]:
        """Return the patch layer's entries: files, whiteouts and database, paths already resolved through `fs`.

        The packages `removed` (keys) go, before the payloads come. Of the packages `unscripted` (keys) only files and
        database are recorded, not what their scripts would do.
        Raises NotRecordable where packages that can be recorded alone cannot be recorded together.
        """
