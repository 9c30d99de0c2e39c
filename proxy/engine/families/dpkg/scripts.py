"""Whether an upgrade can be recorded faithfully: maintainer scripts, triggers, conffiles, odd paths.

Owns the answer, one reason per package, in the words of its cause. An effect is one of `NONE` (proven from the
scripts' own text and the image), `REPRODUCED` (done as data) or unknown, and then the package is skipped. In status.d
images nothing of this runs, so only files and conffiles are looked at, and what builders derive from certificates.

1. paths: nothing that dpkg would refuse, divert or override;
2. conffiles: decided (see `conffiles`);
3. scripts, each with the arguments of Policy 6.6: old prerm and postrm with `upgrade`, new preinst and postinst;
4. triggers: nobody is interested, or the effect is known (`ldconfig`: the cache would hold the same).
Specification: Debian Policy 6.6, deb-triggers(5)
"""

import re
from collections.abc import Iterator

from proxy.engine.families.dpkg.archive import OWN_SUMS
from proxy.engine.families.dpkg.commands import Scene
from proxy.engine.families.dpkg.conffiles import decide_conffiles
from proxy.engine.families.dpkg.database import ADMIN, DpkgDb, Form, Record
from proxy.engine.families.dpkg.effects import find_effect
from proxy.engine.families.dpkg.filters import read_filters
from proxy.engine.families.dpkg.linker import linker_cache_changes
from proxy.engine.families.dpkg.record import PathTaker
from proxy.engine.family import Payload
from proxy.engine.rootfs import RootFS
from proxy.engine.tar import Entry, Kind

_UNSEEN = ("proc/", "sys/", "dev/")  # what a script would find there is not in the image
_CERTIFICATE_STORES = (
    "etc/ssl/certs/ca-certificates.crt",
    "etc/ssl/certs/java/cacerts",
    "etc/pki/tls/certs/ca-bundle.crt",
    "etc/ssl/cert.pem",
)
_CONTROL_FILES = frozenset(
    {"control", "md5sums", "conffiles", "shlibs", "symbols", "triggers", "templates", "preinst", "postinst", "prerm"}
    | {"postrm", "config", "isinstallable"}
)


def unsupported(fs: RootFS, db: DpkgDb, payload: Payload) -> str:
    """Say why `payload` cannot be recorded faithfully, or ``""``."""
    record = db.record_of(payload.package)
    checks = [_paths(fs, db, record, payload), _conffiles(fs, db, record, payload)]
    if record.form is Form.STATUS_D:
        checks += [_derived(fs, record)]
    if record.form is Form.STATUS:
        checks += [_scripts(fs, db, record, payload), _triggers(fs, db, record, payload)]
    for check in checks:
        for reason in check:
            return f"{record.installed.key}: {reason}"
    return ""


def _paths(fs: RootFS, db: DpkgDb, record: Record, payload: Payload) -> Iterator[str]:
    name = record.installed.package.name
    for key, other in db.records.items():
        if other is not record and other.installed.package.name == name:
            yield f"{key} is installed too and must move with it, which is not done yet"
    special = set(_overridden(fs))
    taker = PathTaker(fs, db, record, read_filters(fs))
    links = {entry.path for entry in payload.entries if entry.kind is Kind.SYMLINK}
    replaces = payload.package.fields.get("Replaces", "")
    for entry in payload.entries:
        if entry.path in special:
            yield f"/{entry.path} is diverted or has a statoverride, which is not followed yet"
        if any(parent in links for parent in _parents(entry.path)):
            yield f"/{entry.path} lies under a link of the same package"
        if taker.takes(entry):
            yield from _one_path(fs, db, record, entry, replaces)
    yield from (f"/{path} of the old version is diverted" for path in db.files(record) if path in special)


def _one_path(fs: RootFS, db: DpkgDb, record: Record, entry: Entry, replaces: str) -> Iterator[str]:
    there = fs.get(entry.path)
    if there is None:
        parent = fs.get(fs.resolve(entry.path.rpartition("/")[0])) if "/" in entry.path else None
        if parent is not None and parent.kind is not Kind.DIR:
            yield f"/{entry.path} would lie under a path that is no directory"
        return
    if entry.kind is Kind.DIR:
        real = fs.get(fs.resolve(entry.path))
        if real is None or real.kind is not Kind.DIR:
            yield f"/{entry.path} is a {there.kind} in the image and a directory in the package"
        return
    if there.kind is Kind.DIR and entry.kind is not Kind.SYMLINK:
        yield f"/{entry.path} is a directory in the image and a {entry.kind} in the package"
    name = record.installed.package.name
    others = [key for key in db.owners.get(fs.locate(entry.path), ()) if key.partition(":")[0] != name]
    if others and there.kind is not Kind.DIR:
        more = " (it says Replaces; not followed yet)" if replaces else ""
        yield f"/{entry.path} belongs to {others[0]}{more}"


