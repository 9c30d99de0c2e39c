"""The maintainer scripts of one upgrade, each walked with its arguments and with what the image is known to hold.

Owns which scripts run, with which arguments (Policy 6.6): old prerm and postrm with `upgrade`, new preinst and
postinst. What a script would do is found by `effects`.
Specification: Debian Policy 6.6, dpkg(1)
"""

import re
from collections.abc import Iterator

from proxy.engine.families.dpkg.archive import OWN_SUMS
from proxy.engine.families.dpkg.commands import Scene
from proxy.engine.families.dpkg.database import DpkgDb, Record
from proxy.engine.families.dpkg.effects import find_effects
from proxy.engine.families.dpkg.findings import Finding, Reason
from proxy.engine.family import Payload
from proxy.engine.rootfs import RootFS
from proxy.engine.tar import Kind

_UNSEEN = ("proc/", "sys/", "dev/")  # what a script would find there is not in the image
_CONTROL_FILES = frozenset(
    {"control", "md5sums", "conffiles", "shlibs", "symbols", "triggers", "templates", "preinst", "postinst", "prerm"}
    | {"postrm", "config", "isinstallable"}
)


def walk_scripts(fs: RootFS, db: DpkgDb, record: Record, payload: Payload) -> Iterator[Finding]:
    """Yield what the scripts of this upgrade would do, or why nobody knows."""
    strange = sorted(set(payload.control) - _CONTROL_FILES - {OWN_SUMS})
    if strange:
        yield Reason(f"its control file {strange[0]} is not understood yet")
    old, new = record.installed.package.version, payload.package.version
    calls = (
        ("old prerm", db.info(record, "prerm"), ("upgrade", new)),
        ("preinst", payload.control.get("preinst"), ("upgrade", old, new)),
        ("old postrm", db.info(record, "postrm"), ("upgrade", new)),
        ("postinst", payload.control.get("postinst"), ("configure", old)),
    )
    images = _Image(fs, db, record, payload)
    for name, script, arguments in calls:
        if script is None:
            continue
        scene = Scene(
            name.removeprefix("old "),
            arguments,
            payload.package.name,
            old,
            images.exists,
            images.read,
            images.unit_same,
        )
        effects = find_effects(script, scene)
        if effects.unknown is not None:
            unknown = effects.unknown
            yield Reason(f"its {name} is not understood yet (line {unknown.line}: {unknown.what})")
        yield from effects.changes
    if "config" in payload.control and images.exists("usr/bin/apt-extracttemplates", "-e") is not False:
        yield Reason("its config would be run by debconf before the upgrade, which is not reproduced yet")


class _Image:
    """What scripts would find: the image's files, and those of the package in hand."""

    def __init__(self, fs: RootFS, db: DpkgDb, record: Record, payload: Payload) -> None:
        self._fs, self._db, self._record, self._payload = fs, db, record, payload
        self._new = {fs.locate(entry.path): entry for entry in payload.entries}
        self._old = {fs.locate(path) for path in db.files(record)}

    def exists(self, path: str, test: str) -> bool | None:
        """Answer a file test where the image before and after the upgrade agrees; None where it does not."""
        if (path + "/").startswith(_UNSEEN):
            return None
        follow = test not in {"-L", "-h"}
        real = self._fs.resolve(path) if follow else self._fs.locate(path)
        there = self._fs.get(real)
        new = self._new.get(real)
        if there is None:
            return None if new is not None else False
        if (real in self._old or real in self._new) and (new is None or new.kind is not there.kind):
            return None
        answers: dict[str, bool | None] = {
            "-e": True,
            "-r": True,
            "-f": there.kind in {Kind.FILE, Kind.HARDLINK},
            "-d": there.kind is Kind.DIR,
            "-x": True if there.mode & 0o111 else None,
            "-L": there.kind is Kind.SYMLINK,
            "-h": there.kind is Kind.SYMLINK,
        }
        return answers.get(test)

    def read(self, path: str) -> bytes | None:
        """Return a file of the image that the package does not bring, if its content was kept."""
        real = self._fs.resolve(path)
        if real in self._new or self._fs.get(real) is None or self._fs.missing([real]):
            return None
        return self._fs.read(real)

    def unit_same(self, unit: str) -> bool:
        """Say that a unit's file did not change and that its links were made, or refused, when it was installed."""
        if re.fullmatch(r"[A-Za-z0-9@_.:-]+", unit) is None:
            return False
        path = self._unit_path(unit)
        sums = self._db.sums(self._record)
        new = {line[34:]: line[:32] for line in self._new_sums()}
        state = "var/lib/systemd/deb-systemd-helper"
        listed = self.read(f"{state}-enabled/{unit}.dsh-also")
        if not path or sums.get(path) is None or sums.get(path) != new.get(path) or listed is None:
            return False
        if self._fs.get(f"{state}-masked/{unit}") is not None:
            return False
        links = [line.strip("/") for line in listed.decode("utf-8", "replace").split("\n") if line]
        present = [self._fs.get(link) is not None for link in links]
        return all(present) or not any(present)

    def _unit_path(self, unit: str) -> str:
        for folder in ("lib/systemd/system", "usr/lib/systemd/system"):
            if any(entry.path == f"{folder}/{unit}" for entry in self._payload.entries):
                return f"{folder}/{unit}"
        return ""

    def _new_sums(self) -> list[str]:
        return self._payload.control.get("md5sums", b"").decode("utf-8", "surrogateescape").split("\n")
