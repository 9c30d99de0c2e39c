"""Which version apt would take for an installed package, and every version that the sources offer.

Owns apt's choice: of the versions on offer and the installed one, the highest priority, then the highest version,
never an older one than is installed, of the same architecture (``all`` counts as native). A phased update is named
as blocked, since which machines get it depends on a machine's identity, which an image has not.
Specification: apt_preferences(5), apt-get(8), deb-version(7).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from proxy.engine.families.dpkg.index import IndexReader
from proxy.engine.families.dpkg.preferences import (
    DOWNGRADE_PRIORITY,
    INSTALLED_PRIORITY,
    Preferences,
    read_preferences,
)
from proxy.engine.families.dpkg.version import Key, compare_versions, version_key
from proxy.engine.family import Candidate, Installed, InstalledDb, Package, PackageIndex
from proxy.engine.rootfs import RootFS


@dataclass(frozen=True, slots=True)
class _Offer:
    """One version from one source, with the priority that the pins give it there."""

    priority: int
    package: Package
    reader: IndexReader


def choose(fs: RootFS, db: InstalledDb, indexes: Sequence[PackageIndex]) -> dict[str, Candidate]:
    """Return, by key, what apt would upgrade each installed package to; `blocked` says what it must wait for."""
    preferences = read_preferences(fs)
    chosen: dict[str, Candidate] = {}
    with _opened(indexes) as readers:
        for item in db.packages:
            candidate = _choose_one(item, db.arch, readers, preferences)
            if candidate is not None:
                chosen[item.key] = candidate
    return chosen


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


def _choose_one(
    item: Installed, native: str, readers: Sequence[IndexReader], preferences: Preferences
) -> Candidate | None:
    installed = item.package
    archs = {native, "all"} if installed.arch in {native, "all"} else {installed.arch}
    offers = [
        _Offer(preferences.priority(reader.index, package), package, reader)
        for reader in readers
        for package in reader.lookup(installed.name)
        if package.arch in archs
    ]
    newer = [offer for offer in offers if compare_versions(offer.package.version, installed.version) > 0]
    if not newer:
        return None
    if preferences.fault:
        best = max(newer, key=lambda offer: version_key(offer.package.version))
        return replace(_candidate(best, offers), blocked=preferences.fault)
    priority = _priorities(newer)
    best = max(newer, key=lambda offer: (priority[offer.package.version], version_key(offer.package.version)))
    if priority[best.package.version] < _staying(installed, offers, preferences):
        return None
    return _candidate(best, offers)


def _staying(installed: Package, offers: Sequence[_Offer], preferences: Preferences) -> int:
    """Return the priority that a newer version must reach: the installed version's, or a forced downgrade's."""
    found = [INSTALLED_PRIORITY, preferences.installed_priority(installed)]
    for offer in offers:
        order = compare_versions(offer.package.version, installed.version)
        if order == 0 or (order < 0 and offer.priority >= DOWNGRADE_PRIORITY):
            found.append(offer.priority)
    return max(found)


def _priorities(offers: Sequence[_Offer]) -> Mapping[str, int]:
    """Return each version's priority: the highest that any of its sources gives it."""
    found: dict[str, int] = {}
    for offer in offers:
        version = offer.package.version
        found[version] = max(offer.priority, found.get(version, offer.priority))
    return found


def _candidate(offer: _Offer, offers: Sequence[_Offer]) -> Candidate:
    """Return the offer as a candidate: of the first source that has this version, security if any of them is."""
    same = [one for one in offers if one.package.version == offer.package.version]
    candidate = same[0].reader.candidate(same[0].package)
    security = any(one.reader.index.source.security for one in same)
    phased = same[0].package.fields.get("Phased-Update-Percentage", "100")
    blocked = "" if phased == "100" else f"{offer.package.version} is a phased update, at {phased} % so far"
    return replace(candidate, security=security, blocked=blocked)
