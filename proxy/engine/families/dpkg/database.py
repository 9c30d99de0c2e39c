"""The dpkg database of an image: `/var/lib/dpkg/status` and, in distroless images, `/var/lib/dpkg/status.d/*`.

Owns which packages are installed, which may not move and why, and which package owns which path. An image may have
both forms (packages put onto a distroless base): every record keeps its own form, and one that both forms describe
may not move, since nothing says which is true. Writes nothing; see `record`.
Formats: dpkg(1) FILES, dpkg-query(1) for states, deb-conffiles(5)
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum

from proxy.engine.families.dpkg.deb822 import Stanza, iter_stanzas
from proxy.engine.families.dpkg.index import parse_package
from proxy.engine.family import Distribution, Installed, InstalledDb, Package
from proxy.engine.osrelease import read_distribution
from proxy.engine.rootfs import RootFS
from proxy.errors import MalformedInput

ADMIN = "var/lib/dpkg"
STATUS = f"{ADMIN}/status"
STATUS_D = f"{ADMIN}/status.d"
INFO = f"{ADMIN}/info"
MANIFEST = "var/lib/chisel/manifest.wall"  # chisel's own record of an image
MAX_PACKAGES = 100_000  # a full desktop has 3,000; more than all of Debian's suite is no database
ANY = "all"  # the architecture of an image whose packages are all for every one
MAX_FOREIGN = 8  # architectures; cross-building images have two or three
MAX_OWNED = 5_000_000  # paths in all list files

_KEPT = re.compile(
    r"var/lib/apt/extended_states|var/lib/dpkg/(?:status|arch|diversions|statoverride|status\.d/[^/]+|triggers/[^/]+"
    r"|info/(?:format|[^/]+\.(?:list|md5sums|conffiles|triggers|shlibs|templates|preinst|postinst|prerm|postrm|config)))"
    r"|var/lib/(?:dpkg/alternatives|pam|ucf)/[^/]+|usr/share/pam(?:-configs)?/[^/]+|var/cache/debconf/[a-z]+\.dat"
    r"|etc/.+|usr/share/ca-certificates/.+|usr/share/debconf/confmodule|usr/lib/os-release|usr/lib/os\.release\.d/[^/]+"
    r"|var/lib/chisel/manifest\.wall|var/lib/systemd/deb-systemd-(?:user-)?helper-(?:enabled|masked)/.+|var/lib/dpkg/updates/[0-9]+"
    r"|var/lib/dbus/machine-id|usr/share/perl5/Debian/AdduserCommon\.pm"
)
_MD5 = re.compile(r"[0-9a-f]{32}")
_CONTROL_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]*")


class Form(Enum):
    """Which database a package is recorded in."""

    STATUS = "status"
    STATUS_D = "status.d"
    PARTIAL = "partial status"  # no dpkg, no lists: a chiselled image with parts of packages, its status made for it


@dataclass(frozen=True, slots=True)
class Record:
    """One installed package as recorded: `file` holds `stanza`; `stem` begins the names of its info files."""

    installed: Installed
    stanza: Stanza
    form: Form
    file: str
    stem: str


class DpkgDb:
    """An opened database: the packages of the family protocol, and what dpkg knows beside them."""

    def __init__(self, fs: RootFS, stanzas: tuple[Stanza, ...], records: Mapping[str, Record], arch: str) -> None:
        self.stanzas = stanzas  # all of `status`, in order, removed packages too
        self.records = records
        self._fs, self._arch = fs, arch
        self._distribution = read_distribution(fs)
        self._owners: dict[str, tuple[str, ...]] | None = None
        self._holders: dict[str, tuple[str, ...]] | None = None

    @property
    def packages(self) -> tuple[Installed, ...]:
        """Every installed package, in the database's order."""
        return tuple(record.installed for record in self.records.values())

    @property
    def distribution(self) -> Distribution:
        """What os-release says."""
        return self._distribution

    @property
    def arch(self) -> str:
        """The native architecture."""
        return self._arch

    def record_of(self, package: Package) -> Record:
        """Return the record that `package` (of the same name and architecture) would replace."""
        for key in (package.name, f"{package.name}:{package.arch}"):
            record = self.records.get(key)
            if record is not None and _same_arch(record.installed.package.arch, package.arch, self._arch):
                return record
        raise MalformedInput(f"{package.name}:{package.arch} is not installed here", file=STATUS)

    def adding(self, packages: Iterable[Package]) -> "DpkgDb":
        """Return the database with an empty record, of no version, for each of `packages` that is not installed."""
        added: dict[str, Record] = {}
        for package in packages:
            if package.name in self.records or f"{package.name}:{package.arch}" in self.records:
                continue
            absent = Installed(package.name, Package(package.name, "", package.arch))
            added[absent.key] = Record(absent, Stanza.of([], STATUS), Form.STATUS, STATUS, package.name)
        return DpkgDb(self._fs, self.stanzas, {**self.records, **added}, self._arch) if added else self

    def info(self, record: Record, name: str) -> bytes | None:
        """Return the control file `name` that dpkg kept of an installed package, or None."""
        if record.form is Form.STATUS_D:
            return self._fs.read(f"{record.file}.md5sums") if name == "md5sums" else None
        return self._fs.read(f"{INFO}/{record.stem}.{name}")

    def files(self, record: Record) -> tuple[str, ...]:
        """Return the paths that the installed package owns, as written; empty where the image has no such list."""
        if record.form is Form.STATUS:
            lines = (self.info(record, "list") or b"").decode("utf-8", "surrogateescape").split("\n")
            return tuple(line.strip("/") for line in lines if line not in {"", "/."})
        return tuple(self.sums(record))

    def sums(self, record: Record) -> dict[str, str]:
        """Return the md5 sums that the package came with, by path; conffiles are not among them."""
        return parse_md5sums(self.info(record, "md5sums") or b"", f"{record.stem}.md5sums")

    @property
    def owners(self) -> Mapping[str, tuple[str, ...]]:
        """Which packages (keys) own each path, by its real place in the image."""
        if self._owners is None:
            owners: dict[str, tuple[str, ...]] = {}
            for path, keys in self.holders.items():
                real = self._fs.locate(path)
                owners[real] = (*owners.get(real, ()), *keys)
            self._owners = owners
        return self._owners

    @property
    def holders(self) -> Mapping[str, tuple[str, ...]]:
        """Which packages (keys) have each path, as it is written, in their lists."""
        if self._holders is None:
            self._holders = self._find_holders()
        return self._holders

    def _find_holders(self) -> dict[str, tuple[str, ...]]:
        holders: dict[str, tuple[str, ...]] = {}
        count = 0
        for key, record in self.records.items():
            for path in self.files(record):
                count += 1
                if count > MAX_OWNED:
                    raise MalformedInput(f"packages own more than {MAX_OWNED} paths; refused", file=INFO)
                holders[path] = (*holders.get(path, ()), key)
        return holders


