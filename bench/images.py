"""The images that are measured, made once and kept: distroless, a Debian minbase tree with openssl, and larger ones.

Owns the tree (mmdebstrap, from the release suite only, its apt sources naming the loopback archive), its packing
into a one-layer image, the composed distroless images, and those that grow from the packed tree. All go into the
upstream's layout. A second run finds them there, unless the archive's address or what is written here has changed.
"""

import asyncio
import hashlib
import json
import os
import shutil
import subprocess
import zlib
from dataclasses import dataclass
from pathlib import Path

from filler import Filler, grow, thicken
from isal import igzip
from needs import FOLDER, SUITES, Archive, route_name, stop
from upstream import open_upstream

from proxy.codec import decode, encode
from proxy.config import ProxyConfig, SourcesConfig
from proxy.engine.families.dpkg.architecture import platform_of
from proxy.engine.osrelease import parse_distribution
from proxy.files import writing
from proxy.machine import read_settings
from proxy.oci.digest import Digest
from proxy.oci.manifest import OCI_CONFIG, OCI_MANIFEST, parse_manifest, render_json
from proxy.oci.reference import ImageRef
from proxy.serve import Engine
from webhook.demo.compose import PACKAGES, Composed, compose, find_release

RECIPE = 3  # counts up when what is made here changes
TREE, APT, UPSTREAM = FOLDER / "tree", FOLDER / "apt", FOLDER / "upstream"
STATE = FOLDER / "images.json"
PIECE = 1 << 20
DISTROLESS, MINBASE, SMALL = "bench/distroless:1", "bench/minbase:1", "bench/small:1"
LARGE = "bench/large:1"
LARGE_LAYERS = tuple(Filler(1000 + number, 14 << 20) for number in range(24))
EIGHT = range(8)
SHARING = tuple(f"bench/sharing-{number}:1" for number in EIGHT)  # they have all layers but one in common
APART = tuple(f"bench/apart-{number}:1" for number in EIGHT)  # they have no layer in common, but their packages
NEW = tuple(f"bench/new-{number}:1" for number in range(20))  # the distroless one, each with a small layer of its own
SMALL_PACKAGES = ("base-files", "netbase")  # of the same sources, and with nothing to upgrade


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes of an image's layers, as they are pulled and unpacked, and how many there are."""

    compressed: int
    unpacked: int
    layers: int


def prepare(archive: Archive, port: int) -> dict[str, Sizes]:
    """Make what is missing; returns the sizes of the images' layers by name."""
    texts = [str(RECIPE), str(port), *archive.uris.values(), archive.arch, *PACKAGES, *SMALL_PACKAGES]
    key = hashlib.sha256("\n".join(texts).encode()).hexdigest()
    machine = parse_distribution(read_settings(SourcesConfig()).machine["os-release"])
    suites = [machine.codename + suite.removeprefix(SUITES[0]) for suite in SUITES]
    _write_sources(APT, archive, port, suites)
    if STATE.exists() and (state := json.loads(STATE.read_text()))["key"] == key:
        return decode(dict[str, Sizes], state["sizes"], str(STATE))
    STATE.unlink(missing_ok=True)
    for folder in (TREE, UPSTREAM, FOLDER / "pack"):
        shutil.rmtree(folder, ignore_errors=True)
    print("bench: making the images (once; kept in .cache/bench) ...", flush=True)
    _make_tree(archive, port)
    sizes = asyncio.run(_fill_upstream(archive.arch))
    shutil.rmtree(FOLDER / "pack")
    with writing(STATE) as out:
        out.write(json.dumps({"key": key, "sizes": encode(sizes)}).encode())
    return sizes


def _make_tree(archive: Archive, port: int) -> None:
    uri = f"http://127.0.0.1:{port}/{route_name(archive.uris[SUITES[0]])}"
    command = ["mmdebstrap", "--mode=root", "--variant=minbase", "--include=openssl", f"--keyring={archive.keyring}"]
    command += [f"--architectures={archive.arch}", SUITES[0], str(TREE), f"deb {uri} {SUITES[0]} main"]
    log = FOLDER / "mmdebstrap.log"
    with log.open("wb") as out:
        done = subprocess.run(command, stdout=out, stderr=out, env={**os.environ, "no_proxy": "127.0.0.1"}, check=False)
    if done.returncode:
        stop(f"mmdebstrap ended with {done.returncode}; see {log}")
    (TREE / "etc/apt/sources.list").unlink(missing_ok=True)
    shutil.rmtree(TREE / "etc/apt/sources.list.d")
    _write_sources(TREE / "etc/apt", archive, port, SUITES)


