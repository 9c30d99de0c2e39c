"""Real arm64 images, patched without emulation: apt chooses the same versions, dpkg-deb unpacks the same files.

One is a composed distroless image of Debian 12's release suite, the other the derived one of Debian 11. apt runs with a
state of its own in which arm64 is native; nothing of the images runs.
"""

import asyncio
import hashlib
import io
import json
import lzma
import re
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from proxy.cli import make_parser
from proxy.command import run
from proxy.config import ProxyConfig, SourcesConfig
from proxy.engine.families.dpkg.sources import image_sources
from proxy.engine.family import Distribution
from proxy.engine.rootfs import RootFS
from proxy.machine import KEYRING_FILES, KEYRING_FOLDER, read_settings
from proxy.oci.digest import Digest
from proxy.oci.manifest import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, render_json
from proxy.serve import Engine
from tests.end_to_end.debian import CACHE, release, sources, write_layout
from tests.simulators.private_apt import private_apt
from tests.support import data_path, require_tool
from webhook.demo.compose import PACKAGES, compose

pytestmark = [pytest.mark.interop, pytest.mark.archive]

ARCH = "arm64"
STATUS = "var/lib/dpkg/status.d/"
CONFIG = ProxyConfig(sources=sources(), cache=CACHE / "proxy")


async def composed(folder: Path) -> Path:
    """Return a layout with the demonstration's image for arm64, of the release suite."""
    async with Engine(CONFIG) as engine:
        image = await compose(engine, replace(release(), arch=ARCH), PACKAGES, folder)
        write_layout(folder, image.manifest.raw, {digest: path.read_bytes() for digest, path in image.blobs.items()})
    return folder


def derived(folder: Path) -> Path:
    """Return a layout with the distroless image of Debian 11."""
    layer = lzma.decompress(data_path("rootfs/distroless-base-debian11-arm64-derived.tar.xz").read_bytes())
    rootfs = {"type": "layers", "diff_ids": [str(Digest.of(layer))]}
    config = render_json({"architecture": ARCH, "os": "linux", "config": {}, "rootfs": rootfs})
    document = {
        "schemaVersion": 2,
        "config": {"mediaType": OCI_CONFIG, "digest": str(Digest.of(config)), "size": len(config)},
        "layers": [{"mediaType": OCI_LAYER, "digest": str(Digest.of(layer)), "size": len(layer)}],
    }
    manifest = render_json({**document, "mediaType": OCI_MANIFEST})
    write_layout(folder, manifest, {Digest.of(config): config, Digest.of(layer): layer})
    return folder


async def patch(layout: Path, out: Path) -> Mapping[str, Any]:
    """Patch the image for arm64; returns what is said of its one platform."""
    command = ["patch", f"oci:{layout}:it", "-o", f"oci:{out}:it", "--platform", f"linux/{ARCH}", "--json"]
    answer = await run(make_parser().parse_args(command), CONFIG)
    (told,) = answer.document["platforms"]
    assert answer.document["outcome"] == "patched"
    return told


def root_of(layout: Path) -> dict[str, tuple[tarfile.TarInfo, bytes]]:
    """Return every path of the image in a layout, with its content."""
    blobs = layout / "blobs" / "sha256"
    (entry,) = json.loads((layout / "index.json").read_bytes())["manifests"]
    manifest = json.loads((blobs / Digest.parse(entry["digest"]).hex).read_bytes())
    found: dict[str, tuple[tarfile.TarInfo, bytes]] = {}
    for layer in manifest["layers"]:
        data = (blobs / Digest.parse(layer["digest"]).hex).read_bytes()
        for suffix, tool in (("gzip", "gzip"), ("zstd", "zstd")):
            if layer["mediaType"].endswith(suffix):
                data = subprocess.run([require_tool(tool), "-dc"], input=data, check=True, capture_output=True).stdout
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            for member in tar:
                folder, slash, name = member.name.strip("/").rpartition("/")
                if name.startswith(".wh."):
                    found.pop(folder + slash + name.removeprefix(".wh."), None)
                    continue
                content = tar.extractfile(member) if member.isreg() else None
                found[folder + slash + name] = (member, content.read() if content else b"")
    return found


