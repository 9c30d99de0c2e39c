"""Which version apt would take for an installed package, and every version that the sources offer.

Owns apt's choice: of all versions on offer and the installed one, from the newest to the oldest, the one of the highest
priority, never an older one than is installed, of the same architecture (``all`` counts as native). A version that
comes after one of a security source is a security update too: it takes that one's place. A phased update is
taken as apt takes it where nothing identifies the machine, which is how images are; see `_phased`.
Specification: apt_preferences(5), apt-get(8), deb-version(7).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from proxy.engine.families.dpkg.aptconf import AptConf, read_apt_conf
from proxy.engine.families.dpkg.index import IndexReader
from proxy.engine.families.dpkg.preferences import (
    DEFAULT_PRIORITY,
    DOWNGRADE_PRIORITY,
    INSTALLED,
    INSTALLED_PRIORITY,
    PackageFile,
    Preferences,
    read_preferences,
)
from proxy.engine.families.dpkg.version import Key, compare_versions, version_key
from proxy.engine.family import Candidate, Installed, InstalledDb, Package, PackageIndex
from proxy.engine.rootfs import RootFS

NOT_AUTOMATIC_PRIORITY = 1
MACHINE_ID = "etc/machine-id"
ALL = 100  # per cent of machines


@dataclass(frozen=True, slots=True)
class _Offer:
    """One version from one file of one source."""

    package: Package
    reader: IndexReader
    file: PackageFile


@dataclass(frozen=True, slots=True)
class _Rules:
    """What the image's configuration makes of versions.

    `recommends` says whether apt installs what packages recommend (it does unless told otherwise) and keeps back what
    would come to lack some; `phased` is a reason against phased updates, or empty.
    """

    native: str
    recommends: bool
    preferences: Preferences
    phased: str
    fault: str
    files: dict[PackageFile, int]

    def priority(self, package: Package, offers: Sequence[_Offer], *, installed: bool) -> int:
        files = {offer.file: self.file_priority(offer.file) for offer in offers}
        if installed:
            files[INSTALLED] = self.file_priority(INSTALLED)
        return self.preferences.priority(package, self.native, files)

    def file_priority(self, file: PackageFile) -> int:
        if file not in self.files:
            self.files[file] = self.preferences.file_priority(file)
        return self.files[file]


def choose(fs: RootFS, db: InstalledDb, indexes: Sequence[PackageIndex]) -> dict[str, Candidate]:
    """Return, by key, what apt would upgrade each installed package to; `blocked` says what it must wait for."""
    rules = _read_rules(fs, db, indexes)
    chosen: dict[str, Candidate] = {}
    with _opened(indexes) as readers:
        for item in db.packages:
            candidate = _choose_one(item, readers, rules)
            if candidate is not None:
                chosen[item.key] = candidate
    return chosen


def _read_rules(fs: RootFS, db: InstalledDb, indexes: Sequence[PackageIndex]) -> _Rules:
    conf = read_apt_conf(fs)
    preferences = read_preferences(fs, conf)
    files = [package_file(index, component) for index in indexes for component in index.source.components or ("",)]
    fault = preferences.fault or preferences.unknown_release(files)
    recommends = conf.truth("apt::install-recommends") is not False
    return _Rules(db.arch, recommends, preferences, _phased(fs, conf), fault, {})


class Additions:
    """The candidates of packages that are not installed, of the native architecture."""

    def __init__(self, db: InstalledDb, readers: Sequence[IndexReader], rules: _Rules) -> None:
        self._readers, self._rules = readers, rules
        self._installed = {item.package.name for item in db.packages}
        self._found: dict[str, tuple[Candidate, ...]] = {}

    def offers(self, package: Package) -> bool:
        """Say whether a source has this very version of a package."""
        return any(
            (found.version, found.arch) == (package.version, package.arch)
            for reader in self._readers
            for found in reader.lookup(package.name)
        )

    def several(self, name: str) -> bool:
        """Say whether there is no package `name`, and more than one that provides it: nothing is chosen then."""
        return not self(name) and len(self._providers(name)) > 1

    def _providers(self, name: str) -> set[str]:
        return {package.name for reader in self._readers for package in reader.providers(name)}

    def __call__(self, name: str) -> Sequence[Candidate]:
        """Return the candidate that is called `name`, or the only one that provides it."""
        if name not in self._found:
            found = [self._choose(name)] if name not in self._installed else []
            if not any(found):
                providers = self._providers(name)
                found = [self._choose(one) for one in providers - self._installed if len(providers) == 1]
            self._found[name] = tuple(candidate for candidate in found if candidate is not None)
        return self._found[name]

    def _choose(self, name: str) -> Candidate | None:
        absent = Package(name, "", self._rules.native)
        versions: dict[str, list[_Offer]] = {}
        for reader in self._readers:
            for package in reader.lookup(name):
                if package.arch in {self._rules.native, "all"}:
                    file = package_file(reader.index, package.fields.get("Component", ""))
                    versions.setdefault(package.version, []).append(_Offer(package, reader, file))
        ranked = sorted(versions, key=version_key, reverse=True)
        best = _best(ranked, versions, absent, self._rules)
        if not best:
            return None
        candidate = _candidate(versions[best])
        if not self._rules.recommends:
            candidate = replace(candidate, package=replace(candidate.package, recommends=()))
        return replace(candidate, blocked=self._rules.fault or _held_back(candidate.package, (), self._rules))


@contextmanager
def choosing_additions(fs: RootFS, db: InstalledDb, indexes: Sequence[PackageIndex]) -> Iterator[Additions]:
    """Give what finds, by a name, what apt would install for it of packages that are not."""
    rules = _read_rules(fs, db, indexes)
    with _opened(indexes) as readers:
        yield Additions(db, readers, rules)


def package_file(index: PackageIndex, component: str) -> PackageFile:
    """Return what pins may ask of one component of a source's index."""
    facts = index.facts
    priority = DEFAULT_PRIORITY
    if facts.get("ButAutomaticUpgrades", "").lower() == "yes":
        priority = INSTALLED_PRIORITY
    elif facts.get("NotAutomatic", "").lower() == "yes":
        priority = NOT_AUTOMATIC_PRIORITY
    return PackageFile(
        archive=facts.get("Suite", "") or facts.get("Archive", ""),
        codename=facts.get("Codename", ""),
        version=facts.get("Version", ""),
        origin=facts.get("Origin", ""),
        label=facts.get("Label", ""),
        component=component,
        arch=index.source.arch,
        site=urlsplit(index.source.uri).hostname or "",
        priority=priority,
    )


