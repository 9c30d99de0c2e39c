"""Private images: whose pull secrets open them, who may pull the patched ones, and that nobody else learns anything.

A whole proxy in a cluster, with an upstream that opens nothing without credentials, over HTTP on loopback.
"""

import asyncio
import base64
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from proxy.api import MIRROR_SECRET, Outcome
from proxy.config import GrantsConfig, MirrorConfig, ProxyConfig
from tests.proxy.asking import ask, name_of
from tests.proxy.closed import (
    PASSWORD,
    TYPE,
    USER,
    Closed,
    closed_world,
    files_below,
    secret,
    secret_path,
    upstream,
)
from tests.proxy.served import basic
from tests.simulators.registry import Faults, RegistrySimulator
from tests.simulators.world import LOGIN, MIRROR, TOKEN

OWN = basic(*LOGIN.split(":"))


@pytest.fixture
async def closed(tmp_path: Path) -> AsyncIterator[Closed]:
    async with closed_world(tmp_path, tag_ttl=0.3, negative_ttl=0.0) as made:
        made.put_secret("shop")
        yield made


async def test_a_pods_own_pull_secret_opens_its_image_and_its_namespace_alone_pulls_the_patched_one(
    closed: Closed,
) -> None:
    image = closed.world.add_image()
    answer = await closed.ask(image)
    assert (answer.outcome, answer.pull_secret) == (Outcome.PATCHED, MIRROR_SECRET)
    closed.put_secret("bank")
    other = await closed.ask(closed.world.add_image(), "bank")  # so that bank has a Secret for the mirror
    assert other.outcome is Outcome.PATCHED
    for path in await closed.paths(answer.patched):
        assert (await closed.get(path)).status_code == 401
        assert (await closed.get(path, closed.login("bank"))).status_code == 403, path
        assert (await closed.get(path, basic("bank", "made-up"))).status_code == 401
        assert (await closed.get(path, closed.login("shop"))).status_code == 200, path
        assert (await closed.get(path, OWN)).status_code == 200, path
    blob = next(path for path in await closed.paths(answer.patched) if "/blobs/" in path).rpartition("/")[2]
    elsewhere = other.patched.removeprefix(f"{MIRROR}/").partition("@")[0]
    assert (await closed.get(f"/v2/{elsewhere}/blobs/{blob}", closed.login("bank"))).status_code in {403, 404}
    listed = (await closed.get("/v2/_catalog", closed.login("bank"))).json()["repositories"]
    assert elsewhere in listed
    assert closed.place(image) not in listed


@pytest.mark.parametrize("how", ["tag", "digest", "the mirror's name", "dry run", "patched digest"])
async def test_who_has_no_pull_secret_is_told_nothing_though_the_image_is_known(closed: Closed, how: str) -> None:
    image = closed.world.add_image()
    known = await closed.ask(image)
    asked = {
        "digest": f"{name_of(image)}@{known.source.partition('@')[2]}",
        "the mirror's name": f"{MIRROR}/{image}",
        "patched digest": known.patched,
    }.get(how, image)
    for namespace, secrets in (("bank", ("pull",)), ("bank", ()), ("nowhere", ("pull",)), ("", ())):
        answer = await closed.ask(asked, namespace, secrets, dry_run=how == "dry run")
        assert answer.outcome in {Outcome.FAILED, Outcome.PENDING}
        assert answer.outcome is Outcome.FAILED or how == "dry run"
        told = (answer.patched, answer.source, answer.signature, answer.upgrades, answer.pull_secret)
        assert not any(told)
        assert secret_path(namespace, MIRROR_SECRET) not in closed.api.objects
    if how == "tag":
        reasons = [(await closed.ask(asked, name)).reason for name in ("bank", "nowhere")]
        assert "the pull secret bank/pull is not there" in reasons[0]
        assert "pull secrets of the namespace nowhere are not read (cluster.pull_secrets.namespaces)" in reasons[1]


async def test_a_pod_that_names_none_has_those_of_its_service_account(closed: Closed) -> None:
    image = closed.world.add_image()
    accounts = "/api/v1/namespaces/shop/serviceaccounts"
    closed.api.put(f"{accounts}/default", {"metadata": {"name": "default"}})
    closed.api.put(f"{accounts}/robot", {"metadata": {"name": "robot"}, "imagePullSecrets": [{"name": "pull"}]})
    refused = await closed.ask(image, secrets=())
    assert refused.outcome is Outcome.FAILED
    assert "neither the pod nor its service account names a pull secret" in refused.reason
    assert (await closed.ask(image, secrets=(), service_account="robot")).outcome is Outcome.PATCHED


