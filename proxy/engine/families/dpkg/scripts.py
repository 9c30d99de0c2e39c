"""The maintainer scripts of one upgrade, each done to the stage with its arguments and at its moment.

Owns which scripts run, with which arguments (Policy 6.6): old prerm and postrm with `upgrade`, new preinst and
postinst; prerm and postrm with `remove` of a package that goes. What a script does is found by `effects`.
Specification: Debian Policy 6.6, dpkg(1)
"""

import re
from functools import partial

from proxy.engine.families.dpkg.archive import OWN_SUMS
from proxy.engine.families.dpkg.call import Scene
from proxy.engine.families.dpkg.confmodule import Frontend
from proxy.engine.families.dpkg.database import INFO, DpkgDb, Record
from proxy.engine.families.dpkg.effects import run_script
from proxy.engine.families.dpkg.triggers import Interested, Triggers
from proxy.engine.family import NotRecordable, Payload
from proxy.engine.stage import Stage

_CONTROL_FILES = frozenset(
    {"control", "md5sums", "conffiles", "shlibs", "symbols", "triggers", "templates", "preinst", "postinst", "prerm"}
    | {"postrm", "config", "isinstallable"}
)
MAX_ROUNDS = 200  # packages that are told of triggers in one upgrade
_HELPER_STATE = {  # by the kind of unit
    "system": "var/lib/systemd/deb-systemd-helper",
    "user": "var/lib/systemd/deb-systemd-user-helper",
}


class Scripts:
    """The scripts of one package that moves, on a stage that others change too.

    Every method raises NotRecordable, with the script and its line, where one would do what is not understood.
    """

    def __init__(self, stage: Stage, db: DpkgDb, record: Record, payload: Payload, triggers: Triggers) -> None:
        self._stage, self._db, self._record, self._payload, self._triggers = stage, db, record, payload, triggers
        self._key = record.installed.key
        self._old, self._new = record.installed.package.version, payload.package.version
        control = payload.control
        self._frontend = Frontend(stage, payload.package.name, control.get("templates"), control.get("config"))
        self.changes = 0

    def before_unpacking(self) -> None:
        """Old prerm, then new preinst."""
        strange = sorted(set(self._payload.control) - _CONTROL_FILES - {OWN_SUMS})
        if strange:
            self._fail(f"its control file {strange[0]} is not understood yet")
        self._run("old prerm", self._db.info(self._record, "prerm"), ("upgrade", self._new))
        self._run(
            "preinst",
            self._payload.control.get("preinst"),
            ("upgrade", self._old, self._new) if self._old else ("install",),
        )

    def after_unpacking(self) -> None:
        """Its interests and activations, then old postrm."""
        paths = (*self._db.files(self._record), *(entry.path for entry in self._payload.entries))
        old, new = self._db.info(self._record, "triggers") or b"", self._payload.control.get("triggers", b"")
        control, arch = self._payload.control["control"], self._payload.package.arch
        same = re.search(rb"(?m)^Multi-Arch:[ \t]*same[ \t]*$", control) is not None
        self._triggers.unpack(Interested(self._key, arch, same=same), old, new, paths)
        self._run("old postrm", self._db.info(self._record, "postrm"), ("upgrade", self._new))

    def configure(self) -> None:
        """New postinst."""
        self._run("postinst", self._payload.control.get("postinst"), ("configure", self._old))

    def _run(self, name: str, script: bytes | None, arguments: tuple[str, ...]) -> None:
        if script is None:
            return
        package = self._payload.package.name
        scene = Scene(
            self._stage,
            name.removeprefix("old "),
            arguments,
            package,
            self._old,
            self._unit_same,
            self._db.arch,
            {"DPKG_MAINTSCRIPT_ARCH": self._payload.package.arch},
            activate=lambda name: self._triggers.activate(name, self._key),
            frontend=self._frontend if name in {"preinst", "postinst"} else Frontend(self._stage, package),
        )
        before = self._stage.changes
        unknown = run_script(script, scene)
        self.changes += self._stage.changes - before
        if unknown is not None:
            self._fail(f"its {name} is not understood yet (line {unknown.line}: {unknown.what})")

    def _fail(self, reason: str) -> None:
        raise NotRecordable({self._key: reason})

    def _unit_same(self, kind: str, unit: str) -> bool:
        """Say that a unit's file did not change and that its links were made, or refused, when it was installed."""
        if re.fullmatch(r"[A-Za-z0-9@_.:-]+", unit) is None:
            return False
        path, state = self._unit_path(kind, unit), _HELPER_STATE[kind]
        sums = self._db.sums(self._record)
        new = {line[34:]: line[:32] for line in self._new_sums()}
        listed = self._stage.read(f"{state}-enabled/{unit}.dsh-also")
        if not path or sums.get(path) is None or sums.get(path) != new.get(path) or listed is None:
            return False
        if self._stage.get(f"{state}-masked/{unit}") is not None:
            return False
        links = [line.strip("/") for line in listed.decode("utf-8", "replace").split("\n") if line]
        present = [self._stage.get(link) is not None for link in links]
        return all(present) or not any(present)

    def _unit_path(self, kind: str, unit: str) -> str:
        for folder in (f"lib/systemd/{kind}", f"usr/lib/systemd/{kind}"):
            if any(entry.path == f"{folder}/{unit}" for entry in self._payload.entries):
                return f"{folder}/{unit}"
        return ""

    def _new_sums(self) -> list[str]:
        return self._payload.control.get("md5sums", b"").decode("utf-8", "surrogateescape").split("\n")


