"""Figures for Prometheus: a registry that each process has of its own.

Owns their registration and rendering, so that two services in one process count apart and the figures of all services
look alike. A label's value is a word of this program, never one that came with a request or an image: nobody outside
can make their number grow. docs/metrics.md lists every figure.
Formats: https://prometheus.io/docs/instrumenting/exposition_formats/, names: https://prometheus.io/docs/practices/naming/
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from certs.traces import RESULTS, Tracing

PREFIX = "admend_"

Counts = Mapping[tuple[str, ...], float]
Kind = type[CounterMetricFamily] | type[GaugeMetricFamily]


class Figures:
    """A registry; every name gets the prefix `admend_`, a counter's also the suffix `_total`."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)

    def counter(self, name: str, text: str, *labels: str) -> Counter:
        """Return a counter to be counted up."""
        return Counter(PREFIX + name, text, labels, registry=self.registry)

    def histogram(self, name: str, text: str, *labels: str, buckets: Sequence[float]) -> Histogram:
        """Return a histogram to observe values with."""
        return Histogram(PREFIX + name, text, labels, buckets=buckets, registry=self.registry)

    def gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Show a value that is read when the figures are asked for."""
        Gauge(PREFIX + name, text, registry=self.registry).set_function(read)

    def counts(self, name: str, text: str, labels: Sequence[str], read: Callable[[], Counts]) -> None:
        """Show counts that a part of the program keeps, by their labels' values, when the figures are asked for."""
        self.registry.register(_Counts(PREFIX + name, text, labels, read))

    def levels(self, name: str, text: str, labels: Sequence[str], read: Callable[[], Counts]) -> None:
        """Show values that a part of the program knows, by their labels' values, when the figures are asked for."""
        self.registry.register(_Counts(PREFIX + name, text, labels, read, GaugeMetricFamily))

    def show_spans(self, tracing: Tracing) -> None:
        """Show what became of the spans of a process."""
        text = "Spans by what became of them: made, sent, lost (the collector did not take them)."
        self.counts("spans", text, ["result"], lambda: {(name,): tracing.counts[name] for name in RESULTS})

    def render(self, accept: str) -> tuple[bytes, str]:
        """Return all figures and their content type, in the format that the Accept header asks for."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type


class _Counts(Collector):
    def __init__(
        self, name: str, text: str, labels: Sequence[str], read: Callable[[], Counts], kind: Kind = CounterMetricFamily
    ) -> None:
        self._name, self._text, self._labels, self._read, self._kind = name, text, labels, read, kind

    def collect(self) -> Iterable[CounterMetricFamily | GaugeMetricFamily]:
        """Return the family with what is counted now."""
        family = self._kind(self._name, self._text, labels=self._labels)
        for values, count in sorted(self._read().items()):
            family.add_metric(values, count)
        return [family]