def available(db: InstalledDb, indexes: Sequence[PackageIndex], name: str) -> tuple[Candidate, ...]:
    """Return every version of the package `name` on offer for the image's architecture, newest first."""
    with _opened(indexes) as readers:
        found = [
            reader.candidate(package)
            for reader in readers
            for package in reader.lookup(name)
            if package.arch in {db.arch, "all"}
        ]
    newest = sorted(found, key=_order, reverse=True)
    return tuple({candidate.package.version: candidate for candidate in reversed(newest)}.values())[::-1]


def _order(candidate: Candidate) -> Key:
    return version_key(candidate.package.version)


@contextmanager
def _opened(indexes: Sequence[PackageIndex]) -> Iterator[list[IndexReader]]:
    readers: list[IndexReader] = []
    try:
        for index in indexes:
            readers.append(IndexReader(index))  # noqa: PERF401 - those opened so far must be closed
        yield readers
    finally:
        for reader in readers:
            reader.close()


def _choose_one(item: Installed, readers: Sequence[IndexReader], rules: _Rules) -> Candidate | None:
    installed, native = item.package, rules.native
    archs = {native, "all"} if installed.arch in {native, "all"} else {installed.arch}
    versions: dict[str, list[_Offer]] = {installed.version: []}
    for reader in readers:
        for package in reader.lookup(installed.name):
            if package.arch in archs:
                file = package_file(reader.index, package.fields.get("Component", ""))
                versions.setdefault(package.version, []).append(_Offer(package, reader, file))
    ranked = sorted(versions, key=version_key, reverse=True)
    newer = [version for version in ranked if compare_versions(version, installed.version) > 0]
    if not newer:
        return None
    if rules.fault:
        return replace(_candidate(versions[newer[0]]), blocked=rules.fault)
    best = _best(ranked, versions, installed, rules)
    if best not in newer:
        return None
    candidate = _candidate(versions[best])
    if not rules.recommends:
        candidate = replace(candidate, package=replace(candidate.package, recommends=()))
    between = [offer for version in newer[newer.index(best) + 1 :] for offer in versions[version]]
    security = candidate.security or any(offer.reader.index.source.security for offer in between)
    return replace(candidate, security=security, blocked=_held_back(candidate.package, between, rules))


def _best(ranked: Sequence[str], versions: Mapping[str, list[_Offer]], installed: Package, rules: _Rules) -> str:
    """Return the version that apt would have: the installed one if it would not move."""
    best, best_priority = installed.version, -1
    for version in ranked:
        offers = versions[version]
        here = version == installed.version
        package = offers[0].package if offers else installed
        priority = rules.priority(package, offers, installed=here)
        if priority == 0 or priority <= best_priority:
            continue
        older = bool(installed.version) and compare_versions(version, installed.version) < 0
        if priority < DOWNGRADE_PRIORITY and older:
            continue
        best, best_priority = version, priority
    return best


def _candidate(offers: Sequence[_Offer]) -> Candidate:
    """Return a version as a candidate: of the first source that has it, security if any of them is."""
    candidate = offers[0].reader.candidate(offers[0].package)
    return replace(candidate, security=any(offer.reader.index.source.security for offer in offers))


def _held_back(package: Package, between: Sequence[_Offer], rules: _Rules) -> str:
    """Return why apt may keep a phased update back; it does not where it jumps over a security update."""
    share = package.fields.get("Phased-Update-Percentage", "")
    if not rules.phased or not share.isdecimal() or int(share) >= ALL:
        return ""
    if any(offer.file.archive.endswith("-security") for offer in between):
        return ""
    return f"{package.version} is a phased update, at {share} % so far, and {rules.phased}"


def _phased(fs: RootFS, conf: AptConf) -> str:
    """Return why phased updates stay away from this image, or ``""``: nothing identifies the machine it runs on.

    Where an image has an identity, the native tool draws lots with it, and does so differently in its versions.
    """
    if conf.truth("apt::get::always-include-phased-updates", "update-manager::always-include-phased-updates"):
        return ""
    if conf.truth("apt::get::never-include-phased-updates", "update-manager::never-include-phased-updates"):
        return "the image's apt configuration never takes those (Never-Include-Phased-Updates)"
    identity = conf.get("apt::machine-id", "") or (fs.read(MACHINE_ID) or b"").decode("ascii", "replace").strip()
    if identity and identity != "uninitialized":
        return (
            "the image has a machine-id, by which apt draws lots: empty /etc/machine-id, or set"
            " APT::Get::Always-Include-Phased-Updates"
        )
    return ""
