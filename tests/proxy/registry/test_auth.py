"""Challenges are answered where, and only where, the registry itself makes them."""

import asyncio
import base64
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from proxy.credentials import Credentials, Login
from proxy.egress import Egress, EgressPolicy
from proxy.egress.policy import origin_of, parse_url
from proxy.errors import MalformedInput, TrustFailure, UpstreamRefused
from proxy.oci.reference import ImageRef
from proxy.registry import Registry
from proxy.registry.auth import parse_challenges
from tests.simulators.registry import RegistrySimulator, make_layer

LAYER = make_layer({"etc/os-release": b"ID=debian\n"})


def test_challenges_are_parsed_with_quotes_escapes_and_several_to_a_header() -> None:
    found = parse_challenges(
        [
            'Bearer realm="https://auth.example/token",service="r, \\"x\\"",scope="repository:a/b:pull,push"',
            'Negotiate, Basic realm="plain"',
            'DIGEST realm="d" , qop=auth',
        ]
    )
    assert [challenge.scheme for challenge in found] == ["bearer", "negotiate", "basic", "digest"]
    assert found[0].parameters == {
        "realm": "https://auth.example/token",
        "service": 'r, "x"',
        "scope": "repository:a/b:pull,push",
    }
    assert found[3].parameters == {"realm": "d", "qop": "auth"}


@given(st.lists(st.text(max_size=80), max_size=3))
def test_any_header_is_parsed_without_harm(values: list[str]) -> None:
    assert all(challenge.scheme for challenge in parse_challenges(values))


async def test_a_public_image_behind_bearer_is_pulled_with_an_anonymous_token(
    upstream: RegistrySimulator, registry: Registry, ref: ImageRef
) -> None:
    upstream.faults.auth = "bearer"
    image = upstream.add_image("team/app", "v1", [LAYER])
    assert (await registry.get_manifest(ref)).digest == image.digest
    assert [piece async for piece in registry.stream_blob(ref, image.layers[0])]
    assert upstream.count(part="/token") == 1


async def test_fifty_requests_at_once_ask_for_one_token(
    upstream: RegistrySimulator, registry: Registry, ref: ImageRef
) -> None:
    upstream.faults.auth = "bearer"
    upstream.add_image("team/app", "v1", [LAYER])
    await asyncio.gather(*(registry.get_manifest(ref) for _ in range(50)))
    assert upstream.count(part="/token") == 1


async def test_an_expired_token_is_replaced(upstream: RegistrySimulator, registry: Registry, ref: ImageRef) -> None:
    upstream.faults.auth = "bearer"
    upstream.add_image("team/app", "v1", [LAYER])
    await registry.get_manifest(ref)
    upstream.gate.tokens.clear()
    await registry.get_manifest(ref)
    assert upstream.count(part="/token") == 2


async def test_a_token_of_no_life_is_used_once(upstream: RegistrySimulator, registry: Registry, ref: ImageRef) -> None:
    upstream.faults.auth, upstream.faults.token_seconds = "bearer", -1
    upstream.add_image("team/app", "v1", [LAYER])
    await registry.get_manifest(ref)
    await registry.get_manifest(ref)
    assert upstream.count(part="/token") == 2


@pytest.mark.parametrize("kind", ["bearer", "basic"])
async def test_a_login_opens_a_private_image(
    kind: str, upstream: RegistrySimulator, with_login: Registry, ref: ImageRef
) -> None:
    upstream.faults.auth, upstream.faults.anonymous = kind, False
    image = upstream.add_image("team/app", "v1", [LAYER])
    assert (await with_login.get_manifest(ref)).digest == image.digest


async def test_basic_is_sent_unasked_only_to_a_host_that_asked(
    upstream: RegistrySimulator, with_login: Registry, ref: ImageRef
) -> None:
    upstream.faults.auth = "basic"
    upstream.add_image("team/app", "v1", [LAYER])
    await with_login.get_manifest(ref)
    await with_login.get_manifest(ref)
    sent = ["Authorization" in request.headers for request in upstream.requests]
    assert sent == [False, True, True]


@pytest.mark.parametrize("kind", ["bearer", "basic"])
async def test_no_login_is_refused_with_what_to_do(
    kind: str, upstream: RegistrySimulator, registry: Registry, ref: ImageRef
) -> None:
    upstream.faults.auth, upstream.faults.anonymous = kind, False
    with pytest.raises(UpstreamRefused, match=r"needs a login of 127\.0\.0\.1.*upstream\.docker_config") as caught:
        await registry.get_manifest(ref)
    assert caught.value.status == 401


