import json

import pytest

from proxy.engine.image import MARKER, add_layer, assemble_index, has_patch_layer, parse_config
from proxy.engine.layer import WrittenLayer
from proxy.errors import MalformedInput, TrustFailure
from proxy.oci.digest import Digest
from proxy.oci.manifest import (
    DOCKER_CONFIG,
    DOCKER_INDEX,
    DOCKER_LAYER,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    Descriptor,
    Index,
    Manifest,
    parse_manifest,
)

LAYER = WrittenLayer(Digest.of(b"layer"), Digest.of(b"tar"), 1234, f"{OCI_LAYER}+gzip")
CONFIG = {
    "created": "2024-01-01T00:00:00Z",
    "x-unknown": {"z": 1, "a": [None, True, 1.5]},
    "architecture": "amd64",
    "variant": "v2",
    "os": "linux",
    "config": {
        "User": "65532",
        "Env": ["PATH=/bin", "Q=<&>é"],
        "Entrypoint": ["/app"],
        "Labels": {"b": "1", "a": "2"},
        "ExposedPorts": {"80/tcp": {}},
    },
    "rootfs": {"type": "layers", "diff_ids": [str(Digest.of(b"one")), str(Digest.of(b"two"))]},
    "history": [
        {"created": "2023-01-01T00:00:00Z", "created_by": "ADD one"},
        {"created": "2023-02-02T00:00:00Z", "created_by": "ENV", "empty_layer": True},
        {"created": "2023-03-03T00:00:00Z", "created_by": "RUN two"},
    ],
}
NAMES = {"org.opencontainers.image.base.name": "r.example/a:1", "org.opencontainers.image.base.digest": "sha256:0"}


def image(config=CONFIG, *, docker: bool = False, layers: int = 2, **more) -> tuple[Manifest, bytes]:
    raw = json.dumps(config).encode()
    kind = DOCKER_LAYER + ".gzip" if docker else f"{OCI_LAYER}+gzip"
    document = {
        "schemaVersion": 2,
        "mediaType": DOCKER_MANIFEST if docker else OCI_MANIFEST,
        "config": {
            "mediaType": DOCKER_CONFIG if docker else OCI_CONFIG,
            "size": len(raw),
            "digest": str(Digest.of(raw)),
            "data": "b2xk",
        },
        "layers": [
            {
                "mediaType": kind,
                "size": 5,
                "digest": str(Digest.of(b"%d" % n)),
                "annotations": {"containerd.io/snapshot/stargz/toc.digest": "sha256:x"},
            }
            for n in range(layers)
        ],
        **more,
    }
    made = parse_manifest(json.dumps(document, indent=3).encode(), document["mediaType"])
    assert isinstance(made, Manifest)
    return made, raw


def add(manifest: Manifest, raw: bytes):
    return add_layer(manifest, raw, LAYER, annotations=NAMES, created_by="admend")


def test_exactly_one_layer_diff_id_and_history_entry_are_added_and_nothing_else():
    manifest, raw = image()
    patched = add(manifest, raw)
    config = json.loads(patched.config_raw)
    assert list(config) == list(CONFIG)
    assert config["rootfs"]["diff_ids"].pop() == str(LAYER.diff_id)
    assert config["history"].pop() == {"created": "2023-03-03T00:00:00Z", "created_by": "admend", "comment": MARKER}
    assert config == CONFIG
    assert json.dumps(config) == json.dumps(CONFIG)
    assert patched.manifest.layers[:2] == manifest.layers
    assert patched.manifest.layers[2] == Descriptor(LAYER.media_type, LAYER.digest, LAYER.size)
    assert patched.manifest.config.digest == Digest.of(patched.config_raw)
    assert patched.manifest.config.size == len(patched.config_raw)
    assert "data" not in patched.manifest.config.extra
    assert patched.manifest.annotations == NAMES
    assert patched.manifest.media_type == OCI_MANIFEST


def test_the_same_input_gives_the_same_bytes():
    assert add(*image()) == add(*image())


def test_an_oci_manifest_without_a_media_type_stays_without_one():
    manifest, raw = image()
    document = json.loads(manifest.raw)
    del document["mediaType"]
    bare = parse_manifest(json.dumps(document).encode(), OCI_MANIFEST)
    assert "mediaType" not in json.loads(add(bare, raw).manifest.raw)


def test_a_docker_image_stays_docker_and_gets_no_annotations():
    patched = add(*image(docker=True))
    document = json.loads(patched.manifest.raw)
    assert document["mediaType"] == DOCKER_MANIFEST
    assert document["config"]["mediaType"] == DOCKER_CONFIG
    assert "annotations" not in document
    assert json.loads(patched.config_raw)["config"] == CONFIG["config"]


def test_lazy_pulling_annotations_and_the_subject_go_and_others_stay():
    subject = {"mediaType": OCI_MANIFEST, "digest": str(Digest.of(b"s")), "size": 1}
    old = {"com.amazon.soci.index-digest": "sha256:1", "containerd.io/snapshot/nydus-bootstrap": "true", "mine": "kept"}
    document = json.loads(add(*image(annotations=old, subject=subject, **{"x-more": 1})).manifest.raw)
    assert document["annotations"] == {"mine": "kept", **NAMES}
    assert "subject" not in document
    assert document["x-more"] == 1
    assert "annotations" in document["layers"][0]  # an eStargz layer is still what its own annotation says


