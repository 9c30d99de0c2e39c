"""Makes the root file systems, once, as plain tars under .cache/differential, and extracts them.

Owns the building: mmdebstrap of the release suite only, or the recorded tar. Device nodes stay out, as in every
published image. What is younger than FRESH seconds is used again.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from proxy.serve import machine_platform
from tests.differential.chroot import Chroot
from tests.differential.roots import Root
from tests.support import REPOSITORY, data_path, require_tool

CACHE = REPOSITORY / ".cache" / "differential"
RECIPE = 5  # counts up when what is made here changes
FRESH = 7 * 86400.0
ROOM = 6 << 30  # bytes that must be free where the trees are extracted in memory
MEMORY = Path("/dev/shm")
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
Change = Callable[[Path, Path], None]
TAR = ("--xattrs", "--xattrs-include=*", "--numeric-owner")


def scratch_folder() -> Path:
    """Return where trees are extracted: memory where it has room and runs programs, else the folder for such files."""
    runs = MEMORY.is_dir() and not os.statvfs(MEMORY).f_flag & os.ST_NOEXEC
    if runs and shutil.disk_usage(MEMORY).free > ROOM:
        return MEMORY
    return Path(os.environ.get("TMPDIR", "/tmp"))


@contextmanager
def kept(name: str, facts: object, suffix: str, make: Callable[[Path, Path], None]) -> Iterator[Path]:
    """Give the file or folder NAME-KEY of the cache, made by `make(scratch, new)` when it is missing or old."""
    key = hashlib.sha256(repr((RECIPE, facts)).encode()).hexdigest()[:12]
    path = CACHE / f"{name}-{key}{suffix}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists() or time.time() - path.stat().st_mtime > FRESH:
            for old in CACHE.glob(f"{name}-{'[0-9a-f]' * 12}{suffix}"):
                shutil.rmtree(old) if old.is_dir() else old.unlink()
            with TemporaryDirectory(prefix="admend-tree-", dir=scratch_folder()) as folder:
                new = CACHE / f"{name}.new"
                shutil.rmtree(new, ignore_errors=True)
                make(Path(folder), new)
                new.rename(path)
        yield path


def tree_of(root: Root, release_uri: str, change: Change | None = None, about: object = None) -> Path:
    """Return the tar of a root file system, made if need be; a recorded one needs no `release_uri`.

    `change` is called with the tree before it is packed, and a folder for files; `about` says all that it does.
    """

    def make(scratch: Path, new: Path) -> None:
        tree = scratch / "tree"
        if root.recorded:
            tree.mkdir()
            archive = data_path(f"rootfs/{root.recorded}")
            run([require_tool("tar"), "--extract", "--numeric-owner", "-p", f"--file={archive}", f"--directory={tree}"])
        else:
            _bootstrap(root, release_uri, tree)
        _finish(tree)
        if change is not None:
            change(tree, scratch)
        if root.owner:
            chroot = Chroot(tree, scratch / "state")
            chroot.prepare({})
            chroot.run("sh", "-c", root.owner)
        pack(tree, new)

    with kept(root.name, (root, release_uri, about), ".tar", make) as path:
        return path


def _bootstrap(root: Root, uri: str, tree: Path) -> None:
    command = [require_tool("mmdebstrap"), "--quiet", "--mode=root", "--variant=minbase", "--skip=output/dev"]
    command += [f"--dpkgopt={line}" for line in root.dpkg]
    command += ["--aptopt=Acquire::Languages none", "--dpkgopt=force-unsafe-io"]
    if root.foreign:
        command.append(f"--architectures={','.join((machine_platform().architecture, *root.foreign))}")
    if root.include:
        command.append(f"--include={','.join(root.include)}")
    command += [root.suite, str(tree), f"deb [signed-by={KEYRING}] {uri} {root.suite} main"]
    try:
        run(command)
    except AssertionError:  # an archive may be out of reach for a moment
        shutil.rmtree(tree, ignore_errors=True)
        run(command)


def _finish(tree: Path) -> None:
    """Write what a chroot needs to be there; the sources come as a layer of their own."""
    (tree / "etc/apt/sources.list").unlink(missing_ok=True)
    for name in ("dev", "proc", "sys", "run", "tmp"):
        (tree / name).mkdir(exist_ok=True)
    for name in ("resolv.conf", "hosts"):
        path = tree / "etc" / name
        path.unlink(missing_ok=True)
        path.write_text("")


def pack(tree: Path, path: Path) -> None:
    """Pack what is in a tree into a plain tar."""
    names = sorted(item.name for item in tree.iterdir())
    options = ("--create", "--format=posix", *TAR, "--sort=name", "--exclude=dev/*", f"--file={path}")
    run([require_tool("tar"), *options, f"--directory={tree}", *names])


def extract(layer: Path, tree: Path) -> None:
    """Extract a plain tar over a tree with all that it says of each path."""
    options = ("--extract", *TAR, "--same-owner", "--preserve-permissions", f"--file={layer}")
    run([require_tool("tar"), *options, f"--directory={tree}"])


def run(command: list[str], **options) -> str:
    """Run a program and return its output; its failure is told with all that it said."""
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False, **options)
    if done.returncode:
        raise AssertionError(f"{' '.join(command)} ended {done.returncode}\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
    return done.stdout
