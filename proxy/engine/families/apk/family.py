"""The apk family: Alpine, Wolfi, Chainguard. It reads and inspects; it does not patch yet, and says so.

Owns opening the database, wherever it lies, and reading the image's repositories. Refuses two databases that differ.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import BinaryIO, NoReturn

from proxy.engine.families.apk.database import ApkDb, Wish, installed_packages, parse_installed, parse_world
from proxy.engine.families.apk.repositories import REPOSITORIES, read_sources
from proxy.engine.families.apk.version import compare_versions
from proxy.engine.family import (
    Candidate,
    Effect,
    Installed,
    InstalledDb,
    Judgement,
    Market,
    Package,
    PackageIndex,
    PackageSource,
    Payload,
    Refresh,
    SkippedSource,
    SourceSettings,
)
from proxy.engine.osrelease import OS_RELEASE_PATHS, read_distribution
from proxy.engine.rootfs import RootFS
from proxy.engine.tar import Entry
from proxy.errors import MalformedInput, Unsupported

# The old place and the new one; where an image has both, one leads to the other.
DATABASES = ("lib/apk/db", "usr/lib/apk/db")
SETTINGS = "etc/apk"
WORLD = f"{SETTINGS}/world"
ARCH = f"{SETTINGS}/arch"
NO_ARCH = "noarch"


class ApkFamily:
    """Satisfies `Family` for apk."""

    name = "apk"
    inspect_only = "apk packages can be inspected, but not patched yet: the image stays as it is"

    def keeps(self, path: str) -> bool:
        """Keep the database, apk's settings and os-release."""
        return path in OS_RELEASE_PATHS or path.startswith(tuple(f"{folder}/" for folder in (*DATABASES, SETTINGS)))

    def open(self, fs: RootFS) -> ApkDb | None:
        """Open `installed`; None where there is none."""
        places = list(dict.fromkeys(fs.resolve(f"{folder}/installed") for folder in DATABASES))
        found = [(place, data) for place in places if (data := fs.read(place)) is not None]
        if not found:
            return None
        path, data = found[0]
        if any(other != data for _, other in found[1:]):
            names = " and ".join(place for place, _ in found)
            raise MalformedInput(f"two package databases that differ ({names}): which one holds is unknown", file=path)
        records = parse_installed(data, where=path)
        packages = installed_packages(records, _read_world(fs), where=path)
        return ApkDb(path, records, packages, read_distribution(fs), _native_arch(fs, packages))

    def sources(
        self, fs: RootFS, db: InstalledDb, settings: SourceSettings
    ) -> tuple[tuple[PackageSource, ...], tuple[SkippedSource, ...]]:
        """Return no source to use: all that the image names are skipped, those that nobody could use for that."""
        del settings
        usable, skipped = read_sources(fs, db)
        named = [SkippedSource(source.uri, source.written, self.inspect_only) for source in usable]
        if not (named or skipped):
            named = [SkippedSource("(no address)", REPOSITORIES, self.inspect_only)]
        return (), (*named, *skipped)

    def refresh(self, source: PackageSource, settings: SourceSettings, now: datetime, spool: BinaryIO) -> Refresh:
        """Refuse: nothing is fetched for a family that cannot use it."""
        del source, settings, now, spool
        self._refuse()

    def candidates(self, fs: RootFS, db: InstalledDb, indexes: Sequence[PackageIndex]) -> Mapping[str, Candidate]:
        """Refuse."""
        del fs, db, indexes
        self._refuse()

    def additions(self, fs: RootFS, db: InstalledDb, indexes: Sequence[PackageIndex]) -> AbstractContextManager[Market]:
        """Refuse."""
        del fs, db, indexes
        self._refuse()

    def available(self, db: InstalledDb, indexes: Sequence[PackageIndex], name: str) -> tuple[Candidate, ...]:
        """Refuse."""
        del db, indexes, name
        self._refuse()

    def compare(self, a: str, b: str) -> int:
        """Compare two versions by apk's rules."""
        return compare_versions(a, b)

    def unpack(self, package: Package, archive: BinaryIO, spool: BinaryIO, spool_name: str) -> Payload:
        """Refuse."""
        del package, archive, spool, spool_name
        self._refuse()

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
        """Say that no payload can be recorded."""
        del fs, db, payload, apply_unknown, removed, unscripted
        return Judgement(Effect.UNKNOWN, self.inspect_only)

    def judge_removal(self, fs: RootFS, db: InstalledDb, key: str, *, apply_unknown: bool = False) -> Judgement:
        """Say that no removal can be recorded."""
        del fs, db, key, apply_unknown
        return Judgement(Effect.UNKNOWN, self.inspect_only)

    def record(
        self,
        fs: RootFS,
        db: InstalledDb,
        payloads: Sequence[Payload],
        *,
        unscripted: Collection[str] = (),
        removed: Collection[str] = (),
    ) -> tuple[Entry, ...]:
        """Refuse."""
        del fs, db, payloads, unscripted, removed
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise Unsupported(self.inspect_only)


def _read_world(fs: RootFS) -> tuple[Wish, ...]:
    data = fs.read(WORLD)
    return () if data is None else parse_world(data, where=WORLD)


def _native_arch(fs: RootFS, packages: Sequence[Installed]) -> str:
    """Return what `etc/apk/arch` says, else what most packages have."""
    written = (fs.read(ARCH) or b"").decode("ascii", "replace").split()
    if written:
        return written[0]
    counts = Counter(item.package.arch for item in packages if item.package.arch not in {"", NO_ARCH})
    return counts.most_common(1)[0][0] if counts else ""