@pytest.mark.parametrize("change", ["removed", "another password", "revoked upstream"])
async def test_a_pull_secret_that_is_withdrawn_opens_nothing_any_more(closed: Closed, change: str) -> None:
    image = closed.world.add_image()
    assert (await closed.ask(image)).outcome is Outcome.PATCHED
    if change == "removed":
        del closed.api.objects[secret_path("shop", "pull")]
    elif change == "another password":
        closed.put_secret("shop", password="no longer")
    else:
        closed.world.upstream.faults = Faults(auth="bearer", username=USER, password="other", anonymous=False)
        closed.world.upstream.gate.tokens.clear()
    await asyncio.sleep(0.4)  # tag_ttl is 0.3
    answer = await closed.ask(image)
    assert (answer.outcome, answer.patched) == (Outcome.FAILED, "")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (secret("no JSON"), "the pull secret shop/odd: not a docker config: no JSON"),
        (secret("{}", kind="Opaque"), "the pull secret shop/odd: not a pull secret"),
        (secret('{"auths": {"r.example": {"auth": "%%"}}}'), "the pull secret shop/odd"),
        (secret('{"auths": {"r.example": {"username": "u", "password": "hush"}}}'), "has no login for 127.0.0.1:"),
        ({"type": TYPE, "data": {}}, "not a pull secret"),
        (secret("{}") | {"data": {".dockerconfigjson": "*"}}, "not base64"),
        (secret("x" * (2 << 20)), "1048576 bytes at the most"),
    ],
)
async def test_a_pull_secret_that_is_none_is_named_and_the_next_is_tried(
    closed: Closed, content: dict[str, Any], says: str
) -> None:
    closed.api.put(secret_path("shop", "odd"), content)
    image = closed.world.add_image()
    refused = await closed.ask(image, secrets=("odd",))
    assert refused.outcome is Outcome.FAILED
    assert says in refused.reason
    assert "hush" not in refused.reason
    assert (await closed.ask(image, secrets=("odd", "pull"))).outcome is Outcome.PATCHED


@pytest.mark.parametrize("name", ["../../shop/secrets/pull", "pull?x", "..", "%2e%2e/shop", "Pull", "-x", ""])
async def test_a_name_that_no_secret_can_have_reads_none(closed: Closed, name: str) -> None:
    before = len(closed.api.requests)
    answer = await closed.ask(closed.world.add_image(), "bank", (name,))
    assert answer.outcome is Outcome.FAILED
    assert not [path for _, path in closed.api.requests[before:] if "secrets" in path]


async def test_an_old_form_of_pull_secret_works_too(closed: Closed) -> None:
    old = json.dumps({closed.world.upstream.host: {"auth": base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()}})
    closed.api.put(secret_path("shop", "old"), secret(old, kind="kubernetes.io/dockercfg", key=".dockercfg"))
    assert (await closed.ask(closed.world.add_image(), secrets=("old",))).outcome is Outcome.PATCHED


async def test_rights_that_the_proxy_lacks_are_named(closed: Closed) -> None:
    closed.api.refused_paths[r".*/namespaces/shop/secrets/pull"] = 403
    answer = await closed.ask(closed.world.add_image())
    assert answer.outcome is Outcome.FAILED
    assert "read the pull secret shop/pull" in answer.reason
    closed.api.refused_paths = {r".*/namespaces/shop/secrets$": 403}
    answer = await closed.ask(closed.world.add_image())
    assert answer.outcome is Outcome.UNSUPPORTED
    assert "nodes would lack its pull secret: " in answer.reason
    assert not answer.patched


async def test_a_secret_of_the_mirrors_name_that_is_somebody_elses_stays_as_it_is(closed: Closed) -> None:
    theirs = secret('{"auths": {}}')
    closed.api.put(secret_path("shop", MIRROR_SECRET), theirs)
    answer = await closed.ask(closed.world.add_image())
    assert (answer.outcome, answer.patched) == (Outcome.UNSUPPORTED, "")
    assert "the Secret shop/admend-mirror is not admend's and is left alone" in answer.reason
    assert closed.api.objects[secret_path("shop", MIRROR_SECRET)] == theirs


async def test_in_mode_audit_nothing_is_made_in_the_namespace(closed: Closed) -> None:
    answer = await closed.ask(closed.world.add_image(), audit=True)
    assert (answer.outcome, answer.pull_secret) == (Outcome.PATCHED, MIRROR_SECRET)
    assert not [path for _, path in closed.api.writes if "/secrets" in path]


