"""Debian packages made by dpkg-deb, root file systems made by dpkg, and the trees that a patch layer leaves."""

import io
import os
import shutil
import stat
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from proxy.engine.families.dpkg.archive import unpack_package
from proxy.engine.families.dpkg.database import keeps, open_database
from proxy.engine.families.dpkg.judge import judge
from proxy.engine.families.dpkg.record import record_upgrade
from proxy.engine.family import Package, Payload
from proxy.engine.rootfs import RootFS, scan_layer
from proxy.engine.tar import Entry, Kind, Span
from tests.proxy.engine.filesystems import Link

EPOCH = 1_700_000_000
SPOOL = "spool"


@dataclass(frozen=True)
class Deb:
    """What goes into a package: fields, files (a name ending in ``/`` is a directory), control files, hard links."""

    name: str
    version: str = "1.0-1"
    arch: str = "amd64"
    fields: str = ""
    files: Mapping[str, bytes | Link] = field(default_factory=dict)
    control: Mapping[str, bytes] = field(default_factory=dict)
    modes: Mapping[str, int] = field(default_factory=dict)
    hardlinks: Mapping[str, str] = field(default_factory=dict)

    @property
    def package(self) -> Package:
        return Package(self.name, self.version, self.arch)

    def build(self, folder: Path, compression: str = "xz") -> Path:
        """Build the package with dpkg-deb and return its path."""
        tree = folder / f"{self.name}_{self.version}_{self.arch}"
        (tree / "DEBIAN").mkdir(parents=True)
        for path, content in self.files.items():
            if path.endswith("/"):
                (tree / path).mkdir(parents=True)
            else:
                _put(tree / path, content)
        for path, target in self.hardlinks.items():
            (tree / path).hardlink_to(tree / target)
        for path, mode in self.modes.items():
            (tree / path).chmod(mode)
        head = f"Package: {self.name}\nVersion: {self.version}\nArchitecture: {self.arch}\nMaintainer: A <a@b>\n"
        _put(tree / "DEBIAN/control", f"{head}{self.fields}Description: test\n a package\n".encode())
        for name, data in self.control.items():
            _put(tree / "DEBIAN" / name, data)
            (tree / "DEBIAN" / name).chmod(0o755 if name in {"preinst", "postinst", "prerm", "postrm"} else 0o644)
        for path in tree.rglob("*"):
            os.utime(path, (EPOCH, EPOCH), follow_symlinks=False)
        out = folder / f"{self.name}_{self.version}_{self.arch}.deb"
        run("dpkg-deb", "--root-owner-group", f"-Z{compression}", "-b", str(tree), str(out))
        return out


def _put(path: Path, content: bytes | Link) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, Link):
        path.symlink_to(content.target)
    else:
        path.write_bytes(content)


def run(*command: str) -> str:
    """Run a tool; its output is in the failure's message."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def install(root: Path, *debs: Path, options: Sequence[str] = ()) -> None:
    """Let dpkg itself install packages into the tree `root`, keeping old conffiles."""
    for folder in ("updates", "info", "triggers"):
        (root / "var/lib/dpkg" / folder).mkdir(parents=True, exist_ok=True)
    (root / "var/lib/dpkg/status").touch()
    forced = ("--force-confdef", "--force-confold", "--force-depends", "--force-architecture")
    run("dpkg", f"--root={root}", "--log=/dev/null", *forced, *options, "-i", *map(str, debs))


def open_tree(root: Path) -> RootFS:
    """Scan the tree `root` as a layer."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.add(root, arcname="")
    buffer.seek(0)
    captures = io.BytesIO()
    index = scan_layer(buffer, "", keep=keeps, captures=captures, captures_name="captures", where="tree")
    kept = captures.getvalue()
    return RootFS([index], lambda span: kept[span.offset : span.offset + span.size])


def unpack(deb: Deb, path: Path) -> tuple[Payload, bytes]:
    """Unpack a package; the bytes are its spool."""
    spool = io.BytesIO()
    with path.open("rb") as stream:
        payload = unpack_package(deb.package, stream, spool, SPOOL)
    return payload, spool.getvalue()


def upgrade(root: Path, deb: Deb, path: Path) -> str:
    """Do with the tree `root` what the patch layer says; return why not, if it is unsupported."""
    fs = open_tree(root)
    db = open_database(fs)
    assert db is not None
    payload, spool = unpack(deb, path)
    reason = judge(fs, db, payload).reason
    if not reason:
        apply(root, record_upgrade(fs, db, (payload,)), spool)
    return reason


def apply(root: Path, entries: Sequence[Entry], spool: bytes) -> None:
    """Lay entries over a tree, as a runtime does."""
    for entry in sorted(entries, key=lambda entry: (entry.kind is Kind.HARDLINK, entry.path)):
        path = root / entry.path
        if entry.kind is Kind.DIR:
            if path.is_symlink() or path.is_file():
                path.unlink()
            path.mkdir(exist_ok=True)
        elif entry.kind is Kind.WHITEOUT:
            run("rm", "-r", str(path))
            continue
        else:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            path.unlink(missing_ok=True)
            _write(root, path, entry, spool)
        if entry.kind is not Kind.SYMLINK:
            os.chown(path, entry.uid, entry.gid)
            path.chmod(entry.mode)
            os.utime(path, (entry.mtime, entry.mtime))


def _write(root: Path, path: Path, entry: Entry, spool: bytes) -> None:
    if entry.kind is Kind.SYMLINK:
        path.symlink_to(entry.target)
    elif entry.kind is Kind.HARDLINK:
        path.hardlink_to(root / entry.target)
    elif isinstance(entry.content, Span):
        path.write_bytes(spool[entry.content.offset : entry.content.offset + entry.content.size])
    else:
        path.write_bytes(entry.content or b"")


def tree_of(root: Path) -> dict[str, tuple[object, ...]]:
    """Return every path with type, mode, owner, content, links and, outside dpkg's folder, time.

    Left out: dpkg's locks, its backups and the folder of its unfinished triggers.
    """
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(root.rglob("*")):
        name, status = str(path.relative_to(root)), path.lstat()
        if name == "dev/null":
            continue
        if name.startswith("var/lib/dpkg/") and name.rpartition("/")[2].lower() in {
            "lock", "lock-frontend", "status-old", "unincorp", "available",
        }:  # fmt: skip
            continue
        content: object = None
        if path.is_symlink():
            content = path.readlink()
        elif path.is_file():
            time = 0 if name.startswith("var/lib/dpkg/") else int(status.st_mtime)
            content = (path.read_bytes(), status.st_nlink, time)
        mode = 0 if path.is_symlink() else stat.S_IMODE(status.st_mode)
        found[name] = (stat.S_IFMT(status.st_mode), mode, status.st_uid, status.st_gid, content)
    return found
