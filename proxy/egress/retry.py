"""When a request is sent again: which answers, how long to wait, and when to give up.

Retry-After: https://www.rfc-editor.org/rfc/rfc9110#name-retry-after
"""

import math
import random
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from proxy.egress.policy import EgressPolicy

RETRIED = frozenset({429, 500, 502, 503, 504})
MAX_BACKOFF = 8.0  # seconds


def parse_retry_after(text: str | None, now: datetime | None = None) -> float | None:
    """Return the seconds that a Retry-After header asks for, from its number or its date; None without a usable one."""
    if not text:
        return None
    text = text.strip()
    if text.isascii() and text.isdecimal():
        return float(text[:9])
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return max(0.0, (date - (now or datetime.now(UTC))).total_seconds())


class Attempts:
    """Counts the attempts of one request against its limits."""

    def __init__(self, policy: EgressPolicy, started: float, allowed: int | None = None) -> None:
        self._policy, self._end = policy, started + policy.deadline
        self._allowed = policy.attempts if allowed is None else allowed
        self.made = 1

    def next_wait(self, now: float, retry_after: float | None) -> float | None:
        """Return how long to wait before the next attempt, or None to give up.

        What the server asks for is honoured exactly; where it asks for more than the deadline leaves, trying earlier
        would only add to its load.
        """
        if self.made >= self._allowed:
            return None
        ceiling = min(MAX_BACKOFF, self._policy.backoff * math.pow(2, self.made))
        wait = random.uniform(ceiling / 2, ceiling) if retry_after is None else retry_after  # noqa: S311 - jitter
        if now + wait > self._end:
            return None
        self.made += 1
        return wait
