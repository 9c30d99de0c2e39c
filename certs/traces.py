"""Spans for OpenTelemetry: from an admission at the webhook to the push of a patched image by the proxy.

Owns how spans are made, handed from one process to the other (`traceparent`) and sent. Without an endpoint nothing of
OpenTelemetry is imported and nothing is made. Spans wait in memory (`QUEUE` of them), a thread sends them; a collector
that is slow or away costs spans, never an admission. Attributes hold references, names and words of this program, never
a secret. docs/tracing.md describes every span.
Specifications: https://www.w3.org/TR/trace-context/, https://opentelemetry.io/docs/specs/otlp/#otlphttp
"""

import asyncio
import logging
import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from certs.errors import SettingsError
from certs.logs import TRACE_ID
from certs.tracing import TracingConfig

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
    from opentelemetry.trace import Span as OtelSpan

TRACEPARENT = "traceparent"  # the header
QUEUE = 2048  # spans that wait
BATCH = 512
PAUSE = 1.0  # seconds that a batch waits for more spans
TIMEOUT = 5.0  # seconds of one request to the collector, all its attempts together
DRAIN = 3.0  # seconds that the end waits
SAID_SECONDS = 60.0  # between two lines about a collector
MAX_TOKEN = 16 << 10  # bytes
MAX_VALUE = 1024  # characters of an attribute
SDK = "opentelemetry"  # its logger, which tells of a collector that does not take spans

RESULTS = ("made", "sent", "lost")

Kind = Literal["internal", "server", "client"]
Value = str | int | float | bool

log = logging.getLogger(__name__)


class Span(Protocol):
    """One step of a trace; `trace_id` is empty where the trace is not recorded."""

    trace_id: str

    @property
    def header(self) -> str:
        """What a request to the next process carries as `traceparent`, or nothing."""
        ...

    def set(self, name: str, value: Value) -> None:
        """Set an attribute."""

    def fail(self, reason: str) -> None:
        """Say that the step failed."""


def tell_image(span: Span, image: str, outcome: str, reason: str) -> None:
    """Say of a span which image it is about and what that came to."""
    span.set("container.image.name", image)
    span.set("admend.outcome", outcome)
    if outcome == "failed":
        span.fail(reason)
    elif reason:
        span.set("admend.reason", reason)


class _Nothing:
    """The span of a trace that nobody makes."""

    trace_id = header = ""

    def set(self, name: str, value: Value) -> None:
        """Do nothing."""

    def fail(self, reason: str) -> None:
        """Do nothing."""


NOTHING: Span = _Nothing()
_CURRENT: ContextVar["_Made | None"] = ContextVar("span", default=None)


class Tracing:
    """Makes spans; this one makes none.

    `counts` has the spans by what became of them: `made`, `sent`, `lost` (the collector did not take them).
    """

    def __init__(self) -> None:
        self.counts = Counter[str]()

    @contextmanager
    def span(self, name: str, *, parent: str = "") -> Iterator[Span]:  # noqa: ARG002 - for those that make spans
        """Make the block the first span of this process, a child of the one that `parent` (a `traceparent`) names."""
        yield NOTHING

    async def close(self) -> None:
        """Send what waits, for a limited time."""


class _Made:
    """A span of the SDK."""

    def __init__(self, span: "OtelSpan", maker: "_Sending") -> None:
        self._span, self.maker = span, maker
        context = span.get_span_context()
        self.trace_id = f"{context.trace_id:032x}" if span.is_recording() else ""

    @property
    def header(self) -> str:
        context = self._span.get_span_context()
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags & 1:02x}"

    def set(self, name: str, value: Value) -> None:
        self._span.set_attribute(name, value[:MAX_VALUE] if isinstance(value, str) else value)

    def fail(self, reason: str) -> None:
        from opentelemetry.trace import Status, StatusCode  # noqa: PLC0415 - only where traces are made

        self._span.set_status(Status(StatusCode.ERROR, reason[:MAX_VALUE]))

    def child(self, name: str, start: int | None = None, kind: Kind = "internal") -> "_Made":
        from opentelemetry.trace import set_span_in_context  # noqa: PLC0415 - only where traces are made

        return self.maker.start(name, set_span_in_context(self._span), start, kind)

    def end(self, moment: int | None = None) -> None:
        self._span.end(moment)


class _Sending(Tracing):
    """Makes spans with the SDK."""

    KINDS: ClassVar[Sequence[Kind]] = ("internal", "server", "client")  # the numbers of SpanKind

    def __init__(self, provider: "TracerProvider", counts: Counter[str]) -> None:
        super().__init__()
        self._provider, self.counts = provider, counts
        self._tracer = provider.get_tracer("admend", version("admend"))

    @contextmanager
    def span(self, name: str, *, parent: str = "") -> Iterator[Span]:
        made = self.start(name, _remote(parent), None, "server")
        told = TRACE_ID.set(made.trace_id)
        with _entered(made):
            try:
                yield made
            finally:
                TRACE_ID.reset(told)

    def start(self, name: str, context: Any, start: int | None, kind: Kind) -> _Made:
        """Start a span below `context`."""
        from opentelemetry.trace import SpanKind  # noqa: PLC0415 - only where traces are made

        span = self._tracer.start_span(name, context, SpanKind(self.KINDS.index(kind)), start_time=start)
        self.counts["made"] += span.is_recording()
        return _Made(span, self)

    async def close(self) -> None:
        ended = asyncio.get_running_loop().run_in_executor(None, self._provider.shutdown)
        try:
            async with asyncio.timeout(DRAIN):
                await asyncio.shield(ended)
        except TimeoutError:
            log.warning("the collector did not take the last spans in %.0f s", DRAIN)