def foreign_architectures(db: InstalledDb) -> tuple[str, ...]:
    """Return the architectures, beside the native one, of which packages are installed; MalformedInput if too many."""
    found = sorted({item.package.arch for item in db.packages} - {db.arch, "all", ""})
    if len(found) > MAX_FOREIGN:
        raise MalformedInput(f"packages of more than {MAX_FOREIGN} foreign architectures; refused", file=STATUS)
    return tuple(found)


def keeps(path: str) -> bool:
    """Say whether the content of `path` is needed: the database, the configuration and what dpkg's helpers keep."""
    return (
        path.startswith(("var/lib/", "etc/", "usr/lib/os", "usr/share/", "var/cache/debconf/"))
        and _KEPT.fullmatch(path) is not None
    )


def open_database(fs: RootFS) -> DpkgDb | None:
    """Open the database of `fs`, or return None where there is no package in either form.

    Raises MalformedInput where it cannot be read, or describes one package twice.
    """
    if fs.resolve(ADMIN) != ADMIN:  # a link: a scan, which sees one layer, kept nothing of what lies behind it
        fs.fetch(entry.path for entry in fs.walk(ADMIN) if keeps(_as_admin(fs, entry.path)))
    stanzas = tuple(_read_status(fs))
    simple = tuple(_read_status_d(fs))
    if not stanzas and not simple:
        return None
    whole = [(stanza, fixed) for stanza in stanzas if (fixed := _state(stanza)) is not None]
    arch = _native(fs, [stanza for stanza, _ in whole] + [stanza for _, stanza in simple])
    records: dict[str, Record] = {}
    form = Form.PARTIAL if _is_partial(fs) else Form.STATUS
    for stanza, fixed in whole:
        record = _record(stanza, form, fs.resolve(STATUS), arch, fixed)
        record = replace(record, stem=_stem(fs, stanza))
        _add(records, record)
    for file, stanza in simple:
        record = _record(stanza, Form.STATUS_D, file, arch, "")
        other = records.get(record.installed.key)
        if other is not None and other.form is not Form.STATUS_D:
            reason = f"recorded in {STATUS} and in {file}: nothing says which one is true"
            records[other.installed.key] = replace(other, installed=replace(other.installed, fixed=reason))
            continue
        _add(records, record)
    if any(name.isdigit() for name in fs.listdir(f"{ADMIN}/updates")):
        reason = f"{ADMIN}/updates is not empty: dpkg was interrupted in this image"
        records = {
            key: replace(record, installed=replace(record.installed, fixed=record.installed.fixed or reason))
            for key, record in records.items()
        }
    return DpkgDb(fs, stanzas, records, arch)


