"""What tests ask a proxy, in one line each."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from proxy.api import Outcome, ResolveRequest, ResolveResponse
from proxy.oci.manifest import Index, Manifest
from proxy.oci.reference import ImageRef
from proxy.serve import Proxy
from tests.simulators.world import World

WAIT = 30.0


@asynccontextmanager
async def own_world(folder: Path) -> AsyncIterator[World]:
    """Open a world of its own for a test that publishes: others would see it."""
    async with World(folder) as opened:
        yield opened


async def ask(proxy: Proxy, image: str, *, wait: float = WAIT, **more: Any) -> ResolveResponse:
    return await proxy.resolve.resolve(ResolveRequest(image=image, wait_seconds=wait, **more))


async def until(proxy: Proxy, image: str, **more: Any) -> ResolveResponse:
    """Ask without waiting until the answer is not `pending`."""
    deadline = time.monotonic() + WAIT
    while time.monotonic() < deadline:
        answer = await ask(proxy, image, wait=0.0, **more)
        if answer.outcome is not Outcome.PENDING:
            return answer
        await asyncio.sleep(0.02)
    raise AssertionError(f"{image} is still pending after {WAIT} seconds")


def name_of(image: str) -> str:
    return image.rpartition(":")[0]


async def manifest_of(proxy: Proxy, reference: str) -> Manifest | Index:
    found = await proxy.mirror.get_manifest(ImageRef.parse(reference))
    assert found is not None, reference
    return found
