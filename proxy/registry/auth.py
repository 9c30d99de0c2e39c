"""Answers to a registry's challenges: bearer tokens and basic authentication.

Owns the parsing of WWW-Authenticate, the token endpoint's protocol and the cache of tokens by scope. A challenge is
answered only where the registry itself made it (see `session`); the realm is checked by egress like any address. A
login goes over TLS, to the registry and the realms that belong to it (see `EgressPolicy`), and nowhere else: where it
must not go, the challenge is answered without one.
Specifications: https://www.rfc-editor.org/rfc/rfc9110#name-www-authenticate,
https://distribution.github.io/distribution/spec/auth/token/ and .../auth/oauth/
"""

import asyncio
import json
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any
from urllib.parse import urlencode

from proxy.credentials import Credentials, Login
from proxy.egress import Egress, Purpose, Response
from proxy.egress.policy import Origin, origin_of, parse_url
from proxy.errors import MalformedInput, UpstreamRefused
from proxy.oci.reference import ImageRef

MAX_CHALLENGE = 8192  # characters
MAX_TOKEN_ANSWER = 256 << 10
MAX_TOKENS = 1024
MAX_LIFE = 3600.0  # seconds, whatever the server says
DEFAULT_LIFE = 60.0  # what the token protocol says when the server does not
MARGIN = 0.1  # of a token's life: it must outlast the request that it is sent with
UNAUTHORIZED = 401
_OK = 200
_PARAMETER = r'[A-Za-z0-9_-]+\s*=\s*(?:"(?:[^"\\]|\\.)*"|[^\s",]+)'
_CHALLENGE = re.compile(rf"([A-Za-z][A-Za-z0-9_-]*)(?:\s+({_PARAMETER}(?:\s*,\s*{_PARAMETER})*))?(?:\s*,\s*|\s*$)")
_PAIR = re.compile(r'([A-Za-z0-9_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s",]+))')
_TOKEN = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, slots=True)
class Challenge:
    """One challenge: its scheme and its parameters, names in lower case."""

    scheme: str
    parameters: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Scope:
    """What a request wants to do: the repository, its actions (`pull`, `pull,push`) and one to mount from."""

    name: ImageRef
    actions: str = "pull"
    mount_from: str = ""

    @property
    def texts(self) -> tuple[str, ...]:
        """The scopes as the token protocol writes them."""
        own = f"repository:{self.name.repository}:{self.actions}"
        return (own, f"repository:{self.mount_from}:pull") if self.mount_from else (own,)

    @property
    def key(self) -> tuple[str, ...]:
        """What a token is cached by."""
        return (self.name.host, *self.texts)


def parse_challenges(values: Sequence[str]) -> tuple[Challenge, ...]:
    """Parse the values of WWW-Authenticate headers; what follows no grammar is left out."""
    found = []
    for value in values:
        if len(value) > MAX_CHALLENGE:
            continue
        position = 0
        while match := _CHALLENGE.match(value, position):
            pairs = _PAIR.findall(match[2] or "")
            parameters = {name.lower(): re.sub(r"\\(.)", r"\1", quoted) or bare for name, quoted, bare in pairs}
            found.append(Challenge(match[1].lower(), parameters))
            position = match.end()
            if position >= len(value):
                break
    return tuple(found)


