"""The pull secret that a patched private image needs: new pods get it, pods that are there cannot."""

import copy
import json
from io import StringIO

import pytest

from proxy.api import MIRROR_SECRET, Outcome
from tests.webhook.table import admit, apply_edits, make_admitter
from tests.webhook.test_admission import NGINX, PATCHED, image_after, review, table, update
from webhook.review import parse_review


@pytest.mark.parametrize("had", [None, [], ["own"], ["own", MIRROR_SECRET]])
async def test_new_pod_gets_the_pull_secret_that_its_image_needs_once(had: list[str] | None) -> None:
    resolver = table(Outcome.PATCHED, pull_secret=MIRROR_SECRET)
    document = review(NGINX, NGINX)
    if had is not None:
        document["request"]["object"]["spec"]["imagePullSecrets"] = [{"name": name} for name in had]
    decision = await admit(document, resolver)
    pod = apply_edits(document["request"]["object"], [edit.to_json() for edit in decision.edits])
    names = [item["name"] for item in pod["spec"]["imagePullSecrets"]]
    assert names == [*(name for name in had or () if name != MIRROR_SECRET), MIRROR_SECRET]
    again = {**document, "request": {**document["request"], "object": pod}}
    assert not any(edit.path.startswith("/spec") for edit in (await admit(again, resolver)).edits)


@pytest.mark.parametrize("outcome", [Outcome.CLEAN, Outcome.PENDING])
async def test_pod_that_keeps_its_image_gets_no_pull_secret(outcome: Outcome) -> None:
    decision = await admit(review(NGINX), table(outcome, pull_secret=MIRROR_SECRET))
    assert not any(edit.path.startswith("/spec/imagePullSecrets") for edit in decision.edits)


async def test_pull_secret_of_another_name_is_refused() -> None:
    decision = await admit(review(NGINX), table(Outcome.PATCHED, pull_secret="admin-token"), mode="enforce")
    assert not decision.allowed
    assert "admin-token" in decision.message


@pytest.mark.parametrize("mode", ["permissive", "enforce", "audit"])
async def test_the_proxy_is_told_that_a_pod_will_be_left_as_it_is(mode: str) -> None:
    resolver = table(Outcome.PATCHED, pull_secret=MIRROR_SECRET)
    decision = await admit(review(NGINX), resolver, mode=mode)
    assert [asked.audit for asked in resolver.asked] == [mode == "audit"]
    assert bool(decision.edits) == (mode != "audit")


@pytest.mark.parametrize("had", [[], [MIRROR_SECRET]])
async def test_pod_that_is_there_is_only_given_an_image_that_its_pull_secrets_open(had: list[str]) -> None:
    before = review("docker.io/library/httpd:2")
    before["request"]["object"]["spec"]["imagePullSecrets"] = [{"name": name} for name in had]
    document = update(before)
    changed = copy.deepcopy(document["request"]["object"])
    changed["spec"]["containers"][0]["image"] = NGINX
    document["request"]["object"] = changed
    log = StringIO()
    admitter = make_admitter(table(Outcome.PATCHED, pull_secret=MIRROR_SECRET), log)
    decision = await admitter.admit(parse_review(json.dumps(document).encode()), 10.0)
    [line] = map(json.loads, log.getvalue().splitlines())
    if had:
        assert image_after(document, decision) == PATCHED
    else:
        assert decision.allowed
        assert image_after(document, decision) == NGINX
        assert (line["outcome"], line["verdict"]) == ("failed", "keep")
        assert "make the pod anew" in line["reason"]


async def test_proxy_is_told_whose_pull_secrets_may_open_the_original() -> None:
    document = review(NGINX)
    document["request"]["object"]["spec"] |= {"serviceAccountName": "shop", "imagePullSecrets": [{"name": "own"}]}
    resolver = table(Outcome.PATCHED)
    await admit(document, resolver)
    [asked] = resolver.asked
    assert (asked.namespace, asked.service_account, asked.pull_secrets) == (
        document["request"]["namespace"],
        "shop",
        ("own",),
    )
