"""Who may push to and pull from the distribution API."""

import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from aiohttp import ClientSession
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from proxy.access import Access
from tests.proxy.served import AUTH, REPO, Serve, Served, basic, code
from tests.simulators.images import build


async def test_pushing_and_deleting_need_credentials_and_pulling_does_not(serve: Serve) -> None:
    served = await serve()
    await served.push(build("one"), "1")
    for method, path in (
        ("POST", f"/v2/{REPO}/blobs/uploads/"),
        ("PUT", f"/v2/{REPO}/manifests/1"),
        ("DELETE", f"/v2/{REPO}/manifests/1"),
    ):
        for options in ({"auth": None}, {"auth": basic("admend", "wrong")}, {"auth": basic("", "")}):
            refused = await served(method, path, **options)
            assert (refused.status, code(await refused.text())) == (401, "UNAUTHORIZED")
            assert refused.headers["WWW-Authenticate"].startswith("Basic ")
        refused = await served(method, path, auth=None, headers={"Authorization": "Bearer wrong"})
        assert refused.status == 401
    assert (await served("GET", "/v2/")).status == 200
    assert (await served("GET", "/v2/", auth=basic("admend", "wrong"))).status == 401
    assert (await served("GET", f"/v2/{REPO}/manifests/1", auth=basic("", ""))).status == 200
    bearer = {"Authorization": "Bearer token"}
    assert (await served("DELETE", f"/v2/{REPO}/manifests/1", auth=None, headers=bearer)).status == 202


async def test_pulling_may_need_credentials_too(serve: Serve) -> None:
    served = await serve(Access("admend", "secret", pull="basic"))
    assert (await served("GET", "/v2/")).status == 401
    assert (await served("GET", "/v2/", auth=AUTH)).status == 200
    assert (await served("GET", "/v2/_catalog", auth=basic("", ""))).status == 401


async def test_without_configured_credentials_nobody_pushes(serve: Serve) -> None:
    served = await serve(Access())
    for auth in (None, basic("", ""), AUTH):
        assert (await served("POST", f"/v2/{REPO}/blobs/uploads/", auth=auth)).status == 401
    for header in ("Bearer ", "Basic", "Basic !!", "Basic /w=="):
        refused = await served("POST", f"/v2/{REPO}/blobs/uploads/", auth=None, headers={"Authorization": header})
        assert refused.status == 401


def issue(folder: Path, name: str, issuer: tuple[x509.Name, ec.EllipticCurvePrivateKey] | None) -> Any:
    """Write `name`.pem and `name`.key; returns what issues others."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signer, signing_key = issuer or (subject, key)
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(signer, subject, key.public_key(), 1, now - timedelta(1), now + timedelta(1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(signing_key, hashes.SHA256())
    )
    (folder / f"{name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    form = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / f"{name}.key").write_bytes(key.private_bytes(serialization.Encoding.PEM, *form))
    return subject, key


async def test_a_verified_client_certificate_is_enough_to_push(serve: Serve, tmp_path: Path) -> None:
    issuer = issue(tmp_path, "ca", None)
    issue(tmp_path, "server", issuer)
    issue(tmp_path, "client", issuer)
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(tmp_path / "ca.pem"))
    server.load_cert_chain(tmp_path / "server.pem", tmp_path / "server.key")
    server.verify_mode = ssl.CERT_OPTIONAL
    served = await serve(Access(client_certificates=True), tls=server)
    client = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    assert (await served("POST", f"/v2/{REPO}/blobs/uploads/", auth=None, ssl=client)).status == 401
    client = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    client.load_cert_chain(tmp_path / "client.pem", tmp_path / "client.key")
    async with ClientSession() as session:
        with_certificate = Served(served.mirror, session, served.url)
        assert (await with_certificate("POST", f"/v2/{REPO}/blobs/uploads/", auth=None, ssl=client)).status == 202
