"""Makes the root file systems, once, as plain tars under .cache/differential, and extracts them.

Owns the building: mmdebstrap of the release suite only, then the sources that real images carry. Device nodes stay
out, as in every published image. What is younger than FRESH seconds is used again.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from proxy.config import SourcesConfig
from proxy.engine.families.dpkg.sources import image_sources
from proxy.engine.family import Distribution, PackageSource
from proxy.engine.rootfs import RootFS
from proxy.machine import read_settings
from proxy.serve import machine_platform
from tests.differential.roots import Root
from tests.support import REPOSITORY, require_tool

CACHE = REPOSITORY / ".cache" / "differential"
RECIPE = 3  # counts up when what is made here changes
FRESH = 7 * 86400.0
ROOM = 6 << 30  # bytes that must be free where the trees are extracted in memory
MEMORY = Path("/dev/shm")
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
TAR = ("--xattrs", "--xattrs-include=*", "--numeric-owner")


def scratch_folder() -> Path:
    """Return where trees are extracted: memory where it has room, else the folder for temporary files."""
    if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ROOM:
        return MEMORY
    return Path(os.environ.get("TMPDIR", "/tmp"))


def offered(root: Root) -> list[PackageSource]:
    """Return the suites of the release that the machine's archive has; the first is the release suite."""
    distribution = Distribution(root.distribution, root.version, root.suite)
    settings = read_settings(SourcesConfig())
    sources, _ = image_sources(RootFS([], lambda _: b""), distribution, machine_platform().architecture, settings)
    found = [source for source in sources if _has(source)]
    return sorted(found, key=lambda source: source.suite != root.suite)


def _has(source: PackageSource) -> bool:
    try:
        with urllib.request.urlopen(f"{source.uri}/dists/{source.suite}/InRelease", timeout=60) as answer:
            return bool(answer.status == 200)
    except urllib.error.HTTPError:
        return False


@contextmanager
def _locked(name: str) -> Iterator[None]:
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def tree_of(root: Root) -> Path:
    """Return the tar of a root file system, made if need be."""
    sources = offered(root)
    if not sources or sources[0].suite != root.suite:
        raise AssertionError(f"the machine's archive has no suite {root.suite}")
    key = hashlib.sha256(repr((RECIPE, root, sources)).encode()).hexdigest()[:12]
    path = CACHE / f"{root.name}-{key}.tar"
    with _locked(root.name):
        if not path.exists() or time.time() - path.stat().st_mtime > FRESH:
            for old in CACHE.glob(f"{root.name}-*.tar"):
                old.unlink()
            with TemporaryDirectory(prefix="admend-tree-", dir=scratch_folder()) as folder:
                tree = Path(folder) / "tree"
                _bootstrap(root, sources[0], tree)
                _finish(tree, sources)
                pack(tree, path)
    return path


def _bootstrap(root: Root, release: PackageSource, tree: Path) -> None:
    command = [require_tool("mmdebstrap"), "--quiet", "--mode=root", "--variant=minbase", "--skip=output/dev"]
    command += [f"--dpkgopt={line}" for line in root.dpkg]
    command += ["--aptopt=Acquire::Languages none", "--dpkgopt=force-unsafe-io"]
    if root.include:
        command.append(f"--include={','.join(root.include)}")
    command += [root.suite, str(tree), f"deb [signed-by={KEYRING}] {release.uri} {root.suite} main"]
    run(command)


def _finish(tree: Path, sources: list[PackageSource]) -> None:
    """Write the sources as images have them, and what a chroot needs to be there."""
    (tree / "etc/apt/sources.list").unlink(missing_ok=True)
    stanzas = [
        f"Types: deb\nURIs: {source.uri}\nSuites: {source.suite}\nComponents: main\nSigned-By: {KEYRING}\n"
        for source in sources
    ]
    (tree / "etc/apt/sources.list.d/debian.sources").write_text("\n".join(stanzas))
    for name in ("dev", "proc", "sys", "run", "tmp"):
        (tree / name).mkdir(exist_ok=True)
    resolv = tree / "etc/resolv.conf"
    if resolv.is_symlink():
        resolv.unlink()
    resolv.write_text("")


def pack(tree: Path, path: Path) -> None:
    """Pack a tree into a tar, whole or not at all."""
    new = path.with_suffix(".new")
    names = sorted(item.name for item in tree.iterdir())
    options = ("--create", "--format=posix", *TAR, "--sort=name", "--exclude=dev/*", f"--file={new}")
    run([require_tool("tar"), *options, f"--directory={tree}", *names])
    new.rename(path)


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
