"""What the wire models make of texts that came out of images."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from proxy.api import ResolveRequest, ResolveResponse, SkipInfo, UpgradeInfo, make_printable
from proxy.audit import AuditEvent


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("its postinst is not understood (\x1b]0;owned\x07)", "its postinst is not understood (?]0;owned?)"),
        ("not a shell script: \x7fELF\x00\x02", "not a shell script: ?ELF??"),
        ("two\nlines\tand a tab", "two lines and a tab"),
        ("a lone \udcff surrogate", "a lone ? surrogate"),
        ("größer, 日本", "größer, 日本"),
    ],
)
def test_a_reason_holds_nothing_that_a_terminal_would_act_upon(written, told):
    assert SkipInfo(package="bash", reason=written).reason == told


@given(st.text(st.characters()))
def test_any_text_becomes_printable_and_keeps_its_length(text):
    made = make_printable(text)
    assert made.isprintable()
    assert len(made) == len(text)
    made.encode()


def test_fields_of_a_newer_version_are_passed_over_at_every_depth():
    upgrade = {"package": "p", "from": "1", "to": "2", "new": 1}
    answer = {
        "outcome": "patched",
        "image": "x",
        "new": 1,
        "upgrades": [upgrade],
        "skipped": [{"package": "q", "reason": "r", "new": 1}],
    }
    found = ResolveResponse.model_validate(answer)
    assert found.upgrades == (UpgradeInfo(package="p", from_version="1", to_version="2"),)
    assert found.skipped == (SkipInfo(package="q", reason="r"),)
    assert ResolveRequest.model_validate({"image": "x", "new": 1}) == ResolveRequest(image="x")


def test_an_audit_event_takes_no_field_that_it_does_not_know():
    event = {
        "time": datetime.now(UTC),
        "uid": "u",
        "dry_run": False,
        "operation": "CREATE",
        "namespace": "n",
        "pod": "p",
    }
    event |= {"container": "c", "original": "o", "mode": "audit", "verdict": "keep", "milliseconds": 1.0}
    AuditEvent.model_validate(event)
    with pytest.raises(ValidationError, match="verdikt"):
        AuditEvent.model_validate(event | {"verdikt": "keep"})


def test_a_package_that_goes_has_a_printable_reason():
    moved = UpgradeInfo(package="p", from_version="1", to_version="2")
    gone = UpgradeInfo(package="q", from_version="1", to_version="", reason="p 2 must not be with q\n")
    assert not moved.reason
    assert gone.reason == "p 2 must not be with q "
    answer = ResolveResponse(outcome="patched", image="x", upgrades=(moved, gone))
    assert ResolveResponse.model_validate_json(answer.model_dump_json()) == answer
