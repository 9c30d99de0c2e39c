"""The same image and the same packages give the same digest, wherever and whenever it is patched."""

import asyncio
import json
import zlib
from pathlib import Path
from typing import Any, Literal

import pytest
import zstandard

from proxy.api import Outcome, ResolveRequest, ResolveResponse
from proxy.cli import make_parser
from proxy.command import run
from proxy.config import MirrorConfig, PolicyConfig, ProxyConfig
from proxy.oci.digest import Digest
from proxy.oci.manifest import OCI_CONFIG, OCI_MANIFEST, Manifest, parse_manifest, render_json
from proxy.oci.reference import ImageRef
from proxy.serve import Proxy
from tests.simulators.registry import make_layer
from tests.simulators.world import MIRROR, RELEASED, World, make_packages, make_rootfs

# Of the fixed image below. What a compressor makes may change with its version: the patched digest is known by version,
# the uncompressed layer's digest holds for all of them.
ORIGINAL = "sha256:066a0fc18c4d75fc4ae14e29f8f053f5ad7a4ff4963b87885cd743bf4c10f10c"
GOLDEN_DIFF_ID = "sha256:4a510c0bf81f08e72f379a3b0df9757b222e82293b9d44185ab9fd741fd96963"
GOLDEN = {
    "zlib 1.2.13": "sha256:48d4812d3799a8637045e7393bf315e518f184761d1421bdebbc6a5ffa3f6775",
    "zstd 1.5.7": "sha256:081e16a46ae880a3db046c1db25a645cf71cedf464dc15209c172076b9af519d",
}
COMPRESSORS = {
    "gzip": f"zlib {zlib.ZLIB_RUNTIME_VERSION}",
    "zstd": f"zstd {'.'.join(map(str, zstandard.ZSTD_VERSION))}",
}


async def resolve(config: ProxyConfig, image: str) -> tuple[ResolveResponse, Manifest]:
    async with Proxy(config) as proxy:
        answer = await proxy.resolve.resolve(ResolveRequest(image=image, wait_seconds=60))
        assert answer.outcome is Outcome.PATCHED, answer.reason
        manifest = await proxy.mirror.get_manifest(ImageRef.parse(answer.patched))
    assert isinstance(manifest, Manifest)
    return answer, manifest


async def test_two_proxies_with_empty_caches_and_their_own_keys_give_the_same_digest(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        image = world.add_image()
        (one, first), (two, second) = [await resolve(world.config(name), image) for name in ("one", "two")]
    assert one.patched == two.patched
    assert first.raw == second.raw
    assert one.signature is not None
    assert two.signature is not None
    assert one.signature.key_id != two.signature.key_id
    assert Path(tmp_path / "one" / "cache") != Path(tmp_path / "two" / "cache")


async def test_another_mirror_and_more_workers_change_nothing(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        image = world.add_image()
        mirror = MirrorConfig(reference="other.example", path=tmp_path / "elsewhere", naming="flat")
        plain = await resolve(world.config("one"), image)
        flat = await resolve(world.config("two", mirror=mirror), image)
    assert plain[0].patched.startswith(f"{MIRROR}/")
    assert flat[0].patched.startswith("other.example/")
    assert plain[1].raw == flat[1].raw


async def test_a_patch_a_second_later_gives_the_same_digest(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        image = world.add_image()
        first = await resolve(world.config("one"), image)
        await asyncio.sleep(1.1)  # tar, gzip and JSON dates are in seconds
        second = await resolve(world.config("two"), image)
    assert first[1].raw == second[1].raw


@pytest.mark.parametrize("compression", COMPRESSORS)
async def test_a_fixed_image_has_its_golden_digest(tmp_path: Path, compression: Literal["gzip", "zstd"]) -> None:
    layout = tmp_path / "fixed"
    assert write_fixed_image(layout) == ORIGINAL
    async with World(tmp_path) as world:
        await patch(world.config(policy=PolicyConfig(compression=compression)), layout)
    digest = digests(layout)["patched"]
    manifest = json.loads(blob(layout, digest))
    diff_ids = json.loads(blob(layout, manifest["config"]["digest"]))["rootfs"]["diff_ids"]
    assert diff_ids[1:] == [GOLDEN_DIFF_ID]
    compressor = COMPRESSORS[compression]
    if compressor not in GOLDEN:
        pytest.skip(f"no golden digest for {compressor}: add it once another machine agrees on {digest}")
    assert digest == GOLDEN[compressor]


async def patch(config: ProxyConfig, layout: Path) -> None:
    """Patch the fixed image with the command line."""
    words = ["patch", f"oci:{layout}:1", "-o", f"oci:{layout}:patched", "--json", "--platform", "linux/amd64"]
    answer = await run(make_parser().parse_args(words), config)
    assert answer.document["outcome"] == "patched"


def blob(layout: Path, digest: str) -> bytes:
    return (layout / "blobs" / digest.replace(":", "/")).read_bytes()


def digests(layout: Path) -> dict[str, str]:
    index = json.loads((layout / "index.json").read_bytes())
    return {item["annotations"]["org.opencontainers.image.ref.name"]: item["digest"] for item in index["manifests"]}


def write_fixed_image(layout: Path) -> str:
    """Write the image as an OCI layout, its layer uncompressed so that no library has a say; returns its digest."""
    layer = make_layer(make_rootfs(make_packages(RELEASED), {"srv/text": b"fixed"}))
    config = render_json(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Entrypoint": ["/usr/bin/demo"], "User": "65532"},
            "rootfs": {"type": "layers", "diff_ids": [str(Digest.of(layer))]},
            "history": [{"created": "2026-01-01T00:00:00Z", "created_by": "tests"}],
        }
    )
    blobs = layout / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def put(data: bytes, media_type: str) -> dict[str, Any]:
        digest = Digest.of(data)
        (blobs / digest.hex).write_bytes(data)
        return {"mediaType": media_type, "digest": str(digest), "size": len(data)}

    manifest = render_json(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": put(config, OCI_CONFIG),
            "layers": [put(layer, "application/vnd.oci.image.layer.v1.tar")],
        }
    )
    parse_manifest(manifest, OCI_MANIFEST)
    named = {**put(manifest, OCI_MANIFEST), "annotations": {"org.opencontainers.image.ref.name": "1"}}
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [named]}))
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return str(Digest.of(manifest))
