"""Cosign judges what admend signs, and admend what cosign signs, with docker-registry between them."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from proxy.errors import TrustFailure
from proxy.oci.digest import Digest
from proxy.oci.manifest import OCI_CONFIG, OCI_INDEX, OCI_MANIFEST, Descriptor, Manifest, parse_manifest, render_json
from proxy.trust import (
    Attachment,
    Claim,
    Signature,
    SigningKey,
    VerifyKey,
    parse_signatures,
    render_referrer,
    render_tag_manifest,
    sign_claim,
    signature_tag,
    verify_signature,
)
from tests.conftest import require_tool

pytestmark = pytest.mark.interop

MODES = ("tag", "referrer")
# With a referrer that fails, cosign 2.5 goes on to the tag, and says what it did not find there.
REFUSALS = {"tag": "no matching signatures", "referrer": "no signatures found"}
NOW = datetime.now(UTC).replace(microsecond=0)


@dataclass(frozen=True)
class Upstream:
    """A docker-registry on loopback and one repository in it."""

    host: str
    client: httpx.Client

    @property
    def repository(self) -> str:
        return f"{self.host}/team/app"

    def push(self, attachment: Attachment, tag: str) -> None:
        for digest, data in attachment.blobs.items():
            start = self.client.post("/v2/team/app/blobs/uploads/")
            place = httpx.URL(start.headers["location"]).copy_merge_params({"digest": str(digest)})
            assert self.client.put(place, content=data).status_code == 201
        self.put_manifest(attachment.manifest.raw, OCI_MANIFEST, tag)

    def put_manifest(self, raw: bytes, media_type: str, tag: str) -> None:
        answer = self.client.put(f"/v2/team/app/manifests/{tag}", content=raw, headers={"Content-Type": media_type})
        assert answer.status_code == 201, answer.text

    def get_manifest(self, tag: str) -> Manifest:
        answer = self.client.get(f"/v2/team/app/manifests/{tag}", headers={"Accept": f"{OCI_MANIFEST}, {OCI_INDEX}"})
        assert answer.status_code == 200, answer.text
        document = parse_manifest(answer.content, answer.headers["content-type"])
        if isinstance(document, Manifest):
            return document
        return self.get_manifest(str(document.manifests[-1].digest))

    def get_blob(self, descriptor: Descriptor) -> bytes:
        return self.client.get(f"/v2/team/app/blobs/{descriptor.digest}").content

    def attach(self, subject: Manifest, signatures: Sequence[Signature], mode: str) -> None:
        if mode == "tag":
            self.push(render_tag_manifest(signatures), signature_tag(subject.digest))
            return
        referrer = render_referrer(subject, signatures)
        self.push(referrer, str(referrer.manifest.digest))
        # This registry has no referrers API: clients keep the list under a tag.
        entry = replace(referrer.manifest.descriptor, artifact_type=referrer.manifest.artifact_type)
        index = render_json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry.to_json()]})
        self.put_manifest(index, OCI_INDEX, f"sha256-{subject.digest.hex}")


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstream]:
    binary = require_tool("docker-registry")
    folder = tmp_path_factory.mktemp("registry")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{probe.getsockname()[1]}"
    config = folder / "config.yml"
    config.write_text(
        f"version: 0.1\nlog: {{level: error}}\nhttp: {{addr: '{host}'}}\n"
        f"storage: {{filesystem: {{rootdirectory: '{folder}/data'}}}}\n"
    )
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen([binary, "serve", str(config)], stdout=log, stderr=log) as server,
        httpx.Client(base_url=f"http://{host}", trust_env=False) as client,
    ):
        try:
            wait_for(client)
            yield Upstream(host, client)
        finally:
            server.send_signal(signal.SIGTERM)


def wait_for(client: httpx.Client) -> None:
    for _ in range(100):
        try:
            client.get("/v2/").raise_for_status()
        except httpx.TransportError:
            time.sleep(0.05)
        else:
            return
    pytest.fail("docker-registry did not start")


def push_image(upstream: Upstream, name: str) -> Manifest:
    """Push an image without layers and return its manifest."""
    config = render_json({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}})
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": Descriptor(OCI_CONFIG, Digest.of(config), len(config)).to_json(),
        "layers": [],
        "annotations": {"name": name},
    }
    manifest = parse_manifest(render_json(document), OCI_MANIFEST)
    assert isinstance(manifest, Manifest)
    upstream.push(Attachment(manifest, {Digest.of(config): config}), name)
    return manifest


def claim_for(upstream: Upstream, image: Manifest) -> Claim:
    return Claim("docker.io/team/app", Digest.of(b"source"), upstream.repository, image.digest, "ab" * 32, NOW)


def cosign(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(cwd),
        "COSIGN_PASSWORD": "",
        "COSIGN_EXPERIMENTAL": "1",
    }
    command = [require_tool("cosign"), *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=60, check=False)


def cosign_verify(key: SigningKey, reference: str, mode: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    (cwd / "key.pub").write_bytes(key.public.render_pem())
    options = ["--experimental-oci11"] if mode == "referrer" else []
    return cosign("verify", "--insecure-ignore-tlog=true", "--key", "key.pub", *options, reference, cwd=cwd)


@pytest.mark.parametrize("mode", MODES)
def test_cosign_accepts_our_signature(upstream: Upstream, tmp_path: Path, mode: str) -> None:
    key = SigningKey.generate()
    image = push_image(upstream, f"accepted-{mode}")
    upstream.attach(image, [sign_claim(claim_for(upstream, image), key)], mode)
    result = cosign_verify(key, f"{upstream.repository}@{image.digest}", mode, tmp_path)
    assert result.returncode == 0, result.stderr
    assert "docker.io/team/app" in result.stdout


@pytest.mark.parametrize("mode", MODES)
def test_cosign_refuses_our_signature_of_another_image(upstream: Upstream, tmp_path: Path, mode: str) -> None:
    key = SigningKey.generate()
    image, other = push_image(upstream, f"this-{mode}"), push_image(upstream, f"other-{mode}")
    upstream.attach(image, [sign_claim(claim_for(upstream, other), key)], mode)
    result = cosign_verify(key, f"{upstream.repository}@{image.digest}", mode, tmp_path)
    assert result.returncode != 0
    assert REFUSALS[mode] in result.stderr


@pytest.mark.parametrize("mode", MODES)
def test_cosign_refuses_another_keys_signature(upstream: Upstream, tmp_path: Path, mode: str) -> None:
    image = push_image(upstream, f"foreign-{mode}")
    upstream.attach(image, [sign_claim(claim_for(upstream, image), SigningKey.generate())], mode)
    result = cosign_verify(SigningKey.generate(), f"{upstream.repository}@{image.digest}", mode, tmp_path)
    assert result.returncode != 0
    assert REFUSALS[mode] in result.stderr


@pytest.mark.parametrize("mode", MODES)
def test_cosigns_signature_is_read_and_verified(upstream: Upstream, tmp_path: Path, mode: str) -> None:
    assert cosign("generate-key-pair", cwd=tmp_path).returncode == 0
    image = push_image(upstream, f"reverse-{mode}")
    claim = claim_for(upstream, image)
    claims = {
        "source-repository": claim.source_repository,
        "source-digest": str(claim.source_digest),
        "policy-hash": claim.policy_hash,
        "signed-at": NOW.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    annotations = [item for name, value in claims.items() for item in ("-a", f"admend.dev/{name}={value}")]
    options = ["--registry-referrers-mode", "oci-1-1"] if mode == "referrer" else []
    reference = f"{upstream.repository}@{image.digest}"
    command = ["sign", "--yes", "--tlog-upload=false", "--key", "cosign.key", *options, *annotations, reference]
    result = cosign(*command, cwd=tmp_path)
    assert result.returncode == 0, result.stderr

    tag = signature_tag(image.digest) if mode == "tag" else f"sha256-{image.digest.hex}"
    (signature,) = parse_signatures(upstream.get_manifest(tag), upstream.get_blob)
    public = VerifyKey.parse_pem((tmp_path / "cosign.pub").read_bytes())
    assert verify_signature(signature.payload, signature.signature, [public]) == claim
    with pytest.raises(TrustFailure, match="none of the trusted keys"):
        verify_signature(signature.payload, signature.signature, [SigningKey.generate().public])
