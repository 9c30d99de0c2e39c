"""An image keeps its digest through every place that can hold it."""

import asyncio
import io
import itertools
import json
import os
from pathlib import Path

import pytest

from proxy.errors import MalformedInput, TrustFailure, Unsupported
from proxy.images import open_dest, open_source, parse_location
from proxy.images.layout import REF_NAME
from proxy.oci.digest import Digest
from proxy.oci.manifest import OCI_LAYER, Descriptor, Manifest
from proxy.registry import Registry
from tests.proxy.images.copying import copy, read_all
from tests.simulators.registry import RegistrySimulator, make_layer

LAYERS = [make_layer({"etc/os-release": b"ID=debian\n"}), make_layer({"usr/bin/x": bytes(100_000)})]


@pytest.fixture
def image(upstream: RegistrySimulator) -> Manifest:
    return upstream.add_image("team/app", "v1", LAYERS)


def tags(folder: Path) -> dict[str, str]:
    entries = json.loads((folder / "index.json").read_bytes())["manifests"]
    return {entry.get("annotations", {}).get(REF_NAME, ""): entry["digest"] for entry in entries}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def below(folder: Path) -> list[Path]:
    return list(folder.rglob("*"))


async def test_an_image_goes_through_layout_archive_and_back(
    upstream: RegistrySimulator, image: Manifest, registry: Registry, tmp_path: Path
) -> None:
    places = [
        f"{upstream.host}/team/app:v1",
        f"oci:{tmp_path}/layout:v1",
        f"oci-archive:{tmp_path}/image.tar:v1",
        f"oci:{tmp_path}/second",
        f"oci-archive:{tmp_path}/unnamed.tar",
        f"{upstream.host}/copies/app:v2",
    ]
    for source, dest in itertools.pairwise(places):
        assert (await copy(registry, source, dest)).digest == image.digest
    assert upstream.tags["copies/app"]["v2"] == image.digest
    assert names(tmp_path) == ["image.tar", "layout", "second", "unnamed.tar"]


async def test_an_index_goes_through_too(upstream: RegistrySimulator, registry: Registry, tmp_path: Path) -> None:
    images = {
        platform: upstream.add_image("team/app", "", LAYERS, platform=platform)
        for platform in ("linux/amd64", "linux/arm64")
    }
    index = upstream.add_index("team/app", images, "multi")
    await copy(registry, f"{upstream.host}/team/app:multi", f"oci-archive:{tmp_path}/multi.tar:v1")
    await copy(registry, f"oci-archive:{tmp_path}/multi.tar:v1", f"{upstream.host}/copies/app:multi")
    assert upstream.tags["copies/app"]["multi"] == index.digest
    with pytest.raises(Unsupported, match="one image"):
        await copy(registry, f"{upstream.host}/team/app:multi", f"docker-archive:{tmp_path}/multi.docker.tar")
    assert names(tmp_path) == ["multi.tar"]


async def test_a_docker_archive_keeps_config_and_content(
    upstream: RegistrySimulator, image: Manifest, registry: Registry, tmp_path: Path
) -> None:
    place = f"docker-archive:{tmp_path}/image.tar:registry.example/app:v1"
    await copy(registry, f"{upstream.host}/team/app:v1", place)
    async with open_source(parse_location(place), registry) as saved:
        top, _, blobs = await read_all(saved)
    assert isinstance(top, Manifest)
    assert top.config.digest == image.config.digest
    assert [blobs[str(layer.digest)] for layer in top.layers] == LAYERS
    first = (tmp_path / "image.tar").read_bytes()
    await copy(registry, f"{upstream.host}/team/app:v1", place)
    assert (tmp_path / "image.tar").read_bytes() == first


async def test_a_tag_of_a_layout_is_replaced_and_others_stay(
    upstream: RegistrySimulator, image: Manifest, registry: Registry, tmp_path: Path
) -> None:
    other = upstream.add_image("team/app", "v2", LAYERS[:1])
    await copy(registry, f"{upstream.host}/team/app:v1", f"oci:{tmp_path}/l:one")
    await copy(registry, f"{upstream.host}/team/app:v1", f"oci:{tmp_path}/l:two")
    await copy(registry, f"{upstream.host}/team/app:v2", f"oci:{tmp_path}/l:one")
    assert tags(tmp_path / "l") == {"one": str(other.digest), "two": str(image.digest)}


async def test_writers_of_one_layout_do_not_lose_each_others_tags(
    upstream: RegistrySimulator, image: Manifest, registry: Registry, tmp_path: Path
) -> None:
    source = f"{upstream.host}/team/app:v1"
    await asyncio.gather(*(copy(registry, source, f"oci:{tmp_path}/l:t{number}") for number in range(8)))
    assert set(tags(tmp_path / "l")) == {f"t{number}" for number in range(8)}


