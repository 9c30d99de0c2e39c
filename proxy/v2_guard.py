"""Who comes through the doors of /v2/, and the error bodies behind them.

Owns the order of checks of every route (who asks, what the route names, whether that caller may do this there), what
is said to whom it is refused, and the error bodies of all routes. A private repository is closed to all but the
operator's own and the namespaces that were granted it (see `rights`), whatever `auth.pull` says.
Specification: https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#error-codes
"""

import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus

from aiohttp import web

from proxy.access import BASIC_CHALLENGE, NOBODY, Access, Caller
from proxy.errors import (
    AdmendError,
    MalformedInput,
    ResourceExhausted,
    TrustFailure,
    Unsupported,
    UpstreamRefused,
    UpstreamUnavailable,
)
from proxy.mirror import EmbeddedMirror
from proxy.oci.reference import ImageRef
from proxy.pulltokens import parse_scopes
from proxy.rights import Rights

CALLER: web.RequestKey[Caller] = web.RequestKey("caller", Caller)
MAX_FORM = 64 << 10  # bytes of a request for a token

_log = logging.getLogger(__name__)

_ANSWERS: dict[type[AdmendError], tuple[int, str]] = {
    MalformedInput: (400, "MANIFEST_INVALID"),
    Unsupported: (415, "UNSUPPORTED"),
    TrustFailure: (502, "DIGEST_INVALID"),
    ResourceExhausted: (507, "TOOMANYREQUESTS"),
}

