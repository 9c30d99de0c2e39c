"""Images of several platforms through a whole proxy: what becomes of each platform and of the index that has them."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
import pytest_asyncio

from proxy.api import Outcome, ResolveResponse
from proxy.cli import make_parser
from proxy.command import run
from proxy.oci.digest import Digest
from proxy.oci.manifest import OCI_INDEX, Index, Manifest, parse_manifest
from proxy.oci.reference import ImageRef
from proxy.serve import Proxy, machine_platform
from tests.proxy.asking import ask, manifest_of, own_world
from tests.simulators.registry import make_layer
from tests.simulators.world import FIXED, RELEASED, World, make_packages, make_rootfs

pytestmark = pytest.mark.asyncio(loop_scope="module")

BOTH = ("linux/amd64", "linux/arm64")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with World(tmp_path_factory.mktemp("world")) as opened:
        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def proxy(world: World) -> AsyncIterator[Proxy]:
    async with Proxy(world.config()) as opened:
        yield opened


def image_of(world: World, state: str, arch: str) -> Manifest:
    """Put an image of `arch` into the registry that a patch finds in this state."""
    files = make_rootfs(make_packages(FIXED if state == "clean" else RELEASED, arch), {"srv/state": state.encode()})
    if state == "blocked":  # recorded twice: nothing says which record is true
        moving = make_packages(RELEASED, arch)[1:]
        status = [f"{deb.stanza()}Status: install ok installed\n" for deb in moving]
        files["var/lib/dpkg/status"] = "\n".join(status).encode()
    if state == "unsupported":
        files = {"srv/program": arch.encode()}
    return world.upstream.add_image(f"team/{state}", "", [make_layer(files)], platform=f"linux/{arch}")


def push(world: World, name: str, states: Mapping[str, str]) -> Index:
    """Put an index into the registry: its platforms in these states, annotated, with an attestation of each."""
    world.upstream.manifests.setdefault(name, {})
    entries = []
    for arch, state in states.items():
        manifest = image_of(world, state, arch)
        world.upstream.blobs[name] |= world.upstream.blobs[f"team/{state}"]
        world.upstream.manifests[name] |= world.upstream.manifests[f"team/{state}"]
        entry = manifest.descriptor.to_json()
        entry |= {"platform": {"architecture": arch, "os": "linux"}, "annotations": {"example/state": state}}
        about = {"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": entry["digest"]}
        nowhere = {"architecture": "unknown", "os": "unknown"}
        absent = {**entry, "digest": str(Digest.of(arch.encode())), "platform": nowhere, "annotations": about}
        entries += [entry, absent]
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "annotations": {"example/all": "1"}, "manifests": entries}
    raw = json.dumps(document).encode()
    world.upstream.add_manifest(name, raw, OCI_INDEX, "1")
    index = parse_manifest(raw, OCI_INDEX)
    assert isinstance(index, Index)
    return index


async def patch(world: World, proxy: Proxy, amd64: str, arm64: str) -> tuple[Index, ResolveResponse]:
    """Resolve an index of two platforms in these states for both; returns the original and the answer."""
    name = f"team/{amd64}-{arm64}"
    original = await asyncio.to_thread(push, world, name, {"amd64": amd64, "arm64": arm64})
    return original, await ask(proxy, f"{world.upstream.host}/{name}:1", platforms=BOTH)


async def index_of(proxy: Proxy, answer: ResolveResponse) -> Index:
    index = await manifest_of(proxy, answer.patched)
    assert isinstance(index, Index)
    return index


@pytest.mark.parametrize("state", ["clean", "blocked", "unsupported"])
async def test_a_platform_that_does_not_move_stays_in_the_patched_index_as_it_was(
    world: World, proxy: Proxy, state: str
) -> None:
    original, answer = await patch(world, proxy, "old", state)
    assert answer.outcome is Outcome.PATCHED
    assert answer.platforms == {"linux/amd64": Outcome.PATCHED, "linux/arm64": Outcome(state)}
    assert f"linux/arm64: {state}" in answer.reason
    patched, kept = (await index_of(proxy, answer)).manifests
    assert kept == original.manifests[2]
    assert patched.digest != original.manifests[0].digest
    unchanged = await manifest_of(proxy, str(ImageRef.parse(answer.patched).with_digest(kept.digest)))
    assert isinstance(unchanged, Manifest)
    assert len(unchanged.layers) == 1


async def test_order_and_annotations_are_kept_and_attestations_dropped(world: World, proxy: Proxy) -> None:
    _, answer = await patch(world, proxy, "clean", "old")
    index = await index_of(proxy, answer)
    assert [str(item.platform) for item in index.manifests] == ["linux/amd64", "linux/arm64"]
    assert [item.annotations for item in index.manifests] == [{"example/state": "clean"}, {"example/state": "old"}]
    assert index.annotations == {"example/all": "1"}


@pytest.mark.parametrize(
    ("amd64", "arm64", "outcome"),
    [
        ("clean", "clean", Outcome.CLEAN),
        ("clean", "blocked", Outcome.BLOCKED),
        ("unsupported", "clean", Outcome.UNSUPPORTED),
        ("unsupported", "blocked", Outcome.BLOCKED),
    ],
)
async def test_an_index_of_which_nothing_moves_is_no_better_than_its_worst_platform(
    world: World, proxy: Proxy, amd64: str, arm64: str, outcome: Outcome
) -> None:
    _, answer = await patch(world, proxy, amd64, arm64)
    assert (answer.outcome, answer.patched) == (outcome, "")
    assert answer.platforms == {"linux/amd64": Outcome(amd64), "linux/arm64": Outcome(arm64)}
    if outcome is Outcome.BLOCKED:
        assert "linux/arm64: blocked: newer packages exist" in answer.reason


async def test_an_error_names_the_platform_that_it_came_from(world: World, proxy: Proxy) -> None:
    index = await asyncio.to_thread(push, world, "team/cut", {"amd64": "old", "arm64": "torn"})
    raw, _ = world.upstream.manifests["team/cut"][index.manifests[2].digest]
    (layer,) = json.loads(raw)["layers"]
    del world.upstream.blobs["team/cut"][Digest.parse(layer["digest"])]
    answer = await ask(proxy, f"{world.upstream.host}/team/cut:1", platforms=BOTH)
    assert answer.outcome is Outcome.FAILED
    assert "linux/arm64" in answer.reason


async def test_a_package_whose_file_is_gone_is_skipped_with_the_reason(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    async with own_world(tmp_path_factory.mktemp("gone")) as world, Proxy(world.config()) as proxy:
        gone = [path for path in world.source.files if path.endswith(f"/demo_{FIXED}_amd64.deb")]
        for path in gone:
            del world.source.files[path]
        answer = await ask(proxy, world.add_image())
    assert (answer.outcome, [item.package for item in answer.upgrades]) == (Outcome.BLOCKED, [])
    reasons = {item.package: item.reason for item in answer.skipped}
    assert "lacks its file" in reasons["demo"]
    assert gone[0].rpartition("/")[2] in reasons["demo"]


async def test_the_command_patches_the_platforms_that_are_named_and_tells_of_each(world: World, tmp_path: Path) -> None:
    await asyncio.to_thread(push, world, "team/command", {"amd64": "old", "arm64": "clean"})
    image, out = f"{world.upstream.host}/team/command:1", f"oci:{tmp_path}/out"
    named = [word for platform in BOTH for word in ("--platform", platform)]
    answer = await run(make_parser().parse_args(["patch", image, "-o", out, *named]), world.config("command"))
    assert [(item["platform"], item["outcome"]) for item in answer.document["platforms"]] == [
        ("linux/amd64", "patched"),
        ("linux/arm64", "clean"),
    ]
    assert {"linux/amd64: patched", "linux/arm64: clean"} <= set(answer.text.splitlines())
    (entry,) = json.loads((tmp_path / "out" / "index.json").read_bytes())["manifests"]
    written = json.loads((tmp_path / "out/blobs/sha256" / Digest.parse(entry["digest"]).hex).read_bytes())
    assert [item["platform"]["architecture"] for item in written["manifests"]] == ["amd64", "arm64"]


async def test_without_a_platform_the_command_patches_this_machines(world: World, tmp_path: Path) -> None:
    await asyncio.to_thread(push, world, "team/default", {"amd64": "old", "arm64": "old"})
    image, out = f"{world.upstream.host}/team/default:1", f"oci:{tmp_path}/out"
    answer = await run(make_parser().parse_args(["patch", image, "-o", out]), world.config("default"))
    assert [item["platform"] for item in answer.document["platforms"]] == [str(machine_platform())]
