"""Whether an upgrade can be recorded faithfully: odd paths, conffiles, scripts, triggers, derived files.

Owns the judgement of one payload. Its effect is `none` (proven from the scripts' own text and the image),
`reproduced` (what scripts would do is written as data) or `unknown`, and then the package is skipped with the reason.

1. paths: nothing that dpkg would refuse, divert or override;
2. conffiles: decided (see `conffiles`);
3. in status.d images, where nothing runs: `derived`;
4. recorded alone: its scripts and those of the triggers that it activates are understood, and its paths find their
   places (see `record`).
"""

from collections.abc import Collection, Iterator

from proxy.engine.families.dpkg.chisel import read_manifest, why_not
from proxy.engine.families.dpkg.conffiles import decide_simple_conffiles
from proxy.engine.families.dpkg.database import DpkgDb, Form, Record
from proxy.engine.families.dpkg.deb822 import parse_stanzas
from proxy.engine.families.dpkg.derived import find_derived
from proxy.engine.families.dpkg.filters import read_filters
from proxy.engine.families.dpkg.findings import Change, Finding, Note, Reason
from proxy.engine.families.dpkg.record import Recording
from proxy.engine.families.dpkg.taker import PathTaker
from proxy.engine.family import Effect, Judgement, NotRecordable, Payload
from proxy.engine.rootfs import RootFS
from proxy.engine.tar import Kind
from proxy.errors import MalformedInput


def judge(
    fs: RootFS,
    db: DpkgDb,
    payload: Payload,
    *,
    apply_unknown: bool = False,
    removed: Collection[str] = (),
    unscripted: Collection[str] = (),
) -> Judgement:
    """Judge one payload; the first reason against it counts.

    With `apply_unknown` scripts and triggers that are not understood count as a note. The packages `removed` (keys) go
    before; what scripts of the `unscripted` ones among them would do is left out.
    """
    why = _why_not_added(db, payload)
    if why:
        return Judgement(Effect.UNKNOWN, f"{payload.package.name}: {why}")
    db = db.adding([payload.package])
    name = db.record_of(payload.package).installed.key
    notes: list[str] = []
    effect = Effect.NONE
    for finding in _find_all(fs, db, payload):
        match finding:
            case Reason():
                return Judgement(Effect.UNKNOWN, f"{name}: {finding.text}")
            case Note():
                notes.append(finding.text)
            case Change():
                effect = Effect.REPRODUCED
    recording = Recording(fs, db, (payload,), unscripted, removed)
    try:
        recording.run()
    except NotRecordable as error:
        if not apply_unknown:
            return Judgement(Effect.UNKNOWN, str(error))
        try:
            Recording(fs, db, (payload,), {name, *unscripted}, removed).run()
        except NotRecordable as worse:
            return Judgement(Effect.UNKNOWN, str(worse))
        return Judgement(Effect.UNKNOWN, "", (*notes, f"applied without what its scripts do: {error}"))
    if recording.touched.get(name):
        effect = Effect.REPRODUCED
    return Judgement(effect, "", tuple(dict.fromkeys(notes)))


def judge_removal(fs: RootFS, db: DpkgDb, key: str, *, apply_unknown: bool = False) -> Judgement:
    """Judge the removal of one installed package, as `judge` does a payload."""
    recording = Recording(fs, db, (), removed=(key,))
    notes: tuple[str, ...] = ()
    try:
        recording.run()
    except NotRecordable as error:
        if not apply_unknown:
            return Judgement(Effect.UNKNOWN, str(error))
        notes = (f"removed without what its scripts do: {error}",)
    if not notes:
        return Judgement(Effect.REPRODUCED if any(recording.touched.values()) else Effect.NONE)
    try:
        Recording(fs, db, (), {key}, (key,)).run()
    except NotRecordable as error:
        return Judgement(Effect.UNKNOWN, str(error))
    return Judgement(Effect.UNKNOWN, "", notes)


def _why_not_added(db: DpkgDb, payload: Payload) -> str:
    """Return why a package that is not installed cannot be recorded as new, or ``""``."""
    name = payload.package.name
    if name in db.records or f"{name}:{payload.package.arch}" in db.records:
        return ""
    if any(record.form is not Form.STATUS for record in db.records.values()):
        return "nothing is added to an image that dpkg never touched"
    if any(stanza.get("Package") == name for stanza in db.stanzas):
        return "it was removed from the image, and its record is still there"
    return ""


def _find_all(fs: RootFS, db: DpkgDb, payload: Payload) -> Iterator[Finding]:
    """Yield everything that is found about one payload."""
    record = db.record_of(payload.package)
    if record.form is Form.PARTIAL:
        yield from _partial(fs, db, record, payload)
    yield from map(Reason, _paths(db, record, payload))
    yield from _conffiles(fs, db, record, payload)
    if record.form is not Form.STATUS:
        yield from find_derived(fs, db, record, payload)


def _paths(db: DpkgDb, record: Record, payload: Payload) -> Iterator[str]:
    name = record.installed.package.name
    for key, other in db.records.items():
        if other is not record and other.installed.package.name == name and not _coinstallable(record, payload):
            yield f"{key} is installed too, and not both are Multi-Arch: same"
    links = {entry.path for entry in payload.entries if entry.kind is Kind.SYMLINK}
    for entry in payload.entries:
        if any(parent in links for parent in _parents(entry.path)):
            yield f"/{entry.path} lies under a link of the same package"


def _partial(fs: RootFS, db: DpkgDb, record: Record, payload: Payload) -> Iterator[Finding]:
    """Say how much of a package a chiselled image gets, and what of it cannot be."""
    try:
        manifest = read_manifest(fs)
    except MalformedInput as error:
        yield Reason(f"chisel's manifest cannot be kept true: {error}")
        return
    taker = PathTaker(fs, db, record, payload, read_filters(fs))
    files = [entry for entry in payload.entries if entry.kind is not Kind.DIR]
    taken = {entry.path for entry in files if taker.takes(entry)}
    reason = why_not(manifest, payload.package, [e for e in files if e.path in taken]) if manifest is not None else ""
    if reason:
        yield Reason(reason)
    for entry in files:
        if entry.kind is Kind.HARDLINK and entry.path in taken and entry.target not in taken:
            yield Reason(f"/{entry.path} is a hard link to /{entry.target}, which the image does not have")
    yield Note(f"the image has parts of packages: {len(taken)} of its {len(files)} files are renewed, none is added")


def _coinstallable(record: Record, payload: Payload) -> bool:
    """Say whether the old and the new version share their paths with those of another architecture."""
    new = parse_stanzas(payload.control["control"], f"{payload.package.name} control")[0].get("Multi-Arch")
    return record.stanza.get("Multi-Arch") == new == "same"


def _conffiles(fs: RootFS, db: DpkgDb, record: Record, payload: Payload) -> Iterator[Finding]:
    for item in decide_simple_conffiles(fs, db, record, payload) if record.form is not Form.STATUS else ():
        if item.reason:
            yield Reason(item.reason)
        if item.note:
            yield Note(item.note)
    if b"remove-on-upgrade" in payload.control.get("conffiles", b""):
        yield Reason("its conffiles have the flag remove-on-upgrade, which is not followed yet")


def _parents(path: str) -> Iterator[str]:
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path