def _is_partial(fs: RootFS) -> bool:
    """Say whether `status` was made for an image that dpkg never was in: neither itself nor its lists are there."""
    return fs.get("usr/bin/dpkg") is None and not any(name.endswith(".list") for name in fs.listdir(INFO))


def _as_admin(fs: RootFS, path: str) -> str:
    """Return the name that a path behind the linked database folder has below the usual one."""
    return ADMIN + path.removeprefix(fs.resolve(ADMIN))


def parse_md5sums(data: bytes, where: str = "") -> dict[str, str]:
    """Parse a md5sums control file into path -> hexadecimal sum, deb-md5sums(5)."""
    sums: dict[str, str] = {}
    for number, line in enumerate(data.decode("utf-8", "surrogateescape").split("\n"), 1):
        if not line:
            continue
        digest, _, path = line.partition("  ")
        if _MD5.fullmatch(digest) is None or not path:
            raise MalformedInput("not a line of md5sums (32 hex digits, two blanks, a path)", file=where, line=number)
        sums[path.removeprefix("./").lstrip("/")] = digest
    return sums


def parse_conffiles(value: str) -> dict[str, tuple[str, str]]:
    """Parse the Conffiles field of a status stanza: path (as written) -> md5 and flags (``obsolete``)."""
    found: dict[str, tuple[str, str]] = {}
    for line in value.split("\n"):
        match = re.fullmatch(r"(/.*) ([0-9a-f]{32}|newconffile)((?: (?:obsolete|remove-on-upgrade))*)", line.strip())
        if match is not None:
            found[match[1]] = (match[2], match[3].strip())
        elif line.strip():
            raise MalformedInput("not a line of Conffiles (path, md5 sum)", file=STATUS, text=line)
    return found


def _read_status(fs: RootFS) -> Iterator[Stanza]:
    data = fs.read(STATUS)
    if data is not None:
        yield from _bounded(iter_stanzas(_Bytes(data), STATUS), STATUS)


