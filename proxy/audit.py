"""The audit event and its JSON-lines sink: one line per container, saying what happened and why.

Owns the event's fields and the sink. Never holds a secret: references and reasons only.
"""

import sys
from datetime import datetime
from typing import Literal, TextIO

from pydantic import ConfigDict, Field

from proxy.api import Outcome, SkipInfo, UpgradeInfo, Wire


class AuditEvent(Wire):
    """One container of one admission; unknown fields are refused, so that a typo is no silent loss."""

    model_config = ConfigDict(frozen=True, extra="forbid")

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


class AuditLog:
    """Writes events to a text stream, a line each, flushed at once."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream

    def write(self, event: AuditEvent) -> None:
        """Append one event."""
        stream = self._stream or sys.stdout
        stream.write(event.model_dump_json(exclude_defaults=False) + "\n")
        stream.flush()
