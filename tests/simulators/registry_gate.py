"""How a simulated registry answers, and whom it lets in: basic credentials, or bearer tokens that it gives out."""

import base64
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from aiohttp import web

from tests.simulators.registry_faults import Faults


def answer_json(
    faults: Faults, document: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    """Answer with a document."""
    return web.json_response(document, status=status, headers={**faults.headers, **(headers or {})})


def answer_error(faults: Faults, status: int, code: str, message: str) -> web.Response:
    """Answer with an error as the distribution specification writes it."""
    return answer_json(faults, {"errors": [{"code": code, "message": message}]}, status)


class Gate:
    """Who may do what, by the registry's faults of the moment; `tokens` are those that were given out."""

    def __init__(self, faults: Callable[[], Faults]) -> None:
        self._now = faults
        self.tokens: set[str] = set()

    def basic(self, request: web.Request) -> bool | None:
        """Say whether basic credentials are right; None when there are none."""
        kind, _, value = request.headers.get("Authorization", "").partition(" ")
        if kind.lower() != "basic":
            return None
        return base64.b64decode(value).decode() == f"{self._now().username}:{self._now().password}"

    def token(self, request: web.Request) -> web.Response:
        known = self.basic(request)
        scopes = request.query.getall("scope", [])
        pull_only = all(scope.endswith(":pull") for scope in scopes)
        if known is False or (known is None and not (self._now().anonymous and pull_only)):
            return answer_error(self._now(), 401, "UNAUTHORIZED", "authentication required")
        token = " ".join([uuid.uuid4().hex, *scopes]).replace(" ", "!")
        self.tokens.add(token)
        return answer_json(self._now(), {"token": token, "expires_in": self._now().token_seconds})

    def authenticate(self, request: web.Request) -> web.Response | None:
        if not self._now().auth:
            return None
        repository = request.path.removeprefix("/v2/")
        for mark in ("/manifests/", "/blobs/", "/tags/", "/referrers/"):
            repository = repository.partition(mark)[0]
        if self._now().auth == "basic":
            if self.basic(request):
                return None
            challenge = 'Basic realm="simulator"'
        else:
            action = "pull" if request.method in {"GET", "HEAD"} else "pull,push"
            kind, _, token = request.headers.get("Authorization", "").partition(" ")
            granted = token in self.tokens and any(
                f"repository:{repository}:" in scope and set(action.split(",")) <= set(scope.split(":")[-1].split(","))
                for scope in token.split("!")
            )
            if kind == "Bearer" and (granted or (request.path == "/v2/" and token in self.tokens)):
                return None
            realm = self._now().realm or f"http://{request.host}/token"
            challenge = f'Bearer realm="{realm}",service="simulator",scope="repository:{repository}:{action}"'
        answer = answer_error(self._now(), 401, "UNAUTHORIZED", "authentication required")
        answer.headers["WWW-Authenticate"] = challenge
        return answer
