"""Builds the packages made by hand by dpkg-deb, and installs their old versions into a tree by dpkg.

Owns the files of a package; `packages` says what is in them.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from tests.differential.chroot import Chroot
from tests.differential.packages import CAPABLE, NET_RAW, Item, Made
from tests.differential.trees import run
from tests.support import require_tool

OLD, NEW = "1.0", "2.0"
TIMES = {OLD: 1_600_000_000, NEW: 1_700_000_000}


Packages = Mapping[str, tuple[Made | None, Made | None]]


def build_handmade(packages: Packages, which: str, scratch: Path, out: Path) -> None:
    """Build the old or the new version of each package into the folder `out`."""
    out.mkdir()
    for name, (old, new) in packages.items():
        made = old if which == OLD else new
        if made is None or (which == NEW and new is old):
            continue  # there is none, or no newer one
        folder = scratch / f"{name}-{which}"
        _lay_out(name, made, which, folder)
        run([require_tool("dpkg-deb"), "-Zgzip", "-z1", "--build", str(folder), str(out)])


def install_handmade(packages: Packages, owner: str, tree: Path, scratch: Path) -> None:
    """Install the old versions into a tree by dpkg, then do what its owner did: the script `owner`."""
    state = scratch / "state"
    state.mkdir()
    chroot = Chroot(tree, state)
    chroot.prepare({})
    (scratch / "build").mkdir()
    build_handmade(packages, OLD, scratch / "build", state / "debs")
    chroot.run("sh", "-c", "dpkg --install /dev/apt/debs/*.deb")
    chroot.run("sh", "-c", owner)
    for path in CAPABLE:
        os.setxattr(tree / path, "security.capability", NET_RAW)


def _lay_out(name: str, made: Made, which: str, folder: Path) -> None:
    control = folder / "DEBIAN"
    control.mkdir(parents=True)
    folder.chmod(0o755)
    fields = {
        "Package": name,
        "Version": made.version or which,
        "Architecture": "all",
        "Maintainer": "Nobody <nobody@archive.example>",
        "Description": "made by hand",
        **made.fields,
    }
    (control / "control").write_text("".join(f"{key}: {value}\n" for key, value in fields.items()))
    for path, item in made.items.items():
        _put(folder, folder / path, item)
    if made.conffiles:
        (control / "conffiles").write_text("".join(f"/{path}\n" for path in made.conffiles))
    if made.triggers:
        (control / "triggers").write_text(made.triggers)
    for script, text in made.scripts.items():
        (control / script).write_text(text)
        (control / script).chmod(0o755)
    for path in [*folder.rglob("*"), folder]:
        os.utime(path, (TIMES[which], TIMES[which]), follow_symlinks=False)


def _put(folder: Path, path: Path, item: Item) -> None:
    for parent in reversed(path.relative_to(folder).parents):
        (folder / parent).mkdir(exist_ok=True, mode=0o755)
    if item.target:
        path.symlink_to(item.target)
    elif item.same:
        path.hardlink_to(folder / item.same)
    elif item.folder:
        path.mkdir()
    else:
        path.write_text(item.text)
    if not item.target and not item.same:
        os.chown(path, item.owner, item.group)
        path.chmod(item.mode)
