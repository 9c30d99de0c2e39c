"""The webhook's figures for Prometheus: which there are and what they count. docs/metrics.md lists them.

Labels hold words of this program only, never an image or a name from outside, so their number is bounded.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from certs.figures import Counts, Figures
from proxy.audit import AuditLog
from webhook.review import AdmissionRequest, Decision

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)  # seconds


class Metrics(Figures):
    """Counts admissions; shows what others count."""

    def __init__(self) -> None:
        super().__init__()
        words = ("operation", "verdict", "mode", "dry_run")
        self._admissions = self.counter("admissions", "Admissions answered, by their strongest verdict.", *words)
        self._containers = self.counter("containers", "Containers decided about.", "outcome", "verdict")
        self._refused = self.counter("requests_refused", "Requests that got no decision, by HTTP status.", "status")
        self._seconds = self.histogram("admission_seconds", "Time from request to decision.", buckets=BUCKETS)
        text = "Time that one image's answer was waited for, whether it came or not."
        self._waits = self.histogram("proxy_wait_seconds", text, buckets=BUCKETS)
        self._in_flight = 0
        self.gauge("admissions_in_flight", "Admissions under way.", lambda: self._in_flight)

    @contextmanager
    def in_flight(self) -> Iterator[None]:
        """Count the block as an admission under way."""
        self._in_flight += 1
        try:
            yield
        finally:
            self._in_flight -= 1

    def observe(self, request: AdmissionRequest, decision: Decision, seconds: float) -> None:
        """Count one answered request; the mode of one that is about no pod's image is `none`."""
        verdict = decision.audit_annotations.get("verdict", "keep")
        mode = decision.audit_annotations.get("mode", "none")
        words = (request.operation, verdict, mode, str(request.dry_run).lower())
        self._admissions.labels(*words).inc()
        waits: dict[str, float] = {}
        for event in decision.events:
            self._containers.labels(event.outcome.value if event.outcome else "none", event.verdict).inc()
            if event.outcome is not None:
                waits[event.original] = event.milliseconds / 1000
        for wait in waits.values():
            self._waits.observe(wait)
        self._seconds.observe(seconds)

    def refuse(self, status: int) -> None:
        """Count one request that got no decision."""
        self._refused.labels(str(status)).inc()

    def show_requests(self, results: Callable[[], Mapping[str, int]]) -> None:
        """Show what became of requests to proxies."""
        text = "Requests to proxies by what became of them."
        self.counts("proxy_requests", text, ("result",), lambda: {(word,): count for word, count in results().items()})

    def show_audit(self, log: AuditLog) -> None:
        """Show what became of audit lines, by sink."""

        def read(name: str) -> Counts:
            return {(sink.name,): getattr(sink, name) for sink in log.sinks}

        written, dropped = "Audit lines that a sink took.", "Audit lines that are lost: too many waited for the sink."
        self.counts("audit_lines_written", written, ("sink",), lambda: read("written"))
        self.counts("audit_lines_dropped", dropped, ("sink",), lambda: read("dropped"))
