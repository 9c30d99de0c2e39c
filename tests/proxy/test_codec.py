"""Dataclasses to JSON and back."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.codec import decode, encode
from proxy.engine.family import Candidate, Constraint, Fetch, Package, SourceSettings
from proxy.engine.tar import Entry, Kind, Span
from proxy.errors import MalformedInput
from proxy.oci.digest import Digest

WORDS = st.text(max_size=8)
CONSTRAINTS = st.builds(Constraint, WORDS, st.sampled_from(["", "<", ">="]), WORDS)
PACKAGES = st.builds(
    Package,
    name=WORDS,
    version=WORDS,
    arch=WORDS,
    requires=st.lists(st.lists(CONSTRAINTS, max_size=3).map(tuple), max_size=3).map(tuple),
    provides=st.lists(CONSTRAINTS, max_size=3).map(tuple),
    fields=st.dictionaries(WORDS, WORDS, max_size=3),
)
ENTRIES = st.builds(
    Entry,
    path=st.text(max_size=20),
    kind=st.sampled_from(Kind),
    content=st.one_of(st.none(), st.binary(max_size=9), st.builds(Span, WORDS, st.integers(0), st.integers(0))),
    xattrs=st.dictionaries(WORDS, st.binary(max_size=9), max_size=2),
)


@given(PACKAGES)
def test_a_package_survives_the_round_trip(package):
    assert decode(Package, json.loads(json.dumps(encode(package)))) == package


@given(ENTRIES)
def test_an_entry_survives_the_round_trip(entry):
    assert decode(Entry, json.loads(json.dumps(encode(entry)))) == entry


def test_digests_dates_and_bytes_survive_the_round_trip():
    fetch = Fetch("http://archive.example/x", Digest.of(b"x"), 1)
    candidate = Candidate(Package("a", "1", "amd64"), fetch, "main")
    assert decode(Candidate, json.loads(json.dumps(encode(candidate)))) == candidate
    settings = SourceSettings(keyrings={"debian": b"\x99\x00"})
    assert decode(SourceSettings, json.loads(json.dumps(encode(settings)))) == settings
    now = datetime.now(UTC)
    assert decode(datetime, encode(now)) == now


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"url": "x", "surprise": 1}, "surprise"),
        ({}, "url"),
        ([], "must be an object"),
        ({"url": 3}, "must be str"),
        ({"url": "x", "digest": "md5:1"}, "sha256"),
        ({"url": "x", "size": True}, "must be int"),
    ],
)
def test_a_wrong_value_is_refused_and_named(value, words):
    with pytest.raises(MalformedInput, match=words):
        decode(Fetch, value, "answer")