async def test_a_public_image_needs_no_secret_and_makes_none(closed: Closed) -> None:
    closed.world.upstream.faults = Faults(auth="bearer", username=USER, password=PASSWORD)
    answer = await closed.ask(closed.world.add_image(), "bank")
    assert (answer.outcome, answer.pull_secret) == (Outcome.PATCHED, "")
    for path in await closed.paths(answer.patched):
        assert (await closed.get(path)).status_code == 200
    assert not [path for _, path in closed.api.writes if "/secrets" in path]
    assert not [path for _, path in closed.api.requests if "/secrets/pull" in path]


async def test_what_a_namespace_was_granted_outlives_a_restart_and_a_secret_that_went_comes_back(
    tmp_path: Path,
) -> None:
    async with closed_world(tmp_path) as closed:
        closed.put_secret("shop")
        answer = await closed.ask(closed.world.add_image())
        login, paths = closed.login("shop"), await closed.paths(answer.patched)
        del closed.api.objects[secret_path("shop", MIRROR_SECRET)]
        await closed.restart()
        assert closed.login("shop") == login
        assert [(await closed.get(path, login)).status_code for path in paths] == [200] * len(paths)
        assert {(await closed.get(path)).status_code for path in paths} == {401}


async def test_blobs_of_a_private_image_cannot_be_had_by_naming_them_in_an_image_of_ones_own(closed: Closed) -> None:
    private = closed.world.push("team/secret", "1")
    image = f"{closed.world.upstream.host}/team/secret:1"
    assert (await closed.ask(image)).outcome is Outcome.PATCHED
    async with RegistrySimulator() as evil:
        made = evil.add_image("thief/app", "1", [b"x"])
        raw = made.raw.replace(str(made.layers[0].digest).encode(), str(private.layers[0].digest).encode())
        raw = raw.replace(b'"size":%d' % made.layers[0].size, b'"size":%d' % private.layers[0].size)
        raw = raw.replace(str(made.config.digest).encode(), str(private.config.digest).encode())
        raw = raw.replace(b'"size":%d' % made.config.size, b'"size":%d' % private.config.size)
        evil.add_manifest("thief/app", raw, made.media_type, "1")
        answer = await ask(closed.proxy, f"{evil.host}/thief/app:1", namespace="bank")
        assert answer.outcome is Outcome.FAILED
        assert not answer.patched
        through = f"/v2/{closed.place(f'{evil.host}/thief/app:1')}/blobs/{private.layers[0].digest}"
        closed.put_secret("bank")
        assert (await closed.ask(closed.world.add_image(), "bank")).outcome is Outcome.PATCHED
        assert [(await closed.get(through, auth)).status_code for auth in ("", closed.login("bank"))] == [404, 404]


def own_login(folder: Path, host: str, **changes: Any) -> Any:
    """Return settings with a docker config that opens the upstream."""
    file = folder / "config.json"
    file.write_text(json.dumps({"auths": {host: {"username": USER, "password": PASSWORD}}}))
    return upstream(docker_config=file, **changes)


@pytest.mark.parametrize("namespace", ["ops", "shop", ""])
async def test_the_proxys_own_login_serves_the_listed_namespaces_only(tmp_path: Path, namespace: str) -> None:
    async with closed_world(tmp_path) as closed:
        settings = own_login(tmp_path, closed.world.upstream.host, credential_namespaces=("op*",))
        mirror = MirrorConfig(reference=MIRROR, path=tmp_path / "other", private="rewrite")
        await closed.restart(upstream=settings, mirror=mirror)
        answer = await closed.ask(closed.world.add_image(), namespace, ())
        if namespace == "shop":
            assert answer.outcome is Outcome.FAILED
            assert "the proxy's own login does not serve the namespace shop" in answer.reason
        else:
            assert answer.outcome is Outcome.PATCHED
            paths = await closed.paths(answer.patched)
            assert {(await closed.get(path)).status_code for path in paths} == {401}


async def test_what_the_proxys_own_login_opens_is_everybodys_only_if_the_operator_says_so(tmp_path: Path) -> None:
    async with closed_world(tmp_path) as closed:
        host = closed.world.upstream.host
        settings = own_login(tmp_path, host, credential_namespaces=("*",), credentials_open=True)
        await closed.restart(upstream=settings)
        answer = await closed.ask(closed.world.add_image(), "anywhere", ())
        assert (answer.outcome, answer.pull_secret) == (Outcome.PATCHED, "")
        paths = await closed.paths(answer.patched)
        assert {(await closed.get(path)).status_code for path in paths} == {200}


