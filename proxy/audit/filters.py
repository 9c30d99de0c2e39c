"""Which audit events a person asks for.

Owns the question and its words: times, and patterns of shells for names (`*`, `?`, `[...]`).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase

from proxy.audit.event import AuditEvent
from proxy.errors import UsageError

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_AGO = re.compile(r"(?:[0-9]{1,6}[smhdw])+")


@dataclass(frozen=True, slots=True)
class Filter:
    """What an event must be like; of each field one pattern must match, and no pattern means any.

    `pod` is a pod's name, or its owner's as Kind/name; `image` the original or the patched reference.
    """

    since: datetime | None = None
    until: datetime | None = None
    namespace: Sequence[str] = ()
    pod: Sequence[str] = ()
    image: Sequence[str] = ()
    user: Sequence[str] = ()
    mode: Sequence[str] = ()
    verdict: Sequence[str] = ()
    outcome: Sequence[str] = ()
    cve: Sequence[str] = ()
    package: Sequence[str] = ()

    def takes(self, event: AuditEvent) -> bool:
        """Whether the event is asked for."""
        if (self.since and event.time < self.since) or (self.until and event.time >= self.until):
            return False
        moved = [upgrade.package for upgrade in event.upgrades] + [skip.package for skip in event.skipped]
        return all(
            not patterns or any(fnmatchcase(value, pattern) for pattern in patterns for value in values)
            for patterns, values in (
                (self.namespace, [event.namespace]),
                (self.pod, [event.pod, event.owner]),
                (self.image, [event.original, event.patched]),
                (self.user, [event.user]),
                (self.mode, [event.mode]),
                (self.verdict, [event.verdict]),
                (self.outcome, [event.outcome.value if event.outcome else ""]),
                (self.cve, event.fixed),
                (self.package, moved),
            )
        )


def parse_when(option: str, text: str, now: datetime) -> datetime:
    """Return a moment: RFC 3339, a date, or how long ago (`90m`, `2h`, `1d12h`); without a zone it is UTC."""
    if _AGO.fullmatch(text):
        seconds = sum(int(part[:-1]) * _UNITS[part[-1]] for part in re.findall(r"[0-9]+[smhdw]", text))
        try:
            return now - timedelta(seconds=seconds)
        except OverflowError as error:
            raise UsageError(f"{option}: before all time", text=text) from error
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(
            f"{option} is a time (2026-01-31T12:00:00Z), a date or an age (90m, 2h, 7d)", text=text
        ) from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
