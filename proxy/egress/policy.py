"""What may be talked to: which hosts, which addresses, with or without TLS.

Owns the decision, as pure functions over names and addresses; every refusal names the host, the address and the
setting that would allow it. Special addresses: https://www.iana.org/assignments/iana-ipv4-special-registry and
iana-ipv6-special-registry, as `ipaddress` knows them.
"""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import httpx

from proxy.errors import MalformedInput, TrustFailure

DEFAULT_PORTS = {"http": 80, "https": 443}
DOCKER_HUB = "docker.io"
DOCKER_HUB_API = "registry-1.docker.io"
DOCKER_HUB_REALM = "auth.docker.io"
DOCKER_HUB_NAMES = frozenset({DOCKER_HUB, "index.docker.io", DOCKER_HUB_API})
MAX_PORT = 65535
MAX_URL = 8192  # bytes; signed addresses of object stores are long
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052: the last 32 bits are an IPv4 address
_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


Origin = tuple[str, str, int]  # scheme, host, port


class Purpose(StrEnum):
    """Why a request is made, which decides what its first address must satisfy."""

    REGISTRY = "registry"  # the image names the host: it must be an allowed upstream
    LINK = "link"  # an allowed registry names the host (redirect, token realm, upload): any public one
    SOURCE = "source"  # a package source that the engine chose: any public one, plain HTTP too (indexes are signed)


@dataclass(frozen=True, slots=True)
class EgressPolicy:
    """What the operator allows.

    Args:
        upstreams: registry hosts that images may come from: `host[:port]` or `*.suffix[:port]`, without a port the
            default one; None for every public host.
        named: hosts (`host[:port]`, without a port any) that the operator named: only these may resolve to an
            address that is not public.
        plain_http: registry hosts spoken to without TLS, written as `named`. Loopback hosts that are named and do not
            speak TLS need no mention.
        plain_credentials: hosts, written as `named`, that get credentials although they are spoken to without TLS.
        token_realms: by registry host, further hosts that its credentials may be exchanged for tokens at.
        ca_file: further certificate authorities (PEM), beside the system's.
        timeout: seconds that a peer may stay silent.
        source_proxy: URL of an HTTP proxy for package sources.
        attempts: how often one request is sent at the most.
        deadline: seconds for all attempts of one request together, up to the answer's first byte.
        backoff: seconds before the second attempt, on average; doubles from there.
    """

    upstreams: tuple[str, ...] | None = None
    named: frozenset[str] = frozenset()
    plain_http: frozenset[str] = frozenset()
    plain_credentials: frozenset[str] = frozenset()
    token_realms: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    ca_file: Path | None = None
    timeout: float = 30.0
    source_proxy: str | None = None
    attempts: int = 4
    deadline: float = 60.0
    backoff: float = 0.25

    def allows_upstream(self, host: str, port: int, scheme: str) -> bool:
        """Say whether images may come from `host`."""
        if self.upstreams is None:
            return True
        wanted = DOCKER_HUB if host in DOCKER_HUB_NAMES else host
        return any(_matches(entry, wanted, port, DEFAULT_PORTS[scheme]) for entry in self.upstreams)

    def is_named(self, host: str, port: int) -> bool:
        """Say whether the operator named `host`."""
        return any(_matches(entry, host, port, port) for entry in self.named)

    def speaks_plain(self, host: str, port: int) -> bool:
        """Say whether the operator wants `host` spoken to without TLS."""
        return any(_matches(entry, host, port, port) for entry in self.plain_http)

    def may_be_plain(self, host: str, port: int) -> bool:
        """Say whether a registry on `host` may be spoken to without TLS, by name or by being named and loopback."""
        return self.speaks_plain(host, port) or (host in _LOOPBACK_NAMES and self.is_named(host, port))

    def takes_credentials(self, origin: Origin) -> bool:
        """Say whether a login may be sent to an origin at all: over TLS, on this machine, or as the operator says."""
        scheme, host, port = origin
        if scheme == "https" or host in _LOOPBACK_NAMES:
            return True
        return any(_matches(entry, host, port, port) for entry in self.plain_credentials)

    def may_exchange(self, registry: Origin, realm: Origin) -> bool:
        """Say whether a registry's login may be exchanged for a token at `realm`, which the registry named.

        A realm is the registry itself, Docker Hub's, a domain that the registry's host lies in, or listed.
        """
        _, host, port = registry
        _, realm_host, realm_port = realm
        if not self.takes_credentials(realm):
            return False
        if (host, port) == (realm_host, realm_port):
            return True
        if host in DOCKER_HUB_NAMES and (realm_host, realm_port) == (DOCKER_HUB_REALM, DEFAULT_PORTS["https"]):
            return True
        above = "." in realm_host and host.endswith(f".{realm_host}") and realm_port == DEFAULT_PORTS["https"]
        return above or any(
            _matches(entry, realm_host, realm_port, DEFAULT_PORTS["https"])
            for name, entries in self.token_realms.items()
            if split_host(name, DEFAULT_PORTS["https"]) == (host, port)
            for entry in entries
        )

    def check_url(self, text: str | httpx.URL, purpose: Purpose) -> httpx.URL:
        """Return the URL of one hop, checked; its address is checked when it is connected to.

        Raises:
            MalformedInput: it is no absolute http or https URL.
            TrustFailure: it carries credentials, its host is not allowed, or it lacks TLS where TLS is wanted.
        """
        url = parse_url(text)
        host, port = origin_of(url)[1:]
        if url.userinfo:
            raise TrustFailure(f"{show_url(url)}: the address carries a user name or password; refused")
        if purpose is Purpose.REGISTRY and not self.allows_upstream(host, port, url.scheme):
            raise TrustFailure(
                f"{url.netloc.decode()} is not an allowed upstream; to allow it, add it to upstream.allow"
            )
        if purpose is not Purpose.SOURCE and url.scheme == "http" and not self.may_be_plain(host, port):
            hint = "to speak plain HTTP to this host, add it to upstream.plain_http"
            raise TrustFailure(f"{show_url(url)}: an address without TLS; refused ({hint})")
        return url

    def check_address(self, host: str, port: int, address: str) -> None:
        """Refuse an address that is not public, unless its host is named; raises TrustFailure."""
        if is_public(address) or self.is_named(normalize_host(host), port):
            return
        shown = f"{host}:{port}"
        resolved = "is" if host == address else f"resolves to {address}, which is"
        raise TrustFailure(
            f"{shown} {resolved} not a public address; refused without connecting. To allow it, name {host} in "
            "upstream.private (a registry) or sources.private (a package source)"
        )


