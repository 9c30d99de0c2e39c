"""Image manifests and indexes, of the OCI and the Docker media types.

Owns the values and their parsing. A parsed manifest keeps its raw bytes, since writing JSON again would change its
digest. Refuses schema 1, nested descriptors without a digest or size, and documents over `MAX_MANIFEST`.
Specifications: https://github.com/opencontainers/image-spec/blob/v1.1.1/manifest.md and image-index.md,
https://distribution.github.io/distribution/spec/manifest-v2-2/
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from proxy.errors import MalformedInput, Unsupported
from proxy.oci.digest import Digest

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_EMPTY = "application/vnd.oci.empty.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
MANIFEST_TYPES = (OCI_MANIFEST, DOCKER_MANIFEST)
INDEX_TYPES = (OCI_INDEX, DOCKER_INDEX)
ACCEPT = ", ".join((*MANIFEST_TYPES, *INDEX_TYPES))

_ARCHITECTURES = {
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "aarch64": ("arm64", ""),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
    "i386": ("386", ""),
}
_UNTYPED = frozenset({"application/json", "application/octet-stream", "text/plain"})  # what plain file servers say
_SCHEMA = 2

MAX_MANIFEST = 4 << 20  # the limit that the distribution specification lets a registry set


@dataclass(frozen=True, slots=True)
class Platform:
    """`os/architecture[/variant]`, for instance `linux/arm64/v8`."""

    os: str
    architecture: str
    variant: str = ""
    os_version: str = ""

    @classmethod
    def parse(cls, text: str) -> "Platform":
        """Parse `os/architecture[/variant]`; raises MalformedInput otherwise."""
        parts = text.split("/")
        if len(parts) not in {2, 3} or not all(parts):
            raise MalformedInput("a platform is written os/architecture or os/architecture/variant", text=text)
        return cls(*parts).normalized()

    def normalized(self) -> "Platform":
        """Return the form that containerd compares: `arm64/v8` is `arm64`, `x86_64` is `amd64`, `armhf` is `arm/v7`."""
        architecture, implied = _ARCHITECTURES.get(self.architecture, (self.architecture, ""))
        variant = self.variant or implied
        if architecture in {"arm", "arm64"} and variant.isdecimal():
            variant = f"v{variant}"
        if (architecture, variant) in {("arm64", "v8"), ("amd64", "v1")}:
            variant = ""
        if architecture == "arm" and not variant:
            variant = "v7"
        return Platform(self.os, architecture, variant, self.os_version)

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


@dataclass(frozen=True, slots=True)
class Descriptor:
    """Points at content: media type, digest, size in bytes. `extra` keeps every other field as it came.

    Under `platform`, `extra` holds what the platform says beyond `Platform` (`os.features`).
    """

    media_type: str
    digest: Digest
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict)
    platform: Platform | None = None
    urls: tuple[str, ...] = ()
    artifact_type: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the descriptor as the JSON object of the specification."""
        out: dict[str, Any] = {"mediaType": self.media_type, "digest": str(self.digest), "size": self.size}
        if self.platform is not None:
            rest = self.extra.get("platform", {})
            out["platform"] = {**rest, "architecture": self.platform.architecture, "os": self.platform.os}
            if self.platform.variant:
                out["platform"]["variant"] = self.platform.variant
            if self.platform.os_version:
                out["platform"]["os.version"] = self.platform.os_version
        if self.urls:
            out["urls"] = list(self.urls)
        if self.annotations:
            out["annotations"] = dict(self.annotations)
        if self.artifact_type:
            out["artifactType"] = self.artifact_type
        return {**self.extra, **out}


@dataclass(frozen=True, slots=True)
class Manifest:
    """An image manifest, with the raw bytes that give its digest."""

    raw: bytes
    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    subject: Descriptor | None = None
    artifact_type: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> Digest:
        """The SHA-256 digest of the raw bytes."""
        return Digest.of(self.raw)

    @property
    def descriptor(self) -> Descriptor:
        """A descriptor of this manifest, without a platform."""
        return Descriptor(self.media_type, self.digest, len(self.raw))


@dataclass(frozen=True, slots=True)
class Index:
    """An image index (manifest list), with the raw bytes that give its digest."""

    raw: bytes
    media_type: str
    manifests: tuple[Descriptor, ...]
    subject: Descriptor | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)
    artifact_type: str = ""

    @property
    def digest(self) -> Digest:
        """The SHA-256 digest of the raw bytes."""
        return Digest.of(self.raw)

    @property
    def descriptor(self) -> Descriptor:
        """A descriptor of this index."""
        return Descriptor(self.media_type, self.digest, len(self.raw))


