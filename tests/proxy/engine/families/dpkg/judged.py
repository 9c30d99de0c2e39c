"""One upgrade of packages made by hand, done by dpkg and by a patch layer to copies of one tree, and compared.

Scripts run without a chroot, so a tree needs no shell; the real dpkg-maintscript-helper knows where it is by DPKG_ROOT.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from proxy.engine.families.dpkg.database import open_database
from proxy.engine.families.dpkg.judge import judge, judge_removal
from proxy.engine.families.dpkg.record import record_upgrade
from proxy.engine.family import NotRecordable, Payload
from proxy.engine.rootfs import RootFS
from proxy.engine.tar import Entry, Span
from tests.proxy.engine.families.dpkg.debs import SPOOL, Deb, apply, install, open_tree, run, tree_of, unpack
from tests.support import require_root, require_tool

CHROOTLESS = ("--force-script-chrootless", "--force-unsafe-io")
Tree = dict[str, tuple[object, ...]]


def helper(*calls: str) -> dict[str, bytes]:
    """Return the scripts that call dpkg-maintscript-helper, as debhelper writes them."""
    lines = "\n".join(f'dpkg-maintscript-helper {call} -- "$@"' for call in calls)
    text = f"#!/bin/sh\nset -e\n{lines}\n".encode()
    return dict.fromkeys(("preinst", "postinst", "prerm", "postrm"), text)


def conffiles(*paths: str) -> dict[str, bytes]:
    """Return the control file that lists conffiles."""
    return {"conffiles": "".join(f"/{path}\n" for path in paths).encode()}


@dataclass(frozen=True)
class Case:
    """An upgrade: what is installed, what its owner does to the tree, what comes, and what (by name) goes before."""

    old: Sequence[Deb]
    new: Sequence[Deb]
    owner: Callable[[Path], None] = lambda _root: None
    before: Callable[[Path], None] = lambda _root: None
    options: Sequence[str] = field(default_factory=tuple)
    removed: Sequence[str] = ()


def judged(tmp_path: Path, case: Case) -> Tree:
    """Do the upgrade both ways and hold the trees against each other; return what they have in common."""
    root, ours, built = prepare(tmp_path, case)
    if case.removed:
        words = (*CHROOTLESS, *case.options, "--no-triggers", "--force-depends", "--remove", *case.removed)
        run("dpkg", f"--root={root}", "--log=/dev/null", *words)
    install(root, *built, options=(*CHROOTLESS, *case.options))
    if case.removed:
        run("dpkg", f"--root={root}", "--log=/dev/null", *CHROOTLESS, "--configure", "--pending")
    reason = patch(ours, case.new, built, case.removed)
    assert not reason, reason
    expected, found = tree_of(root), tree_of(ours)
    assert found == expected, "\n".join(
        f"{path}: dpkg {expected.get(path)}, here {found.get(path)}"
        for path in sorted(expected.keys() | found.keys())
        if expected.get(path) != found.get(path)
    )
    assert _xattrs(ours) == _xattrs(root)
    return found


def refused(tmp_path: Path, case: Case) -> str:
    """Return why the upgrade is not recorded; the tree stays as it was."""
    _, ours, built = prepare(tmp_path, case)
    before = tree_of(ours)
    reason = patch(ours, case.new, built, case.removed)
    assert tree_of(ours) == before
    return reason


def prepare(tmp_path: Path, case: Case) -> tuple[Path, Path, list[Path]]:
    """Return the tree with the old packages, a copy of it, and the new packages."""
    for tool in ("dpkg", "dpkg-deb"):
        require_tool(tool)
    require_root()
    root, ours = tmp_path / "dpkg", tmp_path / "ours"
    root.mkdir(parents=True)
    case.before(root)
    install(root, *(_build(deb, tmp_path / "old") for deb in case.old), options=(*CHROOTLESS, *case.options))
    case.owner(root)
    run("cp", "-a", str(root), str(ours))
    return root, ours, [_build(deb, tmp_path / "new") for deb in case.new]


def _build(deb: Deb, folder: Path) -> Path:
    return deb.build(folder / deb.arch, "none")


def patch(root: Path, debs: Sequence[Deb], built: Sequence[Path], removed: Sequence[str] = ()) -> str:
    """Do with the tree `root` what one patch layer for all packages says; return why not, if it is unsupported."""
    fs = open_tree(root)
    db = open_database(fs)
    assert db is not None
    payloads: list[Payload] = []
    whole = b""
    for deb, path in zip(debs, built, strict=True):
        payload, spool = unpack(deb, path)
        payloads.append(Payload(payload.package, payload.control, tuple(_moved(payload.entries, len(whole)))))
        whole += spool
    for key in removed:
        reason = judge_removal(fs, db, key).reason
        if reason:
            return reason
    for payload in payloads:
        reason = judge(fs, db, payload, removed=removed).reason
        if reason:
            return reason
    try:
        entries = record_upgrade(fs, db, payloads, removed=removed)
    except NotRecordable as error:
        return str(error)
    apply(root, [held(fs, entry) for entry in entries], whole)
    return ""


def held(fs: RootFS, entry: Entry) -> Entry:
    """Return the entry with the image's own bytes in it, where it moved a file of the image."""
    if isinstance(entry.content, Span) and entry.content.file != SPOOL:
        return replace(entry, content=fs.read_span(entry.content))
    return entry


def _moved(entries: Sequence[Entry], offset: int) -> list[Entry]:
    return [
        replace(entry, content=Span(entry.content.file, entry.content.offset + offset, entry.content.size))
        if isinstance(entry.content, Span)
        else entry
        for entry in entries
    ]


def _xattrs(root: Path) -> dict[str, dict[str, bytes]]:
    found: dict[str, dict[str, bytes]] = {}
    for path in sorted(root.rglob("*")):
        names = os.listxattr(path, follow_symlinks=False)
        if names:
            found[str(path.relative_to(root))] = {
                name: os.getxattr(path, name, follow_symlinks=False) for name in names
            }
    return found
