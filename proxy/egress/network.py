"""Name resolution and connection in one place, so that what was checked is what is connected to.

Owns the step from a host name to a TCP connection: every address that the name resolves to is checked, all of them
must pass, and the connection goes to one of the checked addresses itself. A name that resolves differently a moment
later (DNS rebinding) gains nothing. TLS still verifies the certificate against the name.
"""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import httpcore

from proxy.egress.policy import EgressPolicy
from proxy.errors import UpstreamUnavailable

Resolver = Callable[[str, int], Awaitable[tuple[str, ...]]]

FALLBACK_SECONDS = 3.0  # for an address that is not the last one: a host with broken IPv6 must not cost a timeout
PROBE_SECONDS = 2.0
MAX_ADDRESSES = 8
_NO_SUCH_NAME = frozenset({socket.EAI_NONAME, socket.EAI_FAIL, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)})


async def resolve_host(host: str, port: int) -> tuple[str, ...]:
    """Return the addresses of a host as the system resolves it, in its order of preference."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(str(item[4][0]) for item in found))


class GuardedNetwork(httpcore.AsyncNetworkBackend):
    """Connects to checked addresses only.

    Args:
        policy: decides about addresses.
        resolve: turns a host into addresses.
        trusted: a `(host, port)` that needs no check: the proxy that the operator configured.
    """

    def __init__(
        self, policy: EgressPolicy, resolve: Resolver = resolve_host, trusted: tuple[str, int] | None = None
    ) -> None:
        self._policy, self._resolve, self._trusted = policy, resolve, trusted
        self._tcp = httpcore.AnyIOBackend()

    async def addresses(self, host: str, port: int, patience: float | None = None) -> tuple[str, ...]:
        """Resolve a host within `patience` seconds and check every address; TrustFailure if one is refused."""
        try:
            async with asyncio.timeout(patience):
                found = await self._resolve(host, port)
        except TimeoutError as error:
            raise httpcore.ConnectTimeout(f"the name {host} was not resolved within {patience} s") from error
        except (OSError, UnicodeError) as error:
            if isinstance(error, socket.gaierror) and error.errno not in _NO_SUCH_NAME:
                raise httpcore.ConnectError(f"the name {host} was not resolved: {error.strerror}") from error
            raise UpstreamUnavailable(f"the host {host} does not exist: its name does not resolve") from error
        if (host, port) != self._trusted:
            for address in found:
                self._policy.check_address(host, port, address)
        return found[:MAX_ADDRESSES]

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's interface
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to the first address of `host` that answers."""
        addresses = await self.addresses(host, port, timeout)
        failure: Exception = httpcore.ConnectError(f"the name {host} has no address")
        for number, address in enumerate(addresses):
            last = number == len(addresses) - 1
            patience = timeout if last else min(timeout or FALLBACK_SECONDS, FALLBACK_SECONDS)
            try:
                return await self._tcp.connect_tcp(address, port, patience, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure

    async def speaks_tls(self, host: str, port: int) -> bool:
        """Find out whether a port answers a TLS greeting; the certificate is the real requests' concern."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        stream = await self.connect_tcp(host, port, PROBE_SECONDS)
        try:
            await (await stream.start_tls(context, host, PROBE_SECONDS)).aclose()
        except (httpcore.ConnectError, httpcore.ConnectTimeout):
            return False
        else:
            return True
        finally:
            await stream.aclose()