_SEPARATORS = frozenset(":@")
_NOTHING = frozenset({HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND})

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def problem(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> web.Response:
    """Return an error in the specification's form."""
    body = {"errors": [{"code": code, "message": message}]}
    return web.json_response(body, status=status, headers=headers)


def explain(error: AdmendError) -> web.Response:
    """Return the answer for an error of admend's own."""
    text = str(error)
    if isinstance(error, UpstreamRefused):
        absent = error.status == HTTPStatus.NOT_FOUND
        return problem(404, "MANIFEST_UNKNOWN", text) if absent else problem(403, "DENIED", text)
    if isinstance(error, UpstreamUnavailable):
        return problem(503, "TOOMANYREQUESTS", text, {"Retry-After": str(int(error.retry_after or 5))})
    status, code = _ANSWERS.get(type(error), (500, "UNKNOWN"))
    return problem(status, code, text)


class Guard:
    """The checks before every route.

    Args:
        mirror: says what names mean.
        access: says who asks.
        rights: says which repositories are private, and whose.
    """

    def __init__(self, mirror: EmbeddedMirror, access: Access, rights: Rights) -> None:
        self._mirror, self.access, self._rights = mirror, access, rights

    def read(self, handler: Handler) -> Handler:
        """Wrap a handler that changes nothing."""
        return self._wrap(handler, "pull")

    def write(self, handler: Handler) -> Handler:
        """Wrap a handler that pushes or deletes."""
        return self._wrap(handler, "push")

    def _wrap(self, handler: Handler, action: str) -> Handler:
        async def guarded(request: web.Request) -> web.StreamResponse:
            try:
                refused = await self._check(request, action)
                return refused if refused is not None else self._ask_back(request, await handler(request))
            except AdmendError as error:
                _log.info("%s %s: %s", request.method, request.path, error)
                return self._ask_back(request, explain(error))

        return guarded

    def _ask_back(self, request: web.Request, answer: web.StreamResponse) -> web.StreamResponse:
        """Return the answer, or where somebody without credentials was given nothing, what others would be asked for.

        Clients show their credentials only to who asks for them.
        """
        if answer.status not in _NOTHING or request.get(CALLER) != NOBODY or not request.match_info.get("name"):
            return answer
        repository = self.ref(request).repository
        return self._unknown(request, "pull") if self._rights.wants_login(repository) else answer

    async def _check(self, request: web.Request, action: str) -> web.Response | None:
        """Return why a request goes no further, or None; its caller is noted in it."""
        caller = await self.access.identify(request)
        if caller is None or (action == "push" and not caller.trusted and not caller.namespace):
            return self._unknown(request, action)
        if action == "pull" and caller == NOBODY and self.access.pull != "anonymous":
            return self._unknown(request, action)
        request[CALLER] = caller
        try:
            ref = self.ref(request)
        except MalformedInput as error:
            reads = request.method in {"GET", "HEAD"}
            return problem(404, "NAME_UNKNOWN", str(error)) if reads else problem(400, "NAME_INVALID", str(error))
        name = request.match_info.get("name", "")
        return self._judge(request, caller, action, ref.repository) if name else None

    def _judge(self, request: web.Request, caller: Caller, action: str, repository: str) -> web.Response | None:
        name = request.match_info["name"]  # what a client that adds `?ns=` believes to talk about
        wanted = "delete" if request.method == "DELETE" and "/uploads/" not in request.path else action
        covered = any(caller.covers(wanted, text) for text in (repository, name))
        allowed = caller.trusted if action == "push" else self.may_read(caller, repository)
        if allowed and covered:
            if action == "push":
                _log.info("%s %s by %s", request.method, request.path, caller)
            return None
        if caller == NOBODY or (not covered and self.access.pull == "token"):
            return self._unknown(request, wanted)
        _log.warning("%s %s by %s: refused", request.method, request.path, caller)
        what = "may not push" if action == "push" else "may not pull this: its registry has not let it in lately"
        return problem(403, "DENIED", f"{caller} {what} ({repository})")

    def may_read(self, caller: Caller, repository: str) -> bool:
        """Say whether a caller who may pull at all may pull from this repository."""
        return self._rights.may_pull(caller, repository)

    def _unknown(self, request: web.Request, action: str) -> web.Response:
        what = "pulling this needs" if action == "pull" else "pushing and deleting need"
        message = f"{what} the mirror's credentials; none or wrong ones came"
        try:
            repository = self.ref(request).repository if request.match_info.get("name") else ""
        except MalformedInput:
            repository = ""
        challenge = self.access.challenge(request, repository, "pull" if action == "pull" else f"pull,{action}")
        return problem(401, "UNAUTHORIZED", message, {"WWW-Authenticate": challenge})

    def ref(self, request: web.Request) -> ImageRef:
        """Return what a route's name and reference mean, `?ns=` of containerd mirrors applied."""
        host, name = self._mirror.naming.host, request.match_info.get("name", "x")
        reference = request.match_info.get("reference", "latest")
        at = "@" if ":" in reference else ":"
        namespace = request.query.get("ns", "")
        if namespace and namespace != host and request.method in {"GET", "HEAD"}:
            return self._mirror.name_for(ImageRef.parse(f"{namespace}/{name}{at}{reference}"))
        if not _SEPARATORS.isdisjoint(name):
            raise MalformedInput("the name of a repository has no tag and no digest", text=name)
        parsed = ImageRef.parse(f"{host}/{name}{at}{reference}")
        return ImageRef(host, name, parsed.tag, parsed.digest)

    async def token(self, request: web.Request) -> web.Response:
        """GET and POST /v2/token: a short-lived token for who brings credentials, bounded to what it asks for.

        Flow: https://distribution.github.io/distribution/spec/auth/token/ and .../auth/oauth/
        """
        if self.access.pull != "token" or self.access.tokens is None:
            return problem(404, "UNSUPPORTED", "this mirror hands out no tokens (auth.pull)")
        try:
            caller, scopes = await self._applicant(request)
        except UpstreamUnavailable as error:
            return explain(error)
        if caller is None or caller == NOBODY or caller.scope is not None:
            message = "a token needs the mirror's user and password, or a namespace's"
            return problem(401, "UNAUTHORIZED", message, {"WWW-Authenticate": BASIC_CHALLENGE})
        granted = {name: actions if caller.trusted else actions & {"pull"} for name, actions in scopes.items()}
        _log.info("a token for %s: %s", caller, ", ".join(sorted(granted)) or "no repository")
        token = self.access.issue(caller, granted)
        answer = {"token": token, "access_token": token, "expires_in": self.access.tokens.seconds}
        return web.json_response(answer, headers={"Cache-Control": "no-store"})

    async def _applicant(self, request: web.Request) -> tuple[Caller | None, dict[str, frozenset[str]]]:
        """Return who asks for a token, and for what: from the query and header, or a form (OAuth 2)."""
        if request.method != "POST":
            return await self.access.identify(request), parse_scopes(request.query.getall("scope", []))
        if (request.content_length or MAX_FORM + 1) > MAX_FORM:
            return None, {}
        form = await request.post()
        values = {key: value for key, value in form.items() if isinstance(value, str)}
        if values.get("grant_type") != "password":
            return None, {}
        caller = self.access.identify_login(values.get("username", ""), values.get("password", ""))
        return caller, parse_scopes([values.get("scope", "")])
