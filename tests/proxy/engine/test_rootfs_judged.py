"""The merged view against real tools: GNU tar's listing, a plain extraction, and podman's overlayfs."""

import gzip
import io
import json
import lzma
import os
import shutil
import stat
import subprocess
import tarfile
import tempfile
from pathlib import Path

import pytest

from proxy.engine.layerindex import LayerIndex
from proxy.engine.rootfs import RootFS
from proxy.engine.scan import OPAQUE, WHITEOUT, scan_layer
from proxy.engine.tar import Entry, Kind
from proxy.oci.digest import Digest
from tests.support import data_path, require_root, require_tool
from tests.tars import END, member, pax, scan, tree

ROOTFS = {
    "almalinux-8.8-micro-20230523-s390x.tar.xz": "var/lib/rpm/Packages",
    "almalinux-9.0-micro-20220527-aarch64.tar.xz": "var/lib/rpm/Packages",
    "almalinux-9.1-micro-20230407-aarch64.tar.xz": "var/lib/rpm/rpmdb.sqlite",
    "almalinux-9.3-micro-20231124-aarch64.tar.xz": "var/lib/rpm/rpmdb.sqlite",
    "alpine-3.10.3-x86_64.tar.gz": "lib/apk/db/installed",
    "alpine-3.10.9-x86_64.tar.gz": "lib/apk/db/installed",
    "alpine-3.20.3-aarch64.tar.gz": "lib/apk/db/installed",
    "alpine-3.20.3-x86_64.tar.gz": "lib/apk/db/installed",
    "alpine-3.7.3-x86_64.tar.gz": "lib/apk/db/installed",
    "debian-11.5-nginx1.23-amd64.tar.xz": "var/lib/dpkg/status",
    "distroless-base-debian11-amd64-derived.tar.xz": "var/lib/dpkg/status.d/openssl",
    "distroless-base-debian11-arm64-derived.tar.xz": "var/lib/dpkg/status.d/openssl",
    "distroless-static-debian11-20211208-amd64.tar.gz": "var/lib/dpkg/status.d/tzdata",
    "ubuntu-20.04.6-amd64.tar.xz": "var/lib/dpkg/status",
}
KINDS = {
    stat.S_IFREG: Kind.FILE,
    stat.S_IFDIR: Kind.DIR,
    stat.S_IFLNK: Kind.SYMLINK,
    stat.S_IFCHR: Kind.CHAR,
    stat.S_IFBLK: Kind.BLOCK,
    stat.S_IFIFO: Kind.FIFO,
}
Facts = dict[str, tuple[object, ...]]


def unpack_rootfs(name: str, out: Path) -> Path:
    path = data_path(f"rootfs/{name}")
    with lzma.open(path) if name.endswith(".xz") else gzip.open(path) as packed, out.open("wb") as plain:
        shutil.copyfileobj(packed, plain, 1 << 20)
    return out


@pytest.mark.data
@pytest.mark.parametrize(("name", "database"), ROOTFS.items())
def test_every_recorded_root_file_system_scans_as_gnu_tar_lists_it(name, database, tmp_path):
    captures = io.BytesIO()
    tar = unpack_rootfs(name, tmp_path / "layer.tar")
    with tar.open("rb") as stream:
        index = scan_layer(stream, "", keep=database.__eq__, captures=captures, captures_name="captures", where=name)
    listed = subprocess.run(["tar", "-tf", tar], capture_output=True, check=True)
    tar.unlink()
    assert len(index) == len(listed.stdout.splitlines())
    assert LayerIndex.parse(index.render()) == index
    root = RootFS([index], lambda span: captures.getvalue()[span.offset :][: span.size])
    (kept,) = index.spans.values()
    assert root.read(database) == root.read_span(kept) != b""
    release = root.get("etc/os-release")
    assert release is not None
    assert root.origin("etc/os-release") is not None


def facts_of(root: RootFS) -> Facts:
    return {entry.path: _facts(entry) for entry in root.walk()}


def _facts(entry: Entry) -> tuple[object, ...]:
    mode = 0o777 if entry.kind is Kind.SYMLINK else entry.mode
    size = entry.size if entry.kind is Kind.FILE else 0
    return entry.kind, mode, entry.uid, entry.gid, size, entry.target


def facts_on_disk(folder: Path) -> Facts:
    found: Facts = {}
    for path in folder.rglob("*"):
        info = path.lstat()
        kind = KINDS[stat.S_IFMT(info.st_mode)]
        target = os.readlink(path) if kind is Kind.SYMLINK else ""  # noqa: PTH115 - a Path would tidy it
        size = info.st_size if kind is Kind.FILE else 0
        mode = stat.S_IMODE(info.st_mode)
        found[str(path.relative_to(folder))] = (kind, mode, info.st_uid, info.st_gid, size, target)
    return found


def apply_layer(tar: Path, folder: Path) -> None:
    """Unpack one layer over a folder: its whiteouts first, then GNU tar for the rest."""
    with tarfile.open(tar) as layer:
        names = layer.getnames()
    for name in names:
        base = os.path.basename(name)  # noqa: PTH119 - a name in a tar, not a path here
        place = folder / name
        if base == OPAQUE and place.parent.is_dir():
            subprocess.run(["find", place.parent, "-mindepth", "1", "-delete"], check=True)
        elif base.startswith(WHITEOUT):
            subprocess.run(["rm", "-rf", place.with_name(base.removeprefix(WHITEOUT))], check=True)
    subprocess.run(["tar", "-xpf", tar, "-C", folder, "--exclude=.wh.*", "--numeric-owner", "--overwrite"], check=True)


