"""Larger images, grown from a packed tree: more layers on top of it, or more files in its one layer.

Owns the filler: files of bytes that do not compress, the same in every run. A grown image shares its lower layers with
what it grew from; a thickened one shares none.
"""

import gzip
import hashlib
import io
import json
import random
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isal import igzip

from proxy.files import writing
from proxy.oci.digest import Digest
from proxy.oci.manifest import OCI_CONFIG, OCI_MANIFEST, parse_manifest, render_json
from webhook.demo.compose import Composed

LARGE_FILE, SMALL_FILE = 1 << 20, 1 << 10  # bytes
SMALL_FILES = 200  # in every layer
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Filler:
    """Files of one layer: `seed` makes them unlike any other's, `size` is their bytes."""

    seed: int
    size: int


def grow(base: Composed, folder: Path, fillers: Sequence[Filler]) -> Composed:
    """Return the image with one more layer for each filler."""
    folder.mkdir(parents=True)
    made = []
    for number, filler in enumerate(fillers):
        plain = _tar(filler) + bytes(2 * tarfile.BLOCKSIZE)
        file = folder / f"layer-{number}"
        file.write_bytes(gzip.compress(plain, 1, mtime=0))
        made.append((file, hashlib.sha256(plain).hexdigest()))
    return _image(base, folder, made, keep=True)


def thicken(base: Composed, folder: Path, filler: Filler) -> Composed:
    """Return the image with the filler in front of its one layer: as one gzip stream of two members."""
    folder.mkdir(parents=True)
    (old,) = base.manifest.layers
    plain, file = _tar(filler), folder / "layer"
    digest = hashlib.sha256(plain)
    packed = base.blobs[old.digest].read_bytes()
    with igzip.open(io.BytesIO(packed), "rb") as stream:
        while piece := stream.read(PIECE):
            digest.update(piece)
    file.write_bytes(gzip.compress(plain, 1, mtime=0) + packed)
    return _image(base, folder, [(file, digest.hexdigest())], keep=False)


def _tar(filler: Filler) -> bytes:
    """Return the members of a tar without its end."""
    source, out = random.Random(filler.seed), io.BytesIO()  # noqa: S311 - filler, the same in every run
    sizes = [SMALL_FILE] * SMALL_FILES + [LARGE_FILE] * (filler.size // LARGE_FILE)
    for number, size in enumerate(sizes):
        member = tarfile.TarInfo(f"srv/filler-{filler.seed}/{number}")
        member.size = size
        out.write(member.tobuf(tarfile.GNU_FORMAT) + source.randbytes(size))
    return out.getvalue()


def _image(base: Composed, folder: Path, layers: Sequence[tuple[Path, str]], *, keep: bool) -> Composed:
    """Return an image of the layers (file, hex of the diff_id), on those of `base` if `keep`."""
    document: dict[str, Any] = json.loads(base.manifest.raw)
    config: dict[str, Any] = json.loads(base.blobs[base.manifest.config.digest].read_bytes())
    blobs = {layer.digest: base.blobs[layer.digest] for layer in base.manifest.layers} if keep else {}
    if not keep:
        document["layers"], config["rootfs"]["diff_ids"], config["history"] = [], [], []
    for file, diff_id in layers:
        digest = Digest.parse(f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}")
        blobs[digest] = file
        document["layers"].append({"mediaType": LAYER, "digest": str(digest), "size": file.stat().st_size})
        config["rootfs"]["diff_ids"].append(f"sha256:{diff_id}")
        config["history"].append({"created_by": "filler"})
    file = folder / "config"
    with writing(file) as out:
        out.write(render_json(config))
    digest = Digest.of(file.read_bytes())
    blobs[digest] = file
    document["config"] = {"mediaType": OCI_CONFIG, "digest": str(digest), "size": file.stat().st_size}
    manifest = parse_manifest(render_json(document), OCI_MANIFEST)
    return Composed(manifest, blobs)
