"""The settings section `audit:`: where audit lines go."""

from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from certs.settings import Bytes, Seconds, Section


def _check_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or "@" in parts.netloc or parts.fragment:
        raise ValueError("a receiver is written http[s]://host[:port][/path], without user or fragment")
    return url


class FileSinkConfig(Section):
    """A file that lines are appended to; at `max_bytes` it becomes `path.1`, of which `keep` are kept."""

    path: Path
    max_bytes: Annotated[int, Field(ge=64 << 10)] = 100 << 20
    keep: Annotated[int, Field(ge=1, le=1000)] = 5


class HttpSinkConfig(Section):
    """A receiver of batches of lines (`application/x-ndjson`).

    `ca_file` holds the authorities that its certificate may come from, `token_file` a bearer token (https only).
    A batch goes out when it has `batch_lines` or its first line is `batch_seconds` old. A line is tried again until
    `queue_bytes` wait; then new ones are dropped, counted and said. `drain_seconds` is what a shutdown waits.
    """

    url: Annotated[str, AfterValidator(_check_url)]
    ca_file: Path | None = None
    token_file: Path | None = None
    timeout: Annotated[Seconds, Field(gt=0)] = 10.0
    batch_lines: Annotated[int, Field(ge=1, le=10_000)] = 500
    batch_seconds: Seconds = 1.0
    queue_bytes: Bytes = 8 << 20
    drain_seconds: Seconds = 5.0

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.token_file is not None and not self.url.startswith("https://"):
            raise ValueError("a token goes over TLS only: url must be an https address")
        return self


class AuditConfig(Section):
    """Where audit lines go: any of standard output, a file, a receiver over HTTP; several get each line each."""

    stdout: bool = True
    file: FileSinkConfig | None = None
    http: HttpSinkConfig | None = None
