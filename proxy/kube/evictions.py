"""Evictions: asking the API server to remove a pod, which it refuses where a disruption budget forbids it.

Owns the call and the meaning of its answers. The pod is named by its uid, too: one that was replaced under the same
name in the meantime is left alone.
Specification: https://kubernetes.io/docs/concepts/scheduling-eviction/api-eviction/
"""

from enum import StrEnum

from proxy.errors import UpstreamRefused, UpstreamUnavailable
from proxy.kube.cluster import TOO_MANY, Cluster

NOT_FOUND, CONFLICT = 404, 409


class Evicted(StrEnum):
    """What an eviction came to."""

    DONE = "evicted"
    GONE = "gone"  # the pod is not there any more
    REFUSED = "refused"  # a disruption budget forbids it now


async def evict(cluster: Cluster, namespace: str, name: str, uid: str, *, dry_run: bool = False) -> Evicted:
    """Ask for the eviction of one pod; with `dry_run` the API server only says what it would do.

    Raises:
        UpstreamUnavailable, UpstreamRefused: it could not be asked, or the proxy may not.
    """
    body = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": name, "namespace": namespace},
        "deleteOptions": {"preconditions": {"uid": uid}},
    }
    named = {"dry_run": "All"} if dry_run else {}
    method = cluster.core.create_namespaced_pod_eviction
    try:
        await cluster.ask(f"evict {namespace}/{name}", method, name, namespace, body, **named)
    except UpstreamUnavailable as error:
        if error.status == TOO_MANY:
            return Evicted.REFUSED
        raise
    except UpstreamRefused as error:
        if error.status in {NOT_FOUND, CONFLICT}:
            return Evicted.GONE
        raise
    return Evicted.DONE
