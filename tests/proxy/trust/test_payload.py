import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import MalformedInput
from proxy.oci.digest import Digest
from proxy.trust import Claim, parse_payload, render_payload

CLAIM = Claim(
    source_repository="docker.io/library/nginx",
    source_digest=Digest.of(b"source"),
    patched_repository="mirror.example:5000/docker.io/library/nginx",
    patched_digest=Digest.of(b"patched"),
    policy_hash="0" * 64,
    signed_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
)
NAMES = st.from_regex(
    r"[a-z0-9]{1,9}\.example(:[0-9]{1,5})?(/[a-z0-9]{1,9}([._-][a-z0-9]{1,9}){0,2}){1,3}", fullmatch=True
)
DIGESTS = st.binary(max_size=4).map(Digest.of)
CLAIMS = st.builds(
    Claim,
    source_repository=NAMES,
    source_digest=DIGESTS,
    patched_repository=NAMES,
    patched_digest=DIGESTS,
    policy_hash=st.from_regex(r"[0-9a-f]{64}", fullmatch=True),
    signed_at=st.datetimes(min_value=datetime(1970, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - hypothesis wants it so
)


@given(CLAIMS)
def test_claim_comes_back_from_its_payload(claim: Claim) -> None:
    payload = render_payload(claim)
    assert parse_payload(payload) == claim
    assert render_payload(parse_payload(payload)) == payload


def test_payload_is_simple_signing_as_cosign_reads_it() -> None:
    assert json.loads(render_payload(CLAIM)) == {
        "critical": {
            "identity": {"docker-reference": "mirror.example:5000/docker.io/library/nginx"},
            "image": {"docker-manifest-digest": str(Digest.of(b"patched"))},
            "type": "cosign container image signature",
        },
        "optional": {
            "admend.dev/policy-hash": "0" * 64,
            "admend.dev/signed-at": "2026-01-02T03:04:05Z",
            "admend.dev/source-digest": str(Digest.of(b"source")),
            "admend.dev/source-repository": "docker.io/library/nginx",
        },
    }


def test_time_is_kept_in_utc_and_whole_seconds() -> None:
    moment = datetime(2026, 1, 2, 5, 4, 5, 999_999, tzinfo=timezone(timedelta(hours=2)))
    assert replace(CLAIM, signed_at=moment) == CLAIM


def damage(path: str, value: Any) -> bytes:
    """Return CLAIM's payload with the value at `path` replaced; None removes it."""
    document = json.loads(render_payload(CLAIM))
    *parents, last = path.split(">")
    place = document
    for name in parents:
        place = place[name]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("critical>type", "atomic container signature", "type"),
        ("critical>identity>docker-reference", None, "docker-reference"),
        ("critical>identity>docker-reference", "mirror.example/a:tag", "without tag"),
        ("critical>image>docker-manifest-digest", "sha256:0", "digest"),
        ("critical>image>docker-manifest-digest", 5, "docker-manifest-digest"),
        ("critical>more", {}, "more"),
        ("more", 1, "more"),
        ("optional", {}, "admend.dev/"),
        ("optional>admend.dev/source-repository", "nginx", "in full"),
        ("optional>admend.dev/source-repository", "Not A Name", "image reference"),
        ("optional>admend.dev/source-digest", "md5:0", "digest"),
        ("optional>admend.dev/policy-hash", None, "policy-hash"),
        ("optional>admend.dev/policy-hash", "a b", "policy hash"),
        ("optional>admend.dev/signed-at", "yesterday", "2001-02-03T04:05:06Z"),
        ("optional>admend.dev/signed-at", "2026-1-2T03:04:05Z", "2001-02-03T04:05:06Z"),
        ("optional>admend.dev/signed-at", "2026-01-02T03:04:05+00:00", "2001-02-03T04:05:06Z"),
        ("optional>admend.dev/novelty", "x", "does not know"),
    ],
)
def test_damaged_payload_is_refused_and_the_place_named(path: str, value: Any, message: str) -> None:
    with pytest.raises(MalformedInput, match=message):
        parse_payload(damage(path, value))


def test_entries_of_other_tools_may_stand_beside_the_claims() -> None:
    assert parse_payload(damage("optional>creator", "somebody")) == CLAIM


@pytest.mark.parametrize("payload", [b"", b"{}", b"null", b"[]", b"\xff", b"{" * 5000, b" " * (65 << 10)])
def test_anything_else_is_no_payload(payload: bytes) -> None:
    with pytest.raises(MalformedInput):
        parse_payload(payload)


def test_claim_without_a_time_zone_is_refused() -> None:
    with pytest.raises(MalformedInput, match="time zone"):
        replace(CLAIM, signed_at=datetime(2026, 1, 2))  # noqa: DTZ001 - what is refused
