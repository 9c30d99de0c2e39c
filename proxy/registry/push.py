"""What is written to a registry: blobs, manifests, deletions.

Owns the upload protocols. A blob goes up in one request; where the registry does not take that, in chunks. An upload
that breaks off is begun anew, since its session may be gone.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import BinaryIO
from urllib.parse import quote, urljoin

import httpx

from proxy.egress import Response
from proxy.egress.client import Content
from proxy.errors import ResourceExhausted, TrustFailure, Unsupported, UpstreamRefused, UpstreamUnavailable
from proxy.oci.digest import Digest, DigestCheck
from proxy.oci.manifest import MAX_MANIFEST, Descriptor, Index, Manifest
from proxy.oci.reference import ImageRef
from proxy.registry.auth import Scope
from proxy.registry.pull import has_blob
from proxy.registry.session import NOT_FOUND, Session

OpenFile = Callable[[], BinaryIO]

PIECE = 1 << 20  # bytes read from a file at once
CHUNK = 16 << 20  # bytes of one PATCH
MIN_CHUNK = 64 << 10
MAX_CHUNK = 1 << 30  # a registry that asks for larger chunks at the least gets the blob in one piece
ROUNDS = 3  # uploads of one blob that are begun
MAX_WAIT = 30.0  # seconds between two rounds
PAUSES = (0.1, 0.3, 0.9)  # seconds before a manifest that was found wrong is sent again
CREATED, ACCEPTED, BAD_REQUEST, NOT_ALLOWED, TOO_LARGE = 201, 202, 400, 405, 413
PUSH = "pull,push"
_IN_CHUNKS = frozenset({404, NOT_ALLOWED, TOO_LARGE, 415})
_GONE = frozenset({200, ACCEPTED, 204})


async def push_blob(
    session: Session,
    name: ImageRef,
    descriptor: Descriptor,
    open_file: OpenFile,
    *,
    mount_from: str = "",
    chunk: int | None = None,
) -> None:
    """Upload a blob unless the repository has it; see `Registry.push_blob`."""
    upload = _Upload(session, name, descriptor, open_file)
    for left in range(ROUNDS - 1, -1, -1):
        try:
            if not await has_blob(session, name, descriptor.digest, actions=PUSH):
                await upload.run(mount_from, chunk)
        except UpstreamUnavailable as error:
            if not left:
                raise
            await asyncio.sleep(min(MAX_WAIT, error.retry_after or session.egress.policy.backoff))
        else:
            return


@dataclass(frozen=True, slots=True)
class _Upload:
    """One blob on its way up."""

    session: Session
    name: ImageRef
    descriptor: Descriptor
    open_file: OpenFile

    async def run(self, mount_from: str, chunk: int | None) -> None:
        """Mount the blob, or send it in one piece, or in chunks."""
        started = await start_upload(self.session, self.name, mount=self.descriptor.digest, mount_from=mount_from)
        if started is None or (chunk is None and await self.put_whole(started[0])):
            return
        smallest = min(started[1], MAX_CHUNK)
        size = max(chunk or CHUNK, smallest)
        while True:
            location = started[0] if chunk is not None else await self.restart()
            if await self.put_chunks(location, size):
                return
            chunk = None
            size //= 2
            if size < max(MIN_CHUNK, smallest):
                raise UpstreamRefused(f"the registry {self.name.host} takes no chunk of {2 * size} bytes", status=413)

    async def restart(self) -> str:
        """Begin once more; returns the address."""
        started = await start_upload(self.session, self.name)
        return started[0] if started else ""

    async def put_whole(self, location: str) -> bool:
        """Upload in one request; False where the registry wants chunks."""
        digest, size = self.descriptor.digest, self.descriptor.size
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        content = _reader(self.open_file, 0, size, str(digest))
        response = await self._send("PUT", _with_digest(location, digest), headers, content)
        if response.status in _IN_CHUNKS:
            return False
        self._expect(response, CREATED)
        return True

    async def put_chunks(self, location: str, chunk: int) -> bool:
        """Upload in chunks; False when they are too large."""
        digest, total = self.descriptor.digest, self.descriptor.size
        for start in range(0, total, chunk):
            size = min(chunk, total - start)
            headers = {
                "Content-Type": "application/octet-stream",
                "Content-Length": str(size),
                "Content-Range": f"{start}-{start + size - 1}",
            }
            response = await self._send("PATCH", location, headers, _reader(self.open_file, start, size, str(digest)))
            if response.status == TOO_LARGE:
                return False
            self._expect(response, ACCEPTED)
            location = _location(response.url, response.headers)
        self._expect(await self._send("PUT", _with_digest(location, digest), {"Content-Length": "0"}), CREATED)
        return True

    async def _send(self, method: str, url: str, headers: Mapping[str, str], content: Content = None) -> Response:
        scope = Scope(self.name, PUSH)
        return await self.session.fetch(scope, method, url, headers=headers, content=content, attempts=1)

    def _expect(self, response: Response, status: int) -> None:
        if response.status != status:
            what = f"blob {self.descriptor.digest} of {self.name.name}"
            raise self.session.refusal(self.name, response.status, response.body, what)


async def start_upload(
    session: Session, name: ImageRef, *, mount: Digest | None = None, mount_from: str = ""
) -> tuple[str, int] | None:
    """Begin an upload: its address and the smallest chunk it takes; None when the blob was mounted instead."""
    query = f"?mount={quote(str(mount), safe='')}&from={quote(mount_from, safe='')}" if mount_from else ""
    scope = Scope(name, PUSH, mount_from)
    response = await session.fetch(scope, "POST", f"blobs/uploads/{query}", headers={"Content-Length": "0"})
    if response.status == CREATED and mount_from:
        return None
    if response.status != ACCEPTED:
        raise session.refusal(name, response.status, response.body, f"an upload to {name.name}")
    smallest = response.headers.get("oci-chunk-min-length", "0")
    return _location(response.url, response.headers), int(smallest) if smallest.isdecimal() else 0


def _location(base: str, headers: httpx.Headers) -> str:
    location = str(headers.get("location", ""))
    if not location:
        raise UpstreamUnavailable(f"{base}: the registry began an upload and did not say where")
    return urljoin(base, location)


def _with_digest(location: str, digest: Digest) -> str:
    return f"{location}{'&' if '?' in location else '?'}digest={quote(str(digest), safe='')}"


def _reader(open_file: OpenFile, start: int, size: int, where: str) -> Callable[[], AsyncIterator[bytes]]:
    """Return what reads exactly `size` bytes of a file, anew for every attempt."""

    async def pieces() -> AsyncIterator[bytes]:
        left = size
        with open_file() as file:
            file.seek(start)
            while left:
                piece = await asyncio.to_thread(file.read, min(PIECE, left))
                if not piece:
                    raise TrustFailure(f"blob {where}: its file is shorter than its descriptor says; not uploaded")
                left -= len(piece)
                yield piece

    return pieces


async def push_manifest(session: Session, ref: ImageRef, manifest: Manifest | Index) -> str:
    """Upload a manifest under the tag or digest of `ref`; returns the subject that the registry took note of.

    A registry that keeps its content in files may find what another replica is writing that very moment damaged, and
    say that the digest is wrong (400): it is asked again, a few times.
    """
    if len(manifest.raw) > MAX_MANIFEST:
        raise ResourceExhausted(f"manifest {ref}: {len(manifest.raw)} bytes, registries take {MAX_MANIFEST}")
    if ref.digest is not None:
        check = DigestCheck(ref.digest, size=None, limit=MAX_MANIFEST, where=f"manifest {ref}")
        check.update(manifest.raw)
        check.finish()
    selector = ref.tag or ref.selector
    headers = {"Content-Type": manifest.media_type}
    for pause in (*PAUSES, None):
        response = await session.fetch(
            Scope(ref, PUSH), "PUT", f"manifests/{selector}", headers=headers, content=manifest.raw
        )
        if response.status != BAD_REQUEST or pause is None:
            break
        await asyncio.sleep(pause)
    if response.status not in {200, CREATED}:
        raise session.refusal(ref, response.status, response.body, f"manifest {ref}")
    stored = response.headers.get("docker-content-digest", "")
    if stored.startswith("sha256:") and stored != str(manifest.digest):
        raise TrustFailure(f"manifest {ref}: the registry stored {stored[:80]} instead of {manifest.digest}")
    return str(response.headers.get("oci-subject", ""))


async def delete_manifest(session: Session, ref: ImageRef) -> bool:
    """Delete a tag, or a manifest when `ref` has a digest; False when it was not there."""
    scope = Scope(ref, "pull,push,delete")
    response = await session.fetch(scope, "DELETE", f"manifests/{ref.selector}")
    if response.status in _GONE:
        return True
    if response.status == NOT_FOUND:
        return False
    if response.status == NOT_ALLOWED or (response.status == BAD_REQUEST and ref.digest is None):
        what = "manifests" if ref.digest else "tags"
        raise Unsupported(f"the registry {ref.host} does not delete {what}: enable deletion there, or clean up there")
    raise session.refusal(ref, response.status, response.body)