@pytest.mark.parametrize("kind", ["bearer", "basic"])
async def test_a_wrong_login_is_refused_and_not_shown(
    kind: str, upstream: RegistrySimulator, egress: Egress, ref: ImageRef
) -> None:
    upstream.faults.auth, upstream.faults.anonymous = kind, False
    registry = Registry(egress, Credentials({upstream.host: Login("user", "hunter2")}))
    with pytest.raises(UpstreamRefused, match="is not enough") as caught:
        await registry.get_manifest(ref)
    assert "hunter2" not in str(caught.value)
    assert upstream.count() <= 4


async def test_a_credential_helper_is_named(upstream: RegistrySimulator, egress: Egress, ref: ImageRef) -> None:
    upstream.faults.auth = "basic"
    registry = Registry(egress, Credentials({}, {upstream.host: "ecr-login"}))
    with pytest.raises(UpstreamRefused, match="credential helper 'ecr-login', which is not run"):
        await registry.get_manifest(ref)


@pytest.mark.parametrize("realm", ["https://10.0.0.5/token", "http://169.254.169.254/token", "https://127.0.0.2/token"])
async def test_a_token_realm_on_a_private_address_is_refused(
    realm: str, upstream: RegistrySimulator, egress: Egress, ref: ImageRef
) -> None:
    upstream.faults.auth, upstream.faults.realm = "bearer", realm
    registry = Registry(egress, Credentials({upstream.host: Login("user", "secret")}))
    with pytest.raises(TrustFailure):
        await registry.get_manifest(ref)
    assert {host for host, status in egress.requests if status} == {upstream.host}