def _read_status_d(fs: RootFS) -> Iterator[tuple[str, Stanza]]:
    """Yield every record of status.d with its file; names are arbitrary, `*.md5sums` stand beside them."""
    for name in fs.listdir(STATUS_D):
        file = fs.locate(f"{STATUS_D}/{name}")
        if name.endswith(".md5sums"):
            continue
        data = fs.read(file)
        if data is None:
            continue
        stanzas = list(_bounded(iter_stanzas(_Bytes(data), file), file))
        if len(stanzas) > 1:
            raise MalformedInput("more than one package in one file of status.d", file=file)
        if stanzas and "Package" in stanzas[0]:
            yield file, stanzas[0]


def _bounded(stanzas: Iterator[Stanza], where: str) -> Iterator[Stanza]:
    for count, stanza in enumerate(stanzas):
        if count >= MAX_PACKAGES:
            raise MalformedInput(f"more than {MAX_PACKAGES} packages; refused", file=where)
        yield stanza


class _Bytes:
    """Bytes as a stream of one piece, without a copy of it."""

    __slots__ = ("_data",)

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, _size: int = -1, /) -> bytes:
        data, self._data = self._data, b""
        return data


def _state(stanza: Stanza) -> str | None:
    """Return None for a package that is not installed, else why it may not move (or ``""``)."""
    words = stanza.need("Status").split()
    if len(words) != 3:  # noqa: PLR2004 - want, flag, state
        raise stanza.wrong("Status has three words", stanza.get("Status"))
    want, flag, state = words
    if state in {"not-installed", "config-files"}:
        return None
    if flag != "ok":
        return f"dpkg marks it {flag}: install it again first"
    if state != "installed":
        return f"not fully installed (its state is {state})"
    if want == "hold":
        return "held in the image (dpkg's selection is hold)"
    if want != "install":
        return f"selected for {want} in the image"
    return ""


def _native(fs: RootFS, stanzas: list[Stanza]) -> str:
    """Return the native architecture: of dpkg itself, of its `arch` file, of most packages, or ``all`` for no other."""
    for stanza in stanzas:
        if stanza.get("Package") == "dpkg" and stanza.get("Architecture") not in {"", "all"}:
            return stanza.get("Architecture")
    listed = (fs.read(f"{ADMIN}/arch") or b"").decode("ascii", "replace").split()
    if listed:
        return listed[0]
    counts: dict[str, int] = {}
    for stanza in stanzas:
        name = stanza.get("Architecture")
        if name not in {"", "all"}:
            counts[name] = counts.get(name, 0) + 1
    return max(sorted(counts), key=lambda name: counts[name], default=ANY)


def _record(stanza: Stanza, form: Form, file: str, arch: str, fixed: str) -> Record:
    package = parse_package(stanza)
    if _CONTROL_NAME.fullmatch(package.name) is None or re.fullmatch(r"[a-z0-9-]+", package.arch) is None:
        raise stanza.wrong("not a package name and architecture", f"{package.name}:{package.arch}")
    foreign = arch and package.arch not in {arch, "all"}
    key = f"{package.name}:{package.arch}" if foreign else package.name
    return Record(Installed(key, package, fixed), stanza, form, file, package.name)


def _add(records: dict[str, Record], record: Record) -> None:
    key = record.installed.key
    if key in records:
        raise record.stanza.wrong(f"the package {key} is there twice (also in {records[key].file})")
    records[key] = record


def _stem(fs: RootFS, stanza: Stanza) -> str:
    """Return how the info files of a package begin: with its architecture if it may be installed for several."""
    name = stanza.get("Package")
    if stanza.get("Multi-Arch") == "same" and (fs.read(f"{INFO}/format") or b"1").strip() == b"1":
        return f"{name}:{stanza.get('Architecture')}"
    return name


def _same_arch(installed: str, new: str, native: str) -> bool:
    """An upgrade may go between the native architecture and ``all``, never to another one."""
    return installed == new or {installed, new} == {native, "all"}
