"""The way to the proxy: one question, one answer, whatever happens on the way.

Owns the `Resolver` protocol and its client of `POST /v1/resolve` over HTTPS, with a client certificate, a bearer token
or both. Several proxies are tried in turn, starting with the one that answered last. Follows no redirect, reads no
environment, takes no answer over `MAX_ANSWER`. Every failure becomes the outcome `failed` with a reason: the webhook
answers the API server in any case.
"""

import asyncio
import ssl
import time
from pathlib import Path
from typing import Protocol

import httpx
from pydantic import ValidationError

from certs.errors import CertificateError
from certs.serving import client_context
from proxy.api import ErrorBody, Outcome, ResolveRequest, ResolveResponse
from proxy.errors import AdmendError, MalformedInput, UpstreamRefused, UpstreamUnavailable
from webhook.config import ProxyClientConfig

MAX_ANSWER = 4 << 20  # bytes; an answer with a thousand upgrades has about 150 KiB
MAX_TOKEN = 16 << 10  # bytes; service account tokens have about 1 KiB
MAX_CONNECTIONS = 256
HEADROOM = 0.25  # seconds of the deadline that the proxy is not given, so that its `pending` still arrives


class Resolver(Protocol):
    """Whatever turns an image into an outcome."""

    async def resolve(self, request: ResolveRequest, deadline: float) -> ResolveResponse:
        """Answer by `deadline` (of `time.monotonic()`); never raises but for cancellation."""
        ...


def failed(image: str, reason: str) -> ResolveResponse:
    """Return the answer `failed`."""
    return ResolveResponse(outcome=Outcome.FAILED, image=image, reason=reason)


class ProxyResolver:
    """Asks the proxy."""

    def __init__(self, config: ProxyClientConfig) -> None:
        self._config = config
        context = _make_context(config)
        limits = httpx.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=16)
        self._http = httpx.AsyncClient(verify=context, trust_env=False, limits=limits, follow_redirects=False)
        self._first = 0

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def resolve(self, request: ResolveRequest, deadline: float) -> ResolveResponse:
        """Ask one proxy after the other until one answers; see `Resolver`."""
        reasons: list[str] = []
        count = len(self._config.urls)
        for turn in range(count):
            number = (self._first + turn) % count
            left = deadline - time.monotonic()
            if left <= 0:
                reasons.append("no time is left to ask the others")
                break
            url = self._config.urls[number]
            try:
                async with asyncio.timeout(left):
                    answer = await self._ask(url, request, left, connect=left / (count - turn))
            except TimeoutError:
                reasons.append(f"{url}: no answer within {left:.1f} s")
            except httpx.HTTPError as error:
                reasons.append(f"{url}: {str(error) or type(error).__name__}")
            except (AdmendError, OSError) as error:
                reasons.append(f"{url}: {error}")
            else:
                self._first = number
                return answer
        return failed(request.image, "the proxy gave no answer: " + "; ".join(reasons))

    async def _ask(self, url: str, request: ResolveRequest, left: float, connect: float) -> ResolveResponse:
        waiting = request.model_copy(update={"wait_seconds": max(0.0, left - min(HEADROOM, left / 4))})
        async with self._http.stream(
            "POST",
            f"{url}/v1/resolve",
            content=waiting.model_dump_json(),
            headers={"Content-Type": "application/json", **self._authorization()},
            timeout=httpx.Timeout(left, connect=connect),
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