def test_without_a_history_one_entry_is_written_with_the_config_date():
    config = {key: value for key, value in CONFIG.items() if key != "history"}
    assert json.loads(add(*image(config)).config_raw)["history"] == [
        {"created": "2024-01-01T00:00:00Z", "created_by": "admend", "comment": MARKER}
    ]
    del config["created"]
    assert json.loads(add(*image(config)).config_raw)["history"] == [{"created_by": "admend", "comment": MARKER}]


def test_a_patched_image_is_known_and_not_patched_again():
    manifest, raw = image()
    patched = add(manifest, raw)
    assert not has_patch_layer(parse_config(raw))
    assert has_patch_layer(parse_config(patched.config_raw))
    with pytest.raises(MalformedInput, match="already has a patch layer"):
        add(patched.manifest, patched.config_raw)


def test_counts_that_do_not_fit_are_refused():
    with pytest.raises(MalformedInput, match="3 layers, but 2 diff_ids"):
        add(*image(layers=3))
    with pytest.raises(MalformedInput, match="a history of 2 layers, but 1 diff_ids"):
        add(*image({**CONFIG, "rootfs": {"type": "layers", "diff_ids": [str(Digest.of(b"one"))]}}, layers=1))


def test_a_config_that_the_manifest_does_not_name_is_refused():
    manifest, raw = image()
    with pytest.raises(TrustFailure, match="another digest"):
        add(manifest, raw + b" ")


def test_a_config_is_parsed():
    config = parse_config(json.dumps({**CONFIG, "os": "windows", "os.version": "10.0.1"}).encode())
    assert (config.os, config.os_version, config.architecture, config.variant) == ("windows", "10.0.1", "amd64", "v2")
    assert config.diff_ids == (Digest.of(b"one"), Digest.of(b"two"))
    assert (config.created, config.history) == ("2024-01-01T00:00:00Z", 3)
    assert parse_config(json.dumps({**CONFIG, "history": None, "created": None}).encode()).history == 0


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"{}",
        b'{"os":"linux","architecture":"amd64"}',
        b'{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":["sha256:xyz"]}}',
        b'{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":[3]}}',
        b'{"os":"linux","architecture":"amd64","rootfs":{"type":"other","diff_ids":[]}}',
        b'{"os":"","architecture":"amd64","rootfs":{"type":"layers"}}',
        b'{"os":"linux","rootfs":{"type":"layers"}}',
        b"[" * 100_000,
        b'{"os":"linux","architecture":"amd64","rootfs":{"type":"layers"},"x":' + b"[" * 100_000,
        b" " * (9 << 20),
    ],
)
def test_bad_configs_are_refused(raw):
    with pytest.raises(MalformedInput):
        parse_config(raw)


@pytest.mark.parametrize("odd", ['"\\ud800"', "1e400", "NaN", "0.10", '{"a":1,"a":2}', "1" * 5000])
def test_json_that_cannot_be_written_back_is_refused(odd):
    manifest, raw = image()
    odd_raw = raw[:-1] + f', "odd": {odd}}}'.encode()
    document = json.loads(manifest.raw)
    document["config"]["digest"] = str(Digest.of(odd_raw))
    renamed = parse_manifest(json.dumps(document).encode(), OCI_MANIFEST)
    with pytest.raises(MalformedInput):
        add(renamed, odd_raw)


def digest(name: str) -> Digest:
    return Digest.of(name.encode())


def index(*, docker: bool = False, **more) -> Index:
    def entry(name: str, arch: str, **extra):
        kind = DOCKER_MANIFEST if docker else OCI_MANIFEST
        platform = {"os": "linux", "architecture": arch}
        return {"mediaType": kind, "size": 9, "digest": str(digest(name)), "platform": platform, **extra}

    def attestation(name: str, subject: str):
        about = {
            "vnd.docker.reference.type": "attestation-manifest",
            "vnd.docker.reference.digest": str(digest(subject)),
        }
        return entry(name, "unknown", annotations=about)

    document = {
        "manifests": [
            entry("amd64", "amd64", annotations={"mine": "1", "com.amazon.soci.index-digest": "x"}, **{"x-more": 7}),
            attestation("att-amd64", "amd64"),
            entry("arm64", "arm64"),
            attestation("att-arm64", "arm64"),
            entry("s390x", "s390x"),
            attestation("att-s390x", "s390x"),
        ],
        "mediaType": DOCKER_INDEX if docker else OCI_INDEX,
        "schemaVersion": 2,
        **more,
    }
    made = parse_manifest(json.dumps(document).encode(), document["mediaType"])
    assert isinstance(made, Index)
    return made


@pytest.mark.parametrize("docker", [False, True])
def test_an_index_holds_exactly_the_platforms_asked_for(docker):
    new = Descriptor(OCI_MANIFEST, digest("new"), 77, annotations={"other": "2"})
    subject = {"mediaType": OCI_MANIFEST, "digest": str(digest("s")), "size": 1}
    old = index(docker=docker, subject=subject)
    made = assemble_index(old, {digest("amd64"): new}, {digest("arm64"), digest("amd64")})
    assert [item.digest for item in made.manifests] == [digest("new"), digest("arm64")]
    first = made.manifests[0]
    assert (first.media_type, first.size, first.platform.architecture) == (OCI_MANIFEST, 77, "amd64")
    assert (first.annotations, first.extra) == ({"mine": "1"}, {"x-more": 7})
    assert made.media_type == old.media_type
    assert list(json.loads(made.raw)) == ["manifests", "mediaType", "schemaVersion"]
    assert made.manifests[1:] == old.manifests[2:3]


def test_a_digest_that_the_index_does_not_have_is_refused():
    with pytest.raises(MalformedInput, match="no manifest of that digest"):
        assemble_index(index(), {}, {digest("riscv64")})
