"""A registry on loopback, with faults on demand.

`RegistrySimulator` is a real aiohttp server that speaks the distribution specification as far as admend asks: pulls
with ranges, tags, uploads in one piece or in chunks, mounts, deletes and referrers. It notes every request.
Specification: https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md
"""

import asyncio
import gzip
import hashlib
import io
import json
import tarfile
import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from proxy.oci.digest import Digest
from proxy.oci.manifest import (
    DOCKER_MANIFEST,
    INDEX_TYPES,
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
from tests.simulators.registry_faults import Faults, Seen
from tests.simulators.registry_gate import Gate, answer_error, answer_json

__all__ = ["Faults", "RegistrySimulator", "make_layer"]

MAX_UPLOAD = 1 << 30


def make_layer(files: Mapping[str, bytes]) -> bytes:
    """Return an uncompressed layer with these regular files, the same bytes every time."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


class RegistrySimulator:
    """The server; use as an async context manager, then `host` is `127.0.0.1:PORT`."""

    def __init__(self, faults: Faults | None = None) -> None:
        self.faults = faults or Faults()
        self.blobs: dict[str, dict[Digest, bytes]] = defaultdict(dict)
        self.manifests: dict[str, dict[Digest, tuple[bytes, str]]] = defaultdict(dict)
        self.tags: dict[str, dict[str, Digest]] = defaultdict(dict)
        self.requests: list[Seen] = []
        self.gate = Gate(lambda: self.faults)
        self.host = ""
        self._uploads: dict[str, bytearray] = {}
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=MAX_UPLOAD)
        app.router.add_route("*", "/{tail:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.host = f"127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    # Content, put there without HTTP.

    def add_blob(self, repository: str, data: bytes, media_type: str = OCI_LAYER) -> Descriptor:
        """Put a blob into a repository and return its descriptor."""
        digest = Digest.of(data)
        self.blobs[repository][digest] = data
        return Descriptor(media_type, digest, len(data))

    def add_manifest(self, repository: str, raw: bytes, media_type: str = OCI_MANIFEST, tag: str = "") -> Digest:
        """Put a manifest into a repository, under a tag if given; nothing is checked."""
        digest = Digest.of(raw)
        self.manifests[repository][digest] = (raw, media_type)
        if tag:
            self.tags[repository][tag] = digest
        return digest

    def add_image(
        self,
        repository: str,
        tag: str = "",
        layers: Sequence[bytes] = (),
        *,
        config: Mapping[str, Any] | None = None,
        docker: bool = False,
        platform: str = "linux/amd64",
    ) -> Manifest:
        """Put an image made of uncompressed layers (gzipped here) into a repository; returns its manifest."""
        os_name, architecture = platform.split("/")[:2]
        document = {
            "architecture": architecture,
            "os": os_name,
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [str(Digest.of(layer)) for layer in layers]},
            "history": [{"created_by": f"layer {number}"} for number in range(len(layers))],
            **(config or {}),
        }
        kinds = (
            (DOCKER_MANIFEST, "application/vnd.docker.container.image.v1+json")
            if docker
            else (OCI_MANIFEST, OCI_CONFIG)
        )
        layer_type = "application/vnd.docker.image.rootfs.diff.tar.gzip" if docker else f"{OCI_LAYER}+gzip"
        config_descriptor = self.add_blob(repository, render_json(document), kinds[1])
        descriptors = [self.add_blob(repository, gzip.compress(layer, 6, mtime=0), layer_type) for layer in layers]
        raw = render_json(
            {
                "schemaVersion": 2,
                "mediaType": kinds[0],
                "config": config_descriptor.to_json(),
                "layers": [descriptor.to_json() for descriptor in descriptors],
            }
        )
        self.add_manifest(repository, raw, kinds[0], tag)
        manifest = parse_manifest(raw, kinds[0])
        assert isinstance(manifest, Manifest)
        return manifest

    def add_index(self, repository: str, images: Mapping[str, Manifest], tag: str = "") -> Index:
        """Put an index of images by platform (`linux/arm64`) into a repository; returns it."""
        entries = []
        for platform, manifest in images.items():
            descriptor = manifest.descriptor
            with_platform = Descriptor(
                descriptor.media_type, descriptor.digest, descriptor.size, platform=Platform(*platform.split("/"))
            )
            entries.append(with_platform.to_json())
        raw = render_json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries})
        self.add_manifest(repository, raw, OCI_INDEX, tag)
        index = parse_manifest(raw, OCI_INDEX)
        assert isinstance(index, Index)
        return index

    def count(self, method: str = "", part: str = "") -> int:
        """Count the requests of a method whose path holds `part`."""
        return sum((not method or seen.method == method) and part in seen.path for seen in self.requests)

    # Requests.

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(Seen(request.method, request.path, request.query_string, dict(request.headers)))
        if self.faults.delay:
            await asyncio.sleep(self.faults.delay)
        failure = self._fail(request)
        if failure is not None:
            return failure
        if request.path == "/token":
            return self.gate.token(request)
        refusal = self.gate.authenticate(request)
        if refusal is not None:
            return refusal
        if request.path in {"/v2/", "/v2"}:
            return self._answer({})
        for mark, handler in (
            ("/manifests/", self._manifest),
            ("/blobs/uploads/", self._upload),
            ("/blobs/", self._blob),
            ("/tags/list", self._tags),
            ("/referrers/", self._referrers),
        ):
            if request.path.startswith("/v2/") and mark in request.path:
                repository, _, rest = request.path.removeprefix("/v2/").partition(mark)
                return await handler(request, repository, rest)
        return self._error(404, "UNSUPPORTED", "no such endpoint")

    def _fail(self, request: web.Request) -> web.Response | None:
        faults = self.faults
        if faults.refuse:
            return self._error(faults.refuse, "DENIED", "refused")
        if faults.throttle:
            faults.throttle -= 1
            answer = self._error(429, "TOOMANYREQUESTS", "slow down")
            answer.headers["Retry-After"] = faults.retry_after
            return answer
        if faults.errors:
            faults.errors -= 1
            return self._error(faults.error_status, "UNKNOWN", "out of order")
        return None

    def _answer(self, document: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
        return answer_json(self.faults, document, status, headers)

    def _error(self, status: int, code: str, message: str) -> web.Response:
        return answer_error(self.faults, status, code, message)

    # Manifests and tags.

    async def _manifest(self, request: web.Request, repository: str, selector: str) -> web.StreamResponse:
        if request.method == "PUT":
            return await self._put_manifest(request, repository, selector)
        digest = self._select(repository, selector)
        if digest is None or digest not in self.manifests[repository]:
            return self._error(404, "MANIFEST_UNKNOWN", "manifest unknown")
        if request.method == "DELETE":
            return self._delete_manifest(repository, selector, digest)
        raw, media_type = self.manifests[repository][digest]
        headers = {"Docker-Content-Digest": self.faults.header_digest or str(digest), **self.faults.headers}
        if request.method == "HEAD" and self.faults.no_head:
            return web.Response(status=405)
        if request.method == "HEAD" and self.faults.no_head_digest:
            del headers["Docker-Content-Digest"]
        if self.faults.wrong_manifest:
            raw = raw.replace(b"{", b"{ ", 1)
        if self.faults.huge_manifest:
            return await _endless(request)
        return web.Response(body=raw, content_type=media_type, headers=headers)

    def _select(self, repository: str, selector: str) -> Digest | None:
        return Digest.parse(selector) if ":" in selector else self.tags[repository].get(selector)

    async def _put_manifest(self, request: web.Request, repository: str, selector: str) -> web.Response:
        raw, media_type = await request.read(), request.headers.get("Content-Type", "")
        digest = Digest.of(raw)
        if ":" in selector and selector != str(digest):
            return self._error(400, "DIGEST_INVALID", "digest does not match")
        document = json.loads(raw)
        wanted = [document[key] for key in ("config",) if key in document] + document.get("layers", [])
        if any(Digest.parse(item["digest"]) not in self.blobs[repository] for item in wanted):
            return self._error(404, "MANIFEST_BLOB_UNKNOWN", "a blob is missing")
        children = [Digest.parse(item["digest"]) for item in document.get("manifests", [])]
        if media_type in INDEX_TYPES and any(child not in self.manifests[repository] for child in children):
            return self._error(400, "MANIFEST_INVALID", "a manifest is missing")
        self.manifests[repository][digest] = (raw, media_type)
        if ":" not in selector:
            self.tags[repository][selector] = digest
        headers = {"Docker-Content-Digest": str(digest), "Location": f"/v2/{repository}/manifests/{digest}"}
        if "subject" in document and not self.faults.no_referrers:
            headers["OCI-Subject"] = document["subject"]["digest"]
        return web.Response(status=201, headers=headers)

    def _delete_manifest(self, repository: str, selector: str, digest: Digest) -> web.Response:
        if self.faults.no_delete:
            return self._error(405, "UNSUPPORTED", "deletes are off")
        if ":" in selector:
            del self.manifests[repository][digest]
            self.tags[repository] = {tag: to for tag, to in self.tags[repository].items() if to != digest}
        else:
            del self.tags[repository][selector]
        return web.Response(status=202)

    async def _tags(self, request: web.Request, repository: str, _rest: str) -> web.Response:
        if repository not in self.tags:
            return self._error(404, "NAME_UNKNOWN", "repository unknown")
        tags = sorted(tag for tag in self.tags[repository] if tag > request.query.get("last", ""))
        number = int(request.query.get("n", "100"))
        headers = {}
        if tags[number:]:
            headers["Link"] = f'</v2/{repository}/tags/list?n={number}&last={tags[number - 1]}>; rel="next"'
        return self._answer({"name": repository, "tags": tags[:number]}, headers=headers)

    async def _referrers(self, request: web.Request, repository: str, digest: str) -> web.Response:
        if self.faults.no_referrers:
            return web.Response(status=404, text="404 page not found")
        found, wanted = [], request.query.get("artifactType", "")
        for own, (raw, media_type) in self.manifests[repository].items():
            document = json.loads(raw)
            if document.get("subject", {}).get("digest") != digest:
                continue
            kind = document.get("artifactType") or document.get("config", {}).get("mediaType", "")
            entry = {"mediaType": media_type, "digest": str(own), "size": len(raw), "artifactType": kind}
            if not wanted or kind == wanted:
                found.append({**entry, "annotations": document.get("annotations", {})})
        headers = {"OCI-Filters-Applied": "artifactType"} if wanted else {}
        body = render_json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": found})
        return web.Response(body=body, content_type=OCI_INDEX, headers=headers)

    # Blobs.

    async def _blob(self, request: web.Request, repository: str, text: str) -> web.StreamResponse:
        data = self.blobs[repository].get(Digest.parse(text))
        if data is None:
            return self._error(404, "BLOB_UNKNOWN", "blob unknown")
        if request.method == "HEAD":
            return web.Response(headers={"Content-Length": str(len(data)), "Docker-Content-Digest": text})
        if self.faults.redirect or self.faults.redirect_loop:
            base = "" if self.faults.redirect_loop else self.faults.redirect
            return web.Response(status=307, headers={"Location": f"{base}{request.path}"})
        if self.faults.wrong_blob:
            data = bytes([data[0] ^ 1]) + data[1:]
        if self.faults.short_blob:
            data = data[:-1]
        return await self._send(request, data)

    async def _send(self, request: web.Request, data: bytes) -> web.StreamResponse:
        wanted, total = request.http_range, len(data)
        start = wanted.start or 0
        partial = "Range" in request.headers and not self.faults.ignore_range
        if partial:
            data = data[wanted]
        answer = web.StreamResponse(status=206 if partial else 200, headers=dict(self.faults.headers))
        if partial:
            answer.headers["Content-Range"] = f"bytes {start}-{start + len(data) - 1}/{total}"
        answer.content_length = len(data)
        await answer.prepare(request)
        if self.faults.cuts:
            self.faults.cuts -= 1
            await answer.write(data[: max(1, len(data) // 2)])
            await asyncio.sleep(0.02)
            assert request.transport is not None
            request.transport.abort() if self.faults.cuts % 2 else request.transport.close()
            return answer
        for offset in range(0, len(data), 1 << 16):
            await answer.write(data[offset : offset + (1 << 16)])
        await answer.write_eof()
        return answer

    # Uploads.

    async def _upload(self, request: web.Request, repository: str, session: str) -> web.Response:
        if request.method == "POST":
            return self._start(request, repository)
        if session not in self._uploads:
            return self._error(404, "BLOB_UPLOAD_UNKNOWN", "upload unknown")
        body = await request.read()
        if request.method == "PATCH":
            return self._append(request, repository, session, body)
        if self.faults.only_chunks and body:
            return self._error(413, "SIZE_INVALID", "send it in chunks")
        held = self._uploads[session]
        held += body
        wanted = Digest.parse(request.query.get("digest", ""))
        if hashlib.new(wanted.algorithm, held).hexdigest() != wanted.hex:
            return self._error(400, "DIGEST_INVALID", "digest does not match")
        self.blobs[repository][wanted] = bytes(self._uploads.pop(session))
        location = f"/v2/{repository}/blobs/{wanted}"
        return web.Response(status=201, headers={"Location": location, "Docker-Content-Digest": str(wanted)})

    def _append(self, request: web.Request, repository: str, session: str, body: bytes) -> web.Response:
        held = self._uploads[session]
        if self.faults.max_chunk and len(body) > self.faults.max_chunk:
            return self._error(413, "SIZE_INVALID", "chunk too large")
        if request.headers.get("Content-Range") not in {None, f"{len(held)}-{len(held) + len(body) - 1}"}:
            return self._error(416, "BLOB_UPLOAD_INVALID", "out of order")
        held += body
        headers = {"Location": self._location(repository, session), "Range": f"0-{len(held) - 1}"}
        return web.Response(status=202, headers=headers)

    def _start(self, request: web.Request, repository: str) -> web.Response:
        mount, source = request.query.get("mount"), request.query.get("from", "")
        if mount and not self.faults.no_mount and Digest.parse(mount) in self.blobs[source]:
            self.blobs[repository][Digest.parse(mount)] = self.blobs[source][Digest.parse(mount)]
            return web.Response(status=201, headers={"Location": f"/v2/{repository}/blobs/{mount}"})
        session = uuid.uuid4().hex
        self._uploads[session] = bytearray()
        return web.Response(status=202, headers={"Location": self._location(repository, session)})

    def _location(self, repository: str, session: str) -> str:
        path = f"/v2/{repository}/blobs/uploads/{session}?state=abc%3D"
        return path if self.faults.relative_location else f"http://{self.host}{path}"


async def _endless(request: web.Request) -> web.StreamResponse:
    """Answer with spaces until the other side has had enough."""
    answer = web.StreamResponse(headers={"Content-Type": OCI_MANIFEST})
    answer.enable_chunked_encoding()
    await answer.prepare(request)
    for _ in range(1 << 12):
        await answer.write(b" " * (1 << 16))
    return answer
