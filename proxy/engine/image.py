"""A patch layer, a config and a manifest to the patched image; patched manifests to the patched index.

Owns what changes in an image's JSON and, above all, what does not: media types, the order of keys, every field that
is not named here (entrypoint, env, user, labels, unknown ones) stay as they came. Exactly one diff_id and one history
entry are added. No date is ever now: the new history entry takes the date of the one before it, so that the digest is
the same tomorrow. Refuses a config whose counts do not fit the manifest's.

Docker's manifest format has no annotations and a config's labels must not change, so on such images the annotations
asked for are left out; what they say is in the signed payload.
Specifications: https://github.com/opencontainers/image-spec/blob/v1.1.1/config.md and annotations.md,
https://distribution.github.io/distribution/spec/manifest-v2-2/
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from proxy.engine.layer import WrittenLayer
from proxy.errors import MalformedInput, TrustFailure
from proxy.oci.digest import Digest
from proxy.oci.manifest import (
    DOCKER_INDEX,
    DOCKER_MANIFEST,
    MAX_MANIFEST,
    Descriptor,
    Index,
    Manifest,
    parse_manifest,
    render_json,
)

MAX_CONFIG = 8 << 20  # bytes; containerd reads at most as much
MARKER = "admend.dev/patch-layer"
"""The `comment` of the history entry that admend adds; `has_patch_layer` looks for it."""

_LAZY = ("containerd.io/snapshot/", "com.amazon.soci.", "io.containers.estargz.", "io.containers.zstd-chunked.")
"""Annotations by which lazy-pulling snapshotters find an index of the whole image: it no longer is that image."""


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """What admend reads of an image config. `patched` says whether admend has already added a layer to it."""

    os: str
    architecture: str
    variant: str = ""
    os_version: str = ""
    created: str = ""
    diff_ids: tuple[Digest, ...] = ()
    history: int = 0
    patched: bool = False


@dataclass(frozen=True, slots=True)
class PatchedImage:
    """A manifest and the config that it names."""

    manifest: Manifest
    config_raw: bytes


class _Wire(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class _WireRootfs(_Wire):
    type: str = "layers"
    diff_ids: list[str] | None = Field(default=None, max_length=4096)


class _WireHistory(_Wire):
    created: str | None = None
    comment: str | None = None
    empty_layer: bool | None = None


class _WireConfig(_Wire):
    architecture: str = Field(default="", max_length=64)
    os: str = Field(default="", max_length=64)
    variant: str = Field(default="", max_length=64)
    os_version: str = Field(default="", alias="os.version", max_length=128)
    created: str | None = Field(default=None, max_length=64)
    rootfs: _WireRootfs
    history: list[_WireHistory] | None = Field(default=None, max_length=16384)


def parse_config(raw: bytes, *, where: str = "image config") -> ImageConfig:
    """Parse an image config; raises MalformedInput. Whether its `os` can be patched is for the caller to say."""
    wire = _wire_config(raw, where)
    diff_ids = tuple(Digest.parse(text) for text in wire.rootfs.diff_ids or ())
    history = wire.history or []
    filled = sum(not entry.empty_layer for entry in history)
    if wire.rootfs.type != "layers":
        raise MalformedInput("its rootfs is not of the type layers", file=where, text=wire.rootfs.type)
    if filled > len(diff_ids):
        raise MalformedInput(f"a history of {filled} layers, but {len(diff_ids)} diff_ids", file=where)
    if not wire.os or not wire.architecture:
        raise MalformedInput("names no os or no architecture", file=where)
    return ImageConfig(
        os=wire.os,
        architecture=wire.architecture,
        variant=wire.variant,
        os_version=wire.os_version,
        created=wire.created or "",
        diff_ids=diff_ids,
        history=len(history),
        patched=any(entry.comment == MARKER for entry in history),
    )


def has_patch_layer(config: ImageConfig) -> bool:
    """Say whether admend has already added a layer: such an image is patched from its original instead."""
    return config.patched


def add_layer(
    manifest: Manifest,
    config_raw: bytes,
    layer: WrittenLayer,
    *,
    annotations: Mapping[str, str],
    created_by: str,
) -> PatchedImage:
    """Return the image with one more layer on top.

    Args:
        manifest: the original's.
        config_raw: the bytes of the config that the manifest names.
        layer: the patch layer.
        annotations: stable facts for the manifest (base name and digest, the upgrades); see the module's docstring
            for Docker's format.
        created_by: the text of the history entry.

    Raises:
        MalformedInput: config and manifest do not fit each other, or the image is patched already.
        TrustFailure: the config is not the one that the manifest names.
    """
    where = f"image {manifest.digest}"
    config = parse_config(config_raw, where=f"config of {where}")
    if manifest.config.digest.algorithm == "sha256" and Digest.of(config_raw) != manifest.config.digest:
        raise TrustFailure(f"{where}: the config has another digest than {manifest.config.digest}; refused")
    if len(config.diff_ids) != len(manifest.layers):
        counts = f"{len(manifest.layers)} layers, but {len(config.diff_ids)} diff_ids"
        raise MalformedInput(f"the manifest has {counts}", file=where)
    if config.patched:
        raise MalformedInput("already has a patch layer; patch the original that its base annotation names", file=where)
    patched_config = _render(_with_layer(_load(config_raw, where), layer, created_by), where)
    document = _load(manifest.raw, where)
    descriptor = document["config"]
    descriptor.update(digest=str(Digest.of(patched_config)), size=len(patched_config))
    descriptor.pop("data", None)  # an embedded copy of the old config
    document["layers"].append({"mediaType": layer.media_type, "digest": str(layer.digest), "size": layer.size})
    document.pop("subject", None)
    _annotate(document, {} if manifest.media_type == DOCKER_MANIFEST else annotations)
    patched = parse_manifest(_render(document, where), manifest.media_type, where=where)
    if not isinstance(patched, Manifest):
        raise MalformedInput("not an image manifest", file=where)
    return PatchedImage(patched, patched_config)


def without_layer(manifest: Manifest, config_raw: bytes) -> PatchedImage | None:
    """Return a patched image as it was before its patch layer, or None where that is not its topmost layer.

    Patched again, it gives what its original gives: layers, config and history are the original's; only how manifest
    and config were written as JSON, and so their digests, may differ.

    Raises:
        MalformedInput: config and manifest do not fit each other.
    """
    where = f"image {manifest.digest}"
    config = _load(config_raw, where)
    history, layers = config.get("history") or [{}], list(manifest.layers)
    parsed = parse_config(config_raw, where=f"config of {where}")
    marked = [entry for entry in history if entry.get("comment") == MARKER]
    if len(parsed.diff_ids) != len(layers) or len(marked) != 1 or history[-1] != marked[0]:
        return None
    config["rootfs"]["diff_ids"].pop()
    config["history"] = history[:-1]
    original = _render(config, where)
    document = _load(manifest.raw, where)
    document["layers"].pop()
    document["config"].update(digest=str(Digest.of(original)), size=len(original))
    found = parse_manifest(_render(document, where), manifest.media_type, where=where)
    return PatchedImage(found, original) if isinstance(found, Manifest) else None


def _with_layer(config: dict[str, Any], layer: WrittenLayer, created_by: str) -> dict[str, Any]:
    """Add the diff_id and the history entry to a config, in place."""
    rootfs = config["rootfs"]
    rootfs["diff_ids"] = [*(rootfs.get("diff_ids") or []), str(layer.diff_id)]
    history = config.get("history") or []
    dates = [entry["created"] for entry in history if entry.get("created")]
    created = dates[-1] if dates else config.get("created")
    entry = {"created": created} if created else {}
    config["history"] = [*history, {**entry, "created_by": created_by, "comment": MARKER}]
    return config


def _annotate(document: dict[str, Any], added: Mapping[str, str]) -> None:
    """Add annotations to a manifest or index, in place, and remove the lazy-pulling ones."""
    old = document.get("annotations") or {}
    kept = {key: value for key, value in old.items() if not key.startswith(_LAZY)}
    merged = {**kept, **added}
    if merged:
        document["annotations"] = merged
    else:
        document.pop("annotations", None)


def assemble_index(index: Index, replaced: Mapping[Digest, Descriptor], keep: Collection[Digest]) -> Index:
    """Return the index with exactly the platforms asked for.

    Args:
        index: the original.
        replaced: an original manifest's digest to the descriptor of its patched form; platform and annotations are
            taken from the original entry.
        keep: digests of original manifests that stay as they are; one that is also in `replaced` is replaced.

    Entries keep their order, and those that stay every byte. Attestations are no platform and are dropped: most are
    about manifests that are gone, and those of the original stay in its own index. `subject` is not kept.

    Raises:
        MalformedInput: a digest that the index does not have.
    """
    where = f"index {index.digest}"
    had = {descriptor.digest for descriptor in index.manifests}
    unknown = sorted(str(digest) for digest in {*replaced, *keep} - had)
    if unknown:
        raise MalformedInput("has no manifest of that digest", file=where, text=unknown[0])
    staying = set(keep) - set(replaced)
    document = _load(index.raw, where)
    entries = []
    for descriptor, wire in zip(index.manifests, document["manifests"], strict=True):
        if descriptor.digest in replaced:
            entries.append(_replaced(wire, replaced[descriptor.digest]))
        elif descriptor.digest in staying:
            entries.append(wire)
    document["manifests"] = entries
    document.pop("subject", None)
    if index.media_type != DOCKER_INDEX or "annotations" in document:
        _annotate(document, {})
    made = parse_manifest(_render(document, where), index.media_type, where=where)
    if not isinstance(made, Index):
        raise MalformedInput("not an image index", file=where)
    return made


def _replaced(wire: dict[str, Any], new: Descriptor) -> dict[str, Any]:
    """Return an index entry that points at the patched manifest instead, its other fields as they were."""
    entry = {**wire, "mediaType": new.media_type, "digest": str(new.digest), "size": new.size}
    entry.pop("data", None)
    entry.pop("urls", None)
    if entry.get("annotations"):
        _annotate(entry, {})
    return entry


def _wire_config(raw: bytes, where: str) -> _WireConfig:
    if len(raw) > MAX_CONFIG:
        raise MalformedInput(f"an image config has {MAX_CONFIG} bytes at the most, this one has {len(raw)}", file=where)
    try:
        return _WireConfig.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise MalformedInput(f"not an image config: {place or 'document'}: {first['msg']}", file=where) from error


def _load(raw: bytes, where: str) -> dict[str, Any]:
    """Read a JSON object to be written again: what JSON cannot give back unchanged is refused."""
    try:
        document = json.loads(raw, object_pairs_hook=_unique, parse_float=_refuse, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise MalformedInput(f"JSON that cannot be written back as it came ({error})", file=where) from error
    if not isinstance(document, dict):
        raise MalformedInput("not a JSON object", file=where)
    return document


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a key that stands twice, which readers take differently")
    return made


def _refuse(text: str) -> Any:
    number = float(text)
    if repr(number) != text:
        raise ValueError(f"the number {text}")
    return number


def _render(document: Mapping[str, Any], where: str) -> bytes:
    try:
        raw = render_json(document)
    except (UnicodeEncodeError, RecursionError) as error:
        raise MalformedInput(f"JSON that cannot be written back as it came ({error})", file=where) from error
    if len(raw) > max(MAX_CONFIG, MAX_MANIFEST):
        raise MalformedInput("the patched document is too large", file=where)
    return raw
