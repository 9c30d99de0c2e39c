"""The webhook's figures for Prometheus.

Owns which figures there are, their names and their rendering, in a registry of their own: two webhooks in one process
count apart. Labels hold words of this program only, never an image or a name from outside, so their number is bounded.
Formats: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import choose_encoder

from webhook.review import AdmissionRequest, Decision

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)  # seconds


class Metrics:
    """Counts admissions; shows what `gauge` was told to read."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        here = self.registry
        words = ["operation", "verdict", "dry_run"]
        self._admissions = Counter("admend_admissions", "Admissions.", words, registry=here)
        self._containers = Counter("admend_containers", "Containers seen.", ["outcome", "verdict"], registry=here)
        self._refused = Counter("admend_requests_refused", "Requests without decision.", ["status"], registry=here)
        self._seconds = Histogram("admend_admission_seconds", "Time to a decision.", buckets=BUCKETS, registry=here)

    def observe(self, request: AdmissionRequest, decision: Decision, seconds: float) -> None:
        """Count one answered request."""
        verdict = decision.audit_annotations.get("verdict", "keep")
        self._admissions.labels(request.operation, verdict, str(request.dry_run).lower()).inc()
        for event in decision.events:
            self._containers.labels(event.outcome.value if event.outcome else "none", event.verdict).inc()
        self._seconds.observe(seconds)

    def refuse(self, status: int) -> None:
        """Count one request that got no decision."""
        self._refused.labels(str(status)).inc()

    def gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Show a value that is read when the figures are asked for; its name gets the prefix `admend_`."""
        Gauge(f"admend_{name}", text, registry=self.registry).set_function(read)

    def render(self, accept: str) -> tuple[bytes, str]:
        """Return all figures and their content type, in the format that the Accept header asks for."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type
