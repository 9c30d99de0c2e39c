"""Counters and durations in the Prometheus text format.

Owns the metrics of a process and their rendering. Labels are few and never come from a request, so that nobody can
grow them without bound.
Specification: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from collections import defaultdict
from collections.abc import Callable

BUCKETS = (0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0)  # seconds
Labels = tuple[tuple[str, str], ...]


class Metrics:
    """Counters, gauges and histograms by name and labels; `prefix` begins every name."""

    def __init__(self, prefix: str = "admend_") -> None:
        self._prefix = prefix
        self._help: dict[str, tuple[str, str]] = {}
        self._counters: dict[str, dict[Labels, float]] = defaultdict(lambda: defaultdict(float))
        self._histograms: dict[str, dict[Labels, list[float]]] = defaultdict(dict)
        self._gauges: dict[str, Callable[[], float]] = {}

    def count(self, name: str, text: str, amount: float = 1.0, **labels: str) -> None:
        """Add to a counter; its name ends in `_total`."""
        self._help[name] = (text, "counter")
        self._counters[name][tuple(sorted(labels.items()))] += amount

    def observe(self, name: str, text: str, seconds: float, **labels: str) -> None:
        """Add one duration to a histogram; its name ends in `_seconds`."""
        self._help[name] = (text, "histogram")
        series = self._histograms[name].setdefault(tuple(sorted(labels.items())), [0.0] * (len(BUCKETS) + 2))
        for at, bound in enumerate(BUCKETS):
            series[at] += seconds <= bound
        series[-2] += 1
        series[-1] += seconds

    def gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Register a value that is read when the metrics are asked for."""
        self._help[name] = (text, "gauge")
        self._gauges[name] = read

    def render(self) -> str:
        """Return the exposition text."""
        lines: list[str] = []
        for name, (text, kind) in sorted(self._help.items()):
            full = self._prefix + name
            lines += [f"# HELP {full} {text}", f"# TYPE {full} {kind}"]
            if kind == "gauge":
                lines.append(f"{full} {_number(self._gauges[name]())}")
            lines += [f"{full}{_labels(labels)} {_number(v)}" for labels, v in self._counters.get(name, {}).items()]
            for labels, series in self._histograms.get(name, {}).items():
                lines += _histogram(full, labels, series)
        return "\n".join(lines) + "\n"


def _histogram(name: str, labels: Labels, series: list[float]) -> list[str]:
    bounds = [*(str(bound) for bound in BUCKETS), "+Inf"]
    lines = [
        f"{name}_bucket{_labels((*labels, ('le', bound)))} {_number(value)}"
        for bound, value in zip(bounds, series[:-1], strict=True)
    ]
    return [
        *lines,
        f"{name}_sum{_labels(labels)} {series[-1]:.6f}",
        f"{name}_count{_labels(labels)} {_number(series[-2])}",
    ]


def _labels(labels: Labels) -> str:
    return "{" + ",".join(f'{name}="{value}"' for name, value in labels) + "}" if labels else ""


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)
