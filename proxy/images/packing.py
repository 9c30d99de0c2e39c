"""Archives made of an OCI layout: the layout itself as a tar, or what `docker save` writes.

Owns the two forms, the same bytes for the same image.
"""

import io
import json
import tarfile
import tempfile
from pathlib import Path
from typing import IO

from proxy.engine.inflate import open_layer
from proxy.errors import MalformedInput, TrustFailure, Unsupported
from proxy.images.files import FolderFiles, read_small
from proxy.images.layout import blob_name
from proxy.oci.digest import Digest
from proxy.oci.manifest import Descriptor, Index, Manifest, parse_manifest

MAX_CONFIG = 8 << 20


def pack_layout(root: Path, out: IO[bytes]) -> None:
    """Write a layout's files as a tar, in order of their names."""
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(item for item in root.rglob("*") if item.is_file()):
            with path.open("rb") as content:
                _add(tar, str(path.relative_to(root)), content, path.stat().st_size)


def pack_docker(root: Path, top: Manifest | Index, name: str, out: IO[bytes]) -> None:
    """Write an image of a layout as `docker save` does, with uncompressed layers.

    Raises:
        Unsupported: an index of several images, which the format cannot hold.
        TrustFailure: a layer is not what the config says it is.
    """
    files = FolderFiles(root)
    manifest = _single(files, top)
    config = read_small(files, blob_name(manifest.config.digest), MAX_CONFIG)
    diff_ids = _diff_ids(config, manifest)
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        written: set[Digest] = set()
        for descriptor, diff_id in zip(manifest.layers, diff_ids, strict=True):
            if diff_id not in written:
                _add_layer(tar, files, descriptor, diff_id)
                written.add(diff_id)
        config_name = f"{manifest.config.digest.hex}.json"
        _add_bytes(tar, config_name, config)
        names = [f"{digest.hex}.tar" for digest in diff_ids]
        saved = [{"Config": config_name, "RepoTags": [name] if name else [], "Layers": names}]
        _add_bytes(tar, "manifest.json", json.dumps(saved, separators=(",", ":")).encode())


def _single(files: FolderFiles, top: Manifest | Index) -> Manifest:
    if isinstance(top, Manifest):
        return top
    if len(top.manifests) != 1:
        raise Unsupported("a docker archive holds one image: give one --platform, or write an oci-archive")
    entry = top.manifests[0]
    child = parse_manifest(read_small(files, blob_name(entry.digest), entry.size), entry.media_type)
    if not isinstance(child, Manifest):
        raise Unsupported("an index inside an index is not an image")
    return child


def _diff_ids(config: bytes, manifest: Manifest) -> list[Digest]:
    try:
        found = [Digest.parse(text) for text in json.loads(config)["rootfs"]["diff_ids"]]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise MalformedInput("an image config without rootfs.diff_ids", file=str(manifest.config.digest)) from error
    if len(found) != len(manifest.layers):
        raise MalformedInput(f"{len(manifest.layers)} layers, but {len(found)} diff_ids", file=str(manifest.digest))
    return found


def _add_layer(tar: tarfile.TarFile, files: FolderFiles, descriptor: Descriptor, diff_id: Digest) -> None:
    """Add a layer uncompressed; its size must be known first, so it goes through a nameless temporary file."""
    where = f"layer {descriptor.digest}"
    with tempfile.TemporaryFile(dir=files.root) as plain, files.open(blob_name(descriptor.digest)) as blob:
        stream = open_layer(blob, descriptor.media_type, where=where)
        while piece := stream.read():
            plain.write(piece)
        if stream.diff_id != diff_id:
            raise TrustFailure(f"{where}: uncompressed it is {stream.diff_id}, the config says {diff_id}; refused")
        size = plain.tell()
        plain.seek(0)
        _add(tar, f"{diff_id.hex}.tar", plain, size)


def _add_bytes(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    _add(tar, name, io.BytesIO(data), len(data))


def _add(tar: tarfile.TarFile, name: str, content: IO[bytes], size: int) -> None:
    member = tarfile.TarInfo(name)
    member.size = size
    tar.addfile(member, content)
