"""Traces for OpenTelemetry.

Owns the settings section `tracing:`.
"""

from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from certs.settings import Section


def _check_endpoint(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or "@" in parts.netloc or parts.query:
        raise ValueError("a collector is written http[s]://host[:port][/path], without user or query")
    return url


class TracingConfig(Section):
    """Where spans go: an OTLP/HTTP collector (`http://collector:4318/v1/traces`); without `endpoint` none are made.

    `sample` is the share of traces that begin here and are recorded; a caller that says in `traceparent` whether its
    trace is sampled is followed. `token_file` holds a bearer token for the collector.
    """

    endpoint: Annotated[str, AfterValidator(_check_endpoint)] | None = None
    sample: Annotated[float, Field(ge=0, le=1)] = 1.0
    ca_file: Path | None = None
    token_file: Path | None = None
