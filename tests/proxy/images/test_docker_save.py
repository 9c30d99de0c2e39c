"""Archives of `docker save`, the recorded ones and hostile ones."""

import gzip
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from proxy.errors import AdmendError, MalformedInput
from proxy.images import open_source, parse_location
from proxy.oci.digest import Digest
from proxy.oci.manifest import DOCKER_CONFIG, DOCKER_LAYER, Manifest
from proxy.registry import Registry
from tests.proxy.images.copying import read_all
from tests.simulators.registry import make_layer
from tests.support import data_path

LAYER = make_layer({"etc/os-release": b"ID=debian\n"})
CONFIG = json.dumps({"rootfs": {"type": "layers", "diff_ids": [str(Digest.of(LAYER))]}}).encode()


def saved(path: Path, images: Any, members: Mapping[str, bytes | str], *, zipped: bool = False) -> str:
    """Write an archive; a member that is text is a symlink to that text."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in {**members, "manifest.json": json.dumps(images).encode()}.items():
            member = tarfile.TarInfo(name)
            if isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
                tar.addfile(member)
            else:
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    path.write_bytes(gzip.compress(out.getvalue()) if zipped else out.getvalue())
    return f"docker-archive:{path}"


def entry(config: str = "c.json", layers: tuple[str, ...] = ("l.tar",), names: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"Config": config, "RepoTags": list(names), "Layers": list(layers)}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def manifest_of(registry: Registry, place: str) -> Manifest:
    async with open_source(parse_location(place), registry) as source:
        top, _, _ = await read_all(source)
    assert isinstance(top, Manifest)
    return top


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("alpine-3.10-x86_64.docker.tar.gz", 1),
        ("distroless-base-debian11-amd64-trimmed.docker.tar.gz", 2),
        ("ubi8-8.6-x86_64-trimmed.docker.tar.gz", 2),
    ],
)
async def test_recorded_archives_become_docker_manifests(name: str, layers: int, registry: Registry) -> None:
    async with open_source(parse_location(f"docker-archive:{data_path('images/' + name)}"), registry) as source:
        top, _, blobs = await read_all(source)
    assert isinstance(top, Manifest)
    assert top.config.media_type == DOCKER_CONFIG
    assert [layer.media_type for layer in top.layers] == [DOCKER_LAYER] * layers
    diff_ids = json.loads(blobs[str(top.config.digest)])["rootfs"]["diff_ids"]
    assert [str(layer.digest) for layer in top.layers] == diff_ids


@pytest.mark.data
async def test_the_recorded_oci_archive_is_read(registry: Registry) -> None:
    place = f"oci-archive:{data_path('images/wolfi-glibc-20240226-x86_64.oci.tar')}"
    manifest = await manifest_of(registry, place)
    assert str(manifest.digest) == "sha256:75fc361a3f6e88fc115a7ac5a17afadd2c493cbfd0c610f0f7dbcf8c05c240d4"


@pytest.mark.parametrize("zipped", [False, True])
async def test_links_between_members_are_followed(zipped: bool, registry: Registry, tmp_path: Path) -> None:
    members = {"c.json": CONFIG, "real.tar": LAYER, "id/layer.tar": "../real.tar", "two/layer.tar": "../id/layer.tar"}
    place = saved(tmp_path / "a.tar", [entry(layers=("two/layer.tar",))], members, zipped=zipped)
    assert (await manifest_of(registry, place)).layers[0].digest == Digest.of(LAYER)


async def test_compressed_layers_get_the_type_that_they_are(registry: Registry, tmp_path: Path) -> None:
    place = saved(tmp_path / "a.tar", [entry()], {"c.json": CONFIG, "l.tar": gzip.compress(LAYER)})
    assert (await manifest_of(registry, place)).layers[0].media_type == f"{DOCKER_LAYER}.gzip"


async def test_one_of_several_images_is_chosen_by_name(registry: Registry, tmp_path: Path) -> None:
    images = [entry(names=("nginx:1",)), entry(layers=("l.tar", "l.tar"), names=("r.example/app:v1",))]
    place = saved(tmp_path / "a.tar", images, {"c.json": CONFIG, "l.tar": LAYER})
    assert len((await manifest_of(registry, f"{place}:nginx:1")).layers) == 1
    assert len((await manifest_of(registry, f"{place}:r.example/app:v1")).layers) == 2
    with pytest.raises(MalformedInput, match=r"add :NAME.*nginx:1, r\.example/app:v1"):
        await manifest_of(registry, place)


@pytest.mark.parametrize(
    ("images", "members"),
    [
        ([], {}),
        ({}, {}),
        ([{"Config": 1, "Layers": []}], {}),
        ([entry()], {"l.tar": LAYER}),
        ([entry()], {"c.json": CONFIG}),
        ([entry(config="/etc/passwd")], {"l.tar": LAYER}),
        ([entry(config="../../../../etc/passwd")], {"l.tar": LAYER}),
        ([entry(layers=("/etc/passwd",))], {"c.json": CONFIG}),
        ([entry()], {"c.json": CONFIG, "l.tar": "/etc/passwd"}),
        ([entry()], {"c.json": CONFIG, "l.tar": "../../../../../../../etc/passwd"}),
        ([entry()], {"c.json": CONFIG, "l.tar": "l.tar"}),
        ([entry()], {"c.json": CONFIG, "l.tar": "m.tar", "m.tar": "l.tar"}),
        ([entry()], {"c.json": CONFIG, "../l.tar": LAYER}),
        ([entry()], {"c.json": b" " * (8 << 20 | 1), "l.tar": LAYER}),
    ],
)
async def test_a_hostile_archive_is_refused(
    images: Any, members: dict[str, bytes | str], registry: Registry, tmp_path: Path
) -> None:
    place = saved(tmp_path / "a.tar", images, members)
    with pytest.raises(MalformedInput, match=r"a\.tar"):
        await manifest_of(registry, place)
    assert names(tmp_path) == ["a.tar"]


@pytest.mark.parametrize("cut", [1, 100, 700, 2000])
async def test_a_truncated_archive_is_refused(cut: int, registry: Registry, tmp_path: Path) -> None:
    place = saved(tmp_path / "a.tar", [entry()], {"c.json": CONFIG, "l.tar": LAYER}, zipped=True)
    data = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(data[: min(cut, len(data) - 1)])
    with pytest.raises(AdmendError, match=r"a\.tar"):
        await manifest_of(registry, place)


async def test_nothing_is_left_where_archives_are_unpacked(registry: Registry, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    place = saved(tmp_path / "a.tar", [entry()], {"c.json": CONFIG, "l.tar": LAYER}, zipped=True)
    async with open_source(parse_location(place), registry, scratch) as source:
        await read_all(source)
        assert names(scratch) == []
