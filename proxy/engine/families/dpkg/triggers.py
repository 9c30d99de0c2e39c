"""Triggers that an upgrade would activate: is anybody interested, and would it do anything?

Owns the activations that follow from control files and from paths. `ldconfig` is understood (see `linker`).
Specification: deb-triggers(5), /usr/share/doc/dpkg/spec/triggers.txt
"""

from collections.abc import Iterator

from proxy.engine.families.dpkg.database import ADMIN, DpkgDb, Record
from proxy.engine.families.dpkg.linker import linker_cache_changes
from proxy.engine.family import Payload
from proxy.engine.rootfs import RootFS


def find_triggered(fs: RootFS, db: DpkgDb, record: Record, payload: Payload) -> Iterator[str]:
    """Yield why triggers stand in the way of an upgrade."""
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
