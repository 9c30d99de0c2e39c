"""The way to the proxy: one question, one answer, whatever happens on the way.

Owns the `Resolver` protocol and its client of `POST /v1/resolve` over HTTPS, with a client certificate, a bearer token
or both, and when which replica is asked:

1. The first in the order of `replicas` is asked; each failure goes on to the next.
2. One that took the question and is silent for `HEDGE_SHARE` of the time is not waited for alone: the next is asked
   what it already knows (a dry run, which starts no second patch). What is settled there is the answer.
3. When the time is over, a `pending` of the second is better than nothing.

Follows no redirect, reads no environment, takes no answer over `MAX_ANSWER`. Every failure becomes the outcome `failed`
with a reason: the webhook answers the API server in any case.
"""

import asyncio
import ssl
import time
from collections import deque
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Protocol

import httpx
from pydantic import ValidationError

from certs.errors import CertificateError
from certs.serving import client_context
from proxy.api import ErrorBody, Outcome, ResolveRequest, ResolveResponse
from proxy.errors import AdmendError, MalformedInput, UpstreamRefused, UpstreamUnavailable
from webhook.config import ProxyClientConfig
from webhook.replicas import Lookup, Replica, Replicas, look_up

MAX_ANSWER = 4 << 20  # bytes; an answer with a thousand upgrades has about 150 KiB
MAX_TOKEN = 16 << 10  # bytes; service account tokens have about 1 KiB
MAX_CONNECTIONS = 256
HEADROOM = 0.25  # seconds of the deadline that the proxy is not given, so that its `pending` still arrives
GRACE = 0.05  # seconds of the deadline that are kept to answer in
CONNECT = 1.0  # seconds; within a cluster a connection takes milliseconds, or its other end is gone
HEDGE_SHARE = 0.3  # of the time


Ask = Callable[[Replica, ResolveRequest, float], Coroutine[Any, Any, ResolveResponse]]


class Resolver(Protocol):
    """Whatever turns an image into an outcome."""

    async def resolve(self, request: ResolveRequest, deadline: float) -> ResolveResponse:
        """Answer by `deadline` (of `time.monotonic()`); never raises but for cancellation."""
        ...


def failed(image: str, reason: str) -> ResolveResponse:
    """Return the answer `failed`."""
    return ResolveResponse(outcome=Outcome.FAILED, image=image, reason=reason)


class ProxyResolver:
    """Asks the proxy.

    Args:
        config: where the replicas are, and who asks.
        lookup: turns a host name into addresses.
    """

    def __init__(self, config: ProxyClientConfig, *, lookup: Lookup = look_up) -> None:
        self._config = config
        context = _make_context(config)
        limits = httpx.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=16)
        self._http = httpx.AsyncClient(verify=context, trust_env=False, limits=limits, follow_redirects=False)
        self._replicas = Replicas(config.urls, lookup=lookup)

    async def close(self) -> None:
        """Close all connections."""
        await self._replicas.close()
        await self._http.aclose()

    async def resolve(self, request: ResolveRequest, deadline: float) -> ResolveResponse:
        """Ask one proxy after the other until one answers; see `Resolver`."""
        round_ = _Round(self._replicas, self._ask, request, deadline - GRACE)
        try:
            return await round_.run()
        finally:
            await round_.close()

    async def _ask(self, replica: Replica, request: ResolveRequest, left: float) -> ResolveResponse:
        waiting = request.model_copy(update={"wait_seconds": max(0.0, left - min(HEADROOM, left / 4))})
        headers = {"Content-Type": "application/json", **self._authorization()}
        extensions = {"sni_hostname": replica.host} if replica.host else {}
        async with self._http.stream(
            "POST",
            f"{replica.url}/v1/resolve",
            content=waiting.model_dump_json(),
            headers={**headers, "Host": replica.host} if replica.host else headers,
            timeout=httpx.Timeout(left, connect=min(left, CONNECT)),
            extensions=extensions,
        ) as response:
            body = bytearray()
            async for piece in response.aiter_bytes():
                body += piece
                if len(body) > MAX_ANSWER:
                    raise MalformedInput(f"the answer has more than {MAX_ANSWER} bytes")
        if response.status_code != httpx.codes.OK:
            raise _refusal(response.status_code, bytes(body))
        try:
            return ResolveResponse.model_validate_json(bytes(body))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(str(part) for part in first["loc"]) or "document"
            raise MalformedInput(f"not an answer of /v1/resolve: {place}: {first['msg']}") from error

    def _authorization(self) -> dict[str, str]:
        """Return the header with the token, read anew each time: the kubelet replaces it every hour."""
        file = self._config.token_file
        if file is None:
            return {}
        token = _read_token(file)
        return {"Authorization": f"Bearer {token}"}


