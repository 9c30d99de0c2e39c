"""Whose service account token this is, as the cluster says (TokenReview).

Owns the question, and how long an answer is believed: a minute, never longer than the token's own life, and a few
seconds for a no. Tokens are kept as a keyed hash only. Refuses tokens that are not meant for this service's audiences,
accounts that are not listed, and, when the API server does not answer, everybody: never open.
API: https://kubernetes.io/docs/reference/kubernetes-api/authentication-resources/token-review-v1/
"""

import base64
import binascii
import hashlib
import hmac
import json
import logging
import secrets
import time
from collections import OrderedDict
from typing import Any

from proxy.config import TokenReviewConfig
from proxy.errors import UpstreamRefused, UpstreamUnavailable
from proxy.flight import SingleFlight
from proxy.kube.cluster import Cluster

MAX_TOKEN = 12 << 10  # characters
MAX_KNOWN = 1024  # tokens
MAX_WAITING = 32  # different tokens that the API server is asked about at once
GOOD_SECONDS, BAD_SECONDS = 60.0, 10.0
JWT_PARTS = 3

_log = logging.getLogger(__name__)


class TokenReviews:
    """Answers from the cluster, remembered for a short time.

    Args:
        cluster: the way to the API server.
        config: audiences, and who is allowed.
    """

    def __init__(self, cluster: Cluster, config: TokenReviewConfig) -> None:
        self._cluster, self._config = cluster, config
        self._salt = secrets.token_bytes(32)
        self._known: OrderedDict[bytes, tuple[str, float]] = OrderedDict()
        self._flights: SingleFlight[bytes, str] = SingleFlight()

    async def review(self, token: str) -> str:
        """Return the name of the service account, or "" when the token is not good here.

        Raises UpstreamUnavailable when the API server cannot say.
        """
        expiry = read_expiry(token)
        if expiry is None or expiry <= time.time():
            return ""
        key = hmac.digest(self._salt, token.encode(), hashlib.sha256)
        name, until = self._known.get(key, ("", 0.0))
        if until > time.monotonic():
            return name
        if len(self._flights) >= MAX_WAITING:
            raise UpstreamUnavailable("too many tokens are being checked; try again", retry_after=1.0)
        return await self._flights.run(key, lambda: self._ask(key, token, expiry))

    async def close(self) -> None:
        """End the questions under way."""
        await self._flights.close()

    async def _ask(self, key: bytes, token: str, expiry: float) -> str:
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": list(self._config.audiences)},
        }
        try:
            answer = await self._cluster.ask("review a token", self._cluster.authentication.create_token_review, body)
        except UpstreamRefused as error:  # a missing role is the operator's to mend, and no fault of the caller's
            raise UpstreamUnavailable(f"service account tokens cannot be checked: {error}") from error
        name = self._judge(answer.status)
        life = min(GOOD_SECONDS, expiry - time.time()) if name else BAD_SECONDS
        self._known[key] = (name, time.monotonic() + life)
        self._known.move_to_end(key)
        while len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)
        return name

    def _judge(self, status: Any) -> str:
        """Return the name of who is vouched for and allowed, or ""."""
        name = str(status.user.username or "") if status.authenticated and status.user else ""
        if not name or not set(status.audiences or ()) & set(self._config.audiences):
            return ""
        if name not in self._config.allow:
            _log.warning("%s asks with a token of its own and is not listed in auth.token_review.allow", name)
            return ""
        return name


def read_expiry(token: str) -> float | None:
    """Return when a token says that it ends, in seconds since the epoch; None where it does not look like a token.

    Nothing else is believed of it: who it is, and whether it is good, the API server says.
    """
    parts = token.split(".")
    if len(parts) != JWT_PARTS or len(token) > MAX_TOKEN or not token.isascii():
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        expiry = claims["exp"]
    except (binascii.Error, ValueError, KeyError, TypeError, RecursionError):
        return None
    return float(expiry) if isinstance(expiry, int | float) and 0 < expiry < 1 << 53 else None
