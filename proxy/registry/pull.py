"""What is read from a registry: manifests, blobs and tags.

Owns the checks of everything that arrives: a manifest's digest against the reference and the registry's own header, a
blob's size and digest, and the bound of every list. A blob whose connection breaks off is resumed where it ended.
"""

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing

from proxy.egress import Purpose, Response, StreamedResponse
from proxy.errors import AdmendError, MalformedInput, TrustFailure, UpstreamRefused, UpstreamUnavailable
from proxy.oci.digest import Digest, DigestCheck, SizeCheck
from proxy.oci.manifest import ACCEPT, MAX_MANIFEST, Descriptor, Index, Manifest, parse_manifest
from proxy.oci.reference import ImageRef
from proxy.registry.auth import Scope
from proxy.registry.links import next_link
from proxy.registry.session import MAX_ERROR, NOT_FOUND, Session

MAX_RESUMES = 5  # of one blob without a new byte in between
MAX_CUTS = 64  # of one blob altogether
MAX_PAGES = 1000
MAX_TAGS = 100_000
MAX_TAG_PAGE = 4 << 20
MAX_URLS = 8  # of one descriptor that are tried
MAX_DIGITS = 15  # of a size in a header
OK, PARTIAL = 200, 206
_NO_HEAD = frozenset({405, 501})


async def get_manifest(session: Session, ref: ImageRef) -> Manifest | Index:
    """Return what the digest of `ref`, or else its tag, names."""
    scope = Scope(ref)
    path = f"manifests/{ref.selector}"
    response = await session.fetch(scope, "GET", path, headers={"Accept": ACCEPT}, limit=MAX_MANIFEST)
    if response.status != OK:
        raise session.refusal(ref, response.status, response.body)
    _check_manifest(ref, response)
    return parse_manifest(response.body, response.headers.get("content-type", ""), where=str(ref))


def _check_manifest(ref: ImageRef, response: Response) -> None:
    announced = _header_digest(ref, response)
    for digest, source in ((ref.digest, "the reference"), (announced, "its Docker-Content-Digest header")):
        if digest is None:
            continue
        check = DigestCheck(digest, size=None, limit=MAX_MANIFEST, where=f"manifest {ref} (against {source})")
        check.update(response.body)
        check.finish()


def _header_digest(ref: ImageRef, response: Response | StreamedResponse) -> Digest | None:
    text = response.headers.get("docker-content-digest")
    if not text:
        return None
    try:
        return Digest.parse(text)
    except MalformedInput as error:
        raise TrustFailure(
            f"manifest {ref}: the registry's Docker-Content-Digest is no digest: {text[:120]!r}"
        ) from error


async def head_manifest(session: Session, ref: ImageRef) -> Descriptor | None:
    """Return the descriptor of what `ref` names, or None when the registry does not have it."""
    path = f"manifests/{ref.selector}"
    async with session.stream(Scope(ref), "HEAD", path, headers={"Accept": ACCEPT}) as answer:
        status, headers = answer.status, answer.headers
        digest = _header_digest(ref, answer) if status == OK else None
    if status == NOT_FOUND:
        return None
    if status != OK and status not in _NO_HEAD:
        raise session.refusal(ref, status, b"")
    length, media_type = headers.get("content-length", ""), headers.get("content-type", "").split(";")[0].strip()
    if digest is None or not length.isdecimal() or not media_type:
        try:
            return (await get_manifest(session, ref)).descriptor
        except UpstreamRefused as error:
            if error.status == NOT_FOUND:
                return None
            raise
    if ref.digest is not None and ref.digest.algorithm == digest.algorithm and ref.digest != digest:
        raise TrustFailure(f"manifest {ref}: the registry says that its digest is {digest}; refused")
    return Descriptor(media_type, digest, int(length))


async def has_blob(session: Session, name: ImageRef, digest: Digest, *, actions: str = "pull") -> bool:
    """Say whether the repository has a blob."""
    async with session.stream(Scope(name, actions), "HEAD", f"blobs/{digest}") as answer:
        if answer.status in {OK, NOT_FOUND}:
            return answer.status == OK
        raise session.refusal(name, answer.status, b"", f"blob {digest} of {name.name}")


async def blob_size(session: Session, name: ImageRef, digest: Digest) -> int | None:
    """Return the size of a blob that the repository has, or None when it does not have it."""
    what = f"blob {digest} of {name.name}"
    async with session.stream(Scope(name), "HEAD", f"blobs/{digest}") as answer:
        status, length = answer.status, answer.headers.get("content-length", "")
    if status == NOT_FOUND:
        return None
    if status != OK:
        raise session.refusal(name, status, b"", what)
    if not (length.isascii() and length.isdecimal() and len(length) <= MAX_DIGITS):
        raise MalformedInput(f"{what}: the registry does not say how large it is")
    return int(length)


