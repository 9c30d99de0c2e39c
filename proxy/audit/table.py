"""Audit events for people: a row each, or counts of all.

Owns columns, wording and layout. Every text that came from outside is made printable. Columns are as wide as the
first rows need, so that rows of a long log can be shown as they come.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC
from itertools import chain, islice
from typing import Any

from proxy.api import make_printable
from proxy.audit.event import AuditEvent

HEAD = ("TIME", "NAMESPACE/POD", "CONTAINER", "USER", "MODE", "VERDICT", "IMAGE", "PATCHED", "WHY")
FIRST_ROWS = 200  # that decide on the widths
WIDEST = 60  # characters of a column that others follow
SHORT = len("sha256:") + 12
LISTED = 3  # packages and CVEs that a row names; the rest is counted
MAX_KEYS = 10_000  # of one count, what comes beyond is counted as `OTHERS`
TOP = 10  # reasons and namespaces that a summary shows
OTHERS = "(others)"


def render_rows(events: Iterable[AuditEvent], first_rows: int = FIRST_ROWS) -> Iterator[str]:
    """Yield a heading and a line per event; nothing where there is none."""
    rows = map(_row, events)
    first = list(islice(rows, first_rows))
    if not first:
        return
    widths = [min(max(map(len, column)), WIDEST) for column in zip(HEAD, *first, strict=True)]
    for row in chain([HEAD], first, rows):
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _row(event: AuditEvent) -> tuple[str, ...]:
    pod = event.pod or event.owner
    cells = (
        event.time.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        f"{event.namespace}/{pod}" + ("*" if pod.endswith("-") else ""),  # a name that the API server completes
        event.container,
        event.user or "-",
        event.mode + (" (dry run)" if event.dry_run else ""),
        event.verdict,
        event.original,
        _digest(event.patched) or "-",
        _why(event),
    )
    return tuple(make_printable(cell) for cell in cells)


def _digest(reference: str) -> str:
    return reference.partition("@")[2][:SHORT]


def _why(event: AuditEvent) -> str:
    """Say what the image came to: its outcome, what moved, what is fixed, and the reason."""
    parts = [event.outcome.value] if event.outcome else []
    if event.upgrades_count:
        named = [
            f"{item.package} {item.from_version or '(new)'} -> {item.to_version or '(removed)'}"
            for item in event.upgrades
        ]
        parts.append(_some(named, max(event.upgrades_count, len(named))))
    if event.fixed:
        parts.append("fixes " + _some(event.fixed, len(event.fixed)))
    if event.reason:
        parts.append(event.reason)
    return "; ".join(parts) or "-"


def _some(names: Iterable[str], count: int) -> str:
    shown = list(islice(names, LISTED))
    more = count - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")


class Summary:
    """Counts of events by what happened, where and why."""

    def __init__(self) -> None:
        self._counts: dict[str, Counter[str]] = {
            name: Counter() for name in ("verdict", "outcome", "namespace", "reason")
        }
        self._packages: Counter[str] = Counter()
        self._fixed: Counter[str] = Counter()
        self.events = 0
        self._times = ("", "")

    def add(self, event: AuditEvent) -> None:
        """Count one event."""
        self.events += 1
        time = event.time.astimezone(UTC).isoformat(timespec="seconds")
        low, high = self._times
        self._times = (min(low or time, time), max(high, time))
        _count(self._counts["verdict"], f"{event.verdict} ({event.mode})")
        _count(self._counts["outcome"], event.outcome.value if event.outcome else "not resolved")
        _count(self._counts["namespace"], event.namespace)
        if event.reason:
            _count(self._counts["reason"], event.reason)
        for upgrade in event.upgrades:
            _count(self._packages, upgrade.package)
        for cve in event.fixed:
            _count(self._fixed, cve)

    def to_json(self) -> dict[str, Any]:
        """Return everything that was counted."""
        counts = {name: dict(counts.most_common()) for name, counts in self._counts.items()}
        more = {"packages": dict(self._packages.most_common()), "fixed": dict(self._fixed.most_common())}
        return {"events": self.events, "from": self._times[0], "to": self._times[1], **counts, **more}

    def render(self) -> Iterator[str]:
        """Yield the lines."""
        if not self.events:
            return
        yield f"{self.events} audit lines from {self._times[0]} to {self._times[1]}"
        for name, counts in self._counts.items():
            ranked = sorted(counts.items(), key=lambda item: (item[0] == OTHERS, -item[1], item[0]))
            for key, count in ranked[:TOP]:
                yield f"{name:<10} {count:>8}  {make_printable(key)}"
            if len(ranked) > TOP:
                yield f"{name:<10} {sum(count for _, count in ranked[TOP:]):>8}  {len(ranked) - TOP} others"
        yield f"{len(self._packages)} packages were upgraded in images that pods got, {len(self._fixed)} CVEs fixed"


def _count(counts: Counter[str], key: str) -> None:
    counts[key if key in counts or len(counts) < MAX_KEYS else OTHERS] += 1
