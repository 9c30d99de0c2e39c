import asyncio
import base64
import hashlib
import io
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientResponse, ClientSession, web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from proxy.access import Access
from proxy.errors import UpstreamRefused, UpstreamUnavailable
from proxy.mirror import EmbeddedMirror, Naming
from proxy.oci.digest import Digest
from proxy.oci.manifest import MAX_MANIFEST, OCI_INDEX, OCI_MANIFEST, Index, Manifest
from proxy.v2 import Hooks, add_v2_routes
from tests.simulators.images import Built, build, build_index


def basic(username: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()


AUTH = basic("admend", "secret")
REPO = "docker.io/library/nginx"


class Served:
    """A mirror behind /v2/ on loopback, and a client of it."""

    def __init__(self, mirror: EmbeddedMirror, session: ClientSession, url: str) -> None:
        self.mirror, self.session, self.url = mirror, session, url

    async def __call__(self, method: str, path: str, **options: Any) -> ClientResponse:
        auth = options.pop("auth", AUTH if method not in {"GET", "HEAD"} else None)
        headers = {**options.pop("headers", {}), **({"Authorization": auth} if auth else {})}
        response = await self.session.request(method, f"{self.url}{path}", headers=headers, **options)
        await response.read()
        return response

    async def push(self, built: Built, *tags: str, repository: str = REPO) -> None:
        for digest, data in built.data.items():
            created = await self("POST", f"/v2/{repository}/blobs/uploads/?digest={digest}", data=data)
            assert created.status == 201
        for child in built.children:
            assert (await self.put_manifest(child, str(child.digest), repository)).status == 201
        for tag in tags or (str(built.top.digest),):
            assert (await self.put_manifest(built.top, tag, repository)).status == 201

    async def put_manifest(self, manifest: Manifest | Index, reference: str, repository: str = REPO) -> ClientResponse:
        headers = {"Content-Type": manifest.media_type}
        return await self("PUT", f"/v2/{repository}/manifests/{reference}", data=manifest.raw, headers=headers)


Serve = Callable[..., Awaitable[Served]]


@pytest.fixture
async def serve(tmp_path: Path) -> AsyncIterator[Serve]:
    cleanups: list[Callable[[], Awaitable[object]]] = []

    async def start(
        access: Access | None = None,
        hooks: Hooks | None = None,
        max_bytes: int = 100 << 20,
        tls: ssl.SSLContext | None = None,
    ) -> Served:
        mirror = EmbeddedMirror(tmp_path / "mirror", Naming("mirror.example"), max_bytes, grace=0.0)
        app = web.Application()
        add_v2_routes(app, mirror, access or Access("admend", "secret", "token"), hooks)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
        await site.start()
        host, port = runner.addresses[0][:2]
        session = ClientSession()
        cleanups.extend((session.close, runner.cleanup, mirror.close))
        return Served(mirror, session, f"{'https' if tls else 'http'}://{host}:{port}")

    yield start
    for cleanup in cleanups:
        await cleanup()


def code(body: str) -> str:
    found: str = json.loads(body)["errors"][0]["code"]
    return found


async def test_a_pushed_index_is_pulled_back_byte_for_byte(serve: Serve) -> None:
    served = await serve()
    built = build_index(build("one"), build("two"))
    await served.push(built, "1.25", "1")
    for reference in ("1.25", "1", str(built.top.digest)):
        got = await served("GET", f"/v2/{REPO}/manifests/{reference}")
        assert (got.status, await got.read()) == (200, built.top.raw)
        assert got.headers["Content-Type"] == OCI_INDEX
        assert got.headers["Docker-Content-Digest"] == str(built.top.digest)
        head = await served("HEAD", f"/v2/{REPO}/manifests/{reference}")
        assert head.headers["Content-Length"] == str(len(built.top.raw))
        assert head.headers["Docker-Content-Digest"] == str(built.top.digest)
    for digest, data in built.data.items():
        got = await served("GET", f"/v2/{REPO}/blobs/{digest}")
        assert (await got.read(), got.headers["ETag"]) == (data, f'"{digest}"')


@pytest.mark.parametrize(
    ("value", "status", "body"),
    [("bytes=2-5", 206, b"2345"), ("bytes=-3", 206, b"789"), ("bytes=7-", 206, b"789"), ("bytes=20-", 416, None)],
)
async def test_a_range_of_a_blob_is_served(serve: Serve, value: str, status: int, body: bytes | None) -> None:
    served = await serve()
    digest = await served.mirror.blobs.put_bytes(b"0123456789")
    got = await served("GET", f"/v2/{REPO}/blobs/{digest}", headers={"Range": value})
    assert got.status == status
    if body is not None:
        assert await got.read() == body
        assert got.headers["Content-Range"].endswith("/10")


async def test_what_a_client_has_is_not_sent_again(serve: Serve) -> None:
    served = await serve()
    built = build("one")
    await served.push(built, "1")
    for path in (f"manifests/{built.top.digest}", f"blobs/{next(iter(built.data))}"):
        etag = (await served("GET", f"/v2/{REPO}/{path}")).headers["ETag"]
        assert (await served("GET", f"/v2/{REPO}/{path}", headers={"If-None-Match": etag})).status == 304


async def test_a_blob_is_uploaded_in_pieces_that_must_follow_each_other(serve: Serve) -> None:
    served = await serve()
    begun = await served("POST", f"/v2/{REPO}/blobs/uploads/")
    assert begun.status == 202
    place = begun.headers["Location"]
    first = await served("PATCH", place, data=b"hello ", headers={"Content-Range": "0-5"})
    assert (first.status, first.headers["Range"]) == (202, "0-5")
    for wrong in ("0-4", "7-11", "6-7"):
        refused = await served("PATCH", place, data=b"world", headers={"Content-Range": wrong})
        assert (refused.status, refused.headers["Range"]) == (416, "0-5")
    status = await served("GET", place, auth=AUTH)
    assert (status.status, status.headers["Range"]) == (204, "0-5")
    digest = Digest.of(b"hello world")
    done = await served("PUT", f"{place}?digest={digest}", data=b"world", headers={"Content-Range": "6-10"})
    assert (done.status, done.headers["Location"]) == (201, f"/v2/{REPO}/blobs/{digest}")
    assert await (await served("GET", done.headers["Location"])).read() == b"hello world"
    assert (await served("GET", place, auth=AUTH)).status == 404


async def test_an_upload_with_a_wrong_digest_or_a_cancelled_one_leaves_nothing(serve: Serve, tmp_path: Path) -> None:
    served = await serve()
    whole = await served("POST", f"/v2/{REPO}/blobs/uploads/?digest={Digest.of(b'x')}", data=b"y")
    assert (whole.status, code(await whole.text())) == (400, "DIGEST_INVALID")
    place = (await served("POST", f"/v2/{REPO}/blobs/uploads/")).headers["Location"]
    await served("PATCH", place, data=b"y")
    assert (await served("DELETE", place)).status == 204
    assert (await served("PATCH", place, data=b"y")).status == 404
    place = (await served("POST", f"/v2/{REPO}/blobs/uploads/")).headers["Location"]
    assert (await served("PUT", f"{place}?digest=", data=b"y")).status == 400
    assert [path for path in (tmp_path / "mirror" / "blobs").rglob("*") if path.is_file()] == []


async def test_a_sha512_blob_may_be_pushed(serve: Serve) -> None:
    served = await serve()
    digest = f"sha512:{hashlib.sha512(b'x').hexdigest()}"
    assert (await served("POST", f"/v2/{REPO}/blobs/uploads/?digest={digest}", data=b"x")).status == 201
    assert await (await served("GET", f"/v2/{REPO}/blobs/{digest}")).read() == b"x"


async def test_a_blob_that_is_there_is_mounted_and_another_begins_an_upload(serve: Serve) -> None:
    served = await serve()
    digest = await served.mirror.blobs.put_bytes(b"shared")
    mounted = await served("POST", f"/v2/other/blobs/uploads/?mount={digest}&from={REPO}")
    assert (mounted.status, mounted.headers["Location"]) == (201, f"/v2/other/blobs/{digest}")
    begun = await served("POST", f"/v2/other/blobs/uploads/?mount={Digest.of(b'absent')}&from={REPO}")
    assert (begun.status, "Docker-Upload-UUID" in begun.headers) == (202, True)


async def test_a_manifest_comes_after_what_it_references(serve: Serve) -> None:
    served = await serve()
    built = build_index(build("one"))
    for manifest in (built.top, built.children[0]):
        refused = await served.put_manifest(manifest, "1")
        assert (refused.status, code(await refused.text())) == (400, "MANIFEST_BLOB_UNKNOWN")
    assert (await served("GET", f"/v2/{REPO}/manifests/1")).status == 404


async def test_a_manifest_that_is_wrong_or_too_large_is_refused(serve: Serve) -> None:
    served = await serve()
    built = build("one")
    await served.push(built)
    wrong = await served.put_manifest(built.top, str(Digest.of(b"x")))
    assert (wrong.status, code(await wrong.text())) == (400, "DIGEST_INVALID")
    path = f"/v2/{REPO}/manifests/1"
    assert (await served("PUT", path, data=b"{", headers={"Content-Type": OCI_MANIFEST})).status == 400
    assert (await served("PUT", path, data=io.BytesIO(b"x" * (MAX_MANIFEST + 1)))).status == 413

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(5):
            yield b"x" * (1 << 20)

    assert (await served("PUT", path, data=pieces())).status == 413


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


async def test_tags_and_repositories_are_listed_in_pages(serve: Serve) -> None:
    served = await serve()
    await served.push(build("one"), "a", "b", "c")
    await served.push(build("one"), "x", repository="another")
    first = await served("GET", f"/v2/{REPO}/tags/list?n=2")
    assert await first.json() == {"name": REPO, "tags": ["a", "b"]}
    link = first.headers["Link"].partition(">")[0].lstrip("<")
    second = await served("GET", link)
    assert (await second.json())["tags"] == ["c"]
    assert "Link" not in second.headers
    assert (await (await served("GET", f"/v2/{REPO}/tags/list?n=0")).json())["tags"] == []
    assert (await served("GET", f"/v2/{REPO}/tags/list?n=-1")).status == 400
    unknown = await served("GET", "/v2/nothing/tags/list")
    assert (unknown.status, code(await unknown.text())) == (404, "NAME_UNKNOWN")
    assert await (await served("GET", "/v2/_catalog")).json() == {"repositories": ["another", REPO]}


async def test_referrers_are_listed_and_filtered(serve: Serve) -> None:
    served = await serve()
    built = build("one")
    assert isinstance(built.top, Manifest)
    path = f"/v2/{REPO}/referrers/{built.top.digest}"
    assert (await (await served("GET", path)).json(content_type=OCI_INDEX))["manifests"] == []
    await served.push(built, "1")
    for kind in ("application/a", "application/b"):
        artifact = build(kind, subject=built.top, artifact_type=kind)
        await served.push(artifact)
        put = await served.put_manifest(artifact.top, str(artifact.top.digest))
        assert put.headers["OCI-Subject"] == str(built.top.digest)
    assert len((await (await served("GET", path)).json(content_type=OCI_INDEX))["manifests"]) == 2
    filtered = await served("GET", f"{path}?artifactType=application/b")
    (entry,) = (await filtered.json(content_type=OCI_INDEX))["manifests"]
    assert entry["artifactType"] == "application/b"
    assert filtered.headers["OCI-Filters-Applied"] == "artifactType"


async def test_deleting_a_manifest_ends_it_and_blobs_are_not_deleted_by_hand(serve: Serve) -> None:
    served = await serve()
    built = build("one")
    await served.push(built, "1")
    assert (await served("DELETE", f"/v2/{REPO}/manifests/{built.top.digest}")).status == 202
    assert (await served("DELETE", f"/v2/{REPO}/manifests/{built.top.digest}")).status == 404
    assert (await served("GET", f"/v2/{REPO}/manifests/1")).status == 404
    assert (await served("DELETE", f"/v2/{REPO}/blobs/{next(iter(built.data))}")).status == 405


async def test_a_containerd_mirror_request_is_mapped_by_its_namespace(serve: Serve) -> None:
    served = await serve()
    built = build("one")
    await served.push(built, "1")
    assert (await served("GET", "/v2/library/nginx/manifests/1?ns=docker.io")).status == 200
    assert (await served("HEAD", f"/v2/library/nginx/blobs/{next(iter(built.data))}?ns=docker.io")).status == 200
    assert (await served("GET", f"/v2/{REPO}/manifests/1?ns=mirror.example")).status == 200
    assert (await served("GET", "/v2/library/nginx/manifests/1?ns=reg.example")).status == 404
    assert (await served("GET", "/v2/library/nginx/manifests/1?ns=../x")).status == 404


async def test_a_miss_is_given_to_the_hooks(serve: Serve, tmp_path: Path) -> None:
    built = build("pulled through")
    files = built.files(tmp_path / "files")
    asked: list[tuple[str, str]] = []

    async def manifest(name: str, reference: str) -> Manifest | Index | None:
        asked.append((name, reference))
        if reference == "down":
            raise UpstreamUnavailable("the upstream does not answer", retry_after=7)
        if reference == "private":
            raise UpstreamRefused("the upstream wants credentials", status=401)
        return built.top

    async def blob(name: str, digest: Digest) -> Path | None:
        return files.get(digest)

    served = await serve(hooks=Hooks(manifest, blob))
    got = await served("GET", "/v2/library/nginx/manifests/latest?ns=docker.io")
    assert (got.status, await got.read()) == (200, built.top.raw)
    assert asked == [(REPO, "latest")]
    for digest, data in built.data.items():
        assert await (await served("GET", f"/v2/{REPO}/blobs/{digest}")).read() == data
    assert (await served("GET", f"/v2/{REPO}/manifests/{Digest.of(b'other')}")).status == 404
    down = await served("GET", f"/v2/{REPO}/manifests/down")
    assert (down.status, down.headers["Retry-After"]) == (503, "7")
    assert (await served("GET", f"/v2/{REPO}/manifests/private")).status == 403


@pytest.mark.parametrize(
    "path", ["UPPER/manifests/1", "a//b/manifests/1", "a/manifests/.x", "a/blobs/sha256:12", "_tags/manifests/1"]
)
async def test_what_is_no_name_is_not_found(serve: Serve, path: str) -> None:
    served = await serve()
    assert (await served("GET", f"/v2/{path}")).status == 404
    assert (await served("PUT", f"/v2/{path}", data=b"{}")).status in {400, 405}


async def test_a_full_mirror_refuses_a_push_with_the_reason(serve: Serve) -> None:
    served = await serve(max_bytes=1000)
    refused = await served("POST", f"/v2/{REPO}/blobs/uploads/?digest={Digest.of(b'x' * 2000)}", data=b"x" * 2000)
    assert refused.status == 507
    assert "max_bytes" in await refused.text()
    assert served.mirror.blobs.used == 0
    assert served.mirror.blobs.room_for(1000) == 0


async def test_an_upload_that_is_cut_off_can_go_on(serve: Serve) -> None:
    served = await serve()
    place = (await served("POST", f"/v2/{REPO}/blobs/uploads/")).headers["Location"]
    host, port = served.url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    head = f"PATCH {place} HTTP/1.1\r\nHost: x\r\nAuthorization: {AUTH}\r\nContent-Length: 10\r\n\r\nhello"
    writer.write(head.encode())
    await writer.drain()
    await asyncio.sleep(0.1)
    writer.close()
    await asyncio.sleep(0.1)
    status = await served("GET", place, auth=AUTH)
    assert status.headers["Range"] == "0-4"
    done = await served("PUT", f"{place}?digest={Digest.of(b'hello world')}", data=b" world")
    assert done.status == 201


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
