"""The proxy fails, in every way it can: the API server gets a valid answer in time, and the audit line says why.

In mode permissive the pod runs as its author wrote it, with a warning and a label; in mode enforce it is denied with
the reason; in mode audit nothing changes and the line says what enforce would have done.
"""

import re
import ssl
from collections.abc import Mapping
from typing import Any

import pytest

from tests.faults.answers import DEADLINE, IMAGE, Admitted, admit_in_all_modes, webhook_before
from tests.faults.proxies import FAULTS, Fault, Pki, changed, failing, hang, still_at_work
from webhook.config import Mode


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    """Return certificates."""
    made = Pki(tmp_path_factory.mktemp("keys"))
    made.make()
    return made


def check(answers: Mapping[Mode, Admitted], reason: str, outcome: str = "failed") -> None:
    """Check that the pod keeps its own image, or is denied, for this reason."""
    for mode, found in answers.items():
        assert found.image == IMAGE
        assert found.seconds < DEADLINE - 0.1
        assert re.search(reason, found.line["reason"]), found.line["reason"]
        assert (found.line["outcome"], found.line["mode"]) == (outcome, mode.value)
        assert found.line["level"] == ("info" if outcome == "pending" else found.line["level"])
    permissive, enforce, audit = (answers[mode] for mode in (Mode.PERMISSIVE, Mode.ENFORCE, Mode.AUDIT))
    assert permissive.response["allowed"]
    assert permissive.pod["metadata"]["labels"]["admend.dev/unpatched"] == outcome
    assert any("admitted unpatched" in text for text in permissive.response["warnings"])
    assert not enforce.response["allowed"]
    assert enforce.response["status"]["code"] == 403
    assert f": {outcome}: " in enforce.response["status"]["message"]
    assert ("try again" in enforce.response["status"]["message"]) == (outcome == "pending")
    assert audit.response["allowed"]
    assert "patch" not in audit.response
    assert [each.line["verdict"] for each in (permissive, enforce, audit)] == ["keep", "deny", "would-deny"]


async def admit_before(fault: Fault, pki: Pki, tls: ssl.SSLContext | None, **changes: Any) -> dict[Mode, Admitted]:
    async with failing(fault, tls) as proxy:
        url = f"https://127.0.0.1:{proxy.port}"
        async with webhook_before(url, pki.folder, **changes) as (webhook, log):
            return await admit_in_all_modes(webhook, log, pki.folder)


@pytest.mark.parametrize("name", FAULTS)
async def test_proxy_that_answers_wrongly_or_not_at_all(name: str, pki: Pki) -> None:
    fault, reason = FAULTS[name]
    answers = await admit_before(fault, pki, pki.serve("server"))
    check(answers, reason, "pending" if fault is still_at_work else "failed")


async def test_proxy_that_is_down(pki: Pki) -> None:
    async with webhook_before("https://127.0.0.1:1", pki.folder) as (webhook, log):
        answers = await admit_in_all_modes(webhook, log, pki.folder)
    check(answers, "https://127.0.0.1:1: cannot connect: Connection refused")
    assert (
        max(each.seconds for each in answers.values()) < 0.6
    )  # of 0.7 that there are: nobody waits for what is known at once


async def test_proxy_whose_name_is_unknown(pki: Pki) -> None:
    async with webhook_before("https://proxy.invalid:8443", pki.folder) as (webhook, log):
        check(await admit_in_all_modes(webhook, log, pki.folder), "proxy.invalid")


async def test_proxy_that_takes_connections_and_shakes_no_hands(pki: Pki) -> None:
    check(await admit_before(hang, pki, None), "no answer")


TLS_FAULTS = {
    "strange": "its certificate is not trusted: .*; check proxy.ca_file",
    "misnamed": "its certificate is not trusted: .*IP address mismatch",
    "expired": "its certificate is not trusted: certificate has expired",
    "tomorrow": "its certificate is not trusted: certificate is not yet valid",
}


@pytest.mark.parametrize("name", TLS_FAULTS)
async def test_proxy_whose_certificate_does_not_hold_is_told_nothing(name: str, pki: Pki) -> None:
    async with failing(hang, pki.serve(name)) as proxy:
        url = f"https://127.0.0.1:{proxy.port}"
        async with webhook_before(url, pki.folder) as (webhook, log):
            check(await admit_in_all_modes(webhook, log, pki.folder), TLS_FAULTS[name])
        assert proxy.questions == []


async def test_client_certificate_that_has_expired_is_named_though_the_proxy_just_hangs_up(pki: Pki) -> None:
    own = {"client_cert_file": str(pki.folder / "expired-client.crt")}
    own["client_key_file"] = str(pki.folder / "expired-client.key")
    answers = await admit_before(hang, pki, pki.serve("server", clients=True), proxy=own)
    check(answers, r"the connection broke off: .*; the webhook's own certificate .*expired-client\.crt expired at 20")


GOOD = changed()
UNTRUSTED = [name for name, (_, reason) in FAULTS.items() if reason.startswith("trust-failure")]


@pytest.mark.parametrize("name", [*UNTRUSTED, "says 500", "sends no JSON", "closes in the midst of its answer"])
async def test_one_bad_proxy_costs_nothing_while_another_is_good(name: str, pki: Pki) -> None:
    fault, _ = FAULTS[name]
    async with failing(fault, pki.serve("server")) as bad, failing(GOOD, pki.serve("server")) as good:
        urls = [f"https://127.0.0.1:{bad.port}", f"https://127.0.0.1:{good.port}"]
        for order in (urls, urls[::-1]):
            async with webhook_before(order[0], pki.folder, proxy={"urls": order}) as (webhook, log):
                answers = await admit_in_all_modes(webhook, log, pki.folder)
            for mode, found in answers.items():
                assert found.line["outcome"] == "patched", found.line["reason"]
                assert found.line["verdict"] == ("would-rewrite" if mode is Mode.AUDIT else "rewrite")


async def test_a_bad_and_a_dead_proxy_are_both_named_by_the_worse_of_the_two(pki: Pki) -> None:
    fault, reason = FAULTS["is not who signed"]
    async with failing(fault, pki.serve("server")) as bad:
        urls = ["https://127.0.0.1:1", f"https://127.0.0.1:{bad.port}"]
        async with webhook_before(urls[0], pki.folder, proxy={"urls": urls}) as (webhook, log):
            check(await admit_in_all_modes(webhook, log, pki.folder), reason)
