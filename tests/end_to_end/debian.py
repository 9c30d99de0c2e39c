"""Real Debian images for tests: composed once from the release suite of the machine's archive, kept under .cache/.

`distroless` is the demonstration's image, `minbase` a whole Debian made with mmdebstrap. The caches that a proxy fills
while it patches them are kept too, so that only the first run needs the network.
"""

import asyncio
import contextlib
import fcntl
import io
import json
import os
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.config import ProxyConfig, SourcesConfig
from proxy.engine.families.dpkg.architecture import architecture_of
from proxy.engine.families.dpkg.sources import image_sources
from proxy.engine.family import Distribution, PackageSource
from proxy.engine.rootfs import RootFS
from proxy.machine import read_settings
from proxy.oci.digest import Digest
from proxy.oci.manifest import OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST, render_json
from proxy.serve import Engine, machine_platform
from tests.end_to_end.tools import run
from tests.support import REPOSITORY, REQUIRE, require_root, require_tool
from webhook.demo.compose import PACKAGES, RELEASE, compose, find_release

CACHE = REPOSITORY / ".cache" / "end-to-end"
KEEP = 30 * 86400.0  # seconds for which the cached package indexes are taken for current
LAYOUT = '{"imageLayoutVersion":"1.0.0"}'


def sources() -> SourcesConfig:
    """Return the machine's sources, asked again only when the cache is a month old."""
    return SourcesConfig(refresh_seconds=KEEP, max_index_age=KEEP)


def release() -> PackageSource:
    """Return the release suite, or skip where the machine's apt names no Debian archive."""
    found = find_release(read_settings(SourcesConfig()))
    if found is None:
        reason = "this machine's apt configuration names no Debian archive"
        pytest.fail(reason) if os.environ.get(REQUIRE) == "1" else pytest.skip(reason)
    return found


def source_list() -> bytes:
    """Return a sources.list of all suites that the machine has for the release, as real images carry one."""
    fs, arch = RootFS([], lambda _: b""), architecture_of(machine_platform())
    found, _ = image_sources(fs, Distribution("debian", "12", RELEASE), arch, read_settings(SourcesConfig()))
    return "".join(f"deb {item.uri} {item.suite} {' '.join(item.components)}\n" for item in found).encode()


@contextlib.contextmanager
def _once(name: str) -> Iterator[Path | None]:
    """Give a folder to fill that becomes CACHE/name when the block ends well, or None when it is there already."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (CACHE / name).exists():
            yield None
            return
        work = CACHE / f"{name}.new"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        yield work
        work.rename(CACHE / name)


async def distroless() -> Path:
    """Return an OCI layout with the demonstration's image as `it`."""
    source = release()
    with _once("distroless") as work:
        if work is not None:
            config = ProxyConfig(sources=sources(), cache=CACHE / "proxy")
            async with Engine(config) as engine:
                image = await compose(engine, source, PACKAGES, work)
            blobs = {digest: path.read_bytes() for digest, path in image.blobs.items()}
            write_layout(work, image.manifest.raw, blobs)
    return CACHE / "distroless"


async def minbase() -> Path:
    """Return an OCI layout with a Debian minbase and openssl, of the release suite, as `it`."""
    source = release()
    require_root()
    require_tool("mmdebstrap")
    with _once("minbase") as work:
        if work is not None:
            tarball = work / "layer.tar"
            options = ("--variant=minbase", "--include=openssl,ca-certificates", "--mode=root")
            lines = f"deb {source.uri} {RELEASE} main"
            await run("mmdebstrap", *options, RELEASE, tarball, lines)
            await asyncio.to_thread(_write_image, work, _as_layer(tarball))
    return CACHE / "minbase"


def _as_layer(tarball: Path) -> bytes:
    """Return the layer: without device nodes, which no image has, and with a sources.list that has security updates."""
    layer = tarball.with_name("layer")
    with tarfile.open(tarball) as old, tarfile.open(layer, "w", format=tarfile.PAX_FORMAT) as new:
        for member in old:
            if member.name == "./etc/apt/sources.list":
                data = source_list()
                member.size = len(data)
                new.addfile(member, io.BytesIO(data))
            elif not member.isdev():
                new.addfile(member, old.extractfile(member) if member.isreg() else None)
    data = layer.read_bytes()
    layer.unlink()
    tarball.unlink()
    return data


def _write_image(layout: Path, layer: bytes) -> None:
    config = render_json(
        {
            "architecture": machine_platform().architecture,
            "os": "linux",
            "config": {"Cmd": ["/bin/bash"]},
            "rootfs": {"type": "layers", "diff_ids": [str(Digest.of(layer))]},
        }
    )
    manifest = render_json(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": OCI_CONFIG, "digest": str(Digest.of(config)), "size": len(config)},
            "layers": [{"mediaType": OCI_LAYER, "digest": str(Digest.of(layer)), "size": len(layer)}],
        }
    )
    write_layout(layout, manifest, {Digest.of(config): config, Digest.of(layer): layer})


def write_layout(folder: Path, manifest: bytes, blobs: dict[Digest, bytes]) -> None:
    """Write an OCI layout that holds one image, `it`."""
    digest = Digest.of(manifest)
    (folder / "blobs" / "sha256").mkdir(parents=True)
    for name, data in {**blobs, digest: manifest}.items():
        (folder / "blobs" / "sha256" / name.hex).write_bytes(data)
    entry = {"mediaType": OCI_MANIFEST, "digest": str(digest), "size": len(manifest)}
    named = {**entry, "annotations": {"org.opencontainers.image.ref.name": "it"}}
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [named]}
    (folder / "index.json").write_text(json.dumps(index))
    (folder / "oci-layout").write_text(LAYOUT)
