from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from certs.authority import CA_LIFETIME, LEAF_LIFETIME, is_signed_by, issue_ca, needs_renewal
from certs.errors import CertificateError
from certs.holdings import (
    CA_CERT,
    CA_KEY,
    NEXT_CERT,
    OVERLAP,
    SERVER_CERT,
    Wanted,
    parse_holdings,
    render_holdings,
    renew,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
WANTED = Wanted(("proxy.example",), ("127.0.0.1",), "admend-webhook", signing=True)
FIRST = renew(None, WANTED, NOW)
TWO_THIRDS = NOW + CA_LIFETIME * 2 / 3 + timedelta(minutes=1)


def test_the_first_pass_makes_everything_that_is_wanted():
    assert is_signed_by(FIRST.server.certificate, FIRST.authority.certificate)
    assert is_signed_by(FIRST.client.certificate, FIRST.authority.certificate)


def test_a_pass_over_fresh_certificates_changes_nothing():
    assert renew(FIRST, WANTED, NOW + timedelta(days=1)) == FIRST


def test_leafs_are_renewed_before_they_expire_and_the_authority_stays():
    later = renew(FIRST, WANTED, NOW + LEAF_LIFETIME * 2 / 3)
    assert later.server.certificate != FIRST.server.certificate
    assert later.client.certificate != FIRST.client.certificate
    assert later.authority == FIRST.authority


def test_a_new_name_makes_a_new_serving_certificate_only():
    later = renew(FIRST, replace(WANTED, dns_names=("other.example",)), NOW)
    assert later.server != FIRST.server
    assert later.client == FIRST.client


def test_the_order_of_names_does_not_matter():
    wanted = Wanted(("b.example", "a.example"))
    assert renew(renew(None, wanted, NOW), Wanted(("a.example", "b.example")), NOW).server is not None
    held = renew(None, wanted, NOW)
    assert renew(held, Wanted(("a.example", "b.example")), NOW) == held


def test_a_successor_is_trusted_a_day_before_it_signs():
    introduced = renew(FIRST, WANTED, TWO_THIRDS)
    assert introduced.authority == FIRST.authority
    assert len(introduced.trusted) == 2
    assert is_signed_by(introduced.server.certificate, FIRST.authority.certificate)
    waiting = renew(introduced, WANTED, TWO_THIRDS + OVERLAP - timedelta(seconds=1))
    assert waiting.authority == FIRST.authority


def test_the_switch_issues_leafs_again_and_keeps_trusting_the_old_authority():
    introduced = renew(FIRST, WANTED, TWO_THIRDS)
    switched = renew(introduced, WANTED, TWO_THIRDS + OVERLAP)
    assert switched.authority == introduced.successor
    assert switched.successor is None
    assert FIRST.authority.certificate in switched.trusted
    assert is_signed_by(switched.server.certificate, switched.authority.certificate)
    assert renew(switched, WANTED, TWO_THIRDS + OVERLAP) == switched


def test_an_expired_authority_is_replaced_at_once_and_no_longer_trusted():
    late = renew(FIRST, WANTED, NOW + CA_LIFETIME)
    assert late.authority != FIRST.authority
    assert late.trusted == (late.authority.certificate,)


def test_years_of_daily_passes_never_leave_a_moment_without_trust():
    """Every day, what yesterday's reader trusts accepts the certificates of today, and the other way round."""
    held, day = FIRST, NOW
    for _ in range(3 * 365):
        day += timedelta(days=1)
        after = renew(held, WANTED, day)
        for reader in (held, after):
            for served in (held.server, after.server, held.client, after.client):
                assert any(is_signed_by(served.certificate, each) for each in reader.trusted)
        assert not needs_renewal(after.server.certificate, day)
        assert len(after.trusted) <= 3
        held = after
    assert held.authority != FIRST.authority


@pytest.mark.parametrize("moment", [NOW, TWO_THIRDS, TWO_THIRDS + OVERLAP])
def test_holdings_survive_being_written_and_read(moment):
    held = renew(renew(FIRST, WANTED, TWO_THIRDS) if moment > NOW else FIRST, WANTED, moment)
    files = render_holdings(held)
    again = parse_holdings(files)
    assert render_holdings(again) == files
    assert again.trusted == held.trusted


def test_a_writer_that_stops_after_any_file_leaves_what_the_next_pass_mends():
    introduced = renew(FIRST, WANTED, TWO_THIRDS)
    switched = renew(introduced, WANTED, TWO_THIRDS + OVERLAP)
    steps = [(({}), render_holdings(FIRST), NOW)]
    steps.append((render_holdings(FIRST), render_holdings(introduced), TWO_THIRDS))
    steps.append((render_holdings(introduced), render_holdings(switched), TWO_THIRDS + OVERLAP))
    for before, after, moment in steps:
        for written in range(len(after) + 1):
            files = {**before, **dict(list(after.items())[:written])}
            mended = renew(parse_holdings(files), WANTED, moment)
            assert is_signed_by(mended.server.certificate, mended.authority.certificate)
            if before:
                assert FIRST.authority.certificate in mended.trusted


def test_a_damaged_leaf_is_made_again():
    files = {**render_holdings(FIRST), SERVER_CERT: b"garbage"}
    mended = renew(parse_holdings(files), WANTED, NOW)
    assert is_signed_by(mended.server.certificate, FIRST.authority.certificate)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({CA_CERT: b"garbage"}, "ca.crt"),
        ({CA_KEY: b"garbage"}, "ca.key"),
        ({CA_KEY: issue_ca(NOW).key_pem}, "not the key of any certificate"),
    ],
)
def test_a_damaged_authority_is_never_replaced_silently(change, message):
    with pytest.raises(CertificateError, match=message):
        parse_holdings({**render_holdings(FIRST), **change})


def test_a_missing_authority_key_is_a_clear_error():
    files = render_holdings(FIRST)
    del files[CA_KEY]
    with pytest.raises(CertificateError, match=r"ca\.key is missing: bring it back, or remove ca\.crt"):
        parse_holdings(files)


def test_without_a_successor_no_file_of_one_is_written():
    assert NEXT_CERT not in render_holdings(FIRST)
