"""The proxy, a process of its own, killed at random moments while it patches: what it serves afterwards is whole.

Twenty images are patched, each new to the proxy; every patch is killed at a random moment of it. Each start finds the
folders as the kill before it left them.
"""

import asyncio
import contextlib
import os
import random
import signal
import sys
import time
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import zstandard

from proxy.config import ListenConfig, MirrorConfig
from proxy.engine.image import parse_config
from proxy.oci.digest import Digest
from proxy.oci.manifest import Manifest, parse_manifest
from proxy.oci.reference import ImageRef
from tests.end_to_end.tools import answering, free_port
from tests.simulators.world import TOKEN, World

PATCHES = 20


class ProxyProcess:
    """One run of `admend proxy --config F`."""

    def __init__(self, process: asyncio.subprocess.Process, client: httpx.AsyncClient) -> None:
        self._process, self._client = process, client

    async def resolve(self, image: str) -> dict[str, Any]:
        answer = await self._client.post("/v1/resolve", json={"image": image, "wait_seconds": 60})
        assert answer.status_code == 200, answer.text
        document: dict[str, Any] = answer.json()
        return document

    async def get(self, path: str) -> httpx.Response:
        answer = await self._client.get(path)
        assert answer.status_code == 200, f"{path}: {answer.status_code} {answer.text}"
        return answer

    async def end(self, number: int) -> None:
        """End the process by a signal and wait until it is gone."""
        if self._process.returncode is None:
            self._process.send_signal(number)
        await self._process.wait()


@asynccontextmanager
async def started(config: Path, port: int) -> AsyncIterator[ProxyProcess]:
    """Start the proxy and wait until it serves; it is killed when the block ends, unless it has ended."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "proxy.cli", "proxy", "--config", str(config), stdin=asyncio.subprocess.DEVNULL
    )
    base, headers = f"http://127.0.0.1:{port}", {"Authorization": f"Bearer {TOKEN}"}
    try:
        await answering(f"{base}/readyz", process)
        async with httpx.AsyncClient(
            base_url=base, headers=headers, trust_env=False, verify=False, timeout=90
        ) as client:
            yield ProxyProcess(process, client)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def check_all(proxy: ProxyProcess) -> int:
    """Pull every tag of every repository with its blobs and referrers; returns how many patched images there are."""
    patched, pulled = 0, dict[Digest, bytes]()
    for repository in (await proxy.get("/v2/_catalog")).json()["repositories"]:
        for tag in (await proxy.get(f"/v2/{repository}/tags/list")).json()["tags"]:
            manifest = await check_manifest(proxy, repository, tag, pulled)
            patched += tag.endswith(".patched")
            listed = await proxy.get(f"/v2/{repository}/referrers/{manifest.digest}")
            for item in listed.json()["manifests"]:
                await check_manifest(proxy, repository, item["digest"], pulled)
    return patched


async def check_manifest(proxy: ProxyProcess, repository: str, reference: str, pulled: dict[Digest, bytes]) -> Manifest:
    """Pull one image or artifact: every digest and size holds, and the config describes the layers that are there.

    `pulled` holds the blobs that were pulled since the proxy started, several tags have them in common.
    """
    answer = await proxy.get(f"/v2/{repository}/manifests/{reference}")
    manifest = parse_manifest(answer.content, answer.headers["content-type"])
    assert isinstance(manifest, Manifest)
    assert answer.headers["docker-content-digest"] == str(Digest.of(answer.content))
    for item in (manifest.config, *manifest.layers):
        if item.digest not in pulled:
            pulled[item.digest] = (await proxy.get(f"/v2/{repository}/blobs/{item.digest}")).content
        assert (Digest.of(pulled[item.digest]), len(pulled[item.digest])) == (item.digest, item.size)
    if all("image.layer" in item.media_type for item in manifest.layers):
        config = parse_config(pulled[manifest.config.digest])
        assert len(manifest.layers) == 2  # the original's, and the patch
        assert config.diff_ids == tuple(unpacked(item.media_type, pulled[item.digest]) for item in manifest.layers)
    return manifest


def unpacked(media_type: str, layer: bytes) -> Digest:
    """Return the digest of a layer without its compression."""
    if media_type.endswith("+zstd"):
        return Digest.of(zstandard.ZstdDecompressor().decompressobj().decompress(layer))
    return Digest.of(zlib.decompress(layer, zlib.MAX_WBITS | 16))


@contextlib.contextmanager
def told(seed: int) -> Iterator[random.Random]:
    """Name the seed of what failed."""
    try:
        yield random.Random(seed)
    except Exception as error:
        error.add_note(f"the kills were those of seed {seed}")
        raise


async def survived(proxy: ProxyProcess, world: World, images: list[str], seconds: float) -> bool:
    """Patch a new image; returns whether that was done within `seconds`: if not, the proxy is killed then."""
    images.append(world.add_image())
    patch = asyncio.ensure_future(proxy.resolve(images[-1]))
    done, _ = await asyncio.wait({patch}, timeout=seconds)
    if done:
        assert patch.result()["outcome"] == "patched"
        return True
    await proxy.end(signal.SIGKILL)
    await asyncio.wait({patch})
    if patch.exception() is None:  # the answer was on its way already
        assert patch.result()["outcome"] == "patched"
    return False


@pytest.mark.timeout(600)
async def test_a_proxy_killed_while_it_patches_never_serves_a_broken_image(tmp_path: Path) -> None:
    port, images = free_port(), []
    async with World(tmp_path) as world:
        mirror = MirrorConfig(reference=f"127.0.0.1:{port}", path=tmp_path / "mirror")
        config = tmp_path / "proxy.json"
        config.write_text(world.config(listen=ListenConfig(port=port), mirror=mirror).model_dump_json())
        for _ in range(2):  # the first fills the caches, the second takes as long as those that are killed
            images.append(world.add_image())
            async with started(config, port) as proxy:
                start = time.monotonic()
                assert (await proxy.resolve(images[-1]))["outcome"] == "patched"
                longest = time.monotonic() - start
        with told(int.from_bytes(os.urandom(4))) as chance:
            for _ in range(PATCHES):
                async with started(config, port) as proxy:
                    assert await check_all(proxy) <= len(images)
                    while await survived(proxy, world, images, chance.uniform(0, longest)):
                        longest *= 0.9  # patches have become faster than those that were measured
            async with started(config, port) as proxy:
                await check_all(proxy)
                answers = [await proxy.resolve(image) for image in images]
                assert {answer["outcome"] for answer in answers} == {"patched"}
                assert await check_all(proxy) == len(images)
                for answer in answers:
                    ref = ImageRef.parse(answer["patched"])
                    assert (await check_manifest(proxy, ref.repository, str(ref.digest), {})).digest == ref.digest
                await proxy.end(signal.SIGTERM)
    assert list((tmp_path / "mirror").rglob(".tmp-*")) == []
