"""The webhook's routes: /mutate for the API server, health and metrics for the cluster.

Owns the routes and errors -> HTTP, nothing else. `/mutate` decides in the mode of the configuration,
`/mutate/permissive`, `/mutate/enforce` and `/mutate/audit` in theirs: one webhook serves namespaces of every mode.
"""

import asyncio
import time
from functools import partial

from aiohttp import web

from certs.logs import UID
from certs.traces import TRACEPARENT, Span, Tracing
from proxy.api import ErrorBody
from proxy.errors import AdmendError, MalformedInput
from webhook.admission import Admitter, parse_timeout
from webhook.config import Mode
from webhook.metrics import Metrics
from webhook.review import AdmissionRequest, Decision, parse_review, render_review

JSON = "application/json"


class Health:
    """Whether the webhook takes requests; it stops being ready before it ends."""

    def __init__(self) -> None:
        self.ready = False


def make_app(
    admitter: Admitter,
    metrics: Metrics,
    health: Health,
    *,
    max_body: int,
    known_clients: bool = False,
    tracing: Tracing | None = None,
) -> web.Application:
    """Return the application; nothing is started.

    Args:
        admitter: decides.
        metrics: counts.
        health: says whether requests are taken.
        max_body: bytes of a review, at the most.
        known_clients: take reviews only over connections with a client certificate (which TLS has checked).
        tracing: makes spans.
    """
    routes = _Routes(admitter, metrics, health, tracing or Tracing(), known_clients=known_clients)
    app = web.Application(client_max_size=max_body)
    app.router.add_post("/mutate", routes.mutate)
    for mode in Mode:
        app.router.add_post(f"/mutate/{mode}", partial(routes.mutate, mode=mode))
    app.router.add_get("/healthz", routes.healthy)
    app.router.add_get("/readyz", routes.ready)
    app.router.add_get("/metrics", routes.metrics)
    return app


class _Routes:
    def __init__(
        self, admitter: Admitter, metrics: Metrics, health: Health, tracing: Tracing, *, known_clients: bool
    ) -> None:
        self._admitter, self._metrics, self._health = admitter, metrics, health
        self._tracing, self._known_clients = tracing, known_clients

    async def mutate(self, request: web.Request, mode: Mode | None = None) -> web.Response:
        start = time.perf_counter()
        if self._known_clients and not request.get_extra_info("peercert"):
            return self._refuse(401, "unauthorized", "reviews are taken over TLS with a client certificate only")
        if request.content_type != JSON:
            return self._refuse(415, "unsupported-media-type", f"send the AdmissionReview as {JSON}")
        seconds = parse_timeout(request.query.get("timeout"))
        try:
            async with asyncio.timeout(seconds):
                body = await request.read()
            review = parse_review(body)
            UID.set(review.uid)
            parent = request.headers.get(TRACEPARENT, "")
            with self._metrics.in_flight(), self._tracing.span("admit", parent=parent) as span:
                decision = await self._admitter.admit(review, seconds - (time.perf_counter() - start), mode)
                _tell(span, review, decision)
        except (AdmendError, TimeoutError, web.HTTPRequestEntityTooLarge) as error:
            return self._refuse(*_explain(error))
        self._metrics.observe(review, decision, time.perf_counter() - start)
        return web.Response(body=render_review(review.uid, decision), content_type=JSON)

    async def healthy(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def ready(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n") if self._health.ready else web.Response(status=503, text="ending\n")

    async def metrics(self, request: web.Request) -> web.Response:
        body, content_type = self._metrics.render(request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

    def _refuse(self, status: int, code: str, message: str) -> web.Response:
        self._metrics.refuse(status)
        return web.Response(
            status=status, text=ErrorBody(code=code, message=message).model_dump_json(), content_type=JSON
        )


def _tell(span: Span, review: AdmissionRequest, decision: Decision) -> None:
    """Say of a span what the admission was about and how it ended."""
    span.set("admend.uid", review.uid)
    if review.pod is not None:
        span.set("k8s.namespace.name", review.pod.namespace)
        span.set("k8s.pod.name", review.pod.name)
    span.set("admend.verdicts", " ".join(sorted({event.verdict for event in decision.events})))
    if not decision.allowed:
        span.set("admend.denied", decision.message)


def _explain(error: Exception) -> tuple[int, str, str]:
    """Return status, code and message of a request that gets no decision."""
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        return 413, "too-large", f"the body is over the limit: {error.text}"
    if isinstance(error, TimeoutError):
        return 408, "timeout", "the body did not arrive in the request's own time"
    if isinstance(error, MalformedInput):
        return 400, error.code, str(error)
    return 500, getattr(error, "code", "internal"), str(error)
