"""Who asks, and what they may do at the proxy's own doors.

Owns the check of a request's credentials: a client certificate that TLS has verified (its common name listed, if names
are), a static token or password, a service account's token that the cluster vouches for, a namespace's pull password,
or a token that the mirror handed out for one of these. Comparisons take the same time whatever is wrong. Refuses every
push without credentials: an open mirror would let anybody choose what nodes run. What can not be checked now, because
the API server does not answer, is refused too, and said to be that (UpstreamUnavailable).
Challenges: https://www.rfc-editor.org/rfc/rfc9110#name-www-authenticate
"""

import base64
import binascii
import hmac
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from aiohttp import web

from proxy.pulltokens import Grant, NamespacePasswords, PullTokens

BASIC_CHALLENGE = 'Basic realm="admend", charset="UTF-8"'
TOKEN_PATH = "/v2/token"  # noqa: S105 - an address
MAX_AUTHORIZATION = 16 << 10  # characters; service account tokens have some 1,500
_HOST = re.compile(r"[A-Za-z0-9.\-:\[\]]{1,255}")

Review = Callable[[str], Awaitable[str]]  # a service account's token to its name; "" where it is not good here


class How(StrEnum):
    """How somebody proved who they are."""

    CERTIFICATE = "certificate"
    TOKEN = "token"  # noqa: S105 - the word itself
    PASSWORD = "password"  # noqa: S105 - likewise
    SERVICE_ACCOUNT = "service account"
    NAMESPACE = "namespace"
    ANONYMOUS = "anonymous"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks; `scope` bounds what for, by repository, where the mirror's own token says so."""

    who: str = ""
    how: How = How.ANONYMOUS
    scope: Mapping[str, frozenset[str]] | None = field(default=None)

    def __str__(self) -> str:
        return f"{self.how} {self.who}".strip()

    @property
    def trusted(self) -> bool:
        """Whether this is the operator or the operator's own: the webhook, a listed service account."""
        return self.how not in {How.NAMESPACE, How.ANONYMOUS}

    @property
    def namespace(self) -> str:
        """The namespace whose pull password came, or nothing."""
        return self.who if self.how is How.NAMESPACE else ""

    def covers(self, action: str, repository: str) -> bool:
        """Say whether the caller's token, if it has bounds, is for this."""
        return self.scope is None or action in self.scope.get(repository, ())


NOBODY = Caller()


@dataclass(frozen=True, slots=True)
class Access:
    """The configured credentials.

    Args:
        username: for basic authentication; with `password`.
        password: empty switches basic authentication off.
        token: a bearer token; empty switches it off.
        pull: `anonymous`, `basic` when pulls need credentials, `token` when those are exchanged for tokens first.
        client_certificates: whether a certificate that the TLS layer verified is enough.
        client_names: the common names that count; empty for all.
        review: asks the cluster whose token this is.
        namespaces: the pull passwords of namespaces.
        tokens: makes and reads the mirror's own tokens.
        realm: where those are handed out, if not at the host that was asked.
    """

    username: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    pull: Literal["anonymous", "token", "basic"] = "anonymous"
    client_certificates: bool = False
    client_names: frozenset[str] = frozenset()
    review: Review | None = None
    namespaces: NamespacePasswords | None = None
    tokens: PullTokens | None = None
    realm: str = ""

    async def identify(self, request: web.Request) -> Caller | None:
        """Return who asks, `NOBODY` for a request without credentials, None for wrong ones.

        Raises UpstreamUnavailable when the cluster must be asked and does not answer.
        """
        name = self._certificate(request)
        if name is not None:
            return Caller(name, How.CERTIFICATE)
        header = request.headers.get("Authorization", "")
        if header in {"", "Basic Og=="}:  # some clients send an empty name and password for nobody
            return NOBODY
        scheme, _, value = header.partition(" ")
        value = value.strip()
        if len(header) > MAX_AUTHORIZATION or not value or not header.isascii():
            return None
        if scheme.lower() == "basic":
            return self.identify_login(*_split_login(value))
        return await self._bearer(value) if scheme.lower() == "bearer" else None

    def identify_login(self, user: str, password: str) -> Caller | None:
        """Return whose user and password these are, or None."""
        if self.password and _same(f"{user}:{password}", f"{self.username}:{self.password}"):
            return Caller(self.username, How.PASSWORD)
        if self.namespaces is not None and self.namespaces.holds(user, password):
            return Caller(user, How.NAMESPACE)
        return None

    async def _bearer(self, value: str) -> Caller | None:
        if self.token and _same(value, self.token):
            return Caller("token", How.TOKEN)
        grant = self.tokens.read(value, time.time()) if self.tokens is not None else None
        if grant is not None:
            return Caller(grant.who, How(grant.how), grant.scope)
        name = await self.review(value) if self.review is not None else ""
        return Caller(name, How.SERVICE_ACCOUNT) if name else None

    def _certificate(self, request: web.Request) -> str | None:
        """Return the common name of a verified client certificate that counts, or None."""
        transport = request.transport
        found = transport.get_extra_info("peercert") if self.client_certificates and transport is not None else None
        if not found:
            return None
        names = [value for part in found.get("subject", ()) for key, value in part if key == "commonName"]
        name = names[0] if len(names) == 1 else ""
        return name if not self.client_names or name in self.client_names else None

    def issue(self, caller: Caller, scope: Mapping[str, frozenset[str]]) -> str:
        """Return a token for a caller, bounded to `scope`."""
        if self.tokens is None:
            raise ValueError("no tokens are handed out here")
        return self.tokens.issue(Grant(caller.who, caller.how.value, scope), time.time())

    def challenge(self, request: web.Request, repository: str = "", actions: str = "pull") -> str:
        """Return what a client is told to bring."""
        host = request.headers.get("Host", "")
        if self.pull != "token" or self.tokens is None or _HOST.fullmatch(host) is None:
            return BASIC_CHALLENGE
        realm = self.realm or f"{request.scheme}://{host}{TOKEN_PATH}"
        scope = f',scope="repository:{repository}:{actions}"' if repository else ""
        return f'Bearer realm="{realm}",service="{self.tokens.service}"{scope}'


def _split_login(encoded: str) -> tuple[str, str]:
    """Return user and password of a Basic header; empty ones, which are nobody's, where it has no such form."""
    try:
        user, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return "", ""
    return user, password


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(), expected.encode())