class _Wire(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    @model_validator(mode="after")
    def _refuse_lookalikes(self) -> Self:
        """Refuse a known name in other letter case: readers written in Go take it for the known one."""
        known = {(info.alias or name).lower() for name, info in type(self).model_fields.items()}
        for name in self.model_extra or {}:
            if name.lower() in known:
                raise ValueError(f"the field {name[:40]!r} differs from a known one in its letter case only")
        return self


def _or_empty(value: Any) -> Any:
    """Take null for an empty list, which is how Go writes one."""
    return [] if value is None else value


class _WirePlatform(_Wire):
    architecture: str = Field(max_length=64)
    os: str = Field(max_length=64)
    variant: str = Field(default="", max_length=64)
    os_version: str = Field(default="", alias="os.version", max_length=128)

    def value(self) -> Platform:
        return Platform(self.os, self.architecture, self.variant, self.os_version)


class _WireDescriptor(_Wire):
    media_type: str = Field(alias="mediaType", max_length=255)
    digest: str
    size: int = Field(ge=0)
    annotations: dict[str, str] | None = None
    platform: _WirePlatform | None = None
    urls: list[str] | None = None
    artifact_type: str = Field(default="", alias="artifactType")

    def value(self) -> Descriptor:
        platform, extra = self.platform, dict(self.model_extra or {})
        if platform is not None and platform.model_extra:
            extra["platform"] = platform.model_extra
        return Descriptor(
            media_type=self.media_type,
            digest=Digest.parse(self.digest),
            size=self.size,
            annotations=self.annotations or {},
            platform=platform.value() if platform else None,
            urls=tuple(self.urls or ()),
            artifact_type=self.artifact_type,
            extra=extra,
        )


class _WireDocument(_Wire):
    schema_version: int = Field(alias="schemaVersion")
    media_type: str = Field(default="", alias="mediaType")
    config: _WireDescriptor | None = None
    layers: Annotated[list[_WireDescriptor] | None, BeforeValidator(_or_empty)] = Field(default=None, max_length=4096)
    manifests: Annotated[list[_WireDescriptor] | None, BeforeValidator(_or_empty)] = Field(
        default=None, max_length=4096
    )
    subject: _WireDescriptor | None = None
    artifact_type: str = Field(default="", alias="artifactType")
    annotations: dict[str, str] | None = None


def parse_manifest(raw: bytes, media_type: str, *, where: str = "manifest") -> Manifest | Index:
    """Parse a manifest or an index.

    Args:
        raw: the document's bytes.
        media_type: the Content-Type that came with it; empty when unknown (then the document must say).
        where: the document's name in error messages.

    Raises:
        MalformedInput: the JSON, its media type or a descriptor is wrong.
        Unsupported: a schema 1 manifest or a media type that is no image.
    """
    if len(raw) > MAX_MANIFEST:
        raise MalformedInput(f"a manifest has {MAX_MANIFEST} bytes at the most, this one has {len(raw)}", file=where)
    try:
        document = _WireDocument.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise MalformedInput(f"not an image manifest: {place or 'document'}: {first['msg']}", file=where) from error
    media_type = media_type.split(";", maxsplit=1)[0].strip()
    media_type = "" if media_type in _UNTYPED else media_type
    if document.schema_version == 1:
        raise Unsupported(f"{where}: a schema 1 manifest; push the image again with a client of this decade")
    if document.schema_version != _SCHEMA:
        raise MalformedInput(f"has schemaVersion {document.schema_version}, not {_SCHEMA}", file=where)
    declared = document.media_type or media_type
    if media_type and document.media_type and media_type != document.media_type:
        raise MalformedInput(f"served as {media_type} but says it is {document.media_type}", file=where)
    subject = document.subject.value() if document.subject else None
    annotations = document.annotations or {}
    if document.manifests is not None and document.layers is None and document.config is None:
        kind = declared or OCI_INDEX
        if kind not in INDEX_TYPES:
            raise Unsupported(f"{where}: media type {kind} is not an image index")
        entries = tuple(entry.value() for entry in document.manifests)
        return Index(raw, kind, entries, subject, annotations, document.artifact_type)
    if document.config is None or document.layers is None or document.manifests is not None:
        raise MalformedInput("has neither a config with layers nor a list of manifests", file=where)
    kind = declared or OCI_MANIFEST
    if kind not in MANIFEST_TYPES:
        raise Unsupported(f"{where}: media type {kind} is not an image manifest")
    layers = tuple(layer.value() for layer in document.layers)
    return Manifest(raw, kind, document.config.value(), layers, subject, document.artifact_type, annotations)


def render_json(document: Mapping[str, Any]) -> bytes:
    """Render a document the one way that admend writes JSON into content-addressed places: compact, keys in order."""
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
