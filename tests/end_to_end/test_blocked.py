"""Fixes that exist and cannot move: the outcome is `blocked`, and everyone who asks is told by what."""

import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from proxy.api import Outcome
from proxy.serve import Proxy
from tests.end_to_end.test_refusals import admend
from tests.proxy.asking import ask
from tests.simulators.debian_source import Deb, Suite
from tests.simulators.world import ARCHS, FIXED, RELEASED, World, make_packages
from tests.webhook.table import TableResolver, admit
from tests.webhook.test_admission import NGINX, review

NEEDS = {"Depends": "libnew2 (>= 2)"}
BREAKS = {"Breaks": "demo (<< 9)"}


def offer(world: World, fields: Mapping[str, str]) -> None:
    """Offer a newer libdemo1 with these fields, and the package that it may want."""
    released = tuple(deb for arch in ARCHS for deb in make_packages(RELEASED, arch))
    fixes = tuple(Deb("libdemo1", FIXED, arch, fields=fields) for arch in ARCHS)
    wanted = tuple(Deb("libnew2", "2.1", arch) for arch in ARCHS)
    follows = {"Depends": f"libdemo1 (= {FIXED})"}
    loose = tuple(Deb("demo", FIXED, arch, fields=follows) for arch in ARCHS if fields)
    security = Suite("bookworm-security", (*fixes, *wanted, *loose), name="stable-security", archs=ARCHS)
    world.source.publish((Suite("bookworm", released, archs=ARCHS), security))


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with World(tmp_path / "world") as opened:
        (opened.folder / "proxy.json").write_text(opened.config().model_dump_json())
        yield opened


@pytest.mark.parametrize(
    ("fields", "blocker"),
    [
        (NEEDS, "needs libnew2 (>= 2): the image does not have it"),
        (BREAKS, f"must not be with demo (< 9): demo {FIXED}"),
        ({}, f"demo {RELEASED} needs libdemo1 (= {RELEASED}) and stays (the sources offer none newer)"),
    ],
)
async def test_the_command_names_what_stands_in_the_way(world: World, fields: Mapping[str, str], blocker: str) -> None:
    offer(world, fields)
    image = world.add_image()
    code, out, err = await admend(world, "patch", image, "-o", "oci:out:x", "--config", "proxy.json")
    assert code == 0, err
    first, *_ = out.splitlines()
    assert first.startswith(f"{image}: blocked: newer packages exist and every one is skipped: ")
    assert f"libdemo1: {blocker}" in first
    assert f"skipped: libdemo1 {RELEASED} -> {FIXED}: {blocker}" in out
    assert not (world.folder / "out").exists()
    _, out, _ = await admend(world, "patch", image, "-o", "oci:out:x", "--config", "proxy.json", "--json")
    document: dict[str, Any] = json.loads(out)
    assert document["outcome"] == "blocked"
    skip = document["platforms"][0]["skipped"][-1]
    assert (skip["package"], skip["installed"], skip["available"]) == ("libdemo1", RELEASED, FIXED)
    assert blocker in skip["reason"]


async def test_the_proxy_and_the_webhook_name_what_stands_in_the_way(world: World) -> None:
    offer(world, NEEDS)
    async with Proxy(world.config()) as proxy:
        answer = await ask(proxy, world.add_image())
        again = await ask(proxy, answer.image)
    for one in (answer, again):
        assert one.outcome is Outcome.BLOCKED
        assert "libdemo1: needs libnew2 (>= 2): the image does not have it" in one.reason
        assert [(skip.package, skip.available) for skip in one.skipped] == [("demo", FIXED), ("libdemo1", FIXED)]
    pod = review("nginx:1.25")
    source = f"docker.io/library/nginx@{answer.source.rpartition('@')[2]}"
    given = answer.model_copy(update={"image": NGINX, "source": source})
    decision = await admit(pod, TableResolver({NGINX: given}))
    assert any("needs libnew2" in warning for warning in decision.warnings)
    assert decision.events[0].outcome is Outcome.BLOCKED
    denied = await admit(pod, TableResolver({NGINX: given}), mode="enforce", enforce={"blocked": "deny"})
    assert not denied.allowed
    assert "needs libnew2" in denied.message
