"""A tree as an image, the image patched by the real command, and the patched image unpacked again.

Owns the unpacking: layers are applied as container runtimes do (whiteouts first, what changes its kind is removed),
and a layer that puts a path behind a symlink is refused: runtimes differ there. Specification: OCI image layer.
"""

import gzip
import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
import zstandard

from proxy.oci.digest import Digest
from proxy.oci.manifest import OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST, render_json
from proxy.serve import machine_platform
from tests.differential.trees import extract
from tests.support import REPOSITORY

PATCH = "from proxy.cli import main; main()"
PLAN = "from tests.differential.planner import main; main()"
EXPLAINED = frozenset({"none", "reproduced"})


@dataclass(frozen=True, slots=True)
class Patched:
    """What the command said, and where the patched image is (None when nothing moved)."""

    outcome: str
    reason: str
    upgrades: tuple[Mapping[str, str], ...] = ()
    notes: tuple[Mapping[str, str], ...] = field(default=())
    layout: Path | None = None

    @property
    def held(self) -> dict[str, Mapping[str, str]]:
        """What has a newer version and did not move, by package."""
        moved = {item["package"] for item in self.upgrades}
        return {item["package"]: item for item in self.notes if item["package"] and item["package"] not in moved}

    @property
    def covered(self) -> set[str]:
        return {item["package"] for item in self.upgrades if item.get("effect") in EXPLAINED}


def write_image(layers: Sequence[Path], folder: Path) -> Path:
    """Write an OCI layout of plain layers; they are linked where that is possible."""
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    described = []
    for layer in layers:
        with layer.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        try:
            os.link(layer, blobs / digest)
        except OSError:
            shutil.copyfile(layer, blobs / digest)
        described.append({"mediaType": OCI_LAYER, "digest": f"sha256:{digest}", "size": layer.stat().st_size})
    config = render_json(
        {
            "architecture": machine_platform().architecture,
            "os": "linux",
            "config": {"Cmd": ["/bin/sh"]},
            "rootfs": {"type": "layers", "diff_ids": [item["digest"] for item in described]},
        }
    )
    about = {"mediaType": OCI_CONFIG, "digest": str(Digest.of(config)), "size": len(config)}
    document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": about, "layers": described}
    manifest = render_json(document)
    for data in (config, manifest):
        (blobs / Digest.of(data).hex).write_bytes(data)
    entry = {"mediaType": OCI_MANIFEST, "digest": str(Digest.of(manifest)), "size": len(manifest)}
    named = {**entry, "annotations": {"org.opencontainers.image.ref.name": "it"}}
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [named]}))
    (folder / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    return folder


def patch(layout: Path, out: Path, settings: Mapping[str, Any], *, plan_only: bool = False) -> Patched:
    """Patch an image with the command, in a process of its own, or say what it would like to do."""
    config = out.with_suffix(".yaml")
    config.write_text(yaml.safe_dump(dict(settings)))
    words = ["patch", f"oci:{layout}:it", "-o", f"oci:{out}:it", "--json", "--config", str(config)]
    done = subprocess.run(
        [sys.executable, "-c", PLAN if plan_only else PATCH, *words, *(["--dry-run"] if plan_only else [])],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode not in {0, 3}:
        raise AssertionError(f"admend ended {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")
    document = json.loads(done.stdout)
    platforms = document.get("platforms", [])
    upgrades = tuple(item for platform in platforms for item in platform["upgrades"])
    notes = tuple(item for platform in platforms for item in platform["skipped"])
    reason = document.get("reason") or next((item["reason"] for item in platforms if item["reason"]), "")
    return Patched(document["outcome"], reason, upgrades, notes, out if document.get("patched") else None)


def unpack(layout: Path, tree: Path, scratch: Path) -> None:
    """Unpack the image `it` of a layout into an empty folder."""
    tree.mkdir()
    blobs = layout / "blobs" / "sha256"
    index = json.loads((layout / "index.json").read_text())
    named = [item for item in index["manifests"] if item["annotations"]["org.opencontainers.image.ref.name"] == "it"]
    manifest = json.loads((blobs / named[0]["digest"].partition(":")[2]).read_text())
    for number, item in enumerate(manifest["layers"]):
        blob = blobs / item["digest"].partition(":")[2]
        plain = _plain(blob, item["mediaType"], scratch / "layer")
        if number:
            _make_way(plain, tree)
        extract(plain, tree)
        _remove_whiteouts(plain, tree)
        if plain != blob:
            plain.unlink()


def _plain(blob: Path, media_type: str, scratch: Path) -> Path:
    if media_type.endswith(".tar"):
        return blob
    unpacker = zstandard.open if media_type.endswith("zstd") else gzip.open
    with unpacker(blob, "rb") as stream, scratch.open("wb") as out:
        shutil.copyfileobj(stream, out, 1 << 20)
    return scratch


def _make_way(layer: Path, tree: Path) -> None:
    """Remove what the layer whites out, and what it replaces by something of another kind."""
    with tarfile.open(layer) as archive:
        for member in archive:
            path = tree / member.name
            _refuse_symlinked(path.parent, tree, member.name)
            folder, name = os.path.split(path)
            if name == ".wh..wh..opq":
                for child in Path(folder).iterdir():
                    _remove(child)
            elif name.startswith(".wh."):
                _remove(Path(folder) / name.removeprefix(".wh."))
            elif (kind := _kind(path)) is not None and (stat.S_ISDIR(kind), member.isdir()) in {
                (True, False),
                (False, True),
            }:
                _remove(path)


def _refuse_symlinked(folder: Path, tree: Path, name: str) -> None:
    while folder != tree:
        assert not folder.is_symlink(), f"the layer writes {name} through the symlink {folder.relative_to(tree)}"
        folder = folder.parent


def _remove_whiteouts(layer: Path, tree: Path) -> None:
    with tarfile.open(layer) as archive:
        for member in archive:
            if Path(member.name).name.startswith(".wh."):
                (tree / member.name).unlink()


def _kind(path: Path) -> int | None:
    try:
        return path.lstat().st_mode
    except FileNotFoundError:
        return None


def _remove(path: Path) -> None:
    kind = _kind(path)
    if kind is None:
        return
    if stat.S_ISDIR(kind):
        shutil.rmtree(path)
    else:
        path.unlink()
