"""What the bench needs of the machine: root, a few Debian tools, and the Debian archive that its apt names.

Owns finding them, and saying plainly what is not there. No archive is written down: its address is read from the
machine's own apt configuration, as admend itself reads it.
"""

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

from proxy.config import SourcesConfig
from proxy.engine.families.dpkg.architecture import architecture_of
from proxy.engine.families.dpkg.sources import image_sources
from proxy.engine.family import Distribution
from proxy.engine.rootfs import RootFS
from proxy.machine import KEYRING_FILES, KEYRING_FOLDER, read_settings
from proxy.serve import machine_platform

REPOSITORY = Path(__file__).resolve().parent.parent
FOLDER = REPOSITORY / ".cache" / "bench"
TOOLS = ("mmdebstrap", "chroot", "apt-get", "dpkg-query", "tar", "cp")
SUITES = ("bookworm", "bookworm-updates", "bookworm-security")
SBIN = "/usr/sbin:/sbin"


@dataclass(frozen=True, slots=True)
class Archive:
    """Where the machine's apt finds the suites: their addresses by suite, and the keyring's file."""

    uris: dict[str, str]
    keyring: Path
    arch: str

    @property
    def routes(self) -> dict[str, str]:
        """Addresses by the name that the loopback archive serves them under."""
        return {route_name(uri): uri for uri in dict.fromkeys(self.uris.values())}


def route_name(uri: str) -> str:
    """Return the name of an archive's address: the last part of its path."""
    return urlsplit(uri).path.rstrip("/").rpartition("/")[2] or "debian"


def stop(message: str) -> NoReturn:
    """Say why there is no bench here, and end with 1."""
    sys.exit(f"bench: {message}")


def check_machine() -> Archive:
    """Return the machine's archive; ends the bench with everything that is missing."""
    os.environ["PATH"] = f"{os.environ.get('PATH', os.defpath)}:{SBIN}"
    missing = [f"the program {name}" for name in TOOLS if shutil.which(name) is None]
    if os.geteuid() != 0:
        missing.append("root (mmdebstrap and chroot need it)")
    keyrings = [KEYRING_FOLDER / name for name in KEYRING_FILES["debian"] if (KEYRING_FOLDER / name).exists()]
    if not keyrings:
        missing.append("the package debian-archive-keyring")
    if missing:
        stop(f"this machine lacks {', '.join(missing)}; nothing was measured")
    arch = architecture_of(machine_platform())
    empty = RootFS([], lambda _: b"")
    wanted = Distribution("debian", "12", SUITES[0])
    sources, _ = image_sources(empty, wanted, arch, read_settings(SourcesConfig()))
    uris = {source.suite: source.uri for source in sources if source.suite in SUITES}
    lacking = [suite for suite in SUITES if suite not in uris]
    if lacking:
        stop(f"the machine's apt names no Debian archive with {', '.join(lacking)}; nothing was measured")
    return Archive(uris, keyrings[0], arch)
