"""skopeo reads what is written here, and what skopeo writes is read."""

import asyncio
from pathlib import Path

import pytest

from proxy.oci.manifest import Manifest
from proxy.registry import Registry
from tests.proxy.images.copying import copy
from tests.simulators.registry import RegistrySimulator, make_layer
from tests.support import require_root, require_tool

pytestmark = pytest.mark.interop
LAYERS = [make_layer({"etc/os-release": b"ID=debian\n"}), make_layer({"usr/bin/x": bytes(100_000)})]


async def skopeo(*arguments: str) -> str:
    """Run skopeo; returns what it prints."""
    tool = require_tool("skopeo")
    process = await asyncio.create_subprocess_exec(
        tool, "--insecure-policy", *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return out.decode()


@pytest.fixture
def image(upstream: RegistrySimulator) -> Manifest:
    return upstream.add_image("team/app", "v1", LAYERS)


@pytest.mark.parametrize("place", ["oci:{}/layout:v1", "oci-archive:{}/image.tar:v1", "docker-archive:{}/image.tar"])
async def test_skopeo_reads_what_is_written(
    place: str, upstream: RegistrySimulator, image: Manifest, registry: Registry, tmp_path: Path
) -> None:
    if place.startswith("oci-archive"):
        require_root()  # skopeo unpacks these with their owners
    written = place.format(tmp_path)
    await copy(registry, f"{upstream.host}/team/app:v1", written)
    await skopeo("copy", written, f"oci:{tmp_path}/skopeo:v1")
    seen = await skopeo("inspect", "--raw", written)
    if not place.startswith("docker-archive"):
        assert seen.encode() == image.raw
    copied = await copy(registry, f"oci:{tmp_path}/skopeo:v1", f"{upstream.host}/copies/app:v1")
    assert isinstance(copied, Manifest)
    assert copied.config.digest == image.config.digest or place.startswith("docker-archive")


@pytest.mark.parametrize("place", ["oci:{}/layout:v1", "oci-archive:{}/image.tar:v1", "docker-archive:{}/i.tar:app:v1"])
async def test_what_skopeo_writes_is_read(
    place: str, upstream: RegistrySimulator, image: Manifest, registry: Registry, tmp_path: Path
) -> None:
    written = place.format(tmp_path)
    await skopeo("copy", "--src-tls-verify=false", f"docker://{upstream.host}/team/app:v1", written)
    read = await copy(registry, written, f"{upstream.host}/copies/app:v1")
    if not place.startswith("docker-archive"):
        assert read.digest == image.digest
    else:
        assert isinstance(read, Manifest)
        assert len(read.layers) == len(LAYERS)
