"""The audit event: what happened to one container, and why.

Owns the fields and their version: a reader of version 1 understands every line that says so, since fields are added
and never change their meaning. docs/audit.md has a row for each. Never holds a secret: references and reasons only.
"""

from datetime import datetime
from typing import Literal

from pydantic import ConfigDict, Field

from proxy.api import Outcome, SkipInfo, UpgradeInfo, Wire

SCHEMA_VERSION = 1


class AuditEvent(Wire):
    """One container of one admission; unknown fields are refused, so that a typo is no silent loss."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = SCHEMA_VERSION
    event: str = "admission"  # what kind of event it is; readers pass over kinds that they do not know
    time: datetime
    level: Literal["info", "warning", "error"] = "info"
    uid: str
    dry_run: bool
    operation: str
    namespace: str
    pod: str  # name, or generateName where there is no name yet
    owner: str = ""  # kind/name of the controller
    user: str = ""
    container: str
    original: str
    source_digest: str = ""
    outcome: Outcome | None = None  # None where the image was not resolved
    platforms: dict[str, Outcome] = Field(default_factory=dict)  # what each platform of the image came to
    patched: str = ""
    upgrades_count: int = 0
    upgrades: tuple[UpgradeInfo, ...] = ()
    fixed: tuple[str, ...] = ()
    skipped: tuple[SkipInfo, ...] = ()
    reason: str = ""
    mode: str
    verdict: str
    key_id: str = ""
    milliseconds: float = Field(ge=0.0)
    trace_id: str = ""  # of the trace that the admission belongs to, where tracing is on


def render_event(event: AuditEvent) -> bytes:
    """Return the event's line."""
    return event.model_dump_json(exclude_defaults=False).encode() + b"\n"
