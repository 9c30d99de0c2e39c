"""Times that somebody wrote down, held against the present: his clock, or an earlier one of this machine, may differ.

Owns how far two clocks may be apart before one of them is wrong. A time that lies further ahead was written by a clock
that was wrong, so nothing is fresh because of it: what it says is found out again.
"""

from datetime import datetime, timedelta

MAX_SKEW = timedelta(minutes=5)


def is_recent(then: datetime, now: datetime, seconds: float) -> bool:
    """Say whether `then` is less than `seconds` ago, and not ahead by more than clocks may differ."""
    return -MAX_SKEW <= now - then < timedelta(seconds=seconds)
