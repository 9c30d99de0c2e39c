"""Upgrades that newly need a package, through the command: held back, or with it where that is allowed."""

import json

import pytest

from tests.end_to_end.command import admend
from tests.simulators.debian_source import Deb, DebFile, Suite
from tests.simulators.registry import make_layer
from tests.simulators.world import OS_RELEASE, RELEASE_DATE


@pytest.fixture
def image(world):
    """Put an image with a whole dpkg database, whose tool needs a library in its newer version."""
    old = Deb("tool", "1.0", files=(DebFile("usr/bin/tool", b"old\n", 0o755),))
    new = Deb("tool", "2.0", fields={"Depends": "library (>= 2)"}, files=(DebFile("usr/bin/tool", b"new\n", 0o755),))
    library = Deb("library", "2.1", files=(DebFile("usr/share/library", b"text\n"),))
    suites = [
        Suite("bookworm", (old,), date=RELEASE_DATE),
        Suite("bookworm-security", (new, library), name="stable-security"),
    ]
    world.source.publish(suites)
    stanza = old.stanza().replace("\nVersion", "\nStatus: install ok installed\nVersion")
    files = {
        "etc/os-release": OS_RELEASE,
        "usr/bin/dpkg": b"the image has one\n",
        "usr/bin/tool": b"old\n",
        "var/lib/dpkg/status": f"{stanza}\n".encode(),
        "var/lib/dpkg/info/tool.list": b"/.\n/usr\n/usr/bin\n/usr/bin/tool\n",
    }
    world.upstream.add_image("team/tool", "1", [make_layer(files)], platform="linux/amd64")
    return f"{world.upstream.host}/team/tool:1"


async def run(world, image, *more):
    code, out, err = await admend(world, "patch", image, "-o", "oci:out:x", "--config", "proxy.json", *more)
    assert code == 0, err
    return out


async def test_by_default_nothing_is_added_and_the_upgrade_says_what_it_needs(world, image):
    told = json.loads(await run(world, image, "--json"))
    assert told["outcome"] == "blocked"
    (skip,) = told["platforms"][0]["skipped"]
    assert "needs library (>= 2): the image does not have it, and nothing is added" in skip["reason"]


async def test_where_it_is_allowed_the_needed_package_comes_along(world, image):
    told = json.loads(await run(world, image, "--json", "--transitions", "new"))
    assert told["outcome"] == "patched"
    moved = {item["package"]: (item["from"], item["to"]) for item in told["platforms"][0]["upgrades"]}
    assert moved == {"tool": ("1.0", "2.0"), "library": ("", "2.1")}


async def test_an_excluded_package_is_not_added(world, image):
    policy = {"exclude": ["lib*"], "allow_transitions": "new"}
    settings = json.loads((world.folder / "proxy.json").read_text())
    (world.folder / "proxy.json").write_text(json.dumps({**settings, "policy": policy}))
    told = json.loads(await run(world, image, "--json"))
    assert told["outcome"] == "blocked"


async def test_the_text_says_that_a_package_is_new(world, image):
    out = await run(world, image, "--transitions", "new")
    assert ["library", "(new)", "->", "2.1"] in [line.split()[:4] for line in out.splitlines()]


@pytest.fixture
def renamed(world):
    """Put an image whose tool needs, in its newer version, a library that took the place of the one it has."""
    depends = {"Depends": "liberty"}
    old = Deb("tool", "1.0", fields=depends, files=(DebFile("usr/bin/tool", b"old\n", 0o755),))
    gone = Deb("liberty", "1.0", files=(DebFile("usr/share/liberty", b"text\n"),))
    new = Deb("tool", "2.0", fields={"Depends": "library"}, files=(DebFile("usr/bin/tool", b"new\n", 0o755),))
    place = {"Conflicts": "liberty", "Replaces": "liberty", "Provides": "liberty"}
    library = Deb("library", "2.1", fields=place, files=(DebFile("usr/share/library", b"text\n"),))
    suites = [
        Suite("bookworm", (old,), date=RELEASE_DATE),
        Suite("bookworm-security", (new, library), name="stable-security"),
    ]
    world.source.publish(suites)
    stanzas = [deb.stanza().replace("\nVersion", "\nStatus: install ok installed\nVersion") for deb in (gone, old)]
    files = {
        "etc/os-release": OS_RELEASE,
        "usr/bin/dpkg": b"the image has one\n",
        "usr/bin/tool": b"old\n",
        "usr/share/liberty": b"text\n",
        "var/lib/dpkg/status": "\n\n".join([*stanzas, ""]).encode(),
        "var/lib/dpkg/info/tool.list": b"/.\n/usr\n/usr/bin\n/usr/bin/tool\n",
        "var/lib/dpkg/info/liberty.list": b"/.\n/usr\n/usr/share\n/usr/share/liberty\n",
    }
    world.upstream.add_image("team/tool", "1", [make_layer(files)], platform="linux/amd64")
    return f"{world.upstream.host}/team/tool:1"


async def test_nothing_is_removed_where_packages_may_only_be_added(world, renamed):
    told = json.loads(await run(world, renamed, "--json", "--transitions", "new"))
    assert told["outcome"] == "blocked"
    (skip,) = told["platforms"][0]["skipped"]
    assert "must not be with liberty" in skip["reason"]


async def test_what_an_upgrade_must_not_be_with_is_removed_where_that_is_allowed(world, renamed):
    told = json.loads(await run(world, renamed, "--json", "--transitions", "full"))
    assert told["outcome"] == "patched"
    moved = {item["package"]: item for item in told["platforms"][0]["upgrades"]}
    assert {name: (item["from"], item["to"]) for name, item in moved.items()} == {
        "tool": ("1.0", "2.0"),
        "library": ("", "2.1"),
        "liberty": ("1.0", ""),
    }
    assert moved["liberty"]["reason"] == "library 2.1 must not be with liberty"


async def test_the_text_says_that_a_package_goes_and_why(world, renamed):
    out = await run(world, renamed, "--transitions", "full")
    line = next(line.split() for line in out.splitlines() if line.split()[:1] == ["liberty"])
    assert line[1:4] == ["1.0", "->", "(removed)"]
    assert "must not be with" in out


async def test_an_excluded_package_is_not_removed(world, renamed):
    policy = {"exclude": ["liberty"], "allow_transitions": "full"}
    settings = json.loads((world.folder / "proxy.json").read_text())
    (world.folder / "proxy.json").write_text(json.dumps({**settings, "policy": policy}))
    told = json.loads(await run(world, renamed, "--json"))
    assert told["outcome"] == "blocked"
