"""Authenticated requests to a registry, and what its refusals mean.

Owns where a registry's API is, the exchange of challenge and answer, and the words of a refusal. A challenge counts
only when it comes from the registry's own origin: one that a redirect's target makes is not answered, or the target
could ask for the registry's credentials.
"""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urljoin

from proxy.credentials import Credentials
from proxy.egress import Egress, Purpose, Response, StreamedResponse
from proxy.egress.client import Content
from proxy.egress.policy import DOCKER_HUB, DOCKER_HUB_API, origin_of, parse_url
from proxy.errors import UpstreamRefused
from proxy.oci.reference import ImageRef
from proxy.registry.auth import UNAUTHORIZED, Authenticator, Scope, parse_challenges

MAX_ERROR = 64 << 10  # bytes of an error document that are read
MAX_REASON = 200  # characters of it that are shown
FORBIDDEN, NOT_FOUND = 403, 404


class Session:
    """Sends requests about repositories; shared by all operations of one `Registry`."""

    def __init__(self, egress: Egress, credentials: Credentials) -> None:
        self.egress, self._auth = egress, Authenticator(egress, credentials)

    async def url(self, name: ImageRef, path: str) -> str:
        """Return the address of `path` below a repository."""
        host = DOCKER_HUB_API if name.host == DOCKER_HUB else name.host
        return f"{await self.egress.scheme(host)}://{host}/v2/{name.repository}/{path}"

    async def same_origin(self, name: ImageRef, base: str, link: str) -> str | None:
        """Return a link that an answer of the registry holds as an address, or None when it leads elsewhere."""
        target = urljoin(base, link)
        own = origin_of(parse_url(await self.url(name, "")))
        return target if origin_of(parse_url(target)) == own else None

    @asynccontextmanager
    async def stream(
        self,
        scope: Scope,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: Content = None,
        attempts: int | None = None,
    ) -> AsyncIterator[StreamedResponse]:
        """Send a request and give its answer, challenges already answered.

        Args:
            scope: the repository and what is to be done to it.
            method: the HTTP method.
            path: below the repository; or a whole URL, to which credentials go only if it is the registry's own.
            headers: without Authorization.
            content: as for `Egress.stream`.
            attempts: as for `Egress.stream`.
        """
        base = await self.url(scope.name, "")
        own = origin_of(parse_url(base))
        url = path if "://" in path else base + path
        at_home = origin_of(parse_url(url)) == own
        purpose = Purpose.REGISTRY if at_home else Purpose.LINK
        sent = self._auth.header(scope, own) if at_home else None
        rest: dict[str, Any] = {"content": content, "purpose": purpose, "attempts": attempts}
        async with self.egress.stream(method, url, headers=_with(headers, sent), **rest) as answer:
            if answer.status != UNAUTHORIZED or answer.origin != own:
                yield answer
                return
            challenges = parse_challenges(answer.headers.get_list("www-authenticate"))
        fresh = await self._auth.answer(scope, challenges, sent, own)
        if fresh is None:
            raise self.refusal(scope.name, UNAUTHORIZED, b"")
        async with self.egress.stream(method, url, headers=_with(headers, fresh), **rest) as answer:
            yield answer

    async def fetch(
        self,
        scope: Scope,
        method: str,
        path: str,
        *,
        limit: int = MAX_ERROR,
        headers: Mapping[str, str] | None = None,
        content: Content = None,
        attempts: int | None = None,
    ) -> Response:
        """Send a request and return its whole answer, `limit` bytes at the most."""
        sent = self.stream(scope, method, path, headers=headers, content=content, attempts=attempts)
        async with sent as answer:
            body = await answer.read(limit)
            return Response(answer.status, answer.headers, answer.url, body, answer.origin)

    def refusal(self, name: ImageRef, status: int, body: bytes, what: str = "") -> UpstreamRefused:
        """Return the error for an answer that is a no, in words that say what to do."""
        said = _reason(body)
        shown = what or f"image {name}"
        if status == NOT_FOUND:
            return UpstreamRefused(f"{shown} is not in the registry {name.host}{said}", status=status)
        if status in {UNAUTHORIZED, FORBIDDEN}:
            message = f"the registry {name.host} refuses access to {shown} ({status}){said}: {self._hint(name)}"
            return UpstreamRefused(message, status=status)
        return UpstreamRefused(f"the registry {name.host} answered {status} for {shown}{said}", status=status)

    def _hint(self, name: ImageRef) -> str:
        credentials = self._auth.credentials
        where = credentials.where
        if name.host in self._auth.withheld:
            return f"the login of {name.host} in {where} was not sent: {self._auth.withheld[name.host]}"
        if credentials.find(name.name) is not None:
            return f"the login of {name.host} in {where} is not enough"
        helper = credentials.helper(name.host)
        if helper:
            return f"{where} names the credential helper {helper!r}, which is not run; put a login under auths"
        return f"it does not exist, or needs a login of {name.host} in {where}"


def _with(headers: Mapping[str, str] | None, authorization: str | None) -> dict[str, str]:
    return {**(headers or {}), **({"Authorization": authorization} if authorization else {})}


def _reason(body: bytes) -> str:
    """Return what the error document of the specification says, made fit for one line."""
    try:
        first = json.loads(body)["errors"][0]
        text = str(first.get("message") or first.get("code") or "")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return ""
    shown = "".join(letter if letter.isprintable() else " " for letter in text[:MAX_REASON])
    return f": {shown}" if shown else ""
