"""Namespaces, workloads and pods for the simulated API server, as their controllers would make them."""

from datetime import UTC, datetime, timedelta
from typing import Any

from proxy.provenance import PROVENANCE, Provenance, render_provenance
from tests.simulators.kube_api import KubeApi

HASH = "7d4f8c9b5d"


def put_namespace(api: KubeApi, name: str, **labels: str) -> None:
    """Make a namespace with labels (`admission` is admend's)."""
    given = {f"admend.dev/{key}": value for key, value in labels.items()}
    api.put(f"/api/v1/namespaces/{name}", {"metadata": {"name": name, "labels": given}})


def put_deployment(api: KubeApi, namespace: str, name: str) -> None:
    """Make a Deployment and its ReplicaSet."""
    place = f"/apis/apps/v1/namespaces/{namespace}"
    api.put(f"{place}/deployments/{name}", {"metadata": {"name": name, "namespace": namespace, "uid": f"d-{name}"}})
    owner = {"apiVersion": "apps/v1", "kind": "Deployment", "name": name, "uid": f"d-{name}", "controller": True}
    inner = {"metadata": {"labels": {"pod-template-hash": HASH}}, "spec": {"containers": []}}
    replica_set = {
        "metadata": {"name": f"{name}-{HASH}", "namespace": namespace, "uid": f"r-{name}", "ownerReferences": [owner]},
        "spec": {"selector": {"matchLabels": {"pod-template-hash": HASH}}, "template": inner},
    }
    api.put(f"{place}/replicasets/{name}-{HASH}", replica_set)


def put_pod(
    api: KubeApi,
    namespace: str,
    workload: str,
    image: str,
    *,
    number: int = 0,
    kind: str = "ReplicaSet",
    age: timedelta = timedelta(hours=1),
    admitted: Provenance | None = None,
    annotations: dict[str, str] | None = None,
    ready: bool = True,
    **spec: Any,
) -> str:
    """Make a pod of a workload, with a uid of its own; returns its path."""
    stem = f"{workload}-{HASH}" if kind == "ReplicaSet" else workload
    name, group = f"{stem}-{number}", "apps/v1" if kind in {"ReplicaSet", "StatefulSet", "DaemonSet"} else "batch/v1"
    owner = {"apiVersion": group, "kind": kind, "name": stem, "uid": f"r-{workload}", "controller": True}
    if kind not in {"ReplicaSet", "StatefulSet", "DaemonSet", "Job"}:
        owner["apiVersion"] = "db.example/v1"
    provenance = render_provenance({"app": admitted}) if admitted else None
    created = datetime.now(UTC) - age
    path = f"/api/v1/namespaces/{namespace}/pods/{name}"
    document = {
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": f"{name}-at-{created.timestamp()}",
            "creationTimestamp": created.isoformat(),
            "labels": {"pod-template-hash": HASH} if kind == "ReplicaSet" else {},
            "annotations": {**(annotations or {}), **({PROVENANCE: provenance} if provenance else {})},
            "ownerReferences": [owner],
            "managedFields": [{"manager": "x", "fieldsV1": {"f:spec": {}}}],
        },
        "spec": {"containers": [{"name": "app", "image": image}], "serviceAccountName": "default", **spec},
        "status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
        },
    }
    api.put(path, document)
    return path
