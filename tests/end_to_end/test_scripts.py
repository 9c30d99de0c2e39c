"""Maintainer scripts through the command: each upgrade's class, and what policy makes of those not understood."""

import gzip
import io
import json
import tarfile

import pytest

from proxy.api import Outcome
from proxy.config import PolicyConfig
from proxy.serve import Proxy
from tests.end_to_end.command import admend
from tests.proxy.asking import ask
from tests.simulators.debian_source import Deb, DebFile, Suite
from tests.simulators.registry import make_layer
from tests.simulators.world import FIXED, OS_RELEASE, RELEASED
from tests.webhook.table import TableResolver, admit, answer
from tests.webhook.test_admission import NGINX, review

HEAD = b"#!/bin/sh\nset -e\n"
SCRIPTS = {
    "plain": {},
    "maker": {"postinst": HEAD + b"mkdir -p /var/lib/made\n"},
    "odd": {"postinst": HEAD + b"mkdir -p /var/lib/begun\nfrobnicate --all /srv\n"},
}
EFFECTS = {"plain": "none", "maker": "reproduced", "odd": "unknown"}
NOT_UNDERSTOOD = "its postinst is not understood yet (line 4: frobnicate --all /srv"


def debs(version, scripts):
    return tuple(
        Deb(name, version, files=(DebFile(f"usr/share/{name}", f"{name} {version}\n".encode()),), control=control)
        for name, control in scripts.items()
    )


@pytest.fixture
def image(world):
    """Return an image that has the three packages, which the source has newer."""
    return offer(world, SCRIPTS, {})


def offer(world, scripts, more):
    """Offer newer packages with these scripts, and put an image that has them, and `more` files, into the registry."""
    installed = debs(RELEASED, {name: {} for name in scripts})
    suites = (Suite("bookworm", installed), Suite("bookworm-security", debs(FIXED, scripts), name="stable-security"))
    world.source.publish(suites)
    files = {"usr/lib/os-release": OS_RELEASE, **more}
    for deb in installed:
        files |= {item.path: item.data for item in deb.files}
        files[f"var/lib/dpkg/info/{deb.name}.list"] = f"/.\n/usr\n/usr/share\n/usr/share/{deb.name}\n".encode()
    stanzas = [deb.stanza() + "Status: install ok installed\n" for deb in installed]
    files["var/lib/dpkg/status"] = "\n".join(stanzas).encode()
    world.upstream.add_image("team/scripts", "1", [make_layer(files)])
    return f"{world.upstream.host}/team/scripts:1"


async def run(world, *arguments):
    code, out, err = await admend(world, *arguments, "--config", "proxy.json", "--json")
    assert code == 0, out + err
    return json.loads(out)


def names_in_top_layer(folder):
    """Return the paths of the last layer of the one image in an OCI layout."""

    def blob(digest):
        return (folder / "blobs" / "sha256" / digest.removeprefix("sha256:")).read_bytes()

    index = json.loads((folder / "index.json").read_text())
    raw = blob(json.loads(blob(index["manifests"][0]["digest"]))["layers"][-1]["digest"])
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(raw))) as layer:
        return set(layer.getnames())


async def test_a_script_that_is_not_understood_keeps_its_package_back(world, image):
    document = await run(world, "patch", image, "-o", "oci:out:x")
    (platform,) = document["platforms"]
    moved = {item["package"]: item["effect"] for item in platform["upgrades"]}
    assert moved == {"plain": "none", "maker": "reproduced"}
    (skip,) = [item for item in platform["skipped"] if item["package"]]
    assert (skip["package"], skip["available"]) == ("odd", FIXED)
    assert NOT_UNDERSTOOD in skip["reason"]


async def test_a_trigger_whose_script_is_not_understood_is_told_with_its_line(world):
    more = {
        "var/lib/dpkg/triggers/File": b"",
        "var/lib/dpkg/triggers/rebuilt": b"plain\n",
        "var/lib/dpkg/info/plain.postinst": HEAD + b'frobnicate "${1}" {a}\n',
    }
    image = offer(world, {"teller": {"triggers": b"activate-noawait rebuilt\n"}, "plain": {}}, more)
    document = await run(world, "patch", image, "-o", "oci:out:x")
    (platform,) = document["platforms"]
    reasons = {item["package"]: item["reason"] for item in platform["skipped"] if item["package"]}
    assert "teller" in reasons, document
    assert "it activates the trigger rebuilt of plain, whose postinst is not understood yet" in reasons["teller"]
    assert '(line 3: frobnicate "${1}" {a}' in reasons["teller"]


@pytest.mark.parametrize("by", ["flag", "policy"])
async def test_policy_applies_it_without_the_script_s_effect_and_says_so(world, image, by):
    policy = PolicyConfig(unknown_scripts="apply" if by == "policy" else "skip", compression="gzip")
    (world.folder / "proxy.json").write_text(world.config(policy=policy).model_dump_json())
    more = ("--unknown-scripts", "apply") if by == "flag" else ()
    document = await run(world, "patch", image, "-o", "oci:out:x", *more)
    (platform,) = document["platforms"]
    assert {item["package"]: item["effect"] for item in platform["upgrades"]} == EFFECTS
    (note,) = [item for item in platform["skipped"] if item["package"]]
    assert note["package"] == "odd"
    assert note["reason"].startswith("upgraded; applied without what its scripts do: odd: ")
    assert NOT_UNDERSTOOD in note["reason"]
    names = names_in_top_layer(world.folder / "out")
    assert {"usr/share/odd", "var/lib/dpkg/info/odd.postinst", "var/lib/made"} <= names
    assert "var/lib/begun" not in names


async def test_inspect_shows_each_upgrade_s_class(world, image):
    document = await run(world, "inspect", image, "--unknown-scripts", "apply")
    found = {item["package"]: item for item in document["platforms"][0]["packages"]}
    assert {name: item["effect"] for name, item in found.items()} == EFFECTS
    code, out, _ = await admend(world, "inspect", image, "--config", "proxy.json")
    assert code == 0
    rows = {line.split()[0]: line for line in out.splitlines()}
    assert rows["plain"].split() == ["plain", RELEASED, FIXED, "none"]
    assert rows["maker"].split() == ["maker", RELEASED, FIXED, "reproduced"]
    assert f"skipped: odd: {NOT_UNDERSTOOD}" in rows["odd"]


async def test_the_plan_for_people_names_each_class(world, image):
    code, out, _ = await admend(
        world, "patch", image, "--dry-run", "--unknown-scripts", "apply", "--config", "proxy.json"
    )
    assert code == 0
    for name, effect in EFFECTS.items():
        assert any(name in line and f"(scripts: {effect})" in line for line in out.splitlines())
    told = f"upgraded; applied without what its scripts do: odd: {NOT_UNDERSTOOD}"
    assert f"note: odd {RELEASED} -> {FIXED}: {told}" in out


async def test_the_audit_line_names_each_class(world, image):
    async with Proxy(world.config(policy=PolicyConfig(unknown_scripts="apply"))) as proxy:
        made = await ask(proxy, image)
    given = answer(NGINX, Outcome.PATCHED, upgrades=made.upgrades, skipped=made.skipped)
    decision = await admit(review("nginx:1.25"), TableResolver({NGINX: given}))
    line = json.loads(decision.events[0].model_dump_json(by_alias=True))
    assert {item["package"]: item["effect"] for item in line["upgrades"]} == EFFECTS
    assert any(NOT_UNDERSTOOD in item["reason"] for item in line["skipped"])