class Apt:
    """The machine's apt, for which this image's status is that of an arm64 system."""

    def __init__(self, folder: Path, distribution: Distribution, status: str) -> None:
        machine = read_settings(SourcesConfig())
        suites, _ = image_sources(RootFS([], lambda _: b""), distribution, ARCH, machine)
        ring = next(KEYRING_FOLDER / name for name in KEYRING_FILES["debian"] if (KEYRING_FOLDER / name).exists())
        lines = "".join(f"deb [signed-by={ring}] {item.uri} {item.suite} main\n" for item in suites)
        self._folder = folder
        self._environment = {
            "APT_CONFIG": private_apt(folder / "apt", lines, status, "", "", archs=(ARCH,)),
            "LC_ALL": "C",
            "PATH": "/usr/bin:/bin",
        }
        self._run("apt-get", "-q", "update")

    def _run(self, *command: str) -> str:
        require_tool(command[0])
        done = subprocess.run(command, env=self._environment, check=True, capture_output=True, cwd=self._folder)
        return done.stdout.decode()

    def candidates(self, names: Sequence[str]) -> dict[str, str]:
        """Return the version that apt would have, by package."""
        found = re.findall(
            r"^(\S+):\n  Installed: .*\n  Candidate: (\S+)", self._run("apt-cache", "policy", *names), re.MULTILINE
        )
        return dict(found)

    def download(self, name: str, version: str) -> Path:
        """Return the package's file."""
        self._run("apt-get", "-q", "download", f"{name}={version}")
        (file,) = self._folder.glob(f"{name}_*.deb")
        return file


def installed_of(root: Mapping[str, tuple[tarfile.TarInfo, bytes]]) -> dict[str, bytes]:
    """Return the stanzas of status.d by package."""
    files = [data for path, (_, data) in root.items() if path.startswith(STATUS) and not path.endswith(".md5sums")]
    return {re.search(rb"^Package: (\S+)", data, re.MULTILINE)[1].decode(): data for data in files if data}  # type: ignore[index]


def status_of(installed: Mapping[str, bytes]) -> str:
    return "".join(f"{data.decode().strip()}\nStatus: install ok installed\n\n" for data in installed.values())


def version_of(stanza: bytes) -> str:
    return re.search(rb"^Version: (\S+)", stanza, re.MULTILINE)[1].decode()  # type: ignore[index]


@pytest.mark.data
async def test_apt_for_arm64_would_choose_the_same_versions(tmp_path: Path) -> None:
    layout = await asyncio.to_thread(derived, tmp_path / "it")
    told = await patch(layout, tmp_path / "out")
    installed = installed_of(root_of(layout))
    ours = {name: version_of(stanza) for name, stanza in installed.items()}
    ours |= {item["package"]: item["to"] for item in told["upgrades"]}
    ours |= {item["package"]: item["available"] for item in told["skipped"] if item["available"]}
    apt = await asyncio.to_thread(Apt, tmp_path, Distribution("debian", "11", "bullseye"), status_of(installed))
    assert ours == apt.candidates(sorted(installed))


async def test_every_file_and_record_of_an_upgrade_is_that_of_its_package(tmp_path: Path) -> None:
    (tmp_path / "it").mkdir()
    layout = await composed(tmp_path / "it")
    told = await patch(layout, tmp_path / "out")
    before, after = root_of(layout), root_of(tmp_path / "out")
    installed = installed_of(before)
    apt = await asyncio.to_thread(Apt, tmp_path, Distribution("debian", "12", "bookworm"), status_of(installed))
    moved = {item["package"]: item["to"] for item in told["upgrades"]}
    wanted = apt.candidates(sorted(installed))
    assert moved == {name: version for name, version in wanted.items() if version != version_of(installed[name])}
    assert {"libssl3", "openssl"} <= moved.keys()
    for name, version in moved.items():
        file = await asyncio.to_thread(apt.download, name, version)
        await asyncio.to_thread(compare, file, name, after, set(before))


def compare(file: Path, name: str, root: Mapping[str, tuple[tarfile.TarInfo, bytes]], old: set[str]) -> None:
    """Compare every path of a package, and its record, with the image."""
    dpkg = require_tool("dpkg-deb")
    control = subprocess.run([dpkg, "--field", file], check=True, capture_output=True).stdout
    assert root[f"{STATUS}{name}"][1] == control
    data = subprocess.run([dpkg, "--fsys-tarfile", file], check=True, capture_output=True).stdout
    compared = 0
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for member in tar:
            path = re.sub(r"^(s?bin|lib|lib64)/", r"usr/\1/", member.name.removeprefix("./").strip("/"))
            if member.isdir() or (path not in root and path not in old):
                continue  # what the image leaves out on purpose, as documentation
            there, content = root[path]
            compared += 1
            assert (there.type, there.mode, there.uid, there.gid) == (member.type, member.mode, member.uid, member.gid)
            assert there.linkname.lstrip("./") == member.linkname.lstrip("./"), path
            own = tar.extractfile(member) if member.isreg() else None
            digest = hashlib.sha256(own.read() if own else b"").hexdigest()
            assert hashlib.sha256(content).hexdigest() == digest, path
    assert compared
