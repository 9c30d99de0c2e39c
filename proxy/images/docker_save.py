"""An image in the archive that `docker save` writes, as a Docker schema 2 manifest.

Owns the conversion: such an archive has no manifest and no layer digests, so they are computed, once, from the
members that its manifest.json names. Layers are kept as they are (mostly uncompressed).
Format: https://github.com/moby/docker-image-spec/blob/v1.3.1/spec.md#combined-image-json--filesystem-changeset-format
"""

import asyncio
import hashlib
import posixpath
from collections.abc import AsyncGenerator

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from proxy.errors import MalformedInput
from proxy.images.files import ImageFiles, read_small
from proxy.images.layout import PIECE, stream_file
from proxy.oci.digest import Digest
from proxy.oci.manifest import (
    DOCKER_CONFIG,
    DOCKER_LAYER,
    DOCKER_MANIFEST,
    MAX_MANIFEST,
    OCI_LAYER,
    Descriptor,
    Index,
    Manifest,
    parse_manifest,
    render_json,
)
from proxy.oci.reference import ImageRef

MAX_CONFIG = 8 << 20  # bytes; containerd reads at most as much
MAX_LAYERS = 4096
_MAGIC = 4


class _Saved(BaseModel):
    """One image of manifest.json."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    config: str = Field(alias="Config", max_length=4096)
    layers: tuple[str, ...] = Field(alias="Layers", max_length=MAX_LAYERS)
    names: tuple[str, ...] | None = Field(default=None, alias="RepoTags", max_length=MAX_LAYERS)


_SAVED = TypeAdapter(tuple[_Saved, ...])


class SavedImage:
    """One image of a docker-save archive; `name` is one of its RepoTags in full, or "" for the only image."""

    place, private = "", False  # an image on this machine

    def __init__(self, files: ImageFiles, name: str = "") -> None:
        self._files, self._name = files, name
        self._manifest: Manifest | None = None
        self._members: dict[Digest, str] = {}
        self._lock = asyncio.Lock()

    async def get_manifest(self, digest: Digest | None = None) -> Manifest | Index:
        """Return the image's manifest, computed from the archive on first call."""
        async with self._lock:
            if self._manifest is None:
                self._manifest = await asyncio.to_thread(self._convert)
        if digest is not None and digest != self._manifest.digest:
            raise MalformedInput(f"holds no manifest {digest}", file=self._files.where)
        return self._manifest

    def stream_blob(self, descriptor: Descriptor) -> AsyncGenerator[bytes, None]:
        """Yield a blob's bytes, checked; the manifest must have been asked for."""
        name = self._members.get(descriptor.digest)
        if name is None:
            raise MalformedInput(f"holds no blob {descriptor.digest}", file=self._files.where)
        return stream_file(lambda: self._files.open(name), descriptor, self._files.where)

    async def close(self) -> None:
        """Let go of the files."""
        self._files.close()

    def _convert(self) -> Manifest:
        saved = self._choose()
        config_name = posixpath.normpath(saved.config)
        config = read_small(self._files, config_name, MAX_CONFIG)
        config_digest = Digest.of(config)
        self._members[config_digest] = config_name
        layers = [self._describe(posixpath.normpath(name)) for name in saved.layers]
        raw = render_json(
            {
                "schemaVersion": 2,
                "mediaType": DOCKER_MANIFEST,
                "config": Descriptor(DOCKER_CONFIG, config_digest, len(config)).to_json(),
                "layers": [layer.to_json() for layer in layers],
            }
        )
        manifest = parse_manifest(raw, DOCKER_MANIFEST, where=self._files.where)
        if not isinstance(manifest, Manifest):
            raise MalformedInput("is no image", file=self._files.where)
        return manifest

    def _choose(self) -> _Saved:
        where = f"{self._files.where}: manifest.json"
        try:
            images = _SAVED.validate_json(read_small(self._files, "manifest.json", MAX_MANIFEST))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(str(part) for part in first["loc"]) or "document"
            raise MalformedInput(f"not what docker save writes: {place}: {first['msg']}", file=where) from error
        found = [image for image in images if not self._name or self._name in _full_names(image)]
        if len(found) == 1:
            return found[0]
        known = ", ".join(name for image in images[:20] for name in _full_names(image)) or "none"
        problem = "holds several images; add :NAME to say which" if found else f"holds no image {self._name}".rstrip()
        raise MalformedInput(problem, file=where, text=f"names: {known}")

    def _describe(self, name: str) -> Descriptor:
        checksum, size, magic = hashlib.sha256(), 0, b""
        with self._files.open(name) as stream:
            while piece := stream.read(PIECE):
                magic = magic or piece[:_MAGIC]
                checksum.update(piece)
                size += len(piece)
        digest = Digest("sha256", checksum.hexdigest())
        self._members[digest] = name
        media_type = DOCKER_LAYER
        if magic.startswith(b"\x1f\x8b"):
            media_type = f"{DOCKER_LAYER}.gzip"
        elif magic == b"\x28\xb5\x2f\xfd":
            media_type = f"{OCI_LAYER}+zstd"  # Docker's own types have none for it
        return Descriptor(media_type, digest, size)


def _full_names(image: _Saved) -> list[str]:
    names = []
    for name in image.names or ():
        try:
            names.append(str(ImageRef.parse(name)))
        except MalformedInput:
            continue
    return names
