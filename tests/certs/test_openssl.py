"""openssl judges the chain."""

import subprocess
from datetime import timedelta

import pytest

from certs.authority import CA_LIFETIME
from certs.holdings import OVERLAP, Wanted, render_holdings, renew
from certs.rotate import reconcile, utc_now
from certs.store import FolderStore
from tests.support import require_tool

pytestmark = pytest.mark.interop
WANTED = Wanted(("proxy.example",), ("10.1.2.3", "fd00::1"), "admend-webhook", signing=True)


def verify(folder, leaf, *options, moment=None):
    command = [require_tool("openssl"), "verify", "-x509_strict", "-CAfile", "ca.crt", *options]
    if moment:
        command += ["-attime", str(int(moment.timestamp()))]
    return subprocess.run([*command, leaf], cwd=folder, capture_output=True, text=True, check=False)


def write(folder, holdings):
    FolderStore(folder).update(lambda _: render_holdings(holdings))


def test_openssl_accepts_the_serving_certificate_for_its_names_only(tmp_path):
    write(tmp_path, renew(None, WANTED, utc_now()))
    server = ("-purpose", "sslserver")
    assert verify(tmp_path, "tls.crt", *server, "-verify_hostname", "proxy.example").returncode == 0
    assert verify(tmp_path, "tls.crt", *server, "-verify_ip", "fd00::1").returncode == 0
    assert verify(tmp_path, "tls.crt", *server, "-verify_hostname", "other.example").returncode != 0
    assert verify(tmp_path, "tls.crt", "-purpose", "sslclient").returncode != 0


def test_openssl_accepts_the_client_certificate_for_clients_only(tmp_path):
    write(tmp_path, renew(None, WANTED, utc_now()))
    assert verify(tmp_path, "client.crt", "-purpose", "sslclient").returncode == 0
    assert verify(tmp_path, "client.crt", "-purpose", "sslserver").returncode != 0


def test_openssl_accepts_leafs_of_either_authority_while_one_replaces_the_other(tmp_path):
    now = utc_now()
    due = now + CA_LIFETIME * 2 / 3 + timedelta(minutes=1)
    introduced = renew(renew(None, WANTED, now), WANTED, due)
    switched = renew(introduced, WANTED, due + OVERLAP)
    write(tmp_path, switched)
    assert verify(tmp_path, "tls.crt", moment=due + OVERLAP).returncode == 0
    (tmp_path / "old.crt").write_bytes(introduced.server.certificate_pem)
    assert verify(tmp_path, "old.crt", moment=due + OVERLAP).returncode == 0
    # Who still reads the bundle of before the switch accepts the new leaf, too.
    (tmp_path / "ca.crt").write_bytes(render_holdings(introduced)["ca.crt"])
    assert verify(tmp_path, "tls.crt", moment=due + OVERLAP).returncode == 0


def test_openssl_reads_the_signing_key_pair(tmp_path):
    reconcile(FolderStore(tmp_path), WANTED)
    (tmp_path / "text").write_bytes(b"text")
    tool = require_tool("openssl")
    subprocess.run(
        [tool, "dgst", "-sha256", "-sign", "signing.pem", "-out", "signature", "text"], cwd=tmp_path, check=True
    )
    subprocess.run(
        [tool, "dgst", "-sha256", "-verify", "signing.pub", "-signature", "signature", "text"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
