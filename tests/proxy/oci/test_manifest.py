"""Manifests and indexes of both families of media types."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import MalformedInput, Unsupported
from proxy.oci.digest import Digest
from proxy.oci.manifest import (
    DOCKER_INDEX,
    DOCKER_MANIFEST,
    MAX_MANIFEST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    Descriptor,
    Index,
    Manifest,
    Platform,
    parse_manifest,
    render_json,
)

DIGEST = str(Digest.of(b"x"))
CONFIG = {"mediaType": OCI_CONFIG, "digest": DIGEST, "size": 1}
LAYER = {"mediaType": OCI_LAYER, "digest": DIGEST, "size": 1}
MANIFEST: dict[str, Any] = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": CONFIG, "layers": [LAYER]}
INDEX: dict[str, Any] = {
    "schemaVersion": 2,
    "mediaType": OCI_INDEX,
    "manifests": [
        {
            "mediaType": OCI_MANIFEST,
            "digest": DIGEST,
            "size": 1,
            "platform": {"os": "windows", "architecture": "amd64", "os.version": "10.0", "os.features": ["win32k"]},
        }
    ],
}


def parse(document: Any, media_type: str = "") -> Manifest | Index:
    return parse_manifest(json.dumps(document).encode(), media_type)


@pytest.mark.parametrize("kind", [OCI_MANIFEST, DOCKER_MANIFEST])
def test_a_manifest_keeps_its_raw_bytes_and_their_digest(kind: str) -> None:
    raw = json.dumps({**MANIFEST, "mediaType": kind}, indent=3).encode() + b"\n"
    manifest = parse_manifest(raw, kind)
    assert isinstance(manifest, Manifest)
    assert (manifest.raw, manifest.digest, manifest.media_type) == (raw, Digest.of(raw), kind)
    assert manifest.descriptor == Descriptor(kind, Digest.of(raw), len(raw))


@pytest.mark.parametrize("kind", [OCI_INDEX, DOCKER_INDEX])
def test_an_index_is_recognized_in_both_families(kind: str) -> None:
    index = parse({**INDEX, "mediaType": kind}, kind)
    assert isinstance(index, Index)
    assert index.media_type == kind
    assert index.manifests[0].platform == Platform("windows", "amd64", "", "10.0")


def test_unknown_fields_of_descriptors_and_platforms_survive() -> None:
    entry = {**INDEX["manifests"][0], "x-vendor": {"a": 1}}
    index = parse({**INDEX, "manifests": [entry]})
    assert isinstance(index, Index)
    assert index.manifests[0].to_json() == entry


def test_a_content_type_with_parameters_is_understood() -> None:
    assert isinstance(parse(MANIFEST, f"{OCI_MANIFEST}; charset=utf-8"), Manifest)


def test_a_content_type_that_says_nothing_is_passed_over() -> None:
    assert isinstance(parse(MANIFEST, "application/json"), Manifest)


def test_without_any_media_type_the_shape_decides() -> None:
    bare = {key: value for key, value in MANIFEST.items() if key != "mediaType"}
    assert parse(bare).media_type == OCI_MANIFEST
    assert parse({"schemaVersion": 2, "manifests": []}).media_type == OCI_INDEX


def test_null_lists_are_empty_ones_as_go_writes_them() -> None:
    index = parse({**INDEX, "manifests": None})
    assert isinstance(index, Index)
    assert index.manifests == ()


@pytest.mark.parametrize(
    ("document", "media_type", "message"),
    [
        ([], "", "not an image manifest"),
        ({}, "", "schemaVersion"),
        ({**MANIFEST, "schemaVersion": 3}, "", "schemaVersion 3"),
        ({**MANIFEST, "schemaVersion": "2"}, "", "schemaVersion"),
        (MANIFEST, OCI_INDEX, "served as"),
        ({**MANIFEST, "manifests": []}, "", "neither a config"),
        ({"schemaVersion": 2}, "", "neither a config"),
        ({**MANIFEST, "layers": [{**LAYER, "digest": "sha256:1"}]}, "", "digest"),
        ({**MANIFEST, "layers": [{**LAYER, "size": -1}]}, "", "size"),
        ({**MANIFEST, "layers": [{**LAYER, "size": "1"}]}, "", "size"),
        ({**MANIFEST, "layers": [{**LAYER, "size": 1.0}]}, "", "size"),
        ({**MANIFEST, "layers": [LAYER] * 4097}, "", "layers"),
        ({**MANIFEST, "Layers": []}, "", "letter case"),
        ({**MANIFEST, "layers": [{**LAYER, "DIGEST": DIGEST}]}, "", "letter case"),
    ],
)
def test_a_document_that_is_no_manifest_is_refused(document: Any, media_type: str, message: str) -> None:
    with pytest.raises(MalformedInput, match=message):
        parse(document, media_type)


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"schemaVersion": 2, "config": "\\ud800"}'])
def test_bytes_that_are_no_json_are_refused(raw: bytes) -> None:
    with pytest.raises(MalformedInput):
        parse_manifest(raw, OCI_MANIFEST)


def test_a_document_over_the_limit_is_refused() -> None:
    with pytest.raises(MalformedInput, match="bytes at the most"):
        parse_manifest(b" " * (MAX_MANIFEST + 1), OCI_MANIFEST)


@pytest.mark.parametrize(
    "document",
    [
        {"schemaVersion": 1, "name": "app", "fsLayers": []},
        {**MANIFEST, "mediaType": "application/vnd.example+json"},
        {**INDEX, "mediaType": "application/vnd.example+json"},
    ],
)
def test_schema_1_and_foreign_types_are_unsupported(document: Any) -> None:
    with pytest.raises(Unsupported):
        parse(document)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("linux/amd64", "linux/amd64"),
        ("linux/x86_64", "linux/amd64"),
        ("linux/amd64/v1", "linux/amd64"),
        ("linux/amd64/v3", "linux/amd64/v3"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/aarch64", "linux/arm64"),
        ("linux/arm64/8", "linux/arm64"),
        ("linux/arm", "linux/arm/v7"),
        ("linux/armhf", "linux/arm/v7"),
        ("linux/armel", "linux/arm/v6"),
        ("linux/arm/6", "linux/arm/v6"),
        ("linux/i386", "linux/386"),
    ],
)
def test_platforms_are_normalized_as_containerd_does(text: str, normal: str) -> None:
    assert str(Platform.parse(text)) == normal
    assert Platform.parse(normal) == Platform.parse(text)


@pytest.mark.parametrize("text", ["", "linux", "linux/", "/amd64", "linux/arm/v7/x", "linux//v7"])
def test_what_is_no_platform_is_refused(text: str) -> None:
    with pytest.raises(MalformedInput):
        Platform.parse(text)


text = st.text(st.characters(blacklist_categories=["Cs"]), max_size=12)
platforms = st.builds(Platform, text, text, text, text)
descriptors = st.builds(
    Descriptor,
    media_type=text,
    digest=st.builds(Digest.of, st.binary(max_size=4)),
    size=st.integers(0, 1 << 50),
    annotations=st.dictionaries(text, text, max_size=3),
    platform=st.none() | platforms,
    urls=st.lists(text, max_size=2).map(tuple),
    artifact_type=text,
    extra=st.dictionaries(text.map(lambda name: f"x-{name}"), st.integers() | text, max_size=2),
)


@given(st.lists(descriptors, max_size=4))
def test_rendered_descriptors_parse_to_themselves(entries: list[Descriptor]) -> None:
    document = {"schemaVersion": 2, "manifests": [entry.to_json() for entry in entries]}
    index = parse_manifest(render_json(document), OCI_INDEX)
    assert isinstance(index, Index)
    assert list(index.manifests) == entries


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | text,
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from([*MANIFEST, *INDEX, "digest", "size", "subject", "annotations", "platform"]),
                inner,
                max_size=5,
            )
        ),
        max_leaves=12,
    )
)
def test_any_json_parses_or_is_refused_in_words(document: Any) -> None:
    with contextlib.suppress(MalformedInput, Unsupported):
        parse(document)
