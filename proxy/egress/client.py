"""The HTTP client towards the outside.

Owns how a request is sent: checks of every hop, redirects (followed here, credentials dropped at the border of an
origin, bodies never sent across one), attempts with backoff, and what counts as unavailable. Reads no proxy and no
netrc from the environment, keeps no cookies, decodes no content encoding. Answers 429 and 5xx never reach the caller:
they are UpstreamUnavailable.
"""

import asyncio
import logging
import ssl
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from time import monotonic

import httpcore
import httpx

from proxy.egress.network import GuardedNetwork, Resolver, resolve_host
from proxy.egress.policy import EgressPolicy, Purpose, origin_of, parse_url, show_url, split_host
from proxy.egress.retry import RETRIED, Attempts, parse_retry_after
from proxy.egress.transport import FAILURES, Transport, make_pool, make_proxied_pool
from proxy.errors import MalformedInput, TrustFailure, UpstreamUnavailable

Content = bytes | Callable[[], AsyncIterator[bytes]] | None

MAX_REDIRECTS = 5
CONNECT_SECONDS = 10.0
MAX_COUNTED = 1024  # hosts and statuses that are counted apart: names come from outside
SERVER_ERROR = 500
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_KEEP_BODY = frozenset({307, 308})

for _name in ("httpx", "httpcore"):  # they log whole URLs and headers: signatures in queries, tokens
    logging.getLogger(_name).setLevel(logging.WARNING)


@dataclass(frozen=True, slots=True)
class Response:
    """A whole answer. `url` is where it came from after redirects, without a query."""

    status: int
    headers: httpx.Headers
    url: str
    body: bytes = b""
    origin: tuple[str, str, int] = ("", "", 0)


class StreamedResponse:
    """An answer whose body is still to come; valid inside the block that gave it."""

    def __init__(self, response: httpx.Response, url: httpx.URL, moved: Counter[str]) -> None:
        self._response, self._moved = response, moved
        self.status, self.headers = response.status_code, response.headers
        self.url, self.origin = show_url(url), origin_of(url)

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """Yield the body's bytes as they come, in no particular pieces; the reader bounds and checks them.

        Raises UpstreamUnavailable when the connection ends too early.
        """
        try:
            async for piece in self._response.aiter_raw():
                self._moved["received"] += len(piece)
                yield piece
        except FAILURES as error:
            raise UpstreamUnavailable(f"{self.url}: the connection broke off ({_why(error)})") from error

    async def read(self, limit: int) -> bytes:
        """Return the whole body; raises TrustFailure when it is longer than `limit` bytes."""
        found = bytearray()
        async with aclosing(self.stream()) as pieces:
            async for piece in pieces:
                found += piece
                if len(found) > limit:
                    raise TrustFailure(f"{self.url}: longer than the {limit} bytes it may have; refused")
        return bytes(found)


