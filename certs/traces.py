"""Spans for OpenTelemetry: from an admission at the webhook to the push of a patched image by the proxy.

Owns how spans are made and handed from one process to the other (`traceparent`); `collector` sends them. Without an
endpoint nothing of OpenTelemetry is imported and nothing is made. Attributes hold references, names and words of this
program, never a secret. docs/tracing.md describes every span.
Specification: https://www.w3.org/TR/trace-context/
"""

import asyncio
import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from certs.logs import TRACE_ID
from certs.tracing import TracingConfig

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span as OtelSpan

TRACEPARENT = "traceparent"  # the header
DRAIN = 3.0  # seconds that the end waits
MAX_VALUE = 1024  # characters of an attribute

RESULTS = ("made", "sent", "lost", "dropped")

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

    `counts` has the spans by what became of them: `made`, `sent`, `lost` (the collector did not take them), `dropped`
    (too many waited).
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
        # A thread that nobody joins: one of an executor would be waited for at the end of the process.
        loop, ended = asyncio.get_running_loop(), asyncio.Event()

        def shut_down() -> None:
            self._provider.shutdown()
            with suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(ended.set)

        threading.Thread(target=shut_down, name="last-spans", daemon=True).start()
        try:
            async with asyncio.timeout(DRAIN):
                await ended.wait()
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
    from certs.collector import open_provider  # noqa: PLC0415 - 25 MiB

    counts = Counter[str]()
    return _Sending(open_provider(config, service, counts), counts)