def _conffiles(fs: RootFS, db: DpkgDb, record: Record, payload: Payload) -> Iterator[str]:
    yield from (item.reason for item in decide_conffiles(fs, db, record, payload) if item.reason)
    if b"remove-on-upgrade" in payload.control.get("conffiles", b""):
        yield "its conffiles have the flag remove-on-upgrade, which is not followed yet"


def _derived(fs: RootFS, record: Record) -> Iterator[str]:
    """What builders of distroless images make of a package's files, and no package owns, would go stale."""
    if record.installed.package.name == "ca-certificates":
        for path in _CERTIFICATE_STORES:
            if fs.get(path) is not None:
                yield f"/{path} was made from its certificates when the image was built, which is not reproduced yet"


def _scripts(fs: RootFS, db: DpkgDb, record: Record, payload: Payload) -> Iterator[str]:
    strange = sorted(set(payload.control) - _CONTROL_FILES - {OWN_SUMS})
    if strange:
        yield f"its control file {strange[0]} is not understood yet"
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
        effect = find_effect(script, scene)
        if effect is not None:
            yield f"its {name} is not understood yet (line {effect.line}: {effect.what})"
    if "config" in payload.control and images.exists("usr/bin/apt-extracttemplates", "-e") is not False:
        yield "its config would be run by debconf before the upgrade, which is not reproduced yet"


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


def _triggers(fs: RootFS, db: DpkgDb, record: Record, payload: Payload) -> Iterator[str]:
    old = list(_directives(db.info(record, "triggers") or b""))
    new = list(_directives(payload.control.get("triggers", b"")))
    interests = [item for item in new if item[0].startswith("interest")]
    if sorted(interests) != sorted(item for item in old if item[0].startswith("interest")):
        yield "it changes which triggers it is interested in, which is not recorded yet"
    own = record.installed.key
    for directive, name in dict.fromkeys(new + old):
        if directive.startswith("activate"):
            yield from _activated(fs, db, record, payload, name)
    yield from _file_triggers(fs, db, record, payload, own)


def _activated(fs: RootFS, db: DpkgDb, record: Record, payload: Payload, name: str) -> Iterator[str]:
    interested = [
        line for line in (fs.read(f"{ADMIN}/triggers/{name}") or b"").decode("utf-8", "replace").split() if line
    ]
    if not interested:
        return
    if name == "ldconfig":
        reason = linker_cache_changes(fs, db, record, payload)
        if reason:
            yield f"its trigger ldconfig would rewrite /etc/ld.so.cache, which is not reproduced yet ({reason})"
        return
    yield f"it activates the trigger {name} of {interested[0].partition('/')[0]}, which is not reproduced yet"


def _file_triggers(fs: RootFS, db: DpkgDb, record: Record, payload: Payload, own: str) -> Iterator[str]:
    touched = [f"/{entry.path}" for entry in payload.entries] + [f"/{path}" for path in db.files(record)]
    for line in (fs.read(f"{ADMIN}/triggers/File") or b"").decode("utf-8", "surrogateescape").split("\n"):
        path, _, package = line.rpartition(" ")
        package = package.partition("/")[0]
        if not path or package == own:
            continue
        if any(name == path or name.startswith(f"{path}/") for name in touched):
            yield f"it activates the file trigger {path} of {package}, which is not reproduced yet"


def _directives(data: bytes) -> Iterator[tuple[str, str]]:
    for line in data.decode("utf-8", "replace").split("\n"):
        words = line.partition("#")[0].split()
        if len(words) == 2:  # noqa: PLR2004 - directive and name
            yield words[0], words[1]


def _overridden(fs: RootFS) -> Iterator[str]:
    lines = (fs.read(f"{ADMIN}/diversions") or b"").decode("utf-8", "surrogateescape").split("\n")
    for at in range(0, len(lines) - 2, 3):
        yield lines[at].lstrip("/")
        yield lines[at + 1].lstrip("/")
    for line in (fs.read(f"{ADMIN}/statoverride") or b"").decode("utf-8", "surrogateescape").split("\n"):
        parts = line.split(" ", 3)
        if len(parts) == 4:  # noqa: PLR2004 - user, group, mode, path
            yield parts[3].lstrip("/")


def _parents(path: str) -> Iterator[str]:
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path
