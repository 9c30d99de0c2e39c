"""The peer: `apt-get upgrade` in a chroot on a copy of the same tree, against the same loopback archive.

Owns the copies and what apt is told: no services, no questions, conffiles as admend decides them. `apt-get update` is
done before and not counted; package files are not in apt's cache.
"""

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass

from images import TREE
from needs import FOLDER

WORK = FOLDER / "chroot"
ENVIRONMENT = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "DEBIAN_FRONTEND": "noninteractive",
    "LC_ALL": "C.UTF-8",
    "no_proxy": "127.0.0.1",
}
UPGRADE = (
    "apt-get",
    "--yes",
    "--option=Dpkg::Options::=--force-confdef",
    "--option=Dpkg::Options::=--force-confold",
    "upgrade",
)
LIST = ("dpkg-query", "--show", "--showformat=${Package} ${Version}\\n")


@dataclass(frozen=True, slots=True)
class AptRun:
    """Milliseconds of `apt-get upgrade`, and what it moved: versions before and after, by package."""

    milliseconds: float
    moved: dict[str, tuple[str, str]]


def fill_archive() -> None:
    """Let apt fetch all it needs once, so that the loopback archive has it when time is taken."""
    with _copy():
        _chroot(*UPGRADE, "--download-only")


def upgrade(*options: str) -> AptRun:
    """Upgrade a fresh copy of the tree and return what it took; `options` are apt-get's."""
    with _copy():
        before = _versions()
        start = time.perf_counter()
        _chroot(*UPGRADE, *options)
        milliseconds = 1000 * (time.perf_counter() - start)
        after = _versions()
    moved = {name: (old, after[name]) for name, old in before.items() if after.get(name, old) != old}
    return AptRun(milliseconds, moved)


@contextlib.contextmanager
def _copy() -> Iterator[None]:
    """Make a copy of the tree with fresh package lists."""
    shutil.rmtree(WORK, ignore_errors=True)
    subprocess.run(["cp", "--archive", "--reflink=auto", TREE, WORK], check=True)
    try:
        policy = WORK / "usr/sbin/policy-rc.d"
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
        _chroot("apt-get", "update")
        os.sync()  # what was written before is not apt's to wait for
        yield
    finally:
        shutil.rmtree(WORK, ignore_errors=True)


def _versions() -> dict[str, str]:
    lines = _chroot(*LIST).splitlines()
    return dict(line.split(" ", 1) for line in lines)  # type: ignore[misc]


def _chroot(*command: str) -> str:
    done = subprocess.run(
        ["chroot", WORK, *command],
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode} in {WORK}:\n{done.stdout[-2000:]}")
    return done.stdout
