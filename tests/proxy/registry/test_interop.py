"""A real registry and a real client agree with this client."""

import asyncio
import io
import json
import random
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from proxy.egress import Egress
from proxy.errors import UpstreamRefused
from proxy.oci.digest import Digest
from proxy.oci.manifest import (
    OCI_CONFIG,
    OCI_EMPTY,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    Descriptor,
    Manifest,
    parse_manifest,
    render_json,
)
from proxy.oci.reference import ImageRef
from proxy.registry import Registry
from tests.support import require_tool

pytestmark = pytest.mark.interop
DATA = random.Random(3).randbytes(2_000_000)
CONFIG = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}).encode()
SETTINGS = """version: 0.1
log: {{level: error}}
storage: {{filesystem: {{rootdirectory: {root}}}, delete: {{enabled: true}}}}
http: {{addr: 127.0.0.1:{port}}}
"""


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A docker-registry on loopback; gives its `host:port`."""
    tool, folder = require_tool("docker-registry"), tmp_path_factory.mktemp("registry")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = folder / "config.yml"
    settings.write_text(SETTINGS.format(root=folder / "data", port=port))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([tool, "serve", str(settings)], stdout=log, stderr=log)
    try:
        wait_for(port)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def wait_for(port: int) -> None:
    for _ in range(200):
        try:
            if httpx.get(f"http://127.0.0.1:{port}/v2/", trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.05)
    pytest.fail("docker-registry did not start")


def blob(data: bytes, media_type: str) -> Descriptor:
    return Descriptor(media_type, Digest.of(data), len(data))


def manifest_of(config: Descriptor, *layers: Descriptor, subject: Manifest | None = None) -> Manifest:
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": config.to_json(),
        "layers": [layer.to_json() for layer in layers],
        **({"subject": subject.descriptor.to_json(), "artifactType": "application/x-note"} if subject else {}),
    }
    manifest = parse_manifest(render_json(document), OCI_MANIFEST)
    assert isinstance(manifest, Manifest)
    return manifest


async def push(registry: Registry, ref: ImageRef, chunk: int | None = None) -> Manifest:
    config, layer = blob(CONFIG, OCI_CONFIG), blob(DATA, OCI_LAYER)
    await registry.push_blob(ref, config, lambda: io.BytesIO(CONFIG), chunk=chunk)
    await registry.push_blob(ref, layer, lambda: io.BytesIO(DATA), chunk=chunk)
    manifest = manifest_of(config, layer)
    await registry.push_manifest(ref, manifest)
    return manifest


@pytest.mark.parametrize("chunk", [None, 1 << 20])
async def test_a_pushed_image_is_pulled_back(chunk: int | None, real: str, registry: Registry) -> None:
    ref = ImageRef.parse(f"{real}/team/app{chunk or ''}:v1")
    manifest = await push(registry, ref, chunk)
    assert await registry.get_manifest(ref) == manifest
    assert await registry.head_manifest(ref) == manifest.descriptor
    data = b"".join([piece async for piece in registry.stream_blob(ref, manifest.layers[0])])
    assert data == DATA
    assert await registry.list_tags(ref) == ("v1",)


async def test_a_blob_is_mounted(real: str, registry: Registry) -> None:
    await push(registry, ImageRef.parse(f"{real}/base/image:v1"))
    copy = ImageRef.parse(f"{real}/copies/image:v1")
    assert await registry.mount_blob(copy, Digest.of(DATA), "base/image")
    assert await registry.has_blob(copy, Digest.of(DATA))


async def test_referrers_are_kept_under_the_fallback_tag(real: str, registry: Registry) -> None:
    ref = ImageRef.parse(f"{real}/signed/app:v1")
    subject = await push(registry, ref)
    empty = blob(b"{}", OCI_EMPTY)
    await registry.push_blob(ref, empty, lambda: io.BytesIO(b"{}"))
    note = manifest_of(empty, empty, subject=subject)
    await registry.push_referrer(ref.with_digest(note.digest), note)
    assert [item.digest for item in await registry.referrers(ref, subject.digest)] == [note.digest]
    assert f"sha256-{subject.digest.hex}" in await registry.list_tags(ref)


async def test_a_manifest_is_deleted_by_digest(real: str, registry: Registry) -> None:
    ref = ImageRef.parse(f"{real}/gone/app:v1")
    manifest = await push(registry, ref)
    assert await registry.delete_manifest(ref.with_digest(manifest.digest))
    assert await registry.head_manifest(ref) is None
    with pytest.raises(UpstreamRefused, match="is not in the registry"):
        await registry.get_manifest(ref)


async def test_an_index_without_its_children_is_refused_with_the_reason(real: str, registry: Registry) -> None:
    entry = Descriptor(OCI_MANIFEST, Digest.of(b"absent"), 6).to_json()
    index = parse_manifest(render_json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]}), OCI_INDEX)
    with pytest.raises(UpstreamRefused) as caught:
        await registry.push_manifest(ImageRef.parse(f"{real}/broken/app:v1"), index)
    assert caught.value.status in {400, 404}


async def test_skopeo_copies_what_was_pushed(real: str, registry: Registry, tmp_path: Path) -> None:
    manifest = await push(registry, ImageRef.parse(f"{real}/copied/app:v1"))
    tool = require_tool("skopeo")
    source = ("--tls-verify=false", f"docker://{real}/copied/app:v1")
    process = await asyncio.create_subprocess_exec(
        tool, "--insecure-policy", "inspect", "--raw", *source, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert (process.returncode, out) == (0, manifest.raw)


async def test_requests_are_counted_by_host_and_status(real: str, egress: Egress) -> None:
    await push(Registry(egress), ImageRef.parse(f"{real}/counted/app:v1"))
    assert egress.requests[real, 201] == 3
