"""The way of spans to a collector of OpenTelemetry.

Owns the SDK's parts and their limits; imported only where traces are made, for it is large. Spans wait in memory
(`QUEUE` of them), a thread sends them; a collector that is slow or away costs spans, never an admission.
Specification: https://opentelemetry.io/docs/specs/otlp/#otlphttp
"""

import logging
import re
import socket
import time
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import requests
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio

from certs.errors import SettingsError
from certs.tracing import TracingConfig

QUEUE = 2048  # spans that wait or are on their way
BATCH = 512
PAUSE = 1.0  # seconds that a batch waits for more spans
TIMEOUT = 5.0  # seconds of one request to the collector, all its attempts together
SAID_SECONDS = 60.0  # between two lines about a collector
MAX_TOKEN = 16 << 10  # bytes
SDK = "opentelemetry"  # its logger, which tells of a collector that does not take spans

log = logging.getLogger(__name__)


def open_provider(config: TracingConfig, service: str, counts: Counter[str]) -> TracerProvider:
    """Return what makes and sends the spans of a service; `counts` gets those that were sent, lost and dropped.

    Raises:
        SettingsError: a file that the settings name cannot be read.
    """
    for name, path in (("ca_file", config.ca_file), ("token_file", config.token_file)):
        if path is not None and not path.is_file():
            raise SettingsError(f"tracing.{name}: {path} is no file")
    exporter = OTLPSpanExporter(
        config.endpoint,
        certificate_file=str(config.ca_file) if config.ca_file else None,
        timeout=TIMEOUT,
        session=_session(config),
    )
    own = {"service.name": service, "service.version": version("admend"), "service.instance.id": socket.gethostname()}
    resource = Resource.create({**config.attributes, **own})
    provider = TracerProvider(ParentBasedTraceIdRatio(config.sample), resource, shutdown_on_exit=False)
    provider.add_span_processor(_bounded(_counting(exporter, counts), counts))
    sdk = logging.getLogger(SDK)
    sdk.propagate = False
    sdk.handlers = [_Told()]
    return provider


def _session(config: TracingConfig) -> requests.Session:
    """Return a session that follows no redirect, reads no environment, and reads its token anew for each request."""
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


def _counting(exporter: SpanExporter, counts: Counter[str]) -> SpanExporter:
    """Return an exporter that counts, and for which nothing that goes wrong with the collector is an error of ours."""

    class Counting(SpanExporter):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
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


def _bounded(exporter: SpanExporter, counts: Counter[str]) -> BatchSpanProcessor:
    """Return a processor that drops and counts what comes while `QUEUE` spans wait or are on their way."""

    class Bounded(BatchSpanProcessor):
        def __init__(self) -> None:
            super().__init__(exporter, QUEUE, 1000 * PAUSE, BATCH, 1000 * TIMEOUT)
            self._taken = 0

        def on_end(self, span: ReadableSpan) -> None:
            if span.context is None or not span.context.trace_flags.sampled:
                return
            if self._taken - counts["sent"] - counts["lost"] >= QUEUE:
                counts["dropped"] += 1
                logging.getLogger(SDK).warning("%d wait for the collector, more have no room", QUEUE)
                return
            self._taken += 1
            super().on_end(span)

    return Bounded()


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
