"""Who may pull from and push to the embedded mirror.

Owns the check of a request's credentials against the configured ones: HTTP basic, a bearer token, or a client
certificate that TLS has verified. Comparisons take the same time whatever is wrong. Refuses every push without
configured credentials: an open mirror would let anybody choose what nodes run.
"""

import base64
import binascii
import hmac
from dataclasses import dataclass
from typing import Literal

from aiohttp import web

CHALLENGE = 'Basic realm="admend", charset="UTF-8"'


@dataclass(frozen=True, slots=True)
class Access:
    """The configured credentials.

    Args:
        username: for basic authentication; with `password`.
        password: empty switches basic authentication off.
        token: a bearer token; empty switches it off.
        pull: `anonymous`, or `basic` when pulls need the same credentials as pushes.
        client_certificates: whether a certificate that the TLS layer verified is enough.
    """

    username: str = ""
    password: str = ""
    token: str = ""
    pull: Literal["anonymous", "basic"] = "anonymous"
    client_certificates: bool = False

    def may_push(self, request: web.Request) -> bool:
        """Return whether the request carries valid credentials."""
        transport = request.transport
        if self.client_certificates and transport is not None and transport.get_extra_info("peercert"):
            return True
        scheme, _, value = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self.token:
            return _same(value.strip(), self.token)
        if scheme.lower() == "basic" and self.password:
            try:
                given = base64.b64decode(value.strip(), validate=True).decode()
            except (binascii.Error, UnicodeDecodeError):
                return False
            return _same(given, f"{self.username}:{self.password}")
        return False

    def may_pull(self, request: web.Request) -> bool:
        """Return whether the request may read; where anybody may, wrong credentials are refused all the same."""
        if self.pull == "anonymous" and not _has_credentials(request):
            return True
        return self.may_push(request)


def _has_credentials(request: web.Request) -> bool:
    """Return whether the request names somebody: some clients send an empty name and password for nobody."""
    return request.headers.get("Authorization", "") not in {"", "Basic Og=="}


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(), expected.encode())
