import base64
import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import MalformedInput, TrustFailure
from proxy.trust import Marks, SigningKey, check_mark, sign_marks, verify_marks
from proxy.trust.marks import PAYLOAD_TYPE, parse_marks, render_marks

KEY, OTHER = SigningKey.generate(), SigningKey.generate()
SOURCE = "archive.example/debian bookworm"
DATE = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
MARKS = st.dictionaries(st.text(max_size=20), st.datetimes(timezones=st.just(UTC)), max_size=4).map(Marks)


@given(MARKS)
def test_marks_come_back_from_their_document(marks: Marks) -> None:
    assert parse_marks(render_marks(marks)) == marks


@given(MARKS, MARKS, MARKS)
def test_merging_keeps_the_newest_date_in_any_order(a: Marks, b: Marks, c: Marks) -> None:
    merged = a.merge(b).merge(c)
    assert merged == c.merge(b.merge(a))
    assert merged.merge(merged) == merged
    for marks in (a, b, c):
        assert all(merged.dates[source] >= date for source, date in marks.dates.items())
        assert set(merged.dates) == {*a.dates, *b.dates, *c.dates}


def test_older_index_is_refused_and_both_dates_named() -> None:
    marks = Marks({SOURCE: DATE})
    with pytest.raises(TrustFailure, match=r"bookworm: .*2026-01-02T03:04:04.*2026-01-02T03:04:05"):
        check_mark(marks, SOURCE, DATE - timedelta(seconds=1))


def test_same_newer_and_unknown_indexes_pass() -> None:
    marks = Marks({SOURCE: DATE})
    check_mark(marks, SOURCE, DATE)
    check_mark(marks, SOURCE, DATE + timedelta(days=1))
    check_mark(marks, "archive.example/debian trixie", datetime(1970, 1, 1, tzinfo=UTC))


def test_signed_marks_are_verified_with_any_trusted_key() -> None:
    marks = Marks({SOURCE: DATE})
    assert verify_marks(sign_marks(marks, KEY), [OTHER.public, KEY.public]) == marks


@pytest.mark.parametrize("keys", [[], [OTHER.public]])
def test_marks_signed_by_somebody_else_are_refused(keys: list[object]) -> None:
    with pytest.raises(TrustFailure, match="high-water marks"):
        verify_marks(sign_marks(Marks({SOURCE: DATE}), KEY), keys)  # type: ignore[arg-type]


def test_changed_marks_are_refused() -> None:
    document = json.loads(sign_marks(Marks({SOURCE: DATE}), KEY))
    document["payload"] = base64.b64encode(render_marks(Marks({SOURCE: DATE - timedelta(days=1)}))).decode()
    with pytest.raises(TrustFailure, match="signed"):
        verify_marks(json.dumps(document).encode(), [KEY.public])


def test_bare_signature_over_the_payload_does_not_make_marks() -> None:
    payload = render_marks(Marks({SOURCE: DATE}))
    document = {
        "payloadType": PAYLOAD_TYPE,
        "payload": base64.b64encode(payload).decode(),
        "signatures": [{"keyid": KEY.public.key_id, "sig": base64.b64encode(KEY.sign(payload)).decode()}],
    }
    with pytest.raises(TrustFailure, match="signed"):
        verify_marks(json.dumps(document).encode(), [KEY.public])


@pytest.mark.parametrize(
    "change",
    [
        {"payloadType": "application/vnd.in-toto+json"},
        {"payload": "é"},
        {"payload": None},
        {"signatures": []},
        {"signatures": [{"sig": "!"}]},
        {"more": 1},
    ],
)
def test_documents_of_another_form_are_refused(change: dict[str, object]) -> None:
    document = json.loads(sign_marks(Marks({SOURCE: DATE}), KEY))
    with pytest.raises(MalformedInput, match="high-water marks"):
        verify_marks(json.dumps({**document, **change}).encode(), [KEY.public])


@pytest.mark.parametrize(
    "text", [b"", b"{}", b'{"marks":{"a":"soon"}}', b'{"marks":{"a":"2026-01-01T00:00:00"}}', b'{"marks":{},"x":1}']
)
def test_marks_of_another_form_are_refused(text: bytes) -> None:
    with pytest.raises(MalformedInput, match="not high-water marks"):
        parse_marks(text)
