"""The /v2/ routes that push: blob uploads in one or several requests, mounts, and manifests.

Owns their wire form. Refuses a manifest whose blobs or children are not there yet, a digest that does not match, a
piece out of order, and bodies over their limits; what is refused leaves nothing.
Specification: https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#push
"""

import contextlib
import re
from collections.abc import AsyncIterator

from aiohttp import web

from proxy.errors import MalformedInput, ResourceExhausted, TrustFailure
from proxy.mirror import EmbeddedMirror
from proxy.oci.digest import Digest
from proxy.oci.manifest import MAX_MANIFEST, parse_manifest
from proxy.oci.reference import ImageRef
from proxy.uploads import MAX_BLOB, Session, Uploads
from proxy.v2_guard import CALLER, Guard, problem

_RANGE = re.compile(r"(?:bytes )?([0-9]{1,15})-([0-9]{1,15})(?:/.*)?")


class Writer:
    """The routes that push."""

    def __init__(self, guard: Guard, mirror: EmbeddedMirror, uploads: Uploads) -> None:
        self._guard, self._mirror, self._uploads = guard, mirror, uploads

    async def start(self, request: web.Request) -> web.StreamResponse:
        """POST: mount a blob, take one whole (`?digest=`), or begin an upload."""
        name = self._guard.ref(request).repository
        mount = request.query.get("mount")
        if mount is not None and await self._may_mount(request, digest := Digest.parse(mount)):
            return _created(name, digest)
        session = self._uploads.start(name)
        if "digest" in request.query:
            return await self._complete(request, session)
        return self._progress(session, 202)

    async def _may_mount(self, request: web.Request, digest: Digest) -> bool:
        """Say whether a blob is here, and the caller's token, if it has bounds, is for a repository that holds it."""
        caller, source = request[CALLER], request.query.get("from", "")
        if caller.scope is None or not self._mirror.blobs.has(digest):
            return self._mirror.blobs.has(digest)
        if not caller.covers("pull", source):
            return False
        return await self._mirror.holds(ImageRef(self._mirror.naming.host, source, digest=digest))

    async def status(self, request: web.Request) -> web.StreamResponse:
        """GET: how much has come in."""
        session = self._find(request)
        return _unknown() if session is None else self._progress(session, 204)

    async def append(self, request: web.Request) -> web.StreamResponse:
        """PATCH: the next piece; a Content-Range must begin where the last one ended."""
        async with self._held(request) as session:
            if session is None:
                return _unknown()
            refused = self._check_range(request, session)
            if refused is not None:
                return refused
            try:
                await _receive(request, session)
            except (TrustFailure, ResourceExhausted) as error:
                self._uploads.drop(session)
                return _too_large(error)
            return self._progress(session, 202)

    async def finish(self, request: web.Request) -> web.StreamResponse:
        """PUT: the last piece, if any, and the digest of the whole."""
        async with self._held(request) as session:
            if session is None:
                return _unknown()
            refused = self._check_range(request, session)
            return await self._complete(request, session) if refused is None else refused

    async def cancel(self, request: web.Request) -> web.StreamResponse:
        """DELETE: forget an upload."""
        async with self._held(request) as session:
            if session is None:
                return _unknown()
            self._uploads.drop(session)
        return web.Response(status=204)

    async def put_manifest(self, request: web.Request) -> web.StreamResponse:
        """PUT of a manifest by tag or digest; everything it references must be there."""
        ref = self._guard.ref(request)
        too_large = problem(413, "SIZE_INVALID", f"a manifest has {MAX_MANIFEST} bytes at the most")
        if (request.content_length or 0) > MAX_MANIFEST:
            return too_large
        body = bytearray()
        async for piece in request.content.iter_any():
            body += piece
            if len(body) > MAX_MANIFEST:
                return too_large
        manifest = parse_manifest(bytes(body), request.headers.get("Content-Type", ""), where=str(ref))
        if ref.digest is not None and ref.digest != manifest.digest:
            return problem(400, "DIGEST_INVALID", f"the body's digest is {manifest.digest}, the path says {ref.digest}")
        missing = self._mirror.missing(ref.repository, manifest)
        if missing:
            message = f"{ref}: push what it references first, for instance {missing[0]}"
            return problem(400, "MANIFEST_BLOB_UNKNOWN", message)
        await self._mirror.put_manifest(ref.repository, manifest)
        if ref.tag is not None:
            await self._mirror.move_tag(ref, manifest.digest)
        headers = {
            "Location": f"/v2/{ref.repository}/manifests/{manifest.digest}",
            "Docker-Content-Digest": str(manifest.digest),
        }
        if manifest.subject is not None:
            headers["OCI-Subject"] = str(manifest.subject.digest)
        return web.Response(status=201, headers=headers)

    def _find(self, request: web.Request) -> Session | None:
        return self._uploads.find(self._guard.ref(request).repository, request.match_info["session"])

    @contextlib.asynccontextmanager
    async def _held(self, request: web.Request) -> AsyncIterator[Session | None]:
        """One request at a time for a session; None when it ended meanwhile."""
        session = self._find(request)
        if session is None:
            yield None
            return
        async with session.lock:
            yield self._find(request)

    async def _complete(self, request: web.Request, session: Session) -> web.StreamResponse:
        """Take the rest and give the blob its name; the session ends either way."""
        try:
            digest = Digest.parse(request.query.get("digest", ""))
            await _receive(request, session)
            await session.incoming.commit(digest)
        except ResourceExhausted as error:
            return _too_large(error)
        except (MalformedInput, TrustFailure) as error:
            return problem(400, "DIGEST_INVALID", str(error))
        finally:
            self._uploads.drop(session)
        return _created(session.repository, digest)

    def _check_range(self, request: web.Request, session: Session) -> web.Response | None:
        text = request.headers.get("Content-Range")
        if text is None:
            return None
        found = _RANGE.fullmatch(text)
        if found is None:
            return problem(400, "BLOB_UPLOAD_INVALID", "Content-Range is written <first byte>-<last byte>")
        first, last = int(found[1]), int(found[2])
        fits = first == session.incoming.size and request.content_length in {None, last - first + 1}
        if fits and last < MAX_BLOB:
            return None
        message = f"{session.incoming.size} bytes are here; the next piece begins there, and has the length it says"
        return problem(416, "BLOB_UPLOAD_INVALID", message, _headers(session))

    def _progress(self, session: Session, status: int) -> web.Response:
        return web.Response(status=status, headers=_headers(session))


async def _receive(request: web.Request, session: Session) -> None:
    async for piece in request.content.iter_any():
        await session.incoming.append(piece)
    await session.incoming.flush()


def _headers(session: Session) -> dict[str, str]:
    return {
        "Location": f"/v2/{session.repository}/blobs/uploads/{session.id}",
        "Range": session.range,
        "Docker-Upload-UUID": session.id,
    }


def _created(name: str, digest: Digest) -> web.Response:
    headers = {"Location": f"/v2/{name}/blobs/{digest}", "Docker-Content-Digest": str(digest)}
    return web.Response(status=201, headers=headers)


def _unknown() -> web.Response:
    return problem(404, "BLOB_UPLOAD_UNKNOWN", "no such upload; it ended, was idle too long, or the server restarted")


def _too_large(error: TrustFailure | ResourceExhausted) -> web.Response:
    return problem(507 if isinstance(error, ResourceExhausted) else 413, "SIZE_INVALID", str(error))
