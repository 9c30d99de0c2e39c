"""Newer versions of the packages of a tree, built by dpkg-deb from the tree's own files and maintainer scripts.

Owns what becomes newer: every library, program and conffile gets a few bytes more, every relation between packages
that are built follows. Paths that the tree lacks (documentation that was left out) are left out again.
"""

import hashlib
import os
import shutil
import tarfile
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path

from pysequoia import Tsk

from proxy.serve import machine_platform
from tests.differential.compare import MERGED
from tests.differential.database import STATUS, Stanza, parse_status
from tests.differential.roots import Root
from tests.differential.trees import extract, run
from tests.support import require_tool
from webhook.demo.package_source import Deb, Suite, clear_sign, render_packages, render_release

SCRIPTS = ("preinst", "postinst", "prerm", "postrm", "config")
CONTROL = (*SCRIPTS, "triggers", "shlibs", "symbols", "templates", "conffiles")
ADDED = b"\n# newer\n"
TIME = 1_700_000_000
LATER = "judge1"  # behind the version: newer than the same without it


def build_newer(layer: Path, names: Sequence[str], scratch: Path, out: Path) -> None:
    """Build a newer version of each package of the tree in `layer` into the folder `out`."""
    tree = scratch / "tree"
    tree.mkdir()
    extract(layer, tree)
    out.mkdir()
    stanzas = {_key(item): item for item in parse_status((tree / STATUS).read_text()).values()}
    versions = {name.partition(":")[0]: stanzas[name]["Version"] for name in names}
    for name in names:
        folder = scratch / name
        _lay_out(tree, name, stanzas[name], folder)
        control = _control(stanzas[name], versions)
        (folder / "DEBIAN" / "control").write_text(control)
        run([require_tool("dpkg-deb"), "-Zgzip", "-z1", "--build", str(folder), str(out)])
        shutil.rmtree(folder)


def installed(layer: Path) -> list[str]:
    """Return the packages that are installed in the tree in `layer`."""
    with tarfile.open(layer) as tar:
        status = next(tar.extractfile(item) for item in tar if item.name.removeprefix("./") == STATUS)
        text = status.read().decode() if status is not None else ""
    return [_key(item) for item in parse_status(text).values() if item["Status"] == "install ok installed"]


def _key(stanza: Stanza) -> str:
    """Return a package's name, a foreign one's with its architecture."""
    native = stanza["Architecture"] in {"all", machine_platform().architecture}
    return stanza["Package"] if native else f"{stanza['Package']}:{stanza['Architecture']}"


def _control(stanza: Stanza, versions: Mapping[str, str]) -> str:
    fields = {name: value for name, value in stanza.items() if name not in {"Status", "Conffiles", "Config-Version"}}
    fields["Version"] = f"{stanza['Version']}{LATER}"
    text = "".join(f"{name}: {value}\n" if value[:1] != "\n" else f"{name}:{value}\n" for name, value in fields.items())
    for name, version in versions.items():
        text = text.replace(f" {name} (= {version})", f" {name} (= {version}{LATER})")
    return text


def _lay_out(tree: Path, name: str, stanza: Stanza, folder: Path) -> None:
    """Copy a package's files and control files, and change what becomes newer."""
    info = tree / "var/lib/dpkg/info"
    stem = next(
        item for item in (f"{stanza['Package']}:{stanza['Architecture']}", name) if (info / f"{item}.list").exists()
    )
    debian = folder / "DEBIAN"
    debian.mkdir(parents=True)
    listed = (info / f"{stem}.list").read_text().splitlines()
    paths = [path[1:] for path in listed if path[1:] not in {"", "."} and os.path.lexists(tree / path[1:])]
    conffiles = [line for line in _conffiles(info / f"{stem}.conffiles") if line[1:] in paths]
    sums = []
    for path in paths:
        _copy(tree / path, folder / path, folder=path in MERGED)
        if (folder / path).is_symlink() or not (folder / path).is_file():
            continue
        _renew(folder / path, conffile=f"/{path}" in conffiles)
        if f"/{path}" not in conffiles:
            sums.append(f"{hashlib.md5((folder / path).read_bytes()).hexdigest()}  {path}\n")
    (debian / "md5sums").write_text("".join(sums))
    for kind in CONTROL:
        if (source := info / f"{stem}.{kind}").exists():
            shutil.copyfile(source, debian / kind)
            (debian / kind).chmod(0o755 if kind in SCRIPTS else 0o644)
    if conffiles:
        (debian / "conffiles").write_text("".join(f"{line}\n" for line in conffiles))
    else:
        (debian / "conffiles").unlink(missing_ok=True)


def _conffiles(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def _copy(source: Path, path: Path, *, folder: bool) -> None:
    """Copy one path with mode, owner and time; the links of a merged /usr are folders in packages."""
    if folder or (source.is_dir() and not source.is_symlink()):
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(0o755 if folder else source.stat().st_mode & 0o7777)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, path, follow_symlinks=False)
    status = source.lstat()
    os.chown(path, status.st_uid, status.st_gid, follow_symlinks=False)
    if not path.is_symlink():
        path.chmod(0o755 if folder else status.st_mode & 0o7777)  # after chown, which clears set-id bits


def _renew(path: Path, *, conffile: bool) -> None:
    data = path.read_bytes()
    if not conffile and not data.startswith(b"\x7fELF") and path.name != "copyright":
        return
    mode = path.stat().st_mode & 0o7777
    path.write_bytes(data + ADDED)
    path.chmod(mode)
    os.utime(path, (TIME, TIME))


def render_pocket(root: Root, suite: str, packages: Sequence[Path], key: Tsk, now: datetime) -> dict[str, bytes]:
    """Return the files of one signed suite, by path below the source's address."""
    debs = [(_described(path), path.read_bytes()) for path in packages]
    archs = (machine_platform().architecture, *root.foreign)
    listed = {
        f"main/binary-{arch}/Packages": render_packages([item for item in debs if item[0].arch in {arch, "all"}])
        for arch in archs
    }
    facts = {"Origin": root.distribution.title(), "Label": root.distribution.title()}
    about = Suite(root.suite, (), suite, now - timedelta(hours=1), archs=archs, facts=facts, by_hash=False)
    release = render_release(about, listed)
    files = {deb.filename: data for deb, data in debs}
    files |= {f"dists/{suite}/{path}": data for path, data in listed.items()}
    files[f"dists/{suite}/InRelease"] = clear_sign(release, key)
    return files


def _described(path: Path) -> Deb:
    text = run([require_tool("dpkg-deb"), "--field", str(path)])
    fields = next(iter(parse_status(text).values()))
    others = {name: value for name, value in fields.items() if name not in {"Package", "Version", "Architecture"}}
    return Deb(fields["Package"], fields["Version"], fields["Architecture"], others)
