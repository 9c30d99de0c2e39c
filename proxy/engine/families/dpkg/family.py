"""The dpkg family as the engine's Family protocol: delegates to the modules beside it, and decides nothing itself."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import BinaryIO

from proxy.engine.families.dpkg import candidates as selection
from proxy.engine.families.dpkg.archive import unpack_package
from proxy.engine.families.dpkg.database import DpkgDb, foreign_architectures, keeps, open_database
from proxy.engine.families.dpkg.index import refresh_source
from proxy.engine.families.dpkg.judge import judge, judge_removal
from proxy.engine.families.dpkg.record import record_upgrade
from proxy.engine.families.dpkg.sources import image_sources
from proxy.engine.families.dpkg.version import compare_versions
from proxy.engine.family import (
    Candidate,
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
from proxy.engine.rootfs import RootFS
from proxy.engine.tar import Entry


class DpkgFamily:
    """Debian's package manager, in its full form and in the one of distroless images."""

    name = "dpkg"
    inspect_only = ""

    def keeps(self, path: str) -> bool:
        """See `database.keeps`."""
        return keeps(path)

    def open(self, fs: RootFS) -> DpkgDb | None:
        """Open the database, or return None where there is none."""
        return open_database(fs)

    def sources(
        self, fs: RootFS, db: InstalledDb, settings: SourceSettings
    ) -> tuple[tuple[PackageSource, ...], tuple[SkippedSource, ...]]:
        """Return the sources to use, and those that are not used, with reasons."""
        return image_sources(fs, db.distribution, db.arch, settings, foreign_architectures(db))

    def refresh(self, source: PackageSource, settings: SourceSettings, now: datetime, spool: BinaryIO) -> Refresh:
        """Verify a source's index and store it."""
        return refresh_source(source, settings, now, spool)

    def candidates(self, fs: RootFS, db: InstalledDb, indexes: Sequence[PackageIndex]) -> Mapping[str, Candidate]:
        """Choose by apt's rules."""
        return selection.choose(fs, db, indexes)

    def additions(self, fs: RootFS, db: InstalledDb, indexes: Sequence[PackageIndex]) -> AbstractContextManager[Market]:
        """Find by apt's rules what could be added."""
        return selection.choosing_additions(fs, db, indexes)

    def available(self, db: InstalledDb, indexes: Sequence[PackageIndex], name: str) -> tuple[Candidate, ...]:
        """Return every version that the sources offer, newest first."""
        return selection.available(db, indexes, name)

    def compare(self, a: str, b: str) -> int:
        """Compare as deb-version(7) says."""
        return compare_versions(a, b)

    def unpack(self, package: Package, archive: BinaryIO, spool: BinaryIO, spool_name: str) -> Payload:
        """Unpack a .deb."""
        return unpack_package(package, archive, spool, spool_name)

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
        """Say whether a payload can be recorded faithfully."""
        return judge(fs, _own(db), payload, apply_unknown=apply_unknown, removed=removed, unscripted=unscripted)

    def judge_removal(self, fs: RootFS, db: InstalledDb, key: str, *, apply_unknown: bool = False) -> Judgement:
        """Say whether a removal can be recorded faithfully."""
        return judge_removal(fs, _own(db), key, apply_unknown=apply_unknown)

    def record(
        self,
        fs: RootFS,
        db: InstalledDb,
        payloads: Sequence[Payload],
        *,
        unscripted: Collection[str] = (),
        removed: Collection[str] = (),
    ) -> tuple[Entry, ...]:
        """Return the entries of the patch layer."""
        return record_upgrade(fs, _own(db), payloads, unscripted, removed)


def _own(db: InstalledDb) -> DpkgDb:
    if not isinstance(db, DpkgDb):
        raise TypeError("a database that another family opened")
    return db
