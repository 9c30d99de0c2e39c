"""When a request is sent again."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.egress import EgressPolicy
from proxy.egress.retry import MAX_BACKOFF, Attempts, parse_retry_after

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        (" 120 ", 120.0),
        ("Thu, 01 Jan 2026 00:01:00 GMT", 60.0),
        ("Thu, 01 Jan 2026 00:01:00", 60.0),
        ("Wed, 31 Dec 2025 23:00:00 GMT", 0.0),
        ("", None),
        (None, None),
        ("-5", None),
        ("soon", None),
        ("1.5", None),
        ("٣", None),
    ],
)
def test_retry_after_is_read_as_seconds_or_as_a_date(text: str | None, seconds: float | None) -> None:
    assert parse_retry_after(text, NOW) == seconds


@given(st.text(max_size=40))
def test_any_retry_after_is_a_wait_or_nothing(text: str) -> None:
    found = parse_retry_after(text, NOW)
    assert found is None or found >= 0


def test_waits_grow_and_are_bounded() -> None:
    attempts = Attempts(EgressPolicy(attempts=50, deadline=1e9, backoff=0.25), 0.0)
    waits = [attempts.next_wait(0.0, None) or 0.0 for _ in range(12)]
    assert 0.25 <= waits[0] <= 0.5
    assert waits[1] <= 1.0
    assert all(MAX_BACKOFF / 2 <= wait <= MAX_BACKOFF for wait in waits[6:])


def test_what_the_server_asks_for_is_waited_for_exactly() -> None:
    assert Attempts(EgressPolicy(), 0.0).next_wait(0.0, 7.0) == 7.0


def test_a_wait_beyond_the_deadline_gives_up_at_once() -> None:
    assert Attempts(EgressPolicy(deadline=10.0), 0.0).next_wait(5.0, 6.0) is None


def test_attempts_are_bounded() -> None:
    attempts = Attempts(EgressPolicy(attempts=2), 0.0)
    assert attempts.next_wait(0.0, 0.0) == 0.0
    assert attempts.next_wait(0.0, 0.0) is None
