"""Runs programs of a tree in a chroot that leaves nothing behind.

Owns the mounts: a mount namespace and a process namespace of its own, so that mounts and left-over processes go with
the command, however it ends. Sources' lists, downloaded packages and preferences lie outside the tree, under
/dev/apt, so that all that changes in the tree is what apt and dpkg do to a system.
"""

import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support import require_tool

SECONDS = 600.0
MOUNTS = """
set -eu
cd "$1"; state=$2; shift 2
mount -t tmpfs -o mode=755 dev dev
for name in null zero full random urandom tty; do touch dev/$name; mount --bind /dev/$name dev/$name; done
ln -s /proc/self/fd dev/fd
mkdir -m 1777 dev/shm
mkdir dev/apt dev/pts
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
mount --bind "$state" dev/apt
mount -t proc proc proc
for name in resolv.conf hosts; do mount --bind /etc/$name etc/$name; done
umask 022
exec chroot . /usr/bin/env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root \\
    DEBIAN_FRONTEND=noninteractive APT_CONFIG=/dev/apt/apt.conf LC_ALL=C \\
    ${http_proxy:+http_proxy="$http_proxy"} ${no_proxy:+no_proxy="$no_proxy"} "$@"
"""
APT_CONF = """
Dir::State::lists "/dev/apt/lists";
Dir::Cache "/dev/apt/cache";
Dir::Etc::PreferencesParts "/dev/apt/preferences.d";
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::Retries "2";
DPkg::Options { "--force-unsafe-io"; };
"""
PREVENT = b"#!/bin/sh\nexit 101\n"  # invoke-rc.d(8): no service is started


class CommandFailed(AssertionError):
    """A command in a tree ended with an error; the text is all that it said."""


@dataclass(frozen=True, slots=True)
class Chroot:
    """A tree, and the folder outside it where its apt keeps what it fetches."""

    tree: Path
    state: Path

    def run(self, *command: str, codes: frozenset[int] = frozenset({0})) -> str:
        """Run a command; returns what it printed. An exit code other than `codes` fails with all that it said."""
        words = [require_tool("unshare"), "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", MOUNTS, "sh"]
        done = subprocess.run(
            [*words, str(self.tree), str(self.state), *command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SECONDS,
            check=False,
        )
        if done.returncode not in codes:
            said = f"{done.stdout[-6000:]}\n{done.stderr[-3000:]}"
            raise CommandFailed(f"{' '.join(command)} in {self.tree} ended {done.returncode}\n{said}")
        return done.stdout

    def prepare(self, pins: Mapping[str, str]) -> None:
        """Write apt's settings; packages in `pins` stay at the version that is given."""
        for name in ("lists/partial", "cache/archives/partial"):
            (self.state / name).mkdir(parents=True, exist_ok=True)
        (self.state / "apt.conf").write_text(APT_CONF)
        preferences = self.state / "preferences.d"
        shutil.rmtree(preferences, ignore_errors=True)
        own = self.tree / "etc/apt/preferences.d"
        shutil.copytree(own, preferences) if own.is_dir() else preferences.mkdir()
        stanzas = [f"Package: {name}\nPin: version {version}\nPin-Priority: 1001\n" for name, version in pins.items()]
        (preferences / "judge").write_text("\n".join(stanzas))

    @contextmanager
    def services_stopped(self) -> Iterator[None]:
        """Keep maintainer scripts from starting services."""
        path = self.tree / "usr/sbin/policy-rc.d"
        if path.exists():
            yield
            return
        path.write_bytes(PREVENT)
        path.chmod(0o755)
        try:
            yield
        finally:
            path.unlink()


def upgrades_offered(chroot: Chroot, *verb: str) -> dict[str, str]:
    """Return what `apt-get VERB` would do now: the new version by package name, foreign ones as name:arch.

    A package that would be removed has none.
    """
    lines = chroot.run("apt-get", "-s", "-y", *verb).splitlines()
    native = chroot.run("dpkg", "--print-architecture").strip()
    offered = [line for line in lines if line.startswith(("Inst ", "Remv "))]
    return {
        line.split()[1].removesuffix(f":{native}"): line.partition("(")[2].split()[0] if line[0] == "I" else ""
        for line in offered
    }
