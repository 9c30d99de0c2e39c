"""The keys that sign images: their rotation, and their files."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from certs.errors import CertificateError
from certs.holdings import Wanted
from certs.rotate import reconcile, rotate_signing
from certs.signing import (
    KEPT,
    OVERLAP,
    SIGNING_FILES,
    SIGNING_KEY,
    SIGNING_PUBLIC,
    SIGNING_STATE,
    introduce_successor,
    parse_signing,
    render_signing,
    renew_signing,
)
from certs.store import FolderStore
from proxy.trust import FollowedKeys

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
FIRST = renew_signing(None, NOW)
INTRODUCED = introduce_successor(FIRST, NOW)
SWITCHED = renew_signing(INTRODUCED, NOW + OVERLAP)
WANTED = Wanted(("proxy.example",), signing=True)


def test_the_key_stays_as_long_as_nobody_asks_for_another():
    assert renew_signing(FIRST, NOW + timedelta(days=3650)) == FIRST
    assert len(FIRST.believed) == 1


def test_a_successor_is_believed_before_it_signs_and_the_old_key_after_it():
    assert INTRODUCED.current == FIRST.current
    assert len(INTRODUCED.believed) == 2
    assert renew_signing(INTRODUCED, NOW + OVERLAP - timedelta(seconds=1)) == INTRODUCED
    assert SWITCHED.current == INTRODUCED.successor
    assert set(SWITCHED.believed) == set(INTRODUCED.believed)
    assert SWITCHED.believed[0] != FIRST.believed[0]


def test_the_old_key_is_dropped_at_its_end():
    end = NOW + OVERLAP + KEPT
    assert renew_signing(SWITCHED, end - timedelta(seconds=1)) == SWITCHED
    assert len(renew_signing(SWITCHED, end).believed) == 1


def test_asking_twice_makes_one_successor():
    assert introduce_successor(INTRODUCED, NOW + timedelta(minutes=1)) == INTRODUCED


@pytest.mark.parametrize("keys", [FIRST, INTRODUCED, SWITCHED, introduce_successor(SWITCHED, NOW + OVERLAP)])
def test_keys_survive_being_written_and_read(keys):
    files = render_signing(keys)
    assert render_signing(parse_signing(files)) == files
    assert parse_signing(files).believed == keys.believed
    assert [name for name in SIGNING_FILES if name in files] == list(files)


def test_a_writer_that_stops_after_any_file_leaves_keys_that_are_believed():
    for before, after in [(FIRST, INTRODUCED), (INTRODUCED, SWITCHED)]:
        old, new = render_signing(before), render_signing(after)
        for written in range(len(new) + 1):
            files = {**old, **dict(list(new.items())[:written])}
            held = parse_signing(files)
            signer = parse_signing({SIGNING_KEY: files[SIGNING_KEY]}).believed[0]
            assert signer in files[SIGNING_PUBLIC]
            assert signer == held.believed[0]
            assert FIRST.believed[0] in renew_signing(held, NOW + OVERLAP).believed


@pytest.mark.parametrize(
    "change",
    [
        {SIGNING_KEY: b"garbage"},
        {SIGNING_STATE: b"garbage"},
        {SIGNING_STATE: json.dumps({"retired": [{"key": "x", "until": NOW.isoformat()}]}).encode()},
        {SIGNING_STATE: json.dumps({"introduced": "2026-01-01"}).encode()},
    ],
)
def test_damaged_keys_are_never_replaced_silently(change):
    with pytest.raises(CertificateError, match=r"signing(\.pem|-state\.json)"):
        parse_signing({**render_signing(SWITCHED), **change})


def test_in_a_folder_the_proxys_key_ring_follows_each_step(tmp_path):
    store, pub = FolderStore(tmp_path), tmp_path / SIGNING_PUBLIC
    reconcile(store, WANTED, NOW)
    ring = FollowedKeys(tmp_path / SIGNING_KEY, [pub])
    old = ring.signing.public
    assert rotate_signing(store, NOW) == NOW + OVERLAP
    assert rotate_signing(store, NOW) == NOW + OVERLAP
    assert ring.signing.public == old
    assert len(ring.accepted) == 2
    assert not reconcile(store, WANTED, NOW + timedelta(minutes=1))
    reconcile(store, WANTED, NOW + OVERLAP)
    assert ring.signing.public != old
    assert old in ring.accepted
    reconcile(store, WANTED, NOW + OVERLAP + KEPT)
    assert ring.accepted == (ring.signing.public,)


def test_where_certificates_are_somebody_elses_only_signing_keys_are_kept(tmp_path):
    reconcile(FolderStore(tmp_path), Wanted(signing=True, authority=False), NOW)
    assert {path.name for path in tmp_path.iterdir()} - {".lock"} == {SIGNING_KEY, SIGNING_PUBLIC}


def test_without_a_key_there_is_nothing_to_replace(tmp_path):
    with pytest.raises(CertificateError, match="holds no signing key"):
        rotate_signing(FolderStore(tmp_path))
