"""Digests, and streams that are checked against them."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import MalformedInput, TrustFailure
from proxy.oci.digest import Digest, DigestCheck


@given(st.binary(max_size=64), st.sampled_from(["sha256", "sha512"]))
def test_a_rendered_digest_parses_to_itself(data: bytes, algorithm: str) -> None:
    digest = Digest(algorithm, hashlib.new(algorithm, data).hexdigest())
    assert Digest.parse(str(digest)) == digest


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256:",
        "sha256:" + "a" * 63,
        "sha256:" + "A" * 64,
        "sha512:" + "a" * 64,
        "sha1:" + "a" * 40,
        "sha256:" + "a" * 64 + "\n",
        " sha256:" + "a" * 64,
        "a" * 64,
    ],
)
def test_other_forms_and_algorithms_are_refused(text: str) -> None:
    with pytest.raises(MalformedInput):
        Digest.parse(text)


@given(st.lists(st.binary(max_size=20), max_size=5), st.booleans())
def test_a_stream_in_any_pieces_passes_its_own_digest(pieces: list[bytes], known: bool) -> None:
    data = b"".join(pieces)
    check = DigestCheck(Digest.of(data), size=len(data) if known else None, limit=1000, where="stream")
    for piece in pieces:
        check.update(piece)
    assert check.finish() == Digest.of(data)


def test_a_stream_is_refused_at_the_first_byte_too_many() -> None:
    check = DigestCheck(Digest.of(b"abc"), size=3, limit=1000, where="layer")
    check.update(b"abc")
    with pytest.raises(TrustFailure, match="layer: longer than the 3 bytes"):
        check.update(b"d")


def test_a_stream_of_unknown_size_is_bounded() -> None:
    check = DigestCheck(None, size=None, limit=4, where="index")
    with pytest.raises(TrustFailure, match="longer than the 4 bytes"):
        check.update(b"12345")


def test_a_short_stream_and_a_wrong_one_are_refused() -> None:
    short = DigestCheck(Digest.of(b"abc"), size=3, limit=3, where="layer")
    short.update(b"ab")
    with pytest.raises(TrustFailure, match="2 bytes, but 3 were announced"):
        short.finish()
    wrong = DigestCheck(Digest.of(b"abc"), size=3, limit=3, where="layer")
    wrong.update(b"abd")
    with pytest.raises(TrustFailure, match=f"expected {Digest.of(b'abc')}"):
        wrong.finish()
