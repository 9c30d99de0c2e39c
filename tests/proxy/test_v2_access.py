"""Who may push to and pull from the distribution API."""

import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientError, ClientSession

from certs.authority import Identity, issue_ca, issue_client, issue_server
from certs.serving import ServingContext
from proxy.access import Access
from proxy.mirror import EmbeddedMirror, Naming
from proxy.pulltokens import Grant, NamespacePasswords, PullTokens
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


def contexts(folder: Path, ca: Identity, **clients: Identity) -> tuple[ssl.SSLContext, dict[str, ssl.SSLContext]]:
    """Return a server's context that asks for client certificates, and contexts of clients."""
    now = datetime.now(UTC)
    for name, item in {"ca": ca, "server": issue_server(ca, [], ["127.0.0.1"], now), **clients}.items():
        (folder / f"{name}.pem").write_bytes(item.certificate_pem)
        (folder / f"{name}.key").write_bytes(item.key_pem)
    server = ServingContext(folder / "server.pem", folder / "server.key", folder / "ca.pem").context
    made = {"": ssl.create_default_context(cafile=str(folder / "ca.pem"))}
    for name in clients:
        made[name] = ssl.create_default_context(cafile=str(folder / "ca.pem"))
        made[name].load_cert_chain(folder / f"{name}.pem", folder / f"{name}.key")
    return server, made


async def pushed(served: Served, context: ssl.SSLContext) -> int:
    """Return the status of a push with a client's certificate."""
    async with ClientSession() as session:
        client = Served(served.mirror, session, served.url)
        return (await client("POST", f"/v2/{REPO}/blobs/uploads/", auth=None, ssl=context)).status


async def test_a_verified_client_certificate_is_enough_to_push(serve: Serve, tmp_path: Path) -> None:
    now = datetime.now(UTC)
    ca = issue_ca(now)
    server, clients = contexts(tmp_path, ca, webhook=issue_client(ca, "admend-webhook", now))
    served = await serve(Access(client_certificates=True), tls=server)
    assert await pushed(served, clients[""]) == 401
    assert await pushed(served, clients["webhook"]) == 202


async def test_of_client_certificates_only_the_listed_names_count(serve: Serve, tmp_path: Path) -> None:
    now = datetime.now(UTC)
    ca = issue_ca(now)
    server, clients = contexts(
        tmp_path, ca, webhook=issue_client(ca, "admend-webhook", now), other=issue_client(ca, "someone-else", now)
    )
    access = Access(client_certificates=True, client_names=frozenset({"admend-webhook"}))
    served = await serve(access, tls=server)
    assert await pushed(served, clients["webhook"]) == 202
    assert await pushed(served, clients["other"]) == 401


async def test_a_serving_certificate_and_one_of_another_authority_are_nobodys(serve: Serve, tmp_path: Path) -> None:
    now = datetime.now(UTC)
    ca, stranger = issue_ca(now), issue_ca(now)
    server, clients = contexts(
        tmp_path,
        ca,
        serving=issue_server(ca, [], ["127.0.0.1"], now),
        foreign=issue_client(stranger, "admend-webhook", now),
    )
    served = await serve(Access(client_certificates=True), tls=server)
    for name in ("serving", "foreign"):
        with pytest.raises((ClientError, ConnectionError)):  # the handshake fails; no request is read
            await pushed(served, clients[name])


def tokens() -> PullTokens:
    return PullTokens(b"k" * 32, "mirror.example")


async def test_pulls_may_need_a_token_that_credentials_are_exchanged_for(serve: Serve) -> None:
    served = await serve(Access("admend", "secret", pull="token", tokens=tokens()))
    await served.push(build("one"), "1")
    path = f"/v2/{REPO}/manifests/1"
    refused = await served("GET", path)
    challenge = refused.headers["WWW-Authenticate"]
    assert (refused.status, challenge) == (
        401,
        f'Bearer realm="{served.url}/v2/token",service="mirror.example",scope="repository:{REPO}:pull"',
    )
    assert (await served("GET", "/v2/token")).status == 401
    query = {"service": "mirror.example", "scope": f"repository:{REPO}:pull"}
    assert (await served("GET", "/v2/token", auth=basic("admend", "wrong"), params=query)).status == 401
    given = await served("GET", "/v2/token", auth=AUTH, params=query)
    bearer = f"Bearer {(await given.json())['token']}"
    assert (given.headers["Cache-Control"], (await given.json())["expires_in"]) == ("no-store", 300)
    assert (await served("GET", path, auth=bearer)).status == 200
    assert (await served("GET", "/v2/", auth=bearer)).status == 200
    other = await served("GET", "/v2/docker.io/library/other/manifests/1", auth=bearer)
    assert (other.status, "other:pull" in other.headers["WWW-Authenticate"]) == (401, True)
    assert (
        await served("POST", f"/v2/{REPO}/blobs/uploads/", auth=bearer)
    ).status == 401  # a pull token pushes nothing
    assert (await served("GET", "/v2/token", auth=bearer, params=query)).status == 401  # nor makes others