@contextmanager
def child_span(name: str, kind: Kind = "internal") -> Iterator[Span]:
    """Make the block a child of the current span, where there is one."""
    outer = _CURRENT.get()
    if outer is None:
        yield NOTHING
        return
    made = outer.child(name, kind=kind)
    with _entered(made):
        yield made


def past_span(name: str, start: float, end: float) -> None:
    """Make a child of the current span, where there is one, out of two `perf_counter` readings."""
    outer = _CURRENT.get()
    if outer is not None:
        offset = time.time_ns() - time.perf_counter_ns()
        outer.child(name, offset + int(start * 1e9)).end(offset + int(end * 1e9))


def current_span() -> Span:
    """Return the span that the caller is in."""
    return _CURRENT.get() or NOTHING


@contextmanager
def _entered(made: _Made) -> Iterator[None]:
    token = _CURRENT.set(made)
    try:
        yield
    except BaseException as error:
        made.fail(f"{getattr(error, 'code', type(error).__name__)}: {error}")
        raise
    finally:
        _CURRENT.reset(token)
        made.end()


def _remote(header: str) -> Any:
    """Return the context that a `traceparent` names; one that is wrong is none."""
    from opentelemetry.context import Context  # noqa: PLC0415 - only where traces are made
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415 - likewise

    return TraceContextTextMapPropagator().extract({TRACEPARENT: header}, Context())


def open_tracing(config: TracingConfig, service: str) -> Tracing:
    """Return what makes the spans of a service, as the settings ask.

    Raises:
        SettingsError: a file that the settings name cannot be read.
    """
    if config.endpoint is None:
        return Tracing()
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - 25 MiB
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - likewise
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - likewise
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415 - likewise
    from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio  # noqa: PLC0415 - likewise

    for name, path in (("ca_file", config.ca_file), ("token_file", config.token_file)):
        if path is not None and not path.is_file():
            raise SettingsError(f"tracing.{name}: {path} is no file")
    exporter = OTLPSpanExporter(
        config.endpoint,
        certificate_file=str(config.ca_file) if config.ca_file else None,
        timeout=TIMEOUT,
        session=_session(config),
    )
    counts = Counter[str]()
    resource = Resource.create({"service.name": service, "service.version": version("admend")})
    provider = TracerProvider(ParentBasedTraceIdRatio(config.sample), resource, shutdown_on_exit=False)
    provider.add_span_processor(
        BatchSpanProcessor(_counting(exporter, counts), QUEUE, 1000 * PAUSE, BATCH, 1000 * TIMEOUT)
    )
    sdk = logging.getLogger(SDK)
    sdk.propagate = False
    sdk.handlers = [_Told()]
    return _Sending(provider, counts)


def _session(config: TracingConfig) -> Any:
    """Return a session that follows no redirect, reads no environment, and reads its token anew for each request."""
    import requests  # noqa: PLC0415 - only where traces are made

    session = requests.Session()
    session.trust_env = False
    session.max_redirects = 0
    file = config.token_file
    if file is not None:

        def authorize(request: requests.PreparedRequest) -> requests.PreparedRequest:
            request.headers["Authorization"] = f"Bearer {_read_token(file)}"
            return request

        session.auth = authorize
    return session


def _read_token(file: Path) -> str:
    token = file.read_text().strip()
    if not re.fullmatch(r"[!-~]+", token) or len(token) > MAX_TOKEN:
        raise SettingsError(f"tracing.token_file: {file} holds no token: one line of printable ASCII")
    return token


def _counting(exporter: "SpanExporter", counts: Counter[str]) -> "SpanExporter":
    """Return an exporter that counts, and for which nothing that goes wrong with the collector is an error of ours."""
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult  # noqa: PLC0415 - only where traces are made

    class Counting(SpanExporter):
        def export(self, spans: "Sequence[ReadableSpan]") -> "SpanExportResult":
            try:
                result = exporter.export(spans)
            except Exception as error:  # noqa: BLE001 - a redirect, a token that cannot be read, whatever a collector does
                logging.getLogger(SDK).warning("%s", error)
                result = SpanExportResult.FAILURE
            counts["sent" if result is SpanExportResult.SUCCESS else "lost"] += len(spans)
            return result

        def shutdown(self) -> None:
            exporter.shutdown()

    return Counting()


class _Told(logging.Handler):
    """Says what the SDK says of a collector that takes no spans, in a line and now and then only."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._last = -SAID_SECONDS

    def emit(self, record: logging.LogRecord) -> None:
        now = time.monotonic()
        if now - self._last >= SAID_SECONDS:
            self._last = now
            log.warning("spans are lost: %s", record.getMessage())
