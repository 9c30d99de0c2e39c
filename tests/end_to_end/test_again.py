"""A patched image, patched again: from its original, never on top of the first patch."""

import json

import pytest

from tests.end_to_end.command import admend
from tests.simulators.world import FIXED, FIXED_AGAIN


def layout_of(world, folder, tag):
    """Return an image's manifest and digest from an OCI layout."""
    index = json.loads((world.folder / folder / "index.json").read_text())
    (entry,) = [e for e in index["manifests"] if e["annotations"]["org.opencontainers.image.ref.name"] == tag]
    blob = world.folder / folder / "blobs" / "sha256" / entry["digest"].removeprefix("sha256:")
    return json.loads(blob.read_text()), entry["digest"]


async def patched(world, image, dest):
    code, out, err = await admend(world, "patch", image, "-o", dest, "--config", "proxy.json", "--json")
    assert code == 0, out + err
    return json.loads(out)


async def test_with_the_same_sources_the_second_patch_is_the_first(world):
    await patched(world, world.add_image(), "oci:out:one")
    told = await patched(world, "oci:out:one", "oci:out:two")
    assert told["outcome"] == "patched"
    assert layout_of(world, "out", "one") == layout_of(world, "out", "two")


async def test_with_newer_sources_the_second_patch_has_as_many_layers_and_names_the_original(world):
    image = world.add_image()
    await patched(world, image, "oci:out:one")
    world.publish(FIXED_AGAIN, month=3)
    (world.folder / "proxy.json").write_text(world.config(refresh_seconds=0.0).model_dump_json())
    told = await patched(world, "oci:out:one", "oci:out:two")
    (platform,) = told["platforms"]
    assert {item["to"] for item in platform["upgrades"]} == {FIXED_AGAIN}
    assert FIXED not in {item["from"] for item in platform["upgrades"]}
    one, two = (layout_of(world, "out", tag)[0] for tag in ("one", "two"))
    assert len(one["layers"]) == len(two["layers"]) == 2
    base = "org.opencontainers.image.base.digest"
    assert one["annotations"][base] == two["annotations"][base]
    await patched(world, image, "oci:out:direct")
    assert layout_of(world, "out", "direct") == layout_of(world, "out", "two")


@pytest.mark.parametrize("form", ["docker-archive:a.tar:x/y:1", "oci-archive:b.tar"])
async def test_an_archive_is_patched_again_without_its_original(world, form):
    await patched(world, world.add_image(), form)
    told = await patched(world, form, "oci:out:again")
    assert told["outcome"] == "patched"
    assert len(layout_of(world, "out", "again")[0]["layers"]) == 2
