"""An image in an OCI image layout, in a folder or an archive.

Owns the choice of an image among those of index.json, and reading blobs by digest.
Specification: https://github.com/opencontainers/image-spec/blob/v1.1.1/image-layout.md
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from typing import BinaryIO

from proxy.errors import MalformedInput
from proxy.images.files import ImageFiles, read_small
from proxy.oci.digest import Digest, DigestCheck
from proxy.oci.manifest import (
    MAX_MANIFEST,
    Descriptor,
    Index,
    Manifest,
    parse_manifest,
)

REF_NAME = "org.opencontainers.image.ref.name"
PIECE = 1 << 20


class LayoutImage:
    """One image of a layout; `tag` is its name in index.json, or "" for the only one."""

    place, private = "", False  # an image on this machine

    def __init__(self, files: ImageFiles, tag: str = "") -> None:
        self._files, self._tag = files, tag

    async def get_manifest(self, digest: Digest | None = None) -> Manifest | Index:
        """Return the manifest or index with this digest, or what the tag stands for."""
        return await asyncio.to_thread(self._read_manifest, digest)

    def _read_manifest(self, digest: Digest | None) -> Manifest | Index:
        if digest is not None:
            return self._read(Descriptor("", digest, -1))
        return choose(read_index(self._files), self._tag, self._files.where, self._read)

    def _read(self, descriptor: Descriptor) -> Manifest | Index:
        where = f"{self._files.where}: {descriptor.digest}"
        raw = read_small(self._files, blob_name(descriptor.digest), MAX_MANIFEST)
        size = descriptor.size if descriptor.size >= 0 else None
        check = DigestCheck(descriptor.digest, size=size, limit=MAX_MANIFEST, where=where)
        check.update(raw)
        check.finish()
        return parse_manifest(raw, descriptor.media_type, where=where)

    def stream_blob(self, descriptor: Descriptor) -> AsyncGenerator[bytes, None]:
        """Yield a blob's bytes, checked."""
        name = blob_name(descriptor.digest)
        return stream_file(lambda: self._files.open(name), descriptor, self._files.where)

    async def close(self) -> None:
        """Let go of the files."""
        self._files.close()


def blob_name(digest: Digest) -> str:
    """Return where a layout keeps a blob."""
    return f"blobs/{digest.algorithm}/{digest.hex}"


def read_index(files: ImageFiles) -> Index:
    """Read a layout's index.json."""
    raw = read_small(files, "index.json", MAX_MANIFEST)
    where = f"{files.where}: index.json"
    index = parse_manifest(raw, "", where=where)
    if not isinstance(index, Index):
        raise MalformedInput("is not an image index", file=where)
    return index


def choose(index: Index, tag: str, where: str, read: Callable[[Descriptor], Manifest | Index]) -> Manifest | Index:
    """Return the image that a tag of index.json stands for; without a tag, the only image that there is.

    An index.json whose entries have platforms and no names is itself the index of one image.
    """
    found = [entry for entry in index.manifests if not tag or entry.annotations.get(REF_NAME) == tag]
    names = sorted({entry.annotations.get(REF_NAME, "") for entry in index.manifests} - {""})
    if len(found) == 1:
        return read(found[0])
    if not tag and not names and len(found) > 1 and all(entry.platform for entry in found):
        return index
    known = ", ".join(names[:20]) or "none"
    if not found:
        raise MalformedInput(f"holds no image {tag!r}" if tag else "holds no image", file=where, text=f"tags: {known}")
    raise MalformedInput("holds several images; add :TAG to say which", file=where, text=f"tags: {known}")


async def stream_file(
    opener: Callable[[], BinaryIO], descriptor: Descriptor, where: str
) -> AsyncGenerator[bytes, None]:
    """Yield a local blob's bytes; size and digest are checked by the time the last piece was taken."""
    shown = f"{where}: {descriptor.digest}"
    check = DigestCheck(descriptor.digest, size=descriptor.size, limit=descriptor.size, where=shown)
    stream = await asyncio.to_thread(opener)
    with contextlib.closing(stream):
        while piece := await asyncio.to_thread(stream.read, PIECE):
            check.update(piece)
            yield piece
    check.finish()
