"""The webhook's figures, in the Prometheus text format.

Owns the counters and their exposition; a handful of numbers needs no library. Labels hold words of this program only,
never an image or a name from outside, so their number is bounded.
Format: https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
"""

from collections import Counter

from webhook.review import AdmissionRequest, Decision

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)  # seconds


class Metrics:
    """Counts admissions."""

    def __init__(self) -> None:
        self._admissions: Counter[tuple[str, ...]] = Counter()
        self._containers: Counter[tuple[str, ...]] = Counter()
        self._refused: Counter[tuple[str, ...]] = Counter()
        self._buckets = [0] * len(BUCKETS)
        self._count, self._sum = 0, 0.0

    def observe(self, request: AdmissionRequest, decision: Decision, seconds: float) -> None:
        """Count one answered request."""
        verdict = decision.audit_annotations.get("verdict", "keep")
        self._admissions[request.operation, verdict, str(request.dry_run).lower()] += 1
        for event in decision.events:
            self._containers[event.outcome.value if event.outcome else "none", event.verdict] += 1
        self._count += 1
        self._sum += seconds
        for index, bound in enumerate(BUCKETS):
            self._buckets[index] += seconds <= bound

    def refuse(self, status: int) -> None:
        """Count one request that got no decision."""
        self._refused[(str(status),)] += 1

    def render(self) -> str:
        """Return all figures as text."""
        name = "admend_admission_seconds"
        lines = [
            *_render("admend_admissions_total", "Admissions.", ("operation", "verdict", "dry_run"), self._admissions),
            *_render("admend_containers_total", "Containers looked at.", ("outcome", "verdict"), self._containers),
            *_render("admend_requests_refused_total", "Requests without a decision.", ("status",), self._refused),
            f"# HELP {name} Time to a decision.",
            f"# TYPE {name} histogram",
            *(f'{name}_bucket{{le="{bound}"}} {count}' for bound, count in zip(BUCKETS, self._buckets, strict=True)),
            f'{name}_bucket{{le="+Inf"}} {self._count}',
            f"{name}_sum {self._sum:.6f}",
            f"{name}_count {self._count}",
        ]
        return "\n".join(lines) + "\n"


def _render(name: str, text: str, labels: tuple[str, ...], counter: Counter[tuple[str, ...]]) -> list[str]:
    lines = [f"# HELP {name} {text}", f"# TYPE {name} counter"]
    for values, count in sorted(counter.items()):
        pairs = ",".join(f'{label}="{value}"' for label, value in zip(labels, values, strict=True))
        lines.append(f"{name}{{{pairs}}} {count}")
    return lines
