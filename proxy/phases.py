"""Wall-clock time by phase of one patch: pull, index, sources, plan, packages, layer, push, sign.

Owns the phases' names and their sums; tells whoever shows progress that one begins, and makes each a span of the trace
that the patch belongs to, if there is one.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from certs.traces import child_span, past_span

PHASES = ("pull", "index", "sources", "plan", "packages", "layer", "push", "sign")
Progress = Callable[[str], None]


class Phases:
    """A stopwatch with one lap per phase; a phase that comes again is added up, also that of several platforms at once.

    Args:
        progress: called with the phase's name as it begins.
    """

    def __init__(self, progress: Progress | None = None) -> None:
        self._progress = progress
        self.milliseconds: dict[str, float] = {}

    def begin(self, name: str) -> None:
        """Say that a phase begins, for those whose time is added later."""
        if self._progress is not None:
            self._progress(name)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time the block as part of phase `name`."""
        self.begin(name)
        start = time.perf_counter()
        try:
            with child_span(name):
                yield
        finally:
            self._count(name, start, time.perf_counter())

    def add(self, name: str, start: float, end: float) -> None:
        """Add the time between two `perf_counter` readings to a phase."""
        past_span(name, start, end)
        self._count(name, start, end)

    def _count(self, name: str, start: float, end: float) -> None:
        self.milliseconds[name] = self.milliseconds.get(name, 0.0) + 1000 * max(0.0, end - start)
