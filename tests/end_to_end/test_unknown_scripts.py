"""Packages whose maintainer scripts nobody understands, through the command: skipped, or moved without them."""

import json

import pytest

from tests.end_to_end.command import admend
from tests.simulators.debian_source import Deb, DebFile, Suite
from tests.simulators.registry import make_layer
from tests.simulators.world import OS_RELEASE, RELEASE_DATE

SCRIPT = b"#!/bin/sh\nset -e\nrebuild-the-world\n"


@pytest.fixture
def image(world):
    """Put an image with a whole dpkg database, and a newer package for it whose postinst does who knows what."""
    old = Deb("tool", "1.0", files=(DebFile("usr/bin/tool", b"old\n", 0o755),))
    new = Deb("tool", "2.0", files=(DebFile("usr/bin/tool", b"new\n", 0o755),), control={"postinst": SCRIPT})
    suites = [Suite("bookworm", (old,), date=RELEASE_DATE), Suite("bookworm-security", (new,), name="stable-security")]
    world.source.publish(suites)
    files = {
        "etc/os-release": OS_RELEASE,
        "usr/bin/tool": b"old\n",
        "var/lib/dpkg/status": old.stanza().replace("\nVersion", "\nStatus: install ok installed\nVersion").encode()
        + b"\n",
        "var/lib/dpkg/info/tool.list": b"/.\n/usr\n/usr/bin\n/usr/bin/tool\n",
    }
    world.upstream.add_image("team/tool", "1", [make_layer(files)], platform="linux/amd64")
    return f"{world.upstream.host}/team/tool:1"


async def run(world, image, *more):
    code, out, err = await admend(world, "patch", image, "-o", "oci:out:x", "--config", "proxy.json", "--json", *more)
    assert code == 0, err
    return json.loads(out)


async def test_by_default_it_stays_and_blocks_with_script_and_line(world, image):
    told = await run(world, image)
    assert told["outcome"] == "blocked"
    (skip,) = told["platforms"][0]["skipped"]
    assert "its postinst is not understood yet (line 3: rebuild-the-world)" in skip["reason"]


async def test_where_asked_for_its_files_move_and_a_note_says_what_is_left_out(world, image):
    told = await run(world, image, "--unknown-scripts", "apply")
    assert told["outcome"] == "patched"
    (platform,) = told["platforms"]
    (upgrade,) = platform["upgrades"]
    assert (upgrade["package"], upgrade["to"], upgrade["effect"]) == ("tool", "2.0", "unknown")
    (note,) = platform["skipped"]
    assert "applied without what its scripts do" in note["reason"]
    assert "line 3: rebuild-the-world" in note["reason"]
