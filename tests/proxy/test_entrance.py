"""Who may have what, where the proxy has logins of its own and images are public, private, or were the one before."""

import json
import logging
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from proxy.api import Outcome
from proxy.grants import NAME as GRANTS
from tests.proxy.closed import PASSWORD, USER, Closed, closed_world, files_below, upstream
from tests.proxy.served import basic
from tests.simulators.registry import Faults
from tests.simulators.world import LOGIN

OWN = basic(*LOGIN.split(":"))
OPEN = Faults(auth="bearer", username=USER, password=PASSWORD)
CLOSED = Faults(auth="bearer", username=USER, password=PASSWORD, anonymous=False)


@pytest.fixture
async def owning(tmp_path: Path) -> AsyncIterator[Closed]:
    """Give a proxy with a login of its own for the upstream, which serves no namespace."""
    async with closed_world(tmp_path, tag_ttl=60, negative_ttl=0.0) as made:
        write_login(tmp_path, made, PASSWORD)
        await made.restart(upstream=upstream(docker_config=tmp_path / "config.json"), tag_ttl=60, negative_ttl=0.0)
        made.put_secret("shop")
        yield made


def write_login(folder: Path, closed: Closed, password: str) -> None:
    login = {"auths": {closed.world.upstream.host: {"username": USER, "password": password}}}
    fresh = folder / "fresh.json"
    fresh.write_text(json.dumps(login))
    fresh.rename(folder / "config.json")  # as the kubelet does: whole, another file


async def test_a_public_image_that_nobody_asked_for_yet_is_pulled_without_credentials(owning: Closed) -> None:
    owning.world.upstream.faults = OPEN
    image = owning.world.add_image()
    for _ in range(2):  # when the mirror has nothing, and when it has it
        found = await owning.get(f"/v2/{owning.place(image)}/manifests/1")
        assert found.status_code == 200
        for layer in found.json()["layers"]:
            assert (await owning.get(f"/v2/{owning.place(image)}/blobs/{layer['digest']}")).status_code == 200


async def test_a_private_one_that_nobody_asked_for_yet_is_for_who_shows_credentials_when_asked_to(
    owning: Closed,
) -> None:
    image = owning.world.add_image()
    path = f"/v2/{owning.place(image)}/manifests/1"
    first = await owning.get(path)
    assert (first.status_code, first.headers["WWW-Authenticate"][:5]) == (401, "Basic")
    assert (await owning.get(path, OWN)).status_code == 200
    assert (await owning.get(path)).status_code == 401
    blob = (await owning.get(path, OWN)).json()["layers"][0]["digest"]
    for place in (owning.place(image), owning.place(owning.world.add_image())):
        assert (await owning.get(f"/v2/{place}/blobs/{blob}")).status_code == 401


async def test_a_repository_that_was_closed_is_not_opened_again_by_what_is_remembered_of_its_other_tags(
    closed_late: Closed,
) -> None:
    world = closed_late.world
    world.push("team/app", "1")
    world.push("team/app", "2")
    first, second = (f"{world.upstream.host}/team/app:{tag}" for tag in "12")
    assert (await closed_late.ask(first, "bank", ())).outcome is Outcome.PATCHED
    world.upstream.faults = CLOSED
    world.upstream.gate.tokens.clear()
    private = await closed_late.ask(second)
    assert (private.outcome, bool(private.pull_secret)) == (Outcome.PATCHED, True)
    assert (await closed_late.ask(first, "bank", ())).outcome is Outcome.FAILED
    for path in await closed_late.paths(private.patched):
        assert (await closed_late.get(path)).status_code == 401


@pytest.fixture
async def closed_late(tmp_path: Path) -> AsyncIterator[Closed]:
    """Give a proxy whose upstream is still open."""
    async with closed_world(tmp_path, tag_ttl=60, negative_ttl=0.0) as made:
        made.world.upstream.faults = OPEN
        made.put_secret("shop")
        yield made


async def test_the_proxys_own_login_is_the_one_that_its_file_holds_now(owning: Closed, tmp_path: Path) -> None:
    private, other = owning.world.add_image(), owning.world.add_image()
    path = f"/v2/{owning.place(private)}/manifests/1"
    assert (await owning.get(path, OWN)).status_code == 200
    write_login(tmp_path, owning, "no longer")
    refused = await owning.ask(other, "")
    assert refused.outcome is Outcome.FAILED
    assert "is not enough" in refused.reason
    (tmp_path / "config.json").write_text("{")
    assert (await owning.ask(other, "")).outcome is Outcome.FAILED
    write_login(tmp_path, owning, PASSWORD)
    assert (await owning.ask(other, "")).outcome is Outcome.PATCHED


