"""Traces for OpenTelemetry.

Owns the settings section `tracing:`.
"""

from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from certs.settings import Section

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


def _check_endpoint(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or "@" in parts.netloc or parts.query:
        raise ValueError("a collector is written http[s]://host[:port][/path], without user or query")
    return url


Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*(\.[a-z0-9_]+)*$", max_length=128)]
Text = Annotated[str, StringConstraints(max_length=256)]


class TracingConfig(Section):
    """Where spans go: an OTLP/HTTP collector (`http://collector:4318/v1/traces`); without `endpoint` none are made.

    `sample` is the share of traces that begin here and are recorded; a caller that says in `traceparent` whether its
    trace is sampled is followed. `attributes` are said of every span's process (`deployment.environment.name: test`).
    `token_file` holds a bearer token for the collector; it goes over TLS, or to this machine, only.
    """

    endpoint: Annotated[str, AfterValidator(_check_endpoint)] | None = None
    sample: Annotated[float, Field(ge=0, le=1)] = 1.0
    ca_file: Path | None = None
    token_file: Path | None = None
    attributes: dict[Name, Text] = Field(default_factory=dict, max_length=32)

    @model_validator(mode="after")
    def _check(self) -> Self:
        parts = urlsplit(self.endpoint or "")
        if self.token_file is not None and parts.scheme == "http" and parts.hostname not in LOOPBACK:
            raise ValueError("a token goes over TLS only: endpoint must be an https address")
        return self