class LastScripts:
    """The scripts of one package that is removed; both methods raise NotRecordable as those of `Scripts` do."""

    def __init__(self, stage: Stage, db: DpkgDb, record: Record, triggers: Triggers) -> None:
        self._stage, self._db, self._record, self._triggers = stage, db, record, triggers
        self.changes = 0

    def before(self) -> None:
        """Do the prerm."""
        self._run("prerm")

    def after(self) -> None:
        """Do the postrm."""
        self._run("postrm")

    def _run(self, name: str) -> None:
        script = self._db.info(self._record, name)
        if script is None:
            return
        key, package = self._record.installed.key, self._record.installed.package
        scene = Scene(
            self._stage,
            name,
            ("remove",),
            package.name,
            package.version,
            lambda _kind, _unit: False,
            self._db.arch,
            {"DPKG_MAINTSCRIPT_ARCH": package.arch},
            activate=lambda name: self._triggers.activate(name, key),
            frontend=Frontend(self._stage, package.name),
        )
        before = self._stage.changes
        unknown = run_script(script, scene)
        self.changes += self._stage.changes - before
        if unknown is not None:
            raise NotRecordable({key: f"its {name} is not understood yet (line {unknown.line}: {unknown.what})"})


def tell_triggered(stage: Stage, db: DpkgDb, triggers: Triggers) -> None:
    """Tell the packages whose triggers were activated, each by its postinst, until there is none left.

    Raises NotRecordable for those that activated what is not understood.
    """
    for _ in range(MAX_ROUNDS):
        if not triggers.pending:
            return
        key, names = next(iter(triggers.pending.items()))
        triggers.done(key)
        record = db.records.get(key) or db.records.get(key.partition(":")[0])
        script = stage.read(f"{INFO}/{key}.postinst")
        script = stage.read(f"{INFO}/{record.stem}.postinst") if script is None and record is not None else script
        if script is None:
            continue
        package, version = key.partition(":")[0], "" if record is None else record.installed.package.version
        scene = Scene(
            stage,
            "postinst",
            ("triggered", " ".join(names)),
            package,
            version,
            lambda _kind, _unit: False,
            db.arch,
            frontend=Frontend(stage, package, stage.read(f"{INFO}/{key}.templates")),
            activate=partial(triggers.activate, by=key),
        )
        unknown = run_script(script, scene)
        if unknown is not None:
            reason = f"of {key}, whose postinst is not understood yet (line {unknown.line}: {unknown.what})"
            reasons = {by: f"it activates the trigger {name} {reason}" for name, who in names.items() for by in who}
            raise NotRecordable(reasons)
    raise NotRecordable(dict.fromkeys(triggers.pending, "its triggers activate each other without end"))
