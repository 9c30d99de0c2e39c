"""The /v2/ routes that pull, list and delete.

Owns their wire form. Refuses what is not a name, a tag or a digest. Files are shared by all repositories, and yet a
client reads a blob only through a repository that holds it and that it may pull: who knows a digest knows nothing.
Specification: https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md
"""

import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from aiohttp import web

from proxy.access import Caller
from proxy.errors import AdmendError
from proxy.mirror import EmbeddedMirror
from proxy.oci.digest import Digest
from proxy.oci.manifest import OCI_INDEX, Index, Manifest
from proxy.oci.reference import ImageRef
from proxy.originals import Coming
from proxy.v2_guard import CALLER, Guard, problem

MAX_PAGE = 10_000  # entries of one listing

_log = logging.getLogger(__name__)

ManifestMiss = Callable[[str, str, Caller], Awaitable[Manifest | Index | None]]
BlobMiss = Callable[[str, Digest, Caller], Awaitable[Path | Coming | None]]


@dataclass(frozen=True, slots=True)
class Hooks:
    """What is asked when the mirror does not have something; both take the repository's name in the mirror first.

    `on_manifest_miss` takes a tag or digest (pull-through: it returns the patched image's manifest), `on_blob_miss` a
    digest, and returns a checked local file, or a blob that is still coming. The last argument is who asks.
    """

    on_manifest_miss: ManifestMiss | None = None
    on_blob_miss: BlobMiss | None = None


class Reader:
    """The routes that change nothing, and deletion."""

    def __init__(self, mirror: EmbeddedMirror, guard: Guard, hooks: Hooks) -> None:
        self.mirror, self._guard, self._hooks = mirror, guard, hooks

    async def base(self, request: web.Request) -> web.StreamResponse:
        """GET /v2/: the API is spoken here. The challenge comes with the 200 too: clients take it from here only."""
        challenge = self._guard.access.challenge(request)
        headers = {"Docker-Distribution-API-Version": "registry/2.0", "WWW-Authenticate": challenge}
        return web.json_response({}, headers=headers)

    async def manifest(self, request: web.Request) -> web.StreamResponse:
        """GET and HEAD of a manifest, by tag or digest."""
        ref = self._guard.ref(request)
        manifest = await self.mirror.get_manifest(ref)
        if manifest is None and self._hooks.on_manifest_miss is not None:
            manifest = await self._hooks.on_manifest_miss(ref.repository, ref.selector, request[CALLER])
        if manifest is None or (ref.digest is not None and ref.digest != manifest.digest):
            return problem(404, "MANIFEST_UNKNOWN", f"{ref}: no such manifest in the mirror")
        digest = str(manifest.digest)
        headers = {"Docker-Content-Digest": digest, "ETag": f'"{digest}"', "Content-Type": manifest.media_type}
        if manifest.subject is not None:
            headers["OCI-Subject"] = str(manifest.subject.digest)
        if _known(request, digest):
            return web.Response(status=304, headers=headers)
        return web.Response(body=manifest.raw, headers=headers)

    async def blob(self, request: web.Request) -> web.StreamResponse:
        """GET and HEAD of a blob; one range of bytes may be asked for."""
        ref = self._guard.ref(request)
        if ref.digest is None:
            return problem(400, "DIGEST_INVALID", "a blob is asked for by its digest")
        found: Path | Coming | None = None
        caller = request[CALLER]
        if self.mirror.blobs.has(ref.digest) and (caller.trusted or await self.mirror.holds(ref)):
            found = self.mirror.blobs.path(ref.digest)
        elif self._hooks.on_blob_miss is not None:
            found = await self._hooks.on_blob_miss(ref.repository, ref.digest, caller)
        if found is None:
            return problem(404, "BLOB_UNKNOWN", f"{ref.digest}: no such blob in the mirror")
        headers = {"Docker-Content-Digest": str(ref.digest), "Content-Type": "application/octet-stream"}
        if _known(request, str(ref.digest)):
            return web.Response(status=304, headers={**headers, "ETag": f'"{ref.digest}"'})
        if isinstance(found, Coming):
            return await _hand_through(request, found, headers)
        return web.FileResponse(found, headers=headers)

    async def tags(self, request: web.Request) -> web.StreamResponse:
        """GET of a repository's tags, in pages."""
        name = self._guard.ref(request).repository
        if not self.mirror.layout.has(name):
            return problem(404, "NAME_UNKNOWN", f"{name}: no such repository in the mirror")
        names = await self.mirror.tags(ImageRef(self.mirror.naming.host, name))
        return _page(request, names, lambda page: {"name": name, "tags": list(page)})

    async def catalog(self, request: web.Request) -> web.StreamResponse:
        """GET of the repositories that the client may pull from, in pages."""
        names = [name for name in self.mirror.layout.repositories() if self._guard.may_read(request[CALLER], name)]
        return _page(request, names, lambda page: {"repositories": list(page)})

    async def referrers(self, request: web.Request) -> web.StreamResponse:
        """GET of the manifests whose subject is a digest; never a 404."""
        ref = self._guard.ref(request)
        if ref.digest is None:
            return problem(400, "DIGEST_INVALID", "referrers are asked for by the digest of their subject")
        wanted = request.query.get("artifactType", "")
        found = await self.mirror.referrers(ref, wanted)
        body = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [item.to_json() for item in found]}
        headers = {"Content-Type": OCI_INDEX}
        if wanted:
            headers["OCI-Filters-Applied"] = "artifactType"
        return web.Response(body=json.dumps(body).encode(), headers=headers)

    async def delete_manifest(self, request: web.Request) -> web.StreamResponse:
        """DELETE of a tag, or of a manifest with all its tags."""
        ref = self._guard.ref(request)
        if not await self.mirror.delete(ref):
            return problem(404, "MANIFEST_UNKNOWN", f"{ref}: no such manifest in the mirror")
        return web.Response(status=202)

    async def delete_blob(self, _: web.Request) -> web.StreamResponse:
        """DELETE of a blob is not offered: blobs are shared and go when nothing references them."""
        return problem(405, "UNSUPPORTED", "blobs are removed with the last manifest that references them")


