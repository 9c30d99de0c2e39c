"""The sink that posts batches of lines to a receiver.

Owns the requests: `POST`, `application/x-ndjson`, a line per event, over a connection that is kept. Any 2xx takes a
batch. 400, 413 and 422 are about its content: it is sent again in halves, and a single line that is refused so is lost
and counted. Anything else (no answer, a redirect, 401, 429, 5xx) is tried again, so a batch may come twice: `uid` and
`container` name an event. Reads no proxy and no credentials from the environment.
"""

import ssl
from collections.abc import Sequence
from pathlib import Path

import httpx

from certs.errors import CertificateError
from certs.serving import client_context
from proxy.audit.config import HttpSinkConfig
from proxy.audit.queue import NotTaken, QueuedSink
from proxy.errors import MalformedInput

ABOUT_CONTENT = frozenset({400, 413, 422})
MAX_TOKEN = 16 << 10  # bytes
MAX_PAUSE = 300.0  # seconds that a receiver may ask for


class HttpSink(QueuedSink):
    """Posts to one receiver.

    Raises:
        MalformedInput: the authorities' file cannot be used.
    """

    def __init__(self, config: HttpSinkConfig) -> None:
        super().__init__(
            "http",
            queue_bytes=config.queue_bytes,
            batch_lines=config.batch_lines,
            batch_seconds=config.batch_seconds,
            drain_seconds=config.drain_seconds,
        )
        self._url, self._token_file = config.url, config.token_file
        self._http = httpx.Client(
            verify=_make_context(config.ca_file), trust_env=False, timeout=config.timeout, follow_redirects=False
        )

    def hand_on(self, lines: Sequence[bytes]) -> int:
        """Post the batch, in halves where its content is refused."""
        status = self._post(b"".join(lines))
        if status not in ABOUT_CONTENT:
            return len(lines)
        if len(lines) == 1:
            return 0
        middle = len(lines) // 2
        return self.hand_on(lines[:middle]) + self.hand_on(lines[middle:])

    def finish(self) -> None:
        """Close the connection."""
        self._http.close()

    def _post(self, body: bytes) -> int:
        """Return the status where it settles what becomes of the batch; raises NotTaken otherwise."""
        headers = {"Content-Type": "application/x-ndjson", **self._authorization()}
        try:
            with self._http.stream("POST", self._url, content=body, headers=headers) as response:
                status, after = response.status_code, response.headers.get("retry-after", "")
        except httpx.HTTPError as error:
            raise NotTaken(f"the receiver gave no answer ({str(error) or type(error).__name__})") from error
        if 200 <= status < 300 or status in ABOUT_CONTENT:  # noqa: PLR2004 - the class of 2xx
            return status
        pause = min(MAX_PAUSE, float(after)) if after.isascii() and after.isdigit() and len(after) < 6 else None  # noqa: PLR2004 - digits of a day in seconds
        raise NotTaken(f"the receiver answered {status}", pause=pause)

    def _authorization(self) -> dict[str, str]:
        """Return the header with the token, read anew each time: it may be replaced."""
        if self._token_file is None:
            return {}
        try:
            with self._token_file.open("rb") as stream:
                token = stream.read(MAX_TOKEN).strip()
        except OSError as error:
            raise NotTaken(f"{self._token_file}: {error.strerror}") from error
        if not token or not all(0x21 <= byte <= 0x7E for byte in token):  # noqa: PLR2004 - visible ASCII
            raise NotTaken(f"{self._token_file}: holds no token (one line of visible ASCII)")
        return {"Authorization": f"Bearer {token.decode('ascii')}"}


def _make_context(ca_file: Path | None) -> ssl.SSLContext:
    if ca_file is None:
        return ssl.create_default_context()
    try:
        return client_context(ca_file)
    except CertificateError as error:
        raise MalformedInput(f"audit.http.ca_file: {error}") from error
