"""Audit events for tests."""

from datetime import UTC, datetime, timedelta
from typing import Any

from proxy.api import Outcome
from proxy.audit import AuditEvent

START = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def make_event(number: int = 0, **changes: Any) -> AuditEvent:
    """Return the event of one container that was rewritten, the `number`-th of its kind."""
    fields: dict[str, Any] = {
        "time": START + timedelta(seconds=number),
        "uid": f"uid-{number}",
        "dry_run": False,
        "operation": "CREATE",
        "namespace": "shop",
        "pod": f"web-{number}",
        "owner": "ReplicaSet/web",
        "user": "system:serviceaccount:kube-system:replicaset-controller",
        "container": "main",
        "original": "docker.io/library/nginx:1.25",
        "outcome": Outcome.PATCHED,
        "mode": "permissive",
        "verdict": "rewrite",
        "milliseconds": 3.5,
    }
    return AuditEvent(**fields | changes)
