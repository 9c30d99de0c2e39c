"""What may be talked to, and what every refusal says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.egress import EgressPolicy, Purpose
from proxy.egress.policy import is_public, split_host
from proxy.errors import MalformedInput, TrustFailure


@pytest.mark.parametrize(
    "address",
    [
        "10.0.0.1",
        "127.0.0.1",
        "127.8.8.8",
        "169.254.169.254",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",  # carrier-grade NAT
        "192.0.2.1",  # documentation
        "198.18.0.1",  # benchmarking
        "0.0.0.0",
        "224.0.1.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1",
        "fe80::1%eth0",
        "fc00::1",
        "fec0::1",
        "ff02::1",
        "2001:db8::1",
        "::ffff:10.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::a00:1",  # NAT64 of 10.0.0.1
        "2002:a00:1::",  # 6to4 of 10.0.0.1
        "2001:0:a00:1::",  # Teredo
    ],
)
def test_special_addresses_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_public_addresses_are_public(address: str) -> None:
    assert is_public(address)


@given(st.ip_addresses(v=4, network="10.0.0.0/8"))
def test_an_embedded_private_address_is_as_private_as_itself(address: object) -> None:
    assert not is_public(f"::ffff:{address}")


@pytest.mark.parametrize(
    ("upstreams", "url", "allowed"),
    [
        (None, "https://registry.example/v2/", True),
        ((), "https://registry.example/v2/", False),
        (("registry.example",), "https://registry.example/v2/", True),
        (("registry.example",), "https://REGISTRY.example./v2/", True),
        (("registry.example",), "https://registry.example:8443/v2/", False),
        (("registry.example:8443",), "https://registry.example:8443/v2/", True),
        (("registry.example:8443",), "https://registry.example/v2/", False),
        (("*.example",), "https://a.b.example/v2/", True),
        (("*.example",), "https://example/v2/", False),
        (("*.example",), "https://registry.example.evil.test/v2/", False),
        (("*.example",), "https://evilexample/v2/", False),
        (("docker.io",), "https://registry-1.docker.io/v2/", True),
        (("docker.io",), "https://registry.example/v2/", False),
    ],
)
def test_upstreams_are_matched_whole(upstreams: tuple[str, ...] | None, url: str, *, allowed: bool) -> None:
    policy = EgressPolicy(upstreams=upstreams)
    if allowed:
        policy.check_url(url, Purpose.REGISTRY)
    else:
        with pytest.raises(TrustFailure, match=r"add it to upstream\.allow"):
            policy.check_url(url, Purpose.REGISTRY)


def test_links_and_sources_need_not_be_upstreams() -> None:
    policy = EgressPolicy(upstreams=("registry.example",))
    policy.check_url("https://cdn.example/blob", Purpose.LINK)
    policy.check_url("http://archive.example/dists", Purpose.SOURCE)


def test_registries_without_tls_are_refused_unless_named_so() -> None:
    with pytest.raises(TrustFailure, match=r"upstream\.plain_http"):
        EgressPolicy().check_url("http://registry.example/v2/", Purpose.REGISTRY)
    with pytest.raises(TrustFailure, match="without TLS"):
        EgressPolicy().check_url("http://cdn.example/blob", Purpose.LINK)
    EgressPolicy(plain_http=frozenset({"registry.example"})).check_url("http://registry.example/v2/", Purpose.REGISTRY)


def test_loopback_needs_no_tls_where_it_is_named() -> None:
    named = EgressPolicy(named=frozenset({"127.0.0.1:5000", "localhost", "[::1]"}))
    for host in ("127.0.0.1:5000", "localhost:1234", "[::1]:80"):
        named.check_url(f"http://{host}/v2/", Purpose.REGISTRY)
    for host in ("127.0.0.1:5001", "127.0.0.2:5000"):
        with pytest.raises(TrustFailure):
            named.check_url(f"http://{host}/v2/", Purpose.REGISTRY)


def test_credentials_in_an_address_are_refused_and_not_shown() -> None:
    with pytest.raises(TrustFailure) as caught:
        EgressPolicy().check_url("https://user:hunter2@registry.example/v2/?sig=abc", Purpose.SOURCE)
    assert "hunter2" not in str(caught.value)
    assert "sig=abc" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "/v2/",
        "ftp://host.example/",
        "file:///etc/passwd",
        "https://",
        "https:///x",
        "https://host:99999/",
        "https://[::1/",
        "https://host.example/" + "a" * 9000,
        "javascript:alert(1)",
        "https://host:0/",
    ],
)
def test_what_is_no_web_address_is_refused(url: str) -> None:
    with pytest.raises(MalformedInput):
        EgressPolicy().check_url(url, Purpose.SOURCE)


def test_a_refused_address_is_named_with_the_setting_that_allows_it() -> None:
    with pytest.raises(TrustFailure) as caught:
        EgressPolicy().check_address("registry.example", 443, "10.1.2.3")
    for word in ("registry.example:443", "10.1.2.3", "upstream.private", "sources.private"):
        assert word in str(caught.value)


def test_a_named_host_may_have_any_address() -> None:
    policy = EgressPolicy(named=frozenset({"inner.example", "*.corp.example", "other.example:5000"}))
    policy.check_address("INNER.example", 8443, "10.1.2.3")
    policy.check_address("a.corp.example", 443, "fd00::1")
    policy.check_address("other.example", 5000, "127.0.0.1")
    for host, port in (("other.example", 443), ("corp.example", 443), ("inner.example.evil.test", 443)):
        with pytest.raises(TrustFailure):
            policy.check_address(host, port, "10.1.2.3")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("host.example", ("host.example", 7)),
        ("host.example:80", ("host.example", 80)),
        ("[::1]", ("::1", 7)),
        ("[::1]:80", ("::1", 80)),
        ("::1", ("::1", 7)),
    ],
)
def test_hosts_and_ports_are_told_apart(text: str, parts: tuple[str, int]) -> None:
    assert split_host(text, 7) == parts
