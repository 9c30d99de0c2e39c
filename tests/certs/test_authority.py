from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from certs.authority import (
    BACKDATE,
    CA_LIFETIME,
    LEAF_LIFETIME,
    Identity,
    common_name_of,
    is_signed_by,
    issue_ca,
    issue_client,
    issue_server,
    needs_renewal,
    parse_certificates,
    render_certificates,
)
from certs.errors import CertificateError

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
CA = issue_ca(NOW)
LEAF = issue_client(CA, "x", NOW)


def extension(certificate, kind):
    return certificate.extensions.get_extension_for_class(kind)


def test_an_authority_may_sign_leafs_and_nothing_else():
    constraints = extension(CA.certificate, x509.BasicConstraints)
    usage = extension(CA.certificate, x509.KeyUsage).value
    assert constraints.critical
    assert (constraints.value.ca, constraints.value.path_length) == (True, 0)
    assert usage.key_cert_sign
    assert not usage.digital_signature
    assert is_signed_by(CA.certificate, CA.certificate)


def test_two_authorities_have_names_and_serials_of_their_own():
    other = issue_ca(NOW)
    assert other.certificate.subject != CA.certificate.subject
    assert other.certificate.serial_number != CA.certificate.serial_number


def test_a_serving_certificate_names_hosts_and_addresses_and_is_for_servers():
    leaf = issue_server(CA, ["Proxy.Example", "*.svc.example"], ["127.0.0.1", "::1"], NOW).certificate
    names = extension(leaf, x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["proxy.example", "*.svc.example"]
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1"]
    assert list(extension(leaf, x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert not extension(leaf, x509.BasicConstraints).value.ca
    assert is_signed_by(leaf, CA.certificate)


def test_a_client_certificate_is_for_clients_and_carries_its_name():
    leaf = issue_client(CA, "admend-webhook", NOW).certificate
    assert common_name_of(leaf) == "admend-webhook"
    assert list(extension(leaf, x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.CLIENT_AUTH]


def test_certificates_are_backdated_for_clocks_that_differ():
    leaf = issue_client(CA, "x", NOW).certificate
    assert leaf.not_valid_before_utc == NOW - BACKDATE
    assert leaf.not_valid_after_utc == NOW + LEAF_LIFETIME


def test_a_leaf_never_outlives_its_authority():
    late = NOW + CA_LIFETIME - timedelta(days=1)
    leaf = issue_client(CA, "x", late).certificate
    assert leaf.not_valid_after_utc == CA.certificate.not_valid_after_utc


def test_an_expired_authority_signs_nothing():
    with pytest.raises(CertificateError, match="expired"):
        issue_client(CA, "x", NOW + CA_LIFETIME)


@pytest.mark.parametrize(
    "name",
    ["", "a_b.example", "-a.example", "a..b", "a.*.example", "exa mple", "x" * 64, "10.0.0.1", "ex\n.org", "é.example"],
)
def test_what_is_no_host_name_is_refused(name):
    with pytest.raises(CertificateError):
        issue_server(CA, [name], [], NOW)


@pytest.mark.parametrize("ip", ["proxy.example", "1.2.3", "1.2.3.4/24", ""])
def test_what_is_no_address_is_refused(ip):
    with pytest.raises(CertificateError, match="not an IP address"):
        issue_server(CA, [], [ip], NOW)


def test_a_serving_certificate_without_names_is_refused():
    with pytest.raises(CertificateError, match="at least one"):
        issue_server(CA, [], [], NOW)


def test_too_many_names_are_refused():
    with pytest.raises(CertificateError, match="too many"):
        issue_server(CA, [f"h{number}.example" for number in range(101)], [], NOW)


@pytest.mark.parametrize("name", ["", "a" * 65, "a\nb", "a,CN=b", " a"])
def test_what_cannot_be_a_common_name_is_refused(name):
    with pytest.raises(CertificateError):
        issue_client(CA, name, NOW)


@given(st.integers(min_value=0, max_value=int(LEAF_LIFETIME.total_seconds())))
def test_renewal_is_due_exactly_when_two_thirds_are_over(seconds):
    leaf = LEAF.certificate
    whole = (leaf.not_valid_after_utc - leaf.not_valid_before_utc).total_seconds()
    passed = seconds + BACKDATE.total_seconds()
    assert needs_renewal(leaf, NOW + timedelta(seconds=seconds)) == (passed >= whole * 2 / 3)


def test_a_certificate_of_the_future_is_due_since_nobody_accepts_it_now():
    assert needs_renewal(LEAF.certificate, NOW - timedelta(days=1))


def test_identities_survive_being_written_and_read():
    again = Identity.parse(LEAF.certificate_pem, LEAF.key_pem, what="leaf")
    assert again.certificate == LEAF.certificate
    assert again.key_pem == LEAF.key_pem


def test_a_key_of_another_certificate_is_refused():
    with pytest.raises(CertificateError, match=r"client\.crt: the private key is not that"):
        Identity.parse(LEAF.certificate_pem, CA.key_pem, what="client.crt")


def test_no_text_form_shows_a_key():
    assert "PRIVATE" not in repr(LEAF)
    assert "key" not in repr(LEAF).replace("public_key", "")


def test_a_bundle_is_read_back_in_order_and_each_certificate_once():
    bundle = render_certificates([CA.certificate, LEAF.certificate, CA.certificate])
    assert parse_certificates(bundle, what="bundle") == (CA.certificate, LEAF.certificate)


@given(st.binary(max_size=200))
def test_bytes_that_are_no_certificate_are_a_clear_error(data):
    with pytest.raises(CertificateError, match=r"ca\.crt"):
        parse_certificates(data, what="ca.crt")