@pytest.mark.parametrize(
    ("external", "private", "outcome", "says"),
    [
        (False, None, Outcome.UNSUPPORTED, "nodes are not known to have credentials for the mirror (mirror.grants"),
        (True, None, Outcome.UNSUPPORTED, "nodes are not known to have credentials for the mirror (mirror.private"),
        (True, "keep", Outcome.UNSUPPORTED, "a private image"),
        (True, "rewrite", Outcome.PATCHED, ""),
    ],
)
async def test_a_private_image_is_rewritten_only_where_nodes_can_pull_it(
    tmp_path: Path, *, external: bool, private: Any, outcome: Outcome, says: str
) -> None:
    async with RegistrySimulator() as there, closed_world(tmp_path) as closed:
        registry = there.host if external else None
        folder = closed.world.folder / "other"
        mirror = MirrorConfig(reference=MIRROR, registry=registry, path=folder, private=private)
        closed.put_secret("shop")
        await closed.restart(mirror=mirror)
        answer = await closed.ask(closed.world.add_image())
        assert answer.outcome is outcome
        assert says in answer.reason
        assert answer.pull_secret == ""
        assert bool(there.manifests) is (outcome is Outcome.PATCHED)


async def test_who_pulls_through_the_mirror_gets_what_his_namespace_may_have(closed: Closed) -> None:
    closed.put_secret("bank", host="elsewhere.example")
    image = closed.world.add_image()
    await closed.ask(image)
    closed.put_secret("bank")
    await closed.ask(closed.world.add_image(), "bank")
    accounts = "/api/v1/namespaces/bank/serviceaccounts/default"
    closed.api.put(accounts, {"metadata": {"name": "default"}})
    for path in (f"/v2/{closed.place(name)}/manifests/1" for name in (closed.world.add_image(), image)):
        assert (await closed.get(path)).status_code in {401, 404}
        assert (await closed.get(path, closed.login("bank"))).status_code in {403, 404}
        assert "layers" not in (await closed.get(path, closed.login("bank"))).text


SECRETS = (PASSWORD, "wrong-pa55word", "0wn-pa55word")


async def test_no_secret_reaches_a_log_an_answer_a_file_or_a_figure(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    said: list[str] = []
    async with closed_world(tmp_path, negative_ttl=0.0) as closed:
        closed.put_secret("shop")
        closed.put_secret("bank", password="wrong-pa55word")
        private = closed.world.add_image()
        answers = [await closed.ask(private, namespace) for namespace in ("shop", "bank", "nowhere")]
        said += [answer.model_dump_json() for answer in answers]
        login = closed.login("shop")
        password = base64.b64decode(login.partition(" ")[2]).decode().partition(":")[2]
        for path in (f"/v2/{closed.place(private)}/manifests/1", "/metrics", "/v2/_catalog", "/v2/token"):
            for auth in ("", login, basic("bank", "0wn-pa55word"), f"Bearer {TOKEN}"):
                found = await closed.get(path, auth)
                said += [found.text, str(found.headers)]
        closed.world.upstream.faults = Faults(refuse=500)
        said.append((await closed.ask(closed.world.add_image())).model_dump_json())
        sent = [dict(seen.headers).get("Authorization", "") for seen in closed.world.upstream.requests]
        assert basic(USER, PASSWORD) in sent  # what is looked for was there
        assert all("0wn" not in header and password not in header for header in sent)
    secrets = [*SECRETS, password, *(f"{user}:{text}" for user in (USER, "shop") for text in (PASSWORD, password))]
    forms = {form for text in secrets for form in (text, base64.b64encode(text.encode()).decode().rstrip("="))}
    everything = "\n".join([*said, caplog.text, *(record.getMessage() for record in caplog.records)])
    assert not [form for form in forms if form in everything]
    files = files_below(tmp_path)
    assert len(files) > 20
    for path, content in files.items():
        assert not [form for form in forms if form.encode() in content], path


def test_grants_are_for_an_embedded_mirror_in_a_cluster(tmp_path: Path) -> None:
    mirror = MirrorConfig(reference=MIRROR, path=tmp_path, grants=GrantsConfig(enabled=True))
    with pytest.raises(ValueError, match=r"give cluster, not mirror\.registry"):
        ProxyConfig(mirror=mirror)
