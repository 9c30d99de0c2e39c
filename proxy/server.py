"""The proxy's routes: /v1 for the webhook and people, /v2 for registry clients, health and metrics.

Owns the routes and errors -> HTTP, nothing else. /v1 needs what a push needs: a client certificate or the configured
token or password, a listed service account (see `access`).
"""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from aiohttp import web
from pydantic import ValidationError

from certs.traces import TRACEPARENT, Tracing, tell_image
from proxy.access import Access
from proxy.api import ErrorBody, ResolveRequest
from proxy.errors import AdmendError, UpstreamUnavailable
from proxy.fleet.report import StatusReport
from proxy.mirror import EmbeddedMirror, Mirror
from proxy.pullthrough import PullThrough
from proxy.resolve import Resolve
from proxy.rights import Rights
from proxy.telemetry import Metrics
from proxy.v2 import Hooks, add_v2_routes

MAX_REQUEST = 64 << 10  # bytes of a /v1 body

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Parts:
    """What the routes need of the running proxy."""

    resolve: Resolve
    mirror: Mirror
    pull_through: PullThrough | None  # of an embedded mirror, as `rights`
    access: Access
    metrics: Metrics
    rights: Rights | None = None
    status: Callable[[], Awaitable[StatusReport | None]] | None = None  # None: no pods are looked at
    tracing: Tracing = field(default_factory=Tracing)


def make_app(parts: Parts) -> web.Application:
    """Return the application; nothing is started. Only an embedded mirror is served on /v2."""
    routes = _Routes(parts)
    app = web.Application(client_max_size=MAX_REQUEST)
    app.router.add_post("/v1/resolve", routes.resolve)
    app.router.add_get("/v1/status", routes.status)
    app.router.add_get("/healthz", routes.healthy)
    app.router.add_get("/readyz", routes.healthy)
    app.router.add_get("/metrics", routes.metrics)
    if isinstance(parts.mirror, EmbeddedMirror):
        through = parts.pull_through
        hooks = Hooks(through.manifest, through.blob) if through else Hooks()
        add_v2_routes(app, parts.mirror, parts.access, hooks, parts.rights)
    return app


class _Routes:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def resolve(self, request: web.Request) -> web.Response:
        """POST /v1/resolve."""
        refused = await authorize(self._parts.access, request)
        if refused is not None:
            return refused
        try:
            body = ResolveRequest.model_validate_json(await request.read())
        except web.HTTPRequestEntityTooLarge:
            return _problem(413, "too-large", f"a request has {MAX_REQUEST} bytes at the most")
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(str(part) for part in first["loc"]) or "body"
            return _problem(400, "malformed-input", f"{place}: {first['msg']}")
        with self._parts.tracing.span("resolve", parent=request.headers.get(TRACEPARENT, "")) as span:
            answer = await self._parts.resolve.resolve(body)
            tell_image(span, body.image, answer.outcome, answer.reason)
        self._parts.metrics.observe(answer)
        return web.json_response(text=answer.model_dump_json())

    async def status(self, request: web.Request) -> web.Response:
        """GET /v1/status: how the cluster's workloads stand."""
        refused = await authorize(self._parts.access, request)
        if refused is not None:
            return refused
        if self._parts.status is None:
            return _problem(404, "unsupported", "running pods are not looked at: there is no section cluster.fleet")
        try:
            report = await self._parts.status()
        except AdmendError as error:
            return _problem(503, error.code, str(error))
        if report is None:
            return _problem(503, "upstream-unavailable", "no round over the cluster is done yet; ask again in a minute")
        return web.json_response(text=report.model_dump_json())

    async def healthy(self, _: web.Request) -> web.Response:
        """GET /healthz and /readyz: the process serves."""
        return web.Response(text="ok\n")

    async def metrics(self, request: web.Request) -> web.Response:
        """GET /metrics."""
        body, content_type = self._parts.metrics.render(request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})


async def authorize(access: Access, request: web.Request) -> web.Response | None:
    """Return why a /v1 request is refused, or None when its caller may ask."""
    try:
        caller = await access.identify(request)
    except UpstreamUnavailable as error:
        return _problem(503, error.code, str(error))
    if caller is not None and caller.trusted and caller.scope is None:
        _log.debug("%s %s by %s", request.method, request.path, caller)
        return None
    who = caller or "wrong credentials"
    _log.warning("%s %s from %s: refused, %s", request.method, request.path, request.remote, who)
    message = "/v1 needs a listed client certificate, the configured token or password, or a listed service account"
    return _problem(401, "unauthorized", message)


def _problem(status: int, code: str, message: str) -> web.Response:
    return web.json_response(text=ErrorBody(code=code, message=message).model_dump_json(), status=status)
