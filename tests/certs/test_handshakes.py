"""Real handshakes while one authority takes the place of another: old and new readers, old and new certificates."""

import ssl
from datetime import timedelta
from itertools import product

import pytest

from certs.authority import CA_LIFETIME
from certs.holdings import OVERLAP, Wanted, render_holdings, renew
from certs.rotate import utc_now

NAME = "admend-proxy.admend.svc"
WANTED = Wanted((NAME,), (), "admend-webhook")
NOW = utc_now()
BEGIN = NOW - CA_LIFETIME * 2 / 3 - OVERLAP - timedelta(minutes=2)
BEFORE = renew(renew(None, WANTED, BEGIN), WANTED, NOW - OVERLAP - timedelta(minutes=30))  # one authority, fresh leafs
INTRODUCED = renew(BEFORE, WANTED, NOW - OVERLAP - timedelta(minutes=1))
SWITCHED = renew(INTRODUCED, WANTED, NOW)


@pytest.fixture
def folders(tmp_path):
    for name, held in (("before", BEFORE), ("introduced", INTRODUCED), ("switched", SWITCHED)):
        (tmp_path / name).mkdir()
        for file, data in render_holdings(held).items():
            (tmp_path / name / file).write_bytes(data)
    return tmp_path


def shake(server_folder, client_folder):
    """Do a handshake with certificates on both sides; return the client's name as the server saw it."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(server_folder / "tls.crt", server_folder / "tls.key")
    server.load_verify_locations(server_folder / "ca.crt")
    server.verify_mode = ssl.CERT_REQUIRED
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.load_verify_locations(client_folder / "ca.crt")
    client.load_cert_chain(client_folder / "client.crt", client_folder / "client.key")
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname=NAME),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    done = [False, False]
    for _ in range(10):
        for place, end in enumerate(ends):
            try:
                end.do_handshake()
                done[place] = True
            except ssl.SSLWantReadError:
                pass
    assert all(done)
    return dict(pair[0] for pair in ends[1].getpeercert()["subject"])["commonName"]


def test_the_steps_are_those_of_a_rotation():
    assert len(BEFORE.trusted) == 1
    assert len(INTRODUCED.trusted) == 2
    assert INTRODUCED.authority == BEFORE.authority
    assert SWITCHED.authority == INTRODUCED.successor
    assert len(SWITCHED.trusted) == 2


@pytest.mark.parametrize(
    ("server", "client"),
    [
        *product(("before", "introduced"), repeat=2),
        *product(("introduced", "switched"), repeat=2),
    ],
)
def test_neighbouring_steps_trust_each_other(folders, server, client):
    assert shake(folders / server, folders / client) == "admend-webhook"


@pytest.mark.parametrize(("server", "client"), [("before", "switched"), ("switched", "before")])
def test_who_slept_through_the_whole_overlap_is_refused(folders, server, client):
    with pytest.raises(ssl.SSLError):
        shake(folders / server, folders / client)
