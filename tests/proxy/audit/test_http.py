"""Audit lines to a receiver over HTTP: batches, attempts, refusals, the end; the receiver is a real server."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from pydantic import ValidationError

from certs.authority import issue_ca, issue_server
from certs.serving import ServingContext
from proxy.audit import AuditConfig, AuditLog, open_audit
from proxy.errors import MalformedInput
from tests.proxy.audit.events import make_event


class Receiver:
    """Keeps what it is sent; answers as `answers` says, then 204."""

    def __init__(self) -> None:
        self.batches: list[list[dict[str, Any]]] = []
        self.requests: list[web.Request] = []
        self.answers: list[web.Response | float] = []
        self.url = ""

    async def take(self, request: web.Request) -> web.Response:
        self.requests.append(request)
        body = await request.read()
        answer = self.answers.pop(0) if self.answers else web.Response(status=204)
        if isinstance(answer, float):
            await asyncio.sleep(answer)
            answer = web.Response(status=204)
        lines = [json.loads(line) for line in body.splitlines()]
        if any(line["reason"] == "poison" for line in lines):
            return web.Response(status=422)
        if answer.status == 204:
            self.batches.append(lines)
        return answer

    @property
    def uids(self) -> list[str]:
        return [line["uid"] for batch in self.batches for line in batch]


@pytest_asyncio.fixture
async def receiver() -> AsyncIterator[Receiver]:
    found = Receiver()
    app = web.Application(client_max_size=16 << 20)
    app.router.add_post("/audit", found.take)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    found.url = f"http://127.0.0.1:{runner.addresses[0][1]}/audit"
    yield found
    await runner.cleanup()


def open_http(url: str, **settings: Any) -> AuditLog:
    config = {"stdout": False, "http": {"url": url, "batch_seconds": 0.02, **settings}}
    return open_audit(AuditConfig.model_validate(config))


async def until(condition, seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.005)


async def test_lines_arrive_in_batches_in_their_order(receiver: Receiver) -> None:
    log = open_http(receiver.url, batch_lines=100)
    for number in range(250):
        log.write(make_event(number))
    await log.close()
    assert receiver.uids == [f"uid-{number}" for number in range(250)]
    assert max(map(len, receiver.batches)) <= 100
    assert len(receiver.batches) < 10
    assert {request.content_type for request in receiver.requests} == {"application/x-ndjson"}
    assert log.sinks[0].written == 250


async def test_a_receiver_that_fails_is_asked_again_and_gets_all(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.answers = [web.Response(status=503), web.Response(status=429, headers={"Retry-After": "0"})]
    receiver.answers.append(web.Response(status=302, headers={"Location": receiver.url}))  # no redirect is followed
    log = open_http(receiver.url)
    log.write(make_event(1))
    await until(lambda: receiver.uids == ["uid-1"])
    await log.close()
    assert len(receiver.requests) == 4
    assert "audit lines to http: 0 dropped" in caplog.text
    assert "the receiver answered 503" in caplog.text


async def test_a_line_that_is_refused_for_its_content_costs_only_itself(receiver: Receiver) -> None:
    log = open_http(receiver.url, batch_seconds=0.2)
    for number in range(8):
        log.write(make_event(number, reason="poison" if number == 5 else ""))
    await log.close()
    assert sorted(receiver.uids) == [f"uid-{number}" for number in range(8) if number != 5]
    assert (log.sinks[0].written, log.sinks[0].dropped) == (7, 1)


async def test_a_dead_receiver_costs_lines_not_memory_and_never_time(caplog: pytest.LogCaptureFixture) -> None:
    log = open_http("http://127.0.0.1:1/audit", queue_bytes=64 << 10, drain_seconds=0.3)
    sink: Any = log.sinks[0]
    slowest = 0.0
    for number in range(1000):
        start = time.perf_counter()
        log.write(make_event(number))
        slowest = max(slowest, time.perf_counter() - start)
    assert slowest < 0.1
    assert sink.waiting <= 64 << 10
    assert sink.dropped > 500
    start = time.monotonic()
    await log.close()
    assert time.monotonic() - start < 2.0
    assert (sink.written, sink.dropped) == (0, 1000)
    assert "the receiver gave no answer" in caplog.text


async def test_the_end_does_not_wait_for_a_receiver_that_holds_a_request(receiver: Receiver) -> None:
    receiver.answers = [3.0]
    log = open_http(receiver.url, drain_seconds=0.2, batch_seconds=0.0)
    log.write(make_event(1))
    await until(lambda: receiver.requests)
    start = time.monotonic()
    await log.close()
    assert time.monotonic() - start < 1.5
    assert log.sinks[0].dropped == 1


async def test_a_token_goes_to_a_receiver_that_its_authority_vouches_for(receiver: Receiver, tmp_path: Path) -> None:
    now = datetime.now(UTC)
    authority = issue_ca(now)
    server = issue_server(authority, dns_names=["localhost"], ips=["127.0.0.1"], now=now)
    files = {"ca": authority.certificate_pem, "crt": server.certificate_pem, "key": server.key_pem, "token": b"t0ken\n"}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    app = web.Application()
    app.router.add_post("/audit", receiver.take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    tls = ServingContext(tmp_path / "crt", tmp_path / "key")
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls.context).start()
    url = f"https://127.0.0.1:{runner.addresses[0][1]}/audit"
    try:
        log = open_http(url, ca_file=str(tmp_path / "ca"), token_file=str(tmp_path / "token"))
        log.write(make_event(1))
        await log.close()
        stranger = open_http(url, token_file=str(tmp_path / "token"), drain_seconds=0.2)
        stranger.write(make_event(2))
        await stranger.close()
    finally:
        await runner.cleanup()
    assert receiver.uids == ["uid-1"]
    assert receiver.requests[0].headers["Authorization"] == "Bearer t0ken"
    assert stranger.sinks[0].dropped == 1


WRONG = {
    "a token in clear": {"url": "http://receiver.example/", "token_file": "token"},
    "a user in the address": {"url": "https://user:secret@receiver.example/"},
    "another scheme": {"url": "ftp://receiver.example/"},
    "no room at all": {"url": "https://receiver.example/", "queue_bytes": 0},
}


@pytest.mark.parametrize("case", WRONG)
def test_settings_that_are_wrong_are_refused(case: str) -> None:
    with pytest.raises(ValidationError) as caught:
        AuditConfig.model_validate({"http": WRONG[case]})
    assert "secret" not in "; ".join(item["msg"] for item in caught.value.errors())


def test_a_file_of_authorities_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(MalformedInput, match=r"audit\.http\.ca_file.*missing"):
        open_http("https://receiver.example/", ca_file=str(tmp_path / "missing"))