def _write_sources(folder: Path, archive: Archive, port: int, suites: list[str] | tuple[str, ...]) -> None:
    """Write a source list that names the suites at the loopback archive."""
    stanzas = [
        f"Types: deb\nURIs: http://127.0.0.1:{port}/{route_name(archive.uris[known])}\nSuites: {suite}\n"
        f"Components: main\nSigned-By: {archive.keyring}\n"
        for known, suite in zip(SUITES, suites, strict=True)
    ]
    with writing(folder / "sources.list.d" / "debian.sources") as out:
        out.write("\n".join(stanzas).encode())


async def _fill_upstream(arch: str) -> dict[str, Sizes]:
    """Compose and pack the images, and put them into the upstream's layout."""
    sources = SourcesConfig(machine=APT)
    release = find_release(read_settings(sources))
    if release is None:
        stop(f"{APT} names no release suite")
    images: dict[str, Composed] = {}
    async with Engine(ProxyConfig(sources=sources, cache=FOLDER / "pack" / "cache")) as engine:
        for name, packages in ((DISTROLESS, PACKAGES), (SMALL, SMALL_PACKAGES)):
            scratch = FOLDER / "pack" / name.replace("/", "-")
            scratch.mkdir(parents=True)
            images[name] = await compose(engine, release, packages, scratch)
    minbase = images[MINBASE] = pack(TREE, FOLDER / "pack" / "minbase", arch)
    images[LARGE] = grow(minbase, FOLDER / "pack" / "large", LARGE_LAYERS)
    for number in EIGHT:
        filler = Filler(number, 4 << 20)
        images[SHARING[number]] = grow(minbase, FOLDER / "pack" / f"sharing-{number}", [filler])
        images[APART[number]] = thicken(minbase, FOLDER / "pack" / f"apart-{number}", filler)
    for number, name in enumerate(NEW):
        images[name] = grow(images[DISTROLESS], FOLDER / "pack" / f"new-{number}", [Filler(2000 + number, 0)])
    mirror = open_upstream(UPSTREAM)
    for name, image in images.items():
        path, _, tag = name.partition(":")
        await mirror.put_image(ImageRef(mirror.naming.host, path), image.manifest, (), image.blobs, tags=(tag,))
    await mirror.close()
    return {name: _sizes(image) for name, image in images.items()}


def _sizes(image: Composed) -> Sizes:
    layers, unpacked = image.manifest.layers, 0
    for layer in layers:
        with igzip.open(image.blobs[layer.digest], "rb") as stream:
            while piece := stream.read(PIECE):
                unpacked += len(piece)
    return Sizes(sum(layer.size for layer in layers), unpacked, len(layers))


def pack(tree: Path, folder: Path, arch: str) -> Composed:
    """Pack a tree into an image of one gzip layer; device nodes stay out, as in every published image."""
    folder.mkdir(parents=True)
    names = sorted(path.name for path in tree.iterdir())
    command = ["tar", "--create", "--format=gnu", "--numeric-owner", "--sort=name", "--exclude=dev/*", *names]
    plain, packed = hashlib.sha256(), zlib.compressobj(6, zlib.DEFLATED, 31)
    layer_file, config_file = folder / "layer", folder / "config"
    with writing(layer_file) as out, subprocess.Popen(command, cwd=tree, stdout=subprocess.PIPE) as tar:
        if tar.stdout is None:
            raise RuntimeError("tar has no output")
        while piece := tar.stdout.read(PIECE):
            plain.update(piece)
            out.write(packed.compress(piece))
        out.write(packed.flush())
    if tar.returncode:
        raise RuntimeError(f"tar ended with {tar.returncode}")
    config = {
        "architecture": platform_of(arch).architecture,
        "os": "linux",
        "config": {"Cmd": ["bash"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{plain.hexdigest()}"]},
        "history": [{"created_by": "mmdebstrap"}],
    }
    config_file.write_bytes(render_json(config))
    with layer_file.open("rb") as stream:
        layer = Digest.parse(f"sha256:{hashlib.file_digest(stream, 'sha256').hexdigest()}")
    config_digest = Digest.of(config_file.read_bytes())
    media_type = "application/vnd.oci.image.layer.v1.tar+gzip"
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": OCI_CONFIG, "digest": str(config_digest), "size": config_file.stat().st_size},
        "layers": [{"mediaType": media_type, "digest": str(layer), "size": layer_file.stat().st_size}],
    }
    manifest = parse_manifest(render_json(document), OCI_MANIFEST)
    return Composed(manifest, {layer: layer_file, config_digest: config_file})
