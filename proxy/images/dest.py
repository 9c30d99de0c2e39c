"""Where an image goes: a registry, an OCI layout, or an archive.

Owns the order that keeps readers from ever seeing half an image: blobs, then manifests, then the name. An archive is
gathered in a temporary layout beside it, packed under a temporary name and renamed.
"""

import asyncio
import fcntl
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from proxy.errors import MalformedInput
from proxy.files import TEMPORARY, raise_if_full, writing
from proxy.images.files import FolderFiles
from proxy.images.layout import PIECE, REF_NAME, blob_name, read_index
from proxy.images.location import Kind, Location
from proxy.images.packing import pack_docker, pack_layout
from proxy.oci.digest import DigestCheck
from proxy.oci.manifest import OCI_INDEX, Descriptor, Index, Manifest, render_json
from proxy.oci.reference import ImageRef
from proxy.registry import Registry

OpenFile = Callable[[], BinaryIO]
LAYOUT_FILE = b'{"imageLayoutVersion":"1.0.0"}'


class ImageDest(Protocol):
    """Takes one image: all its blobs, its manifests (children before their index), and last its name."""

    async def put_blob(self, descriptor: Descriptor, open_file: OpenFile) -> None:
        """Store a blob; raises TrustFailure when the file is not what the descriptor says."""
        ...

    async def put_manifest(self, manifest: Manifest | Index) -> None:
        """Store a manifest under its digest."""
        ...

    async def tag(self, top: Manifest | Index) -> None:
        """Give the stored `top` the name of the destination: from now on it is there."""
        ...


class RegistryDest:
    """An image in a registry."""

    def __init__(self, registry: Registry, ref: ImageRef, *, mount_from: str = "") -> None:
        self._registry, self._ref, self._mount_from = registry, ref, mount_from

    async def put_blob(self, descriptor: Descriptor, open_file: OpenFile) -> None:
        """Upload a blob, unless the repository has it."""
        await self._registry.push_blob(self._ref, descriptor, open_file, mount_from=self._mount_from)

    async def put_manifest(self, manifest: Manifest | Index) -> None:
        """Upload a manifest under its digest."""
        await self._registry.push_manifest(self._ref.with_digest(manifest.digest), manifest)

    async def tag(self, top: Manifest | Index) -> None:
        """Upload `top` under the reference's tag; one that has only a digest is there already."""
        if self._ref.tag is not None:
            await self._registry.push_manifest(self._ref.with_tag(self._ref.tag), top)


class LayoutDest:
    """An image in an OCI layout on disk, beside those that are there already."""

    def __init__(self, root: Path, tag: str = "") -> None:
        self.root, self._tag = root, tag
        if root.exists() and not _may_be_layout(root):
            raise MalformedInput("is neither an OCI layout nor an empty folder; nothing was written", file=str(root))

    async def put_blob(self, descriptor: Descriptor, open_file: OpenFile) -> None:
        """Write a blob under its digest."""
        await asyncio.to_thread(self._write, descriptor, open_file)

    def _write(self, descriptor: Descriptor, open_file: OpenFile) -> None:
        path = self.root / blob_name(descriptor.digest)
        check = DigestCheck(descriptor.digest, size=descriptor.size, limit=descriptor.size, where=str(path))
        with writing(path) as out, open_file() as file:
            while piece := file.read(PIECE):
                check.update(piece)
                out.write(piece)
            check.finish()

    async def put_manifest(self, manifest: Manifest | Index) -> None:
        """Write a manifest under its digest."""
        await asyncio.to_thread(self._write_bytes, blob_name(manifest.digest), manifest.raw)

    def _write_bytes(self, name: str, data: bytes) -> None:
        with writing(self.root / name) as out:
            out.write(data)

    async def tag(self, top: Manifest | Index) -> None:
        """Enter `top` in index.json under the tag, in the place of what had it before."""
        await asyncio.to_thread(self._tag_top, top)

    def _tag_top(self, top: Manifest | Index) -> None:
        with _locked(self.root):
            self._write_bytes("oci-layout", LAYOUT_FILE)
            self._write_bytes("index.json", render_index(self._others(top), top, self._tag))

    def _others(self, top: Manifest | Index) -> list[dict[str, Any]]:
        if not (self.root / "index.json").exists():
            return []
        entries = read_index(FolderFiles(self.root)).manifests
        kept = [entry for entry in entries if entry.annotations.get(REF_NAME, "") != self._tag]
        return [entry.to_json() for entry in kept if self._tag or entry.digest != top.digest]


def _may_be_layout(root: Path) -> bool:
    """Say whether a folder is a layout, or one that another writer has just begun, or that one left unfinished."""
    if not root.is_dir():
        return False
    names = {path.name for path in root.iterdir() if not path.name.startswith(TEMPORARY)}
    return "index.json" in names or names <= {"blobs", "oci-layout"}


def render_index(others: list[dict[str, Any]], top: Manifest | Index, tag: str) -> bytes:
    """Render index.json: the other entries, and `top` under its tag."""
    entry = top.descriptor.to_json()
    if tag:
        entry["annotations"] = {REF_NAME: tag}
    return render_json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [*others, entry]})


class ArchiveDest(LayoutDest):
    """An image in an archive: gathered as a layout in a temporary folder, packed and renamed when it gets its name."""

    def __init__(self, root: Path, location: Location) -> None:
        oci = location.kind is Kind.OCI_ARCHIVE
        super().__init__(root, location.tag if oci else "")
        self._location = location

    async def tag(self, top: Manifest | Index) -> None:
        """Pack the archive and give it its name."""
        await super().tag(top)
        await asyncio.to_thread(self._pack, top)

    def _pack(self, top: Manifest | Index) -> None:
        with writing(self._location.path) as out:
            if self._location.kind is Kind.OCI_ARCHIVE:
                pack_layout(self.root, out)
            else:
                pack_docker(self.root, top, self._location.tag, out)


@contextmanager
def _staging(path: Path) -> Iterator[Path]:
    """Give a temporary folder beside an archive; it is gone afterwards."""
    if path.is_dir():
        raise MalformedInput("is a folder; name the file that the archive becomes", file=str(path))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=path.parent))
    except OSError as error:
        raise_if_full(error, path)
        raise MalformedInput(f"cannot be written: {error.strerror}", file=str(path)) from error
    try:
        yield folder / "layout"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _locked(root: Path) -> Iterator[None]:
    root.mkdir(parents=True, exist_ok=True)
    handle = os.open(root, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@asynccontextmanager
async def open_dest(location: Location, registry: Registry, *, mount_from: str = "") -> AsyncIterator[ImageDest]:
    """Open a place to write one image to; nothing is there under its name until `tag`.

    Args:
        location: where it goes; one in a registry needs a tag, or a digest that the image will have.
        registry: the client for one in a registry.
        mount_from: a repository of the same registry that has most of the blobs.
    """
    if location.kind is Kind.REGISTRY:
        if location.ref is None:
            raise MalformedInput("a registry's image needs a reference", text=str(location))
        yield RegistryDest(registry, location.ref, mount_from=mount_from)
    elif location.kind is Kind.OCI:
        yield LayoutDest(location.path, location.tag)
    else:
        with _staging(location.path) as folder:
            yield ArchiveDest(folder, location)
