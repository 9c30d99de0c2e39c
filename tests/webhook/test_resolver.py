"""The client of the proxy against real HTTP servers on loopback."""

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from proxy.api import ErrorBody, Outcome, ResolveRequest
from proxy.errors import MalformedInput
from tests.webhook.table import answer
from webhook.config import ProxyClientConfig
from webhook.resolver import ProxyResolver

NGINX = "docker.io/library/nginx:1.25"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[str]:
    """Serve POST /v1/resolve with `handler`; gives the URL."""
    app = web.Application()
    app.router.add_post("/v1/resolve", handler)
    app.router.add_get("/elsewhere", handler)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def ask(*urls: str, seconds: float = 5.0, **settings: Any) -> Any:
    resolver = ProxyResolver(ProxyClientConfig.model_validate({"urls": urls} | settings))
    try:
        return await resolver.resolve(ResolveRequest(image=NGINX), time.monotonic() + seconds)
    finally:
        await resolver.close()


def reply(text: str, status: int = 200) -> Handler:
    async def handler(_: web.Request) -> web.StreamResponse:
        return web.Response(text=text, status=status, content_type="application/json")

    return handler


GOOD = answer(NGINX, Outcome.PATCHED)
CLOSED = "http://127.0.0.1:1"


async def test_answer_comes_back_whole_and_the_question_carries_token_and_time(tmp_path: Path) -> None:
    seen: list[Any] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        seen.append((request.headers.get("Authorization"), ResolveRequest.model_validate_json(await request.read())))
        return web.Response(text=GOOD.model_dump_json(), content_type="application/json")

    token = tmp_path / "token"
    token.write_text("abc.def\n")
    async with serving(handler) as url:
        assert await ask(url, seconds=3.0, token_file=token) == GOOD
    ((authorization, question),) = seen
    assert authorization == "Bearer abc.def"
    assert question.image == NGINX
    assert 2.5 < question.wait_seconds < 3.0


async def test_next_proxy_is_asked_when_one_is_down_or_in_trouble() -> None:
    async with serving(reply("oops", 500)) as one, serving(reply(GOOD.model_dump_json())) as two:
        for urls in itertools.permutations((CLOSED, one, two)):
            assert await ask(*urls) == GOOD


BAD_REPLIES = {
    "not JSON": (reply("<html>"), "not an answer of /v1/resolve"),
    "another document": (reply('{"outcome": "patched"}'), "image: Field required"),
    "an unknown outcome": (reply('{"outcome": "fine", "image": "x"}'), "outcome"),
    "a refusal with a reason": (
        reply(ErrorBody(code="c", message="the token is old").model_dump_json(), 401),
        "HTTP 401: the token is old; check the client certificate or the token",
    ),
    "an error without a reason": (reply("oops", 503), "HTTP 503: without a reason"),
    "a flood": (reply("x" * (5 << 20)), "more than 4194304 bytes"),
}


@pytest.mark.parametrize(("handler", "says"), BAD_REPLIES.values(), ids=BAD_REPLIES)
async def test_bad_reply_becomes_failed_with_the_reason(handler: Handler, says: str) -> None:
    async with serving(handler) as url:
        found = await ask(url)
    assert found.outcome is Outcome.FAILED
    assert says in found.reason
    assert url in found.reason


async def test_answer_of_a_newer_proxy_is_understood() -> None:
    document = GOOD.model_dump(mode="json") | {"what_the_next_version_says": 1}
    document["signature"] = {"key_id": "k", "payload": "p", "signature": "s", "algorithm": "new"}
    async with serving(reply(json.dumps(document))) as url:
        found = await ask(url)
    assert found.signature is not None
    assert found.model_copy(update={"signature": None}) == GOOD.model_copy(update={"signature": None})


async def test_redirect_is_not_followed() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        if request.path == "/elsewhere":
            raise AssertionError("the redirect was followed")
        raise web.HTTPSeeOther("/elsewhere")

    async with serving(handler) as url:
        assert "HTTP 303" in (await ask(url)).reason


async def test_nobody_listening_becomes_failed_with_all_reasons() -> None:
    found = await ask(CLOSED, "http://127.0.0.1:2")
    assert found.outcome is Outcome.FAILED
    assert CLOSED in found.reason
    assert "http://127.0.0.1:2" in found.reason


async def test_proxy_that_hangs_or_drips_is_left_at_the_deadline() -> None:
    async def drip(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(100):
            await response.write(b" ")
            await asyncio.sleep(0.05)
        return response

    async with serving(drip) as url:
        start = time.monotonic()
        found = await ask(url, CLOSED, seconds=0.4)
        assert time.monotonic() - start < 0.7
    assert found.outcome is Outcome.FAILED
    assert "no answer within" in found.reason


async def test_token_is_read_anew_and_a_bad_one_is_named(tmp_path: Path) -> None:
    token = tmp_path / "token"
    async with serving(reply(GOOD.model_dump_json())) as url:
        assert str(token) in (await ask(url, token_file=token)).reason
        for text in (b"", b"two words", b"\xff\xfe", b"x" * 20_000):
            token.write_bytes(text)
            assert "holds no token" in (await ask(url, token_file=token)).reason
        token.write_text("good")
        assert (await ask(url, token_file=token)).outcome is Outcome.PATCHED


def test_certificates_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    with pytest.raises(MalformedInput, match=r"nowhere\.crt"):
        ProxyResolver(ProxyClientConfig(urls=("https://p.example",), ca_file=tmp_path / "nowhere.crt"))


def breaking_off(times: int, asked: list[int]) -> Handler:
    """Break the first `times` answers off after their first bytes."""

    async def handler(request: web.Request) -> web.StreamResponse:
        asked.append(id(request.transport))
        if len(asked) > times:
            return web.Response(text=GOOD.model_dump_json(), content_type="application/json")
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b'{"outcome":')
        assert request.transport is not None
        request.transport.abort()
        return response

    return handler


async def test_proxy_that_breaks_off_its_answer_is_asked_once_more_at_once() -> None:
    for times, outcome in ((1, Outcome.PATCHED), (9, Outcome.FAILED)):
        asked: list[int] = []
        async with serving(breaking_off(times, asked)) as url:
            start = time.monotonic()
            found = await ask(url)
            assert time.monotonic() - start < 1.0
        assert found.outcome is outcome
        assert len(asked) == 2
    assert found.reason.count("the connection broke off") == 2


async def test_proxy_that_breaks_off_is_asked_again_after_the_others() -> None:
    asked: list[int] = []
    async with serving(breaking_off(9, asked)) as one, serving(reply(GOOD.model_dump_json())) as two:
        assert await ask(one, two) == GOOD
        assert await ask(two, one) == GOOD
    assert len(asked) <= 2


async def test_questions_one_after_the_other_share_a_connection() -> None:
    asked: list[int] = []
    async with serving(breaking_off(0, asked)) as url:
        resolver = ProxyResolver(ProxyClientConfig(urls=(url,)))
        for _ in range(5):
            assert await resolver.resolve(ResolveRequest(image=NGINX), time.monotonic() + 5) == GOOD
        await resolver.close()
    assert len(asked) == 5
    assert len(set(asked)) == 1
