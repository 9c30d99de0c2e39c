"""Audit: one JSON line per container of an admission, saying what happened and why, and where these lines go.

`event` owns the fields, `log` the way from an event to the sinks, `queue` what waits, `file` and `http` two of the
sinks, `config` their settings; `reading`, `pieces`, `filters` and `table` answer questions about lines
(`admend audit`). docs/audit.md describes the format.
"""

from proxy.audit.config import AuditConfig, FileSinkConfig, HttpSinkConfig
from proxy.audit.event import SCHEMA_VERSION, AuditEvent
from proxy.audit.log import AuditLog, Sink, open_audit

__all__ = [
    "SCHEMA_VERSION",
    "AuditConfig",
    "AuditEvent",
    "AuditLog",
    "FileSinkConfig",
    "HttpSinkConfig",
    "Sink",
    "open_audit",
]