async def test_a_secret_for_the_mirror_is_made_anew_in_a_namespace_that_was(
    closed_late: Closed, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed_late.world.upstream.faults = CLOSED
    image = closed_late.world.add_image()
    assert (await closed_late.ask(image)).outcome is Outcome.PATCHED
    login, path = closed_late.login("shop"), "/api/v1/namespaces/shop/secrets/admend-mirror"
    del closed_late.api.objects[path]
    later = time.monotonic() + 11.0  # ten seconds are believed
    monkeypatch.setattr("proxy.privacy.time.monotonic", lambda: later)
    assert (await closed_late.ask(image)).pull_secret
    assert closed_late.login("shop") == login


async def test_credentials_that_are_none_are_nobodys(owning: Closed) -> None:
    headers = (b"Bearer \xff\xfe", b"Basic \xff\xfe", b"Basic 4pyT", b"Basic /w==", b"Bearer")
    asked = [("GET", "/v2/"), ("POST", "/v1/resolve"), ("POST", "/v2/a/blobs/uploads/"), ("GET", "/v1/status")]
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{owning.proxy.port}", trust_env=False) as http:
        for header in headers:
            for method, path in asked:
                answer = await http.request(method, path, headers={b"Authorization": header})
                assert answer.status_code == 401, (path, header)


async def test_a_name_with_a_tag_or_digest_in_it_is_none(owning: Closed) -> None:
    digest = "sha256:" + 64 * "0"
    for name in ("team%2Fapp:1", "team/app:1@sha256", "team/app@sha256", "te%40am/app"):
        for path in (f"/v2/{name}/manifests/{digest}", f"/v2/{name}/blobs/{digest}", f"/v2/{name}/tags/list"):
            assert (await owning.get(path)).status_code == 404
            assert (await owning.get(path, OWN)).json()["errors"][0]["code"] == "NAME_UNKNOWN"


async def test_a_grant_that_ended_is_proven_anew_by_who_looks_at_running_pods_as_long_as_their_secret_opens_the_image(
    closed_late: Closed,
) -> None:
    closed_late.world.upstream.faults = CLOSED
    running = [(await closed_late.ask(closed_late.world.add_image())).patched for _ in range(2)]
    await closed_late.proxy.mirror.delete(closed_late.proxy.mirror.name_for(GRANTS))
    await closed_late.restart(tag_ttl=60, negative_ttl=0.0)
    paths = [(await closed_late.paths(image))[0] for image in running]
    assert [(await closed_late.get(path, closed_late.login("shop"))).status_code for path in paths] == [403, 403]
    assert (await closed_late.ask(running[0])).outcome is Outcome.PATCHED
    closed_late.put_secret("shop", password="no longer")
    assert (await closed_late.ask(running[1])).outcome is Outcome.FAILED
    assert [(await closed_late.get(path, closed_late.login("shop"))).status_code for path in paths] == [200, 403]


async def test_the_proxys_own_login_reaches_no_log_answer_figure_or_file(
    owning: Closed, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    said = [(await owning.ask(owning.world.add_image(), "")).model_dump_json()]
    write_login(tmp_path, owning, "wr0ng-pa55word")
    private = owning.world.add_image()
    said += [(await owning.ask(private, namespace)).model_dump_json() for namespace in ("", "bank")]
    paths = (f"/v2/{owning.place(private)}/manifests/1", "/metrics")
    said += [(await owning.get(path, auth)).text for path in paths for auth in ("", OWN)]
    sent = [dict(seen.headers).get("Authorization", "") for seen in owning.world.upstream.requests]
    assert {basic(USER, PASSWORD), basic(USER, "wr0ng-pa55word")} <= set(sent)  # what is looked for was there
    (tmp_path / "config.json").unlink()
    forms = [form for text in (PASSWORD, "wr0ng-pa55word") for form in (text, basic(USER, text).partition(" ")[2])]
    everything = "\n".join([*said, caplog.text])
    assert not [form for form in forms if form in everything]
    for path, content in files_below(tmp_path).items():
        assert not [form for form in forms if form.encode() in content], path
