"""POST /v1/resolve to one proxy over HTTPS: the question out, the checked answer in.

Owns the connections (kept open: a handshake costs more than an admission), who asks (a client certificate, a bearer
token or both) and what is an answer. Follows no redirect, reads no environment, keeps no cookie, takes no answer over
`MAX_ANSWER`. Every failure is an AdmendError with a reason: UpstreamUnavailable where another proxy, or with
`retry_after` the same one, may answer.
"""

import os
import ssl
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
from aiohttp import hdrs
from pydantic import ValidationError

from certs.authority import is_expired, parse_certificates
from certs.errors import CertificateError
from certs.serving import client_context
from certs.traces import TRACEPARENT, child_span
from proxy.api import ErrorBody, ResolveRequest, ResolveResponse
from proxy.errors import AdmendError, MalformedInput, UpstreamRefused, UpstreamUnavailable
from webhook.config import ProxyClientConfig
from webhook.replicas import Replica

MAX_ANSWER = 4 << 20  # bytes; an answer with a thousand upgrades has about 150 KiB
MAX_TOKEN = 16 << 10  # bytes; service account tokens have about 1 KiB
MAX_CONNECTIONS = 256
KEPT = 60.0  # seconds that an idle connection is kept; the proxy keeps them longer
HEADROOM = 0.25  # seconds of the deadline that the proxy is not given, so that its `pending` still arrives
CONNECT = 1.0  # seconds; within a cluster a connection takes milliseconds, or its other end is gone

_CERTIFICATE_HINTS = {  # by the codes of X509_verify_cert
    9: "check both clocks",
    10: "renew it, as admend-certs does",
    62: "proxy.urls must name it as its certificate does",
    64: "proxy.urls must name it as its certificate does",
}
_ADDED = (hdrs.ACCEPT, hdrs.ACCEPT_ENCODING, hdrs.USER_AGENT)  # headers that are not sent


class Channel:
    """Asks proxies.

    Args:
        config: who asks.
    """

    def __init__(self, config: ProxyClientConfig) -> None:
        self._config = config
        self._context = _make_context(config)
        self._made: aiohttp.ClientSession | None = None  # on first use: it belongs to the running event loop

    async def close(self) -> None:
        """Close all connections."""
        if self._made is not None:
            await self._made.close()

    async def ask(self, replica: Replica, request: ResolveRequest, left: float) -> ResolveResponse:
        """Return the answer of one proxy, which has `left` seconds.

        Raises UpstreamUnavailable (no answer, or one that says 5xx), UpstreamRefused, MalformedInput, or OSError when
        the file of the token cannot be read.
        """
        waiting = request.model_copy(update={"wait_seconds": max(0.0, left - min(HEADROOM, left / 4))})
        headers = {hdrs.CONTENT_TYPE: "application/json", **self._authorization()}
        if replica.host:
            headers[hdrs.HOST] = replica.host
        with child_span("ask", "client") as span:
            span.set("server.address", replica.url)
            if span.header:
                headers[TRACEPARENT] = span.header
            return await self._post(replica, waiting, headers, left)

    async def _post(
        self, replica: Replica, request: ResolveRequest, headers: Mapping[str, str], left: float
    ) -> ResolveResponse:
        try:
            async with self._session.post(
                f"{replica.url}/v1/resolve",
                data=request.model_dump_json().encode(),
                headers=headers,
                server_hostname=replica.host or None,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=left, sock_connect=min(left, CONNECT)),
            ) as response:
                body = await _read(response)
        except TimeoutError as error:
            raise UpstreamUnavailable(f"no answer in time ({type(error).__name__})") from error
        except (aiohttp.ClientError, OSError) as error:
            raise _describe(error, self._check_own_certificate()) from error
        if response.status != 200:  # noqa: PLR2004 - OK
            raise _refusal(response.status, body)
        return _parse(body)

    @property
    def _session(self) -> aiohttp.ClientSession:
        if self._made is None:
            connector = aiohttp.TCPConnector(ssl=self._context, limit=MAX_CONNECTIONS, keepalive_timeout=KEPT)
            self._made = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                skip_auto_headers=_ADDED,
                trust_env=False,
                requote_redirect_url=False,
            )
        return self._made

    def _authorization(self) -> dict[str, str]:
        """Return the header with the token, read anew each time: the kubelet replaces it every hour."""
        file = self._config.token_file
        if file is None:
            return {}
        token = _read_token(file)
        return {hdrs.AUTHORIZATION: f"Bearer {token}"}

    def _check_own_certificate(self) -> str:
        """Return what is wrong with the dates of the certificate that says who asks, or nothing."""
        file = self._config.client_cert_file
        if file is None:
            return ""
        try:
            certificate = parse_certificates(file.read_bytes(), what=str(file))[0]
        except (OSError, CertificateError) as error:
            return f"; the webhook's own certificate cannot be read: {error}"
        now = datetime.now(UTC)
        if is_expired(certificate, now):
            return f"; the webhook's own certificate {file} expired at {certificate.not_valid_after_utc.isoformat()}"
        early = now < certificate.not_valid_before_utc
        return f"; the webhook's own certificate {file} is not valid yet: check the clocks" if early else ""


async def _read(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > MAX_ANSWER:
            raise MalformedInput(f"the answer has more than {MAX_ANSWER} bytes")
    return bytes(body)


def _describe(error: Exception, own: str) -> AdmendError:
    """Return what a failed exchange comes to; one that broke off may be tried again at once, at the same address.

    `own` says what is wrong with the webhook's own certificate: who refuses it often just hangs up.
    """
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return UpstreamUnavailable(_describe_certificate(error.certificate_error))
    if isinstance(error, aiohttp.ClientConnectorError):
        cause = error.os_error
        text = os.strerror(cause.errno) if cause.errno and cause.errno > 0 else cause.strerror or str(cause)
        return UpstreamUnavailable(f"cannot connect: {text}{own}")
    if isinstance(error, aiohttp.ClientResponseError):
        return MalformedInput(f"not an answer of HTTP: {error.message}")
    text = str(error) or type(error).__name__
    if isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientPayloadError | OSError):
        return UpstreamUnavailable(f"the connection broke off: {text}{own}", retry_after=0.0)
    return UpstreamUnavailable(f"{text}{own}")


def _describe_certificate(error: Exception) -> str:
    """Return why the proxy's certificate is not believed, and what to do."""
    code = getattr(error, "verify_code", 0)
    said = getattr(error, "verify_message", "") or str(error)
    return f"its certificate is not trusted: {said}; {_CERTIFICATE_HINTS.get(code, 'check proxy.ca_file')}"


def _parse(body: bytes) -> ResolveResponse:
    try:
        return ResolveResponse.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "document"
        raise MalformedInput(f"not an answer of /v1/resolve: {place}: {first['msg']}") from error


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