async def test_a_form_with_user_and_password_gets_a_token_too(serve: Serve) -> None:
    served = await serve(Access("admend", "secret", pull="token", tokens=tokens()))
    form = {
        "grant_type": "password",
        "username": "admend",
        "password": "secret",
        "scope": f"repository:{REPO}:pull,push",
    }
    given = await served("POST", "/v2/token", auth=None, data=form)
    bearer = f"Bearer {(await given.json())['access_token']}"
    assert (await served("POST", f"/v2/{REPO}/blobs/uploads/", auth=bearer)).status == 202
    assert (await served("POST", "/v2/other/blobs/uploads/", auth=bearer)).status == 401
    for wrong in ({**form, "password": "x"}, {**form, "grant_type": "refresh_token"}, {"x": "y" * 100_000}):
        assert (await served("POST", "/v2/token", auth=None, data=wrong)).status == 401


async def test_a_token_ends_and_cannot_be_made_up() -> None:
    made = tokens().issue(Grant("admend", "password", {"a/b": frozenset({"pull"})}), now=1000.0)
    read = tokens().read(made, now=1299.0)
    assert read == Grant("admend", "password", {"a/b": frozenset({"pull"})})
    assert tokens().read(made, now=1300.0) is None
    assert PullTokens(b"x" * 32, "mirror.example").read(made, now=1000.0) is None
    assert PullTokens(b"k" * 32, "other.example").read(made, now=1000.0) is None
    payload, _, seal = made.partition(".")
    for forged in (payload, f"{payload}.", f".{seal}", f"{payload[:-2]}AA.{seal}", "é.é", "x" * 9000):
        assert tokens().read(forged, now=1000.0) is None


async def test_a_namespace_pulls_what_is_public_and_what_it_was_granted_and_pushes_nothing(serve: Serve) -> None:
    passwords = NamespacePasswords(b"k" * 32)
    granted = {("shop", REPO)}
    rights: dict[str, Any] = {"granted": lambda *pair: pair in granted}
    served = await serve(Access("admend", "secret", namespaces=passwords), rights=rights)
    built = build("one")
    await served.push(built, "1")
    await served.push(build("two"), "1", repository="public/app")
    await served.mirror.set_visibility(REPO, "private")
    shop, bank = (basic(name, passwords.password(name)) for name in ("shop", "bank"))
    blob = next(iter(built.data))
    for path in (f"{REPO}/manifests/1", f"{REPO}/blobs/{blob}", f"{REPO}/tags/list", f"{REPO}/referrers/{blob}"):
        assert (await served("GET", f"/v2/{path}")).status == 401
        assert (await served("GET", f"/v2/{path}", auth=bank)).status == 403
        assert (await served("GET", f"/v2/{path}", auth=shop)).status == 200
        assert (await served("GET", f"/v2/{path}", auth=AUTH)).status == 200
    for auth in (None, bank, shop):  # a file that another repository holds
        assert (await served("GET", f"/v2/public/app/blobs/{blob}", auth=auth)).status == 404
        assert (await served("GET", "/v2/public/app/manifests/1", auth=auth)).status == 200
    listed = await (await served("GET", "/v2/_catalog", auth=bank)).json()
    assert listed["repositories"] == ["public/app"]
    assert (await served("POST", f"/v2/{REPO}/blobs/uploads/", auth=shop)).status == 403
    assert (await served("DELETE", f"/v2/{REPO}/manifests/1", auth=shop)).status == 403
    assert (await served("GET", "/v2/", auth=basic("shop", passwords.password("bank")))).status == 401


async def test_a_token_with_bounds_mounts_a_blob_only_from_where_it_may_pull(serve: Serve) -> None:
    served = await serve(Access("admend", "secret", pull="token", tokens=tokens()))
    built = build("one")
    await served.push(built, "1")
    digest = next(iter(built.data))
    to = "/v2/thief/app/blobs/uploads/"

    async def mount(scopes: str, query: str) -> int:
        answer = await served("GET", f"/v2/token?scope={scopes}", auth=AUTH)
        token = f"Bearer {(await answer.json())['token']}"
        return (await served("POST", f"{to}?mount={digest}{query}", auth=token)).status

    own = "repository:thief/app:pull,push"
    assert await mount(own, f"&from={REPO}") == 202  # an upload begins, as the specification says
    assert await mount(own, "") == 202
    assert await mount(f"{own}%20repository:other:pull", "&from=other") == 202
    assert await mount(f"repository:{REPO}:pull", f"&from={REPO}") == 401
    assert await mount(f"{own}%20repository:{REPO}:pull", f"&from={REPO}") == 201
    assert (await served("POST", f"{to}?mount={digest}&from={REPO}", auth=AUTH)).status == 201


async def test_a_new_epoch_ends_every_namespaces_password() -> None:
    before, after = NamespacePasswords(b"k" * 32, 0), NamespacePasswords(b"k" * 32, 1)
    assert before.holds("shop", before.password("shop"))
    assert not after.holds("shop", before.password("shop"))
    assert not before.holds("", before.password(""))


async def test_what_is_known_of_a_repository_survives_a_restart(tmp_path: Path) -> None:
    for expected in ("", "private"):
        mirror = EmbeddedMirror(tmp_path / "mirror", Naming("mirror.example"), 1 << 20)
        assert mirror.visibility("r.example/team/app") == expected
        await mirror.set_visibility("r.example/team/app", "private")
        await mirror.close()
