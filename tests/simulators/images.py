"""Small images made in memory."""

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from proxy.oci.digest import Digest
from proxy.oci.manifest import OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST, Index, Manifest, parse_manifest


@dataclass(frozen=True)
class Built:
    """An image made in memory; `files` puts its blobs on disk."""

    top: Manifest | Index
    children: tuple[Manifest, ...] = ()
    data: Mapping[Digest, bytes] = field(default_factory=dict)

    def files(self, folder: Path) -> dict[Digest, Path]:
        folder.mkdir(parents=True, exist_ok=True)
        for digest, data in self.data.items():
            (folder / digest.hex).write_bytes(data)
        return {digest: folder / digest.hex for digest in self.data}


def build(text: str, *, subject: Manifest | None = None, artifact_type: str = "", size: int = 0) -> Built:
    """Make a single-platform image that holds one file with `text`."""
    tarball = io.BytesIO()
    with tarfile.open(fileobj=tarball, mode="w") as tar:
        content = text.encode() + b"\0" * size
        info = tarfile.TarInfo("hello")
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
    layer = gzip.compress(tarball.getvalue(), mtime=0)
    diff_id = "sha256:" + hashlib.sha256(tarball.getvalue()).hexdigest()
    rootfs = {"type": "layers", "diff_ids": [diff_id]}
    config = json.dumps({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": rootfs}).encode()
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": OCI_CONFIG, "digest": str(Digest.of(config)), "size": len(config)},
        "layers": [{"mediaType": OCI_LAYER + "+gzip", "digest": str(Digest.of(layer)), "size": len(layer)}],
        **({"subject": subject.descriptor.to_json()} if subject else {}),
        **({"artifactType": artifact_type} if artifact_type else {}),
    }
    top = parse_manifest(json.dumps(document).encode(), OCI_MANIFEST)
    return Built(top, (), {Digest.of(config): config, Digest.of(layer): layer})


def build_index(*images: Built) -> Built:
    """Make an index of single-platform images."""
    entries = []
    for number, image in enumerate(images):
        entry = image.top.descriptor.to_json()
        entry["platform"] = {"os": "linux", "architecture": ("amd64", "arm64", "s390x")[number]}
        entries.append(entry)
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
    top = parse_manifest(json.dumps(document).encode(), OCI_INDEX)
    children = tuple(image.top for image in images if isinstance(image.top, Manifest))
    return Built(top, children, {digest: data for image in images for digest, data in image.data.items()})
