"""The proxy's figures for Prometheus.

Owns which figures there are, their names and their rendering, in a registry of their own: two proxies in one process
count apart. Labels hold words of this program only, never one that came with a request, so that nobody can grow their
number.
Formats: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import choose_encoder

from proxy.api import Outcome, ResolveResponse

BUCKETS = (0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0)  # seconds


class Metrics:
    """Counts resolves and what is removed; shows what `gauge` was told to read."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        here = self.registry
        self._resolves = Counter("admend_resolves", "Resolves by outcome.", ["outcome"], registry=here)
        self._seconds = Histogram("admend_resolve_seconds", "Duration of resolves.", buckets=BUCKETS, registry=here)
        for outcome in Outcome:
            self._resolves.labels(outcome.value)

    def observe(self, answer: ResolveResponse) -> None:
        """Count one answered resolve."""
        self._resolves.labels(answer.outcome.value).inc()
        self._seconds.observe(answer.milliseconds / 1000)

    def gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Show a value that is read when the figures are asked for; its name gets the prefix `admend_`."""
        Gauge(f"admend_{name}", text, registry=self.registry).set_function(read)

    def render(self, accept: str) -> tuple[bytes, str]:
        """Return all figures and their content type, in the format that the Accept header asks for."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type