class Authenticator:
    """Knows what to send where; tokens are kept by scope until shortly before they expire."""

    def __init__(self, egress: Egress, credentials: Credentials) -> None:
        self._egress, self.credentials = egress, credentials
        self._tokens: OrderedDict[tuple[str, ...], tuple[str, float, Login | None]] = OrderedDict()
        self._basic: set[str] = set()
        self.withheld: dict[str, str] = {}  # by registry, why its login was not sent
        self._locks: dict[tuple[str, ...], asyncio.Lock] = {}

    def header(self, scope: Scope, registry: Origin) -> str | None:
        """Return the Authorization header to send at once, or None where nothing is known yet."""
        if scope.name.host in self._basic:
            login = self._login(scope, registry)
            return login.basic if login else None
        token, expires, made_with = self._tokens.get(scope.key, ("", 0.0, None))
        if made_with is not None and made_with != self.credentials.find(scope.name.name):
            return None  # the login was withdrawn or replaced, and what it opened goes with it
        return f"Bearer {token}" if token and expires > monotonic() else None

    def _login(self, scope: Scope, registry: Origin) -> Login | None:
        """Return the login to use; None as well where it must not go, which `withheld` then explains."""
        login = self.credentials.find(scope.name.name)
        if login is None or self._egress.policy.takes_credentials(registry):
            return login
        self.withheld[scope.name.host] = "it is spoken to without TLS (upstream.plain_http_credentials would send it)"
        return None

    async def answer(
        self, scope: Scope, challenges: Sequence[Challenge], sent: str | None, registry: Origin
    ) -> str | None:
        """Return a new Authorization header for a challenge, or None where there is nothing better than `sent`.

        `registry` is the origin that made the challenge.
        """
        login = self._login(scope, registry)
        bearer = next((item for item in challenges if item.scheme == "bearer" and "realm" in item.parameters), None)
        if bearer is not None:
            lock = self._locks.setdefault(scope.key, asyncio.Lock())
            try:
                async with lock:
                    known = self.header(scope, registry)
                    if known not in {None, sent}:
                        return known
                    return await self._fetch_token(scope, bearer, self._at_realm(scope, bearer, login, registry))
            finally:
                if not lock.locked():
                    self._locks.pop(scope.key, None)
        if login is not None and login.username and any(item.scheme == "basic" for item in challenges):
            self._basic.add(scope.name.host)
            return login.basic if login.basic != sent else None
        return None

    def _at_realm(self, scope: Scope, challenge: Challenge, login: Login | None, registry: Origin) -> Login | None:
        """Return the login if it may be sent to the realm that the registry names."""
        realm = origin_of(parse_url(challenge.parameters["realm"]))
        if login is None or self._egress.policy.may_exchange(registry, realm):
            return login
        self.withheld[scope.name.host] = (
            f"it names {realm[1]} for tokens, another host (upstream.token_realms allows it)"
        )
        return None

    async def _fetch_token(self, scope: Scope, challenge: Challenge, login: Login | None) -> str | None:
        """Ask the realm for a token; None when it refuses (401, 403)."""
        realm = challenge.parameters["realm"]
        query = [("scope", text) for text in scope.texts]
        if challenge.parameters.get("service"):
            query.insert(0, ("service", challenge.parameters["service"]))
        if login is not None and login.identity_token:
            form = [("grant_type", "refresh_token"), ("client_id", "admend"), ("refresh_token", login.identity_token)]
            scopes = ("scope", " ".join(scope.texts))
            body = urlencode([*form, *(pair for pair in query if pair[0] != "scope"), scopes]).encode()
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            response = await self._egress.fetch(
                realm, method="POST", content=body, headers=headers, limit=MAX_TOKEN_ANSWER, purpose=Purpose.LINK
            )
        else:
            headers = {"Authorization": login.basic} if login else {}
            url = f"{realm}{'&' if '?' in realm else '?'}{urlencode(query)}"
            response = await self._egress.fetch(url, headers=headers, limit=MAX_TOKEN_ANSWER, purpose=Purpose.LINK)
        if response.status in {400, 401, 403, 404}:
            return None
        token, life = _parse_token(response)
        self._tokens[scope.key] = (token, monotonic() + life, login)
        self._tokens.move_to_end(scope.key)
        while len(self._tokens) > MAX_TOKENS:
            self._tokens.popitem(last=False)
        return f"Bearer {token}"


def _parse_token(response: Response) -> tuple[str, float]:
    """Return the token and how many seconds to use it."""
    if response.status != _OK:
        raise UpstreamRefused(f"{response.url}: the token server answered {response.status}", status=response.status)
    try:
        document: Any = json.loads(response.body)
        token = document.get("token") or document.get("access_token")
        life = float(document.get("expires_in") or DEFAULT_LIFE)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise MalformedInput("the token server's answer is not the JSON it should be", file=response.url) from error
    if not isinstance(token, str) or _TOKEN.fullmatch(token) is None:
        raise MalformedInput("the token server's answer holds no token", file=response.url)
    return token, min(max(life, 0.0), MAX_LIFE) * (1 - MARGIN)