class Egress:
    """The one client; belongs to one event loop; `close` it at the end.

    Args:
        policy: what may be talked to.
        resolve: turns a host into addresses; the system's resolver unless a test has its own.
        credentials: Authorization headers by address prefix; sent over TLS to addresses below it, and nowhere else.

    Attributes:
        requests: counts sent requests by host and status (0: no answer).
        moved: counts the bytes of bodies, `received` and `sent`.
    """

    def __init__(
        self,
        policy: EgressPolicy,
        *,
        resolve: Resolver = resolve_host,
        credentials: Mapping[str, str] | None = None,
    ) -> None:
        self._credentials = [(parse_url(prefix), value) for prefix, value in (credentials or {}).items()]
        self.policy, self.requests, self.moved = policy, Counter[tuple[str, int]](), Counter[str]()
        context = ssl.create_default_context()
        if policy.ca_file is not None:
            _add_authorities(context, policy)
        self._network = GuardedNetwork(policy, resolve)
        self._direct = self._client(make_pool(self._network, context))
        self._proxied: httpx.AsyncClient | None = None
        if policy.source_proxy:
            proxy = parse_url(policy.source_proxy)
            network = GuardedNetwork(policy, resolve, trusted=(proxy.host, origin_of(proxy)[2]))
            self._proxied = self._client(make_proxied_pool(network, context, proxy))
        self._schemes: dict[str, str] = {}

    def _client(self, pool: httpcore.AsyncConnectionPool) -> httpx.AsyncClient:
        seconds = self.policy.timeout
        return httpx.AsyncClient(
            transport=Transport(pool),
            trust_env=False,
            follow_redirects=False,
            timeout=httpx.Timeout(seconds, connect=min(CONNECT_SECONDS, seconds)),
            headers={"User-Agent": "admend", "Accept": "*/*", "Accept-Encoding": "identity"},
            cookies=CookieJar(policy=DefaultCookiePolicy(allowed_domains=())),
        )

    async def close(self) -> None:
        """Close every connection."""
        await self._direct.aclose()
        if self._proxied is not None:
            await self._proxied.aclose()

    async def scheme(self, host: str) -> str:
        """Return `https`, or `http` for a registry `host[:port]` that is spoken to without TLS.

        A named loopback host that is not listed in `plain_http` is asked once whether it speaks TLS.
        """
        name, port = split_host(host, 443)
        if self.policy.speaks_plain(*split_host(host, 80)):
            return "http"
        if not self.policy.may_be_plain(*split_host(host, 80)):
            return "https"
        if host not in self._schemes:
            try:
                self._schemes[host] = "https" if await self._network.speaks_tls(name, port) else "http"
            except FAILURES as error:
                raise UpstreamUnavailable(f"{host} cannot be reached ({_why(error)})") from error
        return self._schemes[host]

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: Content = None,
        purpose: Purpose = Purpose.REGISTRY,
        attempts: int | None = None,
    ) -> AsyncIterator[StreamedResponse]:
        """Send a request and give its answer, the body still to be read.

        Args:
            method: the HTTP method.
            url: where to; every hop from there is checked.
            headers: `Authorization` goes to the URL's own origin only.
            content: the body, or what makes it anew for every attempt; give its Content-Length in `headers`.
            purpose: what the first address must satisfy.
            attempts: at the most; by default the policy's.

        Raises:
            TrustFailure: a host or address on the way is not allowed.
            UpstreamUnavailable: no answer, or 429 or 5xx, after all attempts.
        """
        target = self.policy.check_url(url, purpose)
        request = _Request(method, target, {**self._authorize(target), **(headers or {})}, content, purpose)
        response, final = await self._answer(request, Attempts(self.policy, monotonic(), attempts))
        try:
            yield StreamedResponse(response, final, self.moved)
        finally:
            await response.aclose()

    def _authorize(self, url: httpx.URL) -> dict[str, str]:
        """Return the header with the credentials of the longest prefix that the address is below."""
        fitting = [
            (len(prefix.path), value)
            for prefix, value in self._credentials
            if url.scheme == "https"
            and origin_of(prefix) == origin_of(url)
            and f"{url.path}/".startswith(f"{prefix.path.rstrip('/')}/")
        ]
        return {"Authorization": max(fitting)[1]} if fitting else {}

    async def _answer(self, request: "_Request", tries: Attempts) -> tuple[httpx.Response, httpx.URL]:
        """Send a request until there is an answer that means something."""
        while True:
            retry_after, again = None, True
            try:
                response, final = await self._follow(request)
            except FAILURES as error:
                failed = f"{show_url(request.url)} cannot be reached ({_why(error)})"
            else:
                status = response.status_code
                if status not in RETRIED and status < SERVER_ERROR:
                    return response, final
                await response.aclose()
                retry_after, again = parse_retry_after(response.headers.get("retry-after")), status in RETRIED
                failed = f"{show_url(final)} answered {status}"
            wait = tries.next_wait(monotonic(), retry_after) if again else None
            if wait is None:
                times = f" ({tries.made} attempts)" if tries.made > 1 else ""
                raise UpstreamUnavailable(f"{failed}{times}", retry_after=retry_after)
            await asyncio.sleep(wait)

    async def fetch(
        self,
        url: str,
        *,
        limit: int,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        content: Content = None,
        purpose: Purpose = Purpose.REGISTRY,
        attempts: int | None = None,
    ) -> Response:
        """Send a request and return its whole answer, `limit` bytes at the most; otherwise as `stream`.

        A body that breaks off is asked for again.
        """
        tries = Attempts(self.policy, monotonic(), attempts)
        while True:
            sent = self.stream(method, url, headers=headers, content=content, purpose=purpose, attempts=attempts)
            async with sent as answer:
                try:
                    body = await answer.read(limit)
                except UpstreamUnavailable:
                    wait = tries.next_wait(monotonic(), None)
                    if wait is None:
                        raise
                else:
                    return Response(answer.status, answer.headers, answer.url, body, answer.origin)
            await asyncio.sleep(wait)

    async def _follow(self, request: "_Request") -> tuple[httpx.Response, httpx.URL]:
        """Send a request and follow its redirects, each checked like a first address."""
        hop = request
        for _ in range(MAX_REDIRECTS + 1):
            response = await self._send(hop)
            location = response.headers.get("location")
            followed = hop.content is None or response.status_code in _KEEP_BODY
            if response.status_code not in _REDIRECTS or not location or not followed:
                return response, hop.url
            await response.aclose()
            hop = self._redirect(hop, location)
        raise TrustFailure(f"{show_url(request.url)}: more than {MAX_REDIRECTS} redirects; refused")

    def _redirect(self, hop: "_Request", location: str) -> "_Request":
        try:
            target = hop.url.join(location)
        except (httpx.InvalidURL, ValueError) as error:
            raise MalformedInput("a redirect to what is no URL", file=show_url(hop.url), text=location) from error
        purpose = Purpose.SOURCE if hop.purpose is Purpose.SOURCE else Purpose.LINK
        url = self.policy.check_url(target, purpose)
        headers = hop.headers
        if origin_of(url) != origin_of(hop.url):
            if hop.content is not None:
                raise TrustFailure(f"{show_url(hop.url)}: redirects a body to {show_url(url)}, another host; refused")
            headers = {name: value for name, value in headers.items() if name.lower() != "authorization"}
        return _Request(hop.method, url, headers, hop.content, purpose)

    async def _send(self, hop: "_Request") -> httpx.Response:
        client = self._proxied if hop.purpose is Purpose.SOURCE and self._proxied else self._direct
        if client is self._proxied:
            self._check_literal(hop.url)
        body = self._counted(hop.content)
        request = client.build_request(hop.method, hop.url, headers=hop.headers, content=body)
        status = 0
        try:
            response = await client.send(request, stream=True)
            status = response.status_code
        except FAILURES as error:
            refused = _certificate_error(error)
            if refused is not None:
                reason = (
                    f"its certificate is not trusted: {refused.verify_message} (see upstream.ca_file, sources.ca_file)"
                )
                raise TrustFailure(f"{show_url(hop.url)}: {reason}") from error
            raise
        finally:
            self._count(hop.url.netloc.decode(), status)
        return response

    def _counted(self, content: Content) -> bytes | AsyncIterator[bytes] | None:
        """Return a body for one attempt, its bytes counted as they go."""
        if not callable(content):
            self.moved["sent"] += len(content or b"")
            return content

        async def pieces() -> AsyncIterator[bytes]:
            async for piece in content():
                self.moved["sent"] += len(piece)
                yield piece

        return pieces()

    def _check_literal(self, url: httpx.URL) -> None:
        """Check an address written as such; names are resolved by the operator's proxy, out of our sight."""
        _, host, port = origin_of(url)
        if host.replace(".", "").isdecimal() or ":" in host:
            self.policy.check_address(host, port, host)

    def _count(self, host: str, status: int) -> None:
        known = (host, status) in self.requests or len(self.requests) < MAX_COUNTED
        self.requests[(host if known else "other", status)] += 1


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    url: httpx.URL
    headers: Mapping[str, str]
    content: Content
    purpose: Purpose


def _add_authorities(context: ssl.SSLContext, policy: EgressPolicy) -> None:
    try:
        context.load_verify_locations(policy.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise MalformedInput(f"holds no readable certificate authority ({error})", file=str(policy.ca_file)) from error


def _certificate_error(error: BaseException | None) -> ssl.SSLCertVerificationError | None:
    """Return the certificate's error among the causes of another, since a new attempt would not help it."""
    while error is not None and not isinstance(error, ssl.SSLCertVerificationError):
        error = error.__cause__ or error.__context__
    return error


def _why(error: BaseException) -> str:
    return str(error) or type(error).__name__