async def test_a_redirect_target_gets_no_credentials_when_it_asks_for_them(
    upstream: RegistrySimulator, with_login: Registry, ref: ImageRef
) -> None:
    image = upstream.add_image("team/app", "v1", [LAYER])
    async with RegistrySimulator() as thief:
        thief.faults.auth = "basic"
        upstream.faults.auth, upstream.faults.redirect = "basic", f"http://{thief.host}"
        with pytest.raises(UpstreamRefused):
            _ = [piece async for piece in with_login.stream_blob(ref, image.layers[0])]
        assert thief.count() == 1
        assert all("Authorization" not in request.headers for request in thief.requests)


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{}", b'{"token": 1}', b'{"token": "a\\r\\nb"}', b'{"token": "t", "expires_in": [1]}', b"\xff"],
)
async def test_a_broken_token_answer_is_refused(
    body: bytes, upstream: RegistrySimulator, registry: Registry, ref: ImageRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream.faults.auth = "bearer"
    monkeypatch.setattr(upstream.gate, "token", lambda _: web.Response(body=body, content_type="application/json"))
    with pytest.raises(MalformedInput, match="token"):
        await registry.get_manifest(ref)


async def test_an_identity_token_is_exchanged_in_the_body(
    upstream: RegistrySimulator, egress: Egress, ref: ImageRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream.faults.auth = "bearer"
    upstream.add_image("team/app", "v1", [LAYER])

    def grant(request: web.Request) -> web.Response:
        token = "granted!repository:team/app:pull"
        upstream.gate.tokens.add(token)
        return web.json_response({"access_token": token})

    monkeypatch.setattr(upstream.gate, "token", grant)
    registry = Registry(egress, Credentials({upstream.host: Login("<token>", "", "refresh-me")}))
    await registry.get_manifest(ref)
    asked = [request for request in upstream.requests if request.path == "/token"]
    assert [(request.method, request.query) for request in asked] == [("POST", "")]
    assert "refresh-me" not in str(asked[0].headers)


async def test_docker_hub_is_asked_at_its_own_address() -> None:
    asked: list[str] = []

    async def resolve(host: str, port: int) -> tuple[str, ...]:
        asked.append(host)
        return ("10.0.0.1",)

    egress = Egress(EgressPolicy(upstreams=("docker.io",)), resolve=resolve)
    with pytest.raises(TrustFailure):
        await Registry(egress).get_manifest(ImageRef.parse("nginx"))
    await egress.close()
    assert asked == ["registry-1.docker.io"]


SECRET = "hunter2-is-not-shown"


def overheard(*registries: RegistrySimulator) -> str:
    """Return all that was sent to registries: addresses, queries and headers, base64 opened."""
    text = []
    for request in [seen for registry in registries for seen in registry.requests]:
        text += [request.path, request.query, *request.headers.values()]
        kind, _, value = request.headers.get("Authorization", "").partition(" ")
        if kind == "Basic":
            text.append(base64.b64decode(value).decode())
    return "\n".join(text)


async def named_egress(*hosts: str, **policy: Any) -> Egress:
    """Return a way out where host names of the test lead to this machine."""

    async def resolve(host: str, port: int) -> tuple[str, ...]:
        return ("127.0.0.1",)

    names = frozenset(hosts)
    return Egress(EgressPolicy(named=names, plain_http=names, backoff=0.001, **policy), resolve=resolve)


@pytest.mark.parametrize("kind", ["bearer", "basic"])
@pytest.mark.parametrize("told", [False, True])
async def test_credentials_go_over_tls_only_unless_the_operator_names_the_host(
    kind: str, told: bool, upstream: RegistrySimulator
) -> None:
    upstream.faults.auth, upstream.faults.anonymous = kind, False
    upstream.faults.password = SECRET
    upstream.add_image("team/app", "v1", [LAYER])
    host = f"registry.example:{upstream.host.partition(':')[2]}"
    egress = await named_egress(host, plain_credentials=frozenset({host} if told else ()))
    registry = Registry(egress, Credentials({host: Login("user", SECRET)}))
    ref = ImageRef.parse(f"{host}/team/app:v1")
    try:
        if told:
            assert await registry.get_manifest(ref)
        else:
            with pytest.raises(UpstreamRefused, match=r"was not sent: .*without TLS.*plain_http_credentials") as caught:
                await registry.get_manifest(ref)
            assert SECRET not in str(caught.value)
    finally:
        await egress.close()
    assert (SECRET in overheard(upstream)) == told


@pytest.mark.parametrize("kind", ["password", "identity token"])
@pytest.mark.parametrize("listed", [False, True])
async def test_a_realm_on_a_foreign_host_gets_no_login_unless_it_is_listed(
    kind: str, listed: bool, upstream: RegistrySimulator
) -> None:
    async with RegistrySimulator() as thief:
        thief.faults.password = SECRET
        upstream.faults.auth, upstream.faults.realm = "bearer", f"http://{thief.host}/token"
        upstream.add_image("team/app", "v1", [LAYER])
        realms = {upstream.host: (thief.host,)} if listed else {}
        egress = await named_egress("127.0.0.1", token_realms=realms)
        login = Login("user", SECRET) if kind == "password" else Login("<token>", "", SECRET)
        registry = Registry(egress, Credentials({upstream.host: login}))
        try:
            with pytest.raises(UpstreamRefused) as caught:  # the thief's tokens are no good at the registry
                await registry.get_manifest(ImageRef.parse(f"{upstream.host}/team/app:v1"))
        finally:
            await egress.close()
        assert thief.count(part="/token") >= 1
        sent = SECRET in overheard(thief) if kind == "password" else bool(thief.count("POST"))  # it goes in a body
        assert sent == listed
        assert SECRET not in str(caught.value)
        if not listed:
            assert "token_realms" in str(caught.value)


async def test_a_realm_that_redirects_to_another_host_does_not_take_the_login_there(
    upstream: RegistrySimulator,
) -> None:
    async with RegistrySimulator() as thief:
        upstream.faults.auth, upstream.faults.anonymous = "bearer", False
        upstream.add_image("team/app", "v1", [LAYER])

        def away(_: web.Request) -> web.Response:
            return web.Response(status=307, headers={"Location": f"http://{thief.host}/token"})

        upstream.gate.token = away  # type: ignore[method-assign]
        for login in (Login("user", SECRET), Login("<token>", "", SECRET)):
            egress = await named_egress("127.0.0.1")
            registry = Registry(egress, Credentials({upstream.host: login}))
            with pytest.raises((UpstreamRefused, TrustFailure)):
                await registry.get_manifest(ImageRef.parse(f"{upstream.host}/team/app:v1"))
            await egress.close()
        assert SECRET not in overheard(thief)
        assert all(request.method == "GET" for request in thief.requests)


@pytest.mark.parametrize(
    ("registry", "realm", "allowed"),
    [
        ("https://r.example", "https://r.example", True),
        ("https://registry.r.example", "https://r.example", True),
        ("https://registry-1.docker.io", "https://auth.docker.io", True),
        ("https://r.example", "https://auth.docker.io", False),
        ("https://r.example", "http://r.example", False),
        ("https://r.example", "https://r.example:8443", False),
        ("https://r.example", "https://other.example", False),
        ("https://r.example", "https://example", False),
        ("https://r.example", "https://registry.r.example", False),
        ("https://evilr.example", "https://r.example", False),
        ("https://listed.example", "https://login.other.example", True),
        ("https://listed.example:5000", "https://login.other.example", False),
    ],
)
def test_which_realms_belong_to_a_registry(registry: str, realm: str, allowed: bool) -> None:
    policy = EgressPolicy(token_realms={"listed.example": ("login.other.example",)})
    origins = [origin_of(parse_url(text)) for text in (registry, realm)]
    assert policy.may_exchange(origins[0], origins[1]) == allowed
