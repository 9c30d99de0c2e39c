"""Events on the objects that people look at: a pod's Deployment, StatefulSet, DaemonSet or whatever made it.

Owns the way from a pod's controller to that object and the form of an Event. Its name follows from what it says, so
that two proxies, or one that was restarted, say a thing once.
Specification: https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/event-v1/
"""

import hashlib
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from proxy.errors import AdmendError, UpstreamRefused
from proxy.kube.cluster import Cluster
from proxy.kube.pods import Controller

CONFLICT = 409
MAX_MESSAGE = 1024  # characters, the API server's limit
MAX_KNOWN = 10_000  # controllers

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Notice:
    """What is said about an object; `key` tells two with the same reason apart."""

    namespace: str
    about: Controller
    reason: str
    message: str
    key: str
    kind: str = "Normal"  # or "Warning"


class Events:
    """Writes Events."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._tops: dict[str, Controller] = {}  # by the uid of a ReplicaSet

    async def tell(self, notice: Notice) -> None:
        """Write one Event, unless it is there.

        Raises:
            UpstreamUnavailable, UpstreamRefused: the API server could not be asked, or the proxy may not.
        """
        about = await self._top(notice.namespace, notice.about)
        body = render_event(notice, about, datetime.now(UTC))
        create = self._cluster.core.create_namespaced_event
        try:
            await self._cluster.ask("write an Event", create, notice.namespace, body)
        except UpstreamRefused as error:
            if error.status != CONFLICT:
                raise

    async def _top(self, namespace: str, controller: Controller) -> Controller:
        """Return a ReplicaSet's Deployment, or the controller itself."""
        if (controller.kind, controller.api_version) != ("ReplicaSet", "apps/v1"):
            return controller
        known = self._tops.get(controller.uid)
        if known is None:
            read = self._cluster.apps.read_namespaced_replica_set
            try:
                found: Any = await self._cluster.ask("read a ReplicaSet", read, controller.name, namespace)
            except AdmendError as error:
                _log.debug("the Deployment of %s/%s is not known: %s", namespace, controller.name, error)
                return controller
            owners = found.metadata.owner_references or []
            tops = [Controller(each.api_version, each.kind, each.name, each.uid) for each in owners if each.controller]
            known = tops[0] if tops else controller
            self._tops[controller.uid] = known
            while len(self._tops) > MAX_KNOWN:
                self._tops.pop(next(iter(self._tops)))
        return known


def render_event(notice: Notice, about: Controller, now: datetime) -> dict[str, Any]:
    """Return the Event as it is sent."""
    said = f"{about.uid} {notice.reason} {notice.key}"
    stamp = now.replace(microsecond=0).isoformat().replace("+00:00", "Z")
    message = notice.message if len(notice.message) <= MAX_MESSAGE else f"{notice.message[: MAX_MESSAGE - 3]}..."
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "name": f"{about.name[:200]}.{hashlib.sha256(said.encode()).hexdigest()[:16]}",
            "namespace": notice.namespace,
        },
        "involvedObject": {
            "apiVersion": about.api_version,
            "kind": about.kind,
            "name": about.name,
            "namespace": notice.namespace,
            "uid": about.uid,
        },
        "reason": notice.reason,
        "message": message,
        "type": notice.kind,
        "source": {"component": "admend"},
        "reportingComponent": "admend.dev/proxy",
        "firstTimestamp": stamp,
        "lastTimestamp": stamp,
        "count": 1,
    }
