"""The proxy's figures for Prometheus: what is counted as it happens. `figures` shows what the parts keep themselves.

Labels hold words of this program only, never one that came with a request, so that nobody can grow their number.
docs/metrics.md lists all figures.
"""

from certs.figures import Figures
from proxy.api import Outcome, ResolveResponse
from proxy.errors import ERRORS, AdmendError
from proxy.phases import PHASES, Phases
from proxy.records import Record

BUCKETS = (0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0)  # seconds


class Metrics(Figures):
    """Counts resolves and what is published; shows what others count."""

    def __init__(self) -> None:
        super().__init__()
        self._resolves = self.counter("resolves", "Resolves by outcome.", "outcome")
        self._seconds = self.histogram("resolve_seconds", "Duration of resolves.", buckets=BUCKETS)
        self._failures = self.counter("failures", "Resolves that failed, by the error's code.", "code")
        self._patches = self.counter("patches", "Images that were worked through, by outcome.", "outcome")
        text = "Time that the patch of one image spent in a phase."
        self._phases = self.histogram("patch_phase_seconds", text, "phase", buckets=BUCKETS)
        self._packages = self.counter("packages_upgraded", "Packages upgraded in published images.")
        self._fixed = self.counter("cves_fixed", "CVE ids that published images are known to fix.")
        for outcome in Outcome:
            self._resolves.labels(outcome.value)
        for code in ERRORS:
            self._failures.labels(code)

    def observe(self, answer: ResolveResponse) -> None:
        """Count one answered resolve."""
        self._resolves.labels(answer.outcome.value).inc()
        self._seconds.observe(answer.milliseconds / 1000)
        if answer.outcome is Outcome.FAILED:
            code = answer.reason.partition(":")[0]
            self._failures.labels(code if code in ERRORS else AdmendError.code).inc()

    def observe_patch(self, record: Record, phases: Phases) -> None:
        """Count one image that was worked through and published."""
        self._patches.labels(record.outcome.value).inc()
        for phase, milliseconds in phases.milliseconds.items():
            if phase in PHASES:
                self._phases.labels(phase).observe(milliseconds / 1000)
        self._packages.inc(len(record.upgrades))
        self._fixed.inc(len(record.fixed))