async def test_several_images_need_a_tag(
    upstream: RegistrySimulator, image: Manifest, registry: Registry, tmp_path: Path
) -> None:
    for tag in ("one", "two"):
        await copy(registry, f"{upstream.host}/team/app:v1", f"oci:{tmp_path}/l:{tag}")
    for place, message in ((f"oci:{tmp_path}/l", "add :TAG"), (f"oci:{tmp_path}/l:three", "holds no image 'three'")):
        async with open_source(parse_location(place), registry) as source:
            with pytest.raises(MalformedInput, match=message) as caught:
                await source.get_manifest()
            assert "one, two" in str(caught.value)


async def test_a_folder_that_is_no_layout_is_not_written_to(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("data")
    with pytest.raises(MalformedInput, match="neither an OCI layout nor an empty folder"):
        async with open_dest(parse_location(f"oci:{tmp_path}:v1"), registry):
            pass
    assert names(tmp_path) == ["precious"]


@pytest.mark.parametrize("place", ["oci:{}/l:v1", "oci-archive:{}/a.tar"])
async def test_a_wrong_blob_leaves_nothing_under_its_name(place: str, registry: Registry, tmp_path: Path) -> None:
    wrong = Descriptor(OCI_LAYER, Digest.of(b"right"), 5)
    async with open_dest(parse_location(place.format(tmp_path)), registry) as dest:
        with pytest.raises(TrustFailure):
            await dest.put_blob(wrong, lambda: io.BytesIO(b"wrong"))
    assert not any(path.is_file() for path in below(tmp_path))


async def test_an_abandoned_archive_is_not_there(
    upstream: RegistrySimulator, image: Manifest, registry: Registry, tmp_path: Path
) -> None:
    target = tmp_path / "image.tar"
    target.write_bytes(b"what was there before")

    async def give_up() -> None:
        async with open_dest(parse_location(f"oci-archive:{target}"), registry) as dest:
            await dest.put_manifest(image)
            raise MalformedInput("stop")

    with pytest.raises(MalformedInput, match="stop"):
        await give_up()
    assert names(tmp_path) == ["image.tar"]
    assert target.read_bytes() == b"what was there before"


async def damaged(upstream: RegistrySimulator, registry: Registry, folder: Path) -> tuple[Path, Manifest]:
    await copy(registry, f"{upstream.host}/team/app:v1", f"oci:{folder}:v1")
    manifest = await registry.get_manifest(parse_location(f"{upstream.host}/team/app:v1").ref)  # type: ignore[arg-type]
    assert isinstance(manifest, Manifest)
    return folder / "blobs/sha256", manifest


async def test_a_damaged_layout_is_refused(
    upstream: RegistrySimulator, image: Manifest, registry: Registry, tmp_path: Path
) -> None:
    blobs, manifest = await damaged(upstream, registry, tmp_path)
    layer = blobs / manifest.layers[0].digest.hex
    layer.write_bytes(layer.read_bytes()[:-1] + b"?")
    async with open_source(parse_location(f"oci:{tmp_path}:v1"), registry) as source:
        with pytest.raises(TrustFailure):
            _ = [piece async for piece in source.stream_blob(manifest.layers[0])]
        (blobs / manifest.digest.hex).write_bytes(manifest.raw.replace(b"sha256", b"sha512", 1))
        with pytest.raises(TrustFailure):
            await source.get_manifest()


async def test_pipes_and_links_in_a_layout_are_not_opened(
    upstream: RegistrySimulator, image: Manifest, registry: Registry, tmp_path: Path
) -> None:
    blobs, manifest = await damaged(upstream, registry, tmp_path / "l")
    layer, config = (blobs / item.digest.hex for item in (manifest.layers[0], manifest.config))
    (tmp_path / "elsewhere").write_bytes(config.read_bytes())
    layer.unlink()
    os.mkfifo(layer)
    config.unlink()
    config.symlink_to(tmp_path / "elsewhere")
    async with open_source(parse_location(f"oci:{tmp_path}/l:v1"), registry) as source:
        for item in (manifest.layers[0], manifest.config):
            with pytest.raises(MalformedInput, match=r"no regular file|cannot be read"):
                _ = [piece async for piece in source.stream_blob(item)]


@pytest.mark.parametrize("place", ["oci:{}/absent", "oci-archive:{}/absent.tar", "docker-archive:{}/no/absent.tar"])
async def test_what_is_not_there_is_named(place: str, registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(MalformedInput, match="absent"):
        async with open_source(parse_location(place.format(tmp_path)), registry):
            pass
