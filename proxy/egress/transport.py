"""httpx over a connection pool whose network is ours: httpx itself offers no place to check an address.

Owns the pools and the few lines between the two libraries.
"""

import ssl
from collections.abc import AsyncIterable, AsyncIterator

import httpcore
import httpx

from proxy.egress.network import GuardedNetwork
from proxy.egress.policy import origin_of

MAX_CONNECTIONS = 64
MAX_IDLE = 16
IDLE_SECONDS = 30.0
FAILURES = (
    httpcore.NetworkError,
    httpcore.TimeoutException,
    httpcore.ProtocolError,
    httpcore.ProxyError,
    ssl.SSLError,
)


class Body(httpx.AsyncByteStream):
    """A body on its way."""

    def __init__(self, stream: AsyncIterable[bytes]) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._stream:
            yield piece

    async def aclose(self) -> None:
        """Let go of the connection."""
        close = getattr(self._stream, "aclose", None)
        if close is not None:
            await close()


class Transport(httpx.AsyncBaseTransport):
    """Sends the requests of one httpx client through one pool."""

    def __init__(self, pool: httpcore.AsyncConnectionPool) -> None:
        self._pool = pool

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request."""
        url = request.url
        answer = await self._pool.handle_async_request(
            httpcore.Request(
                method=request.method,
                url=httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
                headers=request.headers.raw,
                content=request.stream,
                extensions=request.extensions,
            )
        )
        if not isinstance(answer.stream, AsyncIterable):
            raise TypeError("an asynchronous pool gives asynchronous streams")
        return httpx.Response(
            answer.status, headers=answer.headers, stream=Body(answer.stream), extensions=answer.extensions
        )

    async def aclose(self) -> None:
        """Close every connection."""
        await self._pool.aclose()


def make_pool(network: GuardedNetwork, context: ssl.SSLContext) -> httpcore.AsyncConnectionPool:
    """Return a pool that connects directly."""
    return httpcore.AsyncConnectionPool(
        ssl_context=context,
        max_connections=MAX_CONNECTIONS,
        max_keepalive_connections=MAX_IDLE,
        keepalive_expiry=IDLE_SECONDS,
        network_backend=network,
    )


def make_proxied_pool(network: GuardedNetwork, context: ssl.SSLContext, proxy: httpx.URL) -> httpcore.AsyncHTTPProxy:
    """Return a pool that goes through an HTTP proxy, with the user and password of its URL."""
    scheme, _, port = origin_of(proxy)
    auth = (proxy.username, proxy.password) if proxy.username else None
    return httpcore.AsyncHTTPProxy(
        proxy_url=httpcore.URL(scheme=scheme.encode(), host=proxy.raw_host, port=port, target=b"/"),
        proxy_auth=auth,
        ssl_context=context,
        max_connections=MAX_CONNECTIONS,
        max_keepalive_connections=MAX_IDLE,
        keepalive_expiry=IDLE_SECONDS,
        network_backend=network,
    )