@pytest.mark.data
def test_a_real_image_with_whiteouts_merges_to_what_tar_unpacks(tmp_path):
    require_root()
    archive = data_path("images/ubi8-8.6-x86_64-trimmed.docker.tar.gz")
    (tmp_path / "image").mkdir()
    (tmp_path / "root").mkdir()
    subprocess.run(["tar", "-xzf", archive, "-C", tmp_path / "image"], check=True)
    config = json.loads((tmp_path / "image" / "manifest.json").read_text())[0]
    indexes = []
    for name in config["Layers"]:
        layer = tmp_path / "image" / name
        indexes.append(scan(layer.read_bytes()))
        apply_layer(layer, tmp_path / "root")
    found = facts_of(RootFS(indexes, lambda _: b""))
    assert sum(entry.kind is Kind.WHITEOUT for entry in indexes[1].entries) > 0
    assert indexes[1].opaque
    assert found == facts_on_disk(tmp_path / "root")


LAYERS: tuple[tuple[bytes, ...], ...] = (
    # a symlinked directory below which the next layer has entries
    (tree("d usr", "d usr/lib", "f usr/lib/a 1", "l lib usr/lib"), tree("d lib 750", "f lib/b 2")),
    # a symlink and entries below it in one layer
    (tree("d usr", "l lib usr", "f lib/a 1"), tree("d usr", "l up ../../usr", "f up/b 2", "l abs /usr", "f abs/c 3")),
    # whiteouts before and after what replaces them; opaque directories
    (
        tree("d a", "f a/x 1", "f a/y 1", "d b", "d b/s", "f b/s/z 1", "f c 1", "d e", "f e/f 1"),
        tree("d a", "f a/.wh.x", "f a/y 22", "d b", "f b/new 2", "f b/.wh..wh..opq", "f .wh.c", "f .wh.e", "f g 1"),
    ),
    # files, directories and symlinks in each other's place; metadata of directories
    (
        tree("d a", "f a/x 1", "f b 1", "l c b", "d t 1777", "f t/q 1"),
        tree("f a 2", "d b 700", "f b/y 2", "d c", "f c/z 3", "d t 755"),
        tree("d a 711", "f a/again 3", "l b c"),
    ),
    # hard links, also one whose name the next layer replaces; devices, fifos, attributes
    (
        tree("d bin", "f bin/one body", "h bin/two bin/one", "h three bin/two", "c null"),
        tree("d bin", "f bin/one other", "f bin/.wh.two"),
    ),
    (pax({"SCHILY.xattr.user.a": b"b"}) + member("x", b"1") + member("fifo", flag=b"6") + END, tree("f y 1")),
)


def oci_layout(folder: Path, layers: tuple[bytes, ...]) -> None:
    """Write an OCI image of these layers."""
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def put(raw: bytes, media_type: str) -> dict[str, object]:
        digest = Digest.of(raw)
        (blobs / digest.hex).write_bytes(raw)
        return {"mediaType": media_type, "digest": str(digest), "size": len(raw)}

    image = "application/vnd.oci.image"
    diff_ids = [str(Digest.of(raw)) for raw in layers]
    config = {"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    manifest = {
        "schemaVersion": 2,
        "config": put(json.dumps(config).encode(), f"{image}.config.v1+json"),
        "layers": [put(gzip.compress(raw, mtime=0), f"{image}.layer.v1.tar+gzip") for raw in layers],
    }
    top = {"schemaVersion": 2, "manifests": [put(json.dumps(manifest).encode(), f"{image}.manifest.v1+json")]}
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (folder / "index.json").write_text(json.dumps(top))


@pytest.mark.interop
def test_layers_merge_as_podman_mounts_them(tmp_path):
    require_root()
    program = require_tool("podman")
    store = Path(tempfile.mkdtemp(prefix="adm", dir="/tmp"))  # podman takes no run folder over 50 characters
    podman = [program, "--root", f"{store}/s", "--runroot", f"{store}/r", "--storage-driver", "overlay"]
    try:
        _judge_all(podman, tmp_path)
    finally:
        subprocess.run(["umount", f"{store}/s/overlay"], capture_output=True, check=False)
        shutil.rmtree(store, ignore_errors=True)


def _judge_all(podman: list[str], tmp_path: Path) -> None:
    for number, layers in enumerate(LAYERS):
        oci_layout(tmp_path / f"image{number}", layers)
        pulled = subprocess.run(
            [*podman, "pull", "-q", f"oci:{tmp_path}/image{number}"], capture_output=True, check=True, text=True
        )
        name = pulled.stdout.strip()
        try:
            mount = subprocess.run([*podman, "image", "mount", name], capture_output=True, check=True, text=True)
            judged = facts_on_disk(Path(mount.stdout.strip()))
        finally:
            subprocess.run([*podman, "image", "unmount", "-f", name], capture_output=True, check=False)
        assert facts_of(RootFS([scan(raw) for raw in layers], lambda _: b"")) == judged