async def stream_blob(
    session: Session, name: ImageRef, descriptor: Descriptor, *, hashed: bool = True
) -> AsyncGenerator[bytes, None]:
    """Yield a blob's bytes; size and digest are checked by the time the last piece was taken.

    Tries the descriptor's `urls` where the registry does not have the blob. Without `hashed` the caller checks the
    digest, as a blob store does while it writes.
    """
    where, size = f"blob {descriptor.digest} of {name.name}", descriptor.size
    bound = SizeCheck(size=size, limit=size, where=where)
    check = DigestCheck(descriptor.digest, size=size, limit=size, where=where) if hashed else bound
    urls = ["", *descriptor.urls[:MAX_URLS]]
    idle = cuts = 0
    while True:
        before = check.seen
        try:
            async with aclosing(_pieces(session, name, descriptor, urls[0], before)) as pieces:
                async for piece in pieces:
                    check.update(piece)
                    yield piece
            break
        except UpstreamUnavailable:
            if check.seen == descriptor.size:
                break
            cuts, idle = cuts + 1, 0 if check.seen > before else idle + 1
            if idle >= MAX_RESUMES or cuts >= MAX_CUTS:
                raise
            if idle and not check.seen:
                raise  # not one byte ever came, and egress has tried often enough
        except UpstreamRefused as error:
            if error.status != NOT_FOUND or len(urls) == 1 or check.seen:
                raise
            del urls[0]
    check.finish()


async def _pieces(
    session: Session, name: ImageRef, descriptor: Descriptor, url: str, offset: int
) -> AsyncGenerator[bytes, None]:
    """Yield a blob's bytes from `offset` on, from the registry or from a foreign layer's own URL."""
    headers = {"Range": f"bytes={offset}-"} if offset else {}
    if url:
        sent = session.egress.stream("GET", url, headers=headers, purpose=Purpose.REGISTRY)
    else:
        sent = session.stream(Scope(name), "GET", f"blobs/{descriptor.digest}", headers=headers)
    async with sent as answer:
        if answer.status not in {OK, PARTIAL}:
            body = await _error_body(answer)
            raise session.refusal(name, answer.status, body, f"blob {descriptor.digest} of {name.name}")
        skip = _skip(answer, offset)
        async with aclosing(answer.stream()) as pieces:
            async for piece in pieces:
                if skip:
                    piece, skip = piece[skip:], max(0, skip - len(piece))  # noqa: PLW2901 - what was read before
                if piece:
                    yield piece


def _skip(answer: StreamedResponse, offset: int) -> int:
    """Return how many of the answer's bytes were read before the connection broke off."""
    if answer.status == OK:
        return offset
    start = answer.headers.get("content-range", "").removeprefix("bytes ").split("-")[0]
    if not offset or not start.isdecimal() or int(start) != offset:
        raise TrustFailure(f"{answer.url}: sent another part than the one asked for; refused")
    return 0


async def _error_body(answer: StreamedResponse) -> bytes:
    try:
        return await answer.read(MAX_ERROR)
    except AdmendError:
        return b""  # the status alone says enough


async def list_tags(session: Session, name: ImageRef) -> tuple[str, ...]:
    """Return the tags of a repository, in order; empty when it does not exist."""
    tags: set[str] = set()
    path: str | None = "tags/list?n=1000"
    for _ in range(MAX_PAGES):
        if path is None:
            return tuple(sorted(tags))
        response = await session.fetch(Scope(name), "GET", path, limit=MAX_TAG_PAGE)
        if response.status == NOT_FOUND:
            return ()
        if response.status != OK:
            raise session.refusal(name, response.status, response.body, f"the tags of {name.name}")
        tags |= _parse_tags(response)
        if len(tags) > MAX_TAGS:
            raise MalformedInput(f"{name.name} has more than {MAX_TAGS} tags", file=response.url)
        path = await next_link(session, name, response)
    raise MalformedInput(f"a list of tags of more than {MAX_PAGES} pages", file=name.name)


def _parse_tags(response: Response) -> set[str]:
    try:
        tags = json.loads(response.body).get("tags") or []
    except (ValueError, AttributeError, RecursionError) as error:
        raise MalformedInput("not a list of tags", file=response.url) from error
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise MalformedInput("not a list of tags", file=response.url)
    return set(tags)