class _Round:
    """One question, and the replicas that are asked it."""

    def __init__(self, replicas: Replicas, ask: Ask, request: ResolveRequest, end: float) -> None:
        self._replicas, self._ask, self._request, self._end = replicas, ask, request, end
        self._running: dict[asyncio.Task[ResolveResponse], tuple[Replica, bool]] = {}  # and whether it is a hedge
        self._reasons: list[str] = []
        self._pending: ResolveResponse | None = None

    async def run(self) -> ResolveResponse:
        """Return the first answer that holds, or at the end what is known."""
        begin = time.monotonic()
        left = deque(await self._replicas.order(self._request.image))
        hedge_at = begin + HEDGE_SHARE * (self._end - begin)
        while True:
            now = time.monotonic()
            if now >= self._end:
                break
            if not any(not hedge for _, hedge in self._running.values()):
                if not left:
                    break
                self._start(left.popleft(), hedge=False)
            elif now >= hedge_at and left:
                hedge_at = self._end
                self._start(left[0], hedge=True)
            until = min(hedge_at, self._end) if left else self._end
            done, _ = await asyncio.wait(
                self._running, timeout=max(0.0, until - now), return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                answer = self._collect(task)
                if answer is not None:
                    return answer
        return self._give_up(time.monotonic() - begin)

    def _start(self, replica: Replica, *, hedge: bool) -> None:
        # A tag that must be asked anew is not answered from a cache: there the hedge is a question like the first.
        dry_run = self._request.dry_run or (hedge and not self._request.always)
        question = self._request.model_copy(update={"dry_run": dry_run})
        replica.outstanding += 1
        task = asyncio.create_task(self._ask(replica, question, self._end - time.monotonic()))
        task.add_done_callback(lambda _: _release(replica))
        self._running[task] = (replica, hedge)

    def _collect(self, task: asyncio.Task[ResolveResponse]) -> ResolveResponse | None:
        """Return the answer of a task that ended, if it may be used as it is."""
        replica, hedge = self._running.pop(task)
        try:
            answer = task.result()
        except httpx.HTTPError as error:
            self._fail(replica, str(error) or type(error).__name__)
        except (AdmendError, OSError) as error:
            self._fail(replica, str(error))
        else:
            self._replicas.succeeded(replica)
            if not hedge or answer.outcome not in {Outcome.PENDING, Outcome.FAILED}:
                return answer
            self._pending = answer if answer.outcome is Outcome.PENDING else self._pending
        return None

    def _fail(self, replica: Replica, reason: str) -> None:
        self._replicas.failed(replica)
        self._reasons.append(f"{replica.url}: {reason}")

    def _give_up(self, seconds: float) -> ResolveResponse:
        for replica, _ in self._running.values():
            self._fail(replica, f"no answer within {seconds:.1f} s")
        text = "the proxy gave no answer: " + "; ".join(self._reasons)
        if self._pending is not None:
            return self._pending.model_copy(update={"reason": text})
        return failed(self._request.image, text)

    async def close(self) -> None:
        """End what is still under way."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)


def _release(replica: Replica) -> None:
    replica.outstanding -= 1


def _make_context(config: ProxyClientConfig) -> ssl.SSLContext:
    """Return a context that follows its files; without a CA file the machine's authorities are trusted."""
    if config.ca_file is None:
        return ssl.create_default_context()
    try:
        return client_context(config.ca_file, config.client_cert_file, config.client_key_file)
    except CertificateError as error:
        raise MalformedInput(f"the certificates for the proxy cannot be used: {error}") from error


def _read_token(file: Path) -> str:
    with file.open("rb") as stream:
        raw = stream.read(MAX_TOKEN + 1)
    token = raw.strip()
    if len(raw) > MAX_TOKEN or not token or not all(0x21 <= byte <= 0x7E for byte in token):  # noqa: PLR2004 - visible ASCII
        raise MalformedInput("holds no token (one line of visible ASCII)", file=str(file))
    return token.decode("ascii")


def _refusal(status: int, body: bytes) -> AdmendError:
    try:
        said = ErrorBody.model_validate_json(body).message
    except ValidationError:
        said = "without a reason"
    text = f"HTTP {status}: {said}"
    if status in {401, 403}:
        text += "; check the client certificate or the token"
    return UpstreamRefused(text, status=status) if 400 <= status < 500 else UpstreamUnavailable(text)  # noqa: PLR2004 - the class of 4xx