def is_public(address: str) -> bool:
    """Say whether an IP address is globally reachable unicast; what embeds an IPv4 address counts as that address."""
    parsed: IPv4Address | IPv6Address = ipaddress.ip_address(address)
    if isinstance(parsed, IPv6Address):
        embedded = parsed.ipv4_mapped or parsed.sixtofour
        if parsed in _NAT64:
            embedded = IPv4Address(int(parsed) & 0xFFFFFFFF)
        if embedded is not None:
            return is_public(str(embedded))
        if parsed.teredo is not None or parsed.is_site_local:
            return False
    return parsed.is_global and not (parsed.is_multicast or parsed.is_reserved or parsed.is_unspecified)


def parse_url(text: str | httpx.URL) -> httpx.URL:
    """Parse an absolute http or https URL; raises MalformedInput."""
    if isinstance(text, str) and len(text) > MAX_URL:
        raise MalformedInput(f"a URL of {len(text)} characters, {MAX_URL} at the most", text=text)
    try:
        url = httpx.URL(text)
    except (httpx.InvalidURL, ValueError, UnicodeError) as error:
        raise MalformedInput(f"not a URL ({error})", text=str(text)) from error
    if url.scheme not in DEFAULT_PORTS or not url.host or not 0 < origin_of(url)[2] <= MAX_PORT:
        raise MalformedInput("not an http or https URL with a host", text=show_url(url))
    return url


def show_url(url: httpx.URL) -> str:
    """Return a URL for messages: without user, password and query, which may hold secrets."""
    return str(url.copy_with(username=None, password=None, query=None, fragment=None))


def origin_of(url: httpx.URL) -> Origin:
    """Return scheme, host and port: what credentials belong to."""
    port = DEFAULT_PORTS[url.scheme] if url.port is None else url.port
    return url.scheme, normalize_host(url.host), port


def normalize_host(host: str) -> str:
    """Return a host as it is compared: lower case, without brackets and without a final dot."""
    return host.lower().strip("[]").rstrip(".")


def split_host(text: str, default_port: int) -> tuple[str, int]:
    """Split `host[:port]`, an IPv6 address in brackets."""
    host, colon, port = text.rpartition(":")
    if colon and port.isdecimal() and not (":" in host and not host.startswith("[")):
        return normalize_host(host), int(port)
    return normalize_host(text), default_port


def _matches(entry: str, host: str, port: int, default_port: int) -> bool:
    wanted, wanted_port = split_host(entry, default_port)
    if wanted_port != port:
        return False
    if wanted in DOCKER_HUB_NAMES:
        return host in DOCKER_HUB_NAMES
    return host.endswith(wanted[1:]) if wanted.startswith("*.") else host == wanted