async def _hand_through(request: web.Request, coming: Coming, headers: dict[str, str]) -> web.StreamResponse:
    """Answer with a blob while it is fetched; a fetch that fails on the way breaks the connection off."""
    response = web.StreamResponse(headers=headers)
    response.content_length = coming.size
    if request.method == "HEAD":
        await response.prepare(request)
        return response
    await coming.begin()
    await response.prepare(request)
    try:
        async with aclosing(coming.pieces()) as pieces:
            async for piece in pieces:
                await response.write(piece)
        await response.write_eof()
    except AdmendError as error:  # its status is sent already: only a connection that ends early says it
        _log.warning("%s: broken off: %s", request.path, error)
        if request.transport is not None:
            request.transport.abort()
    return response


def _known(request: web.Request, digest: str) -> bool:
    return any(item.value == digest for item in request.if_none_match or ())


def _page(
    request: web.Request, names: Sequence[str], body: Callable[[Sequence[str]], dict[str, object]]
) -> web.Response:
    """Answer with the names after `last`, `n` at the most, and a Link to the next ones."""
    text = request.query.get("n", str(MAX_PAGE))
    if not text.isascii() or not text.isdigit() or len(text) > 9:  # noqa: PLR2004 - digits that int() takes gladly
        return problem(400, "PAGINATION_NUMBER_INVALID", "n is a number of entries, 0 or more")
    count = min(int(text), MAX_PAGE)
    last = request.query.get("last", "")
    rest = [name for name in names if name > last]
    page = rest[:count]
    headers = {}
    if page and len(rest) > count:
        headers["Link"] = f'<{request.path}?n={count}&last={quote(page[-1], safe="")}>; rel="next"'
    return web.json_response(body(page), headers=headers)
