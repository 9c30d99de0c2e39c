"""Namespaces and pods as the API server lists them, reduced page by page to what matters about their images.

Owns the wire models and the paging. A page is parsed in a thread and dropped before the next one is asked for, so that
a cluster of any size costs the memory of a page and of the values. A list that the API server has forgotten on the way
(410) is begun again. An object that is not as they are is passed over and counted, never the end of the list.
Specification: https://kubernetes.io/docs/reference/using-api/api-concepts/#retrieving-large-results-sets-in-chunks
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from proxy.errors import MalformedInput, UpstreamRefused
from proxy.kube.cluster import Cluster
from proxy.placement import OS_KEYS, Affinity, bound_architectures

PAGE = 100  # objects of one answer
TRIES = 3
GONE = 410
MAX_SECRETS = 32
LIVE = "status.phase!=Succeeded,status.phase!=Failed"
OVER = frozenset({"Succeeded", "Failed"})


@dataclass(frozen=True, slots=True)
class Controller:
    """What made a pod: the object that its owner reference names."""

    api_version: str
    kind: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class RunningPod:
    """A pod that is not over; `images` are container name -> image as its spec has it, `created` in UTC.

    `running` are container name -> digest that the node says it pulled, where it says so.
    `template` is the label by which a ReplicaSet's name is its Deployment's. `architectures` as `placement` has them.
    """

    namespace: str
    name: str
    uid: str
    created: datetime
    images: Mapping[str, str]
    annotations: Mapping[str, str]
    controller: Controller | None = None
    template: str = ""
    ready: bool = False
    deleting: bool = False
    windows: bool = False
    architectures: tuple[str, ...] = ()
    pull_secrets: tuple[str, ...] = ()
    service_account: str = ""
    running: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Found:
    """What a list came to; `odd` counts objects that could not be read."""

    pods: int = 0
    odd: int = 0


def _or_empty(value: Any) -> Any:
    return () if value is None else value


class _Wire(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, alias_generator=to_camel)


class _Owner(_Wire):
    api_version: str
    kind: str
    name: str
    uid: str
    controller: bool | None = None


class _Metadata(_Wire):
    name: str
    namespace: str = ""
    uid: str = ""
    creation_timestamp: AwareDatetime | None = None
    deletion_timestamp: str | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    owner_references: list[_Owner] | None = None


class _Container(_Wire):
    name: str
    image: str = ""


class _Named(_Wire):
    name: str = ""


Containers = Annotated[tuple[_Container, ...], BeforeValidator(_or_empty)]


class _Spec(_Wire):
    init_containers: Containers = ()
    containers: Containers = ()
    ephemeral_containers: Containers = ()
    node_selector: dict[str, str] | None = None
    affinity: Affinity | None = None
    os: _Named | None = None
    image_pull_secrets: list[_Named] | None = None
    service_account_name: str | None = None


class _Condition(_Wire):
    type: str
    status: str


class _ContainerStatus(_Wire):
    name: str
    image_id: str = Field(default="", alias="imageID")


Statuses = Annotated[tuple[_ContainerStatus, ...], BeforeValidator(_or_empty)]


class _Status(_Wire):
    phase: str = ""
    init_container_statuses: Statuses = ()
    container_statuses: Statuses = ()
    ephemeral_container_statuses: Statuses = ()
    conditions: Annotated[tuple[_Condition, ...], BeforeValidator(_or_empty)] = ()


class _Pod(_Wire):
    metadata: _Metadata
    spec: _Spec
    status: _Status = _Status()


class _Namespace(_Wire):
    metadata: _Metadata


async def list_namespaces(cluster: Cluster) -> dict[str, dict[str, str]]:
    """Return the labels of every namespace."""
    found: dict[str, dict[str, str]] = {}

    def take(item: Any) -> tuple[str, dict[str, str]]:
        metadata = _Namespace.model_validate(item).metadata
        return metadata.name, metadata.labels or {}

    page = _Page(cluster.core.list_namespace, take)
    await _walk(cluster, "list namespaces", page, consume=found.update, begin=found.clear)
    return found


async def list_pods(
    cluster: Cluster, consume: Callable[[list[RunningPod]], None], *, begin: Callable[[], None]
) -> Found:
    """Give all pods that are not over to `consume`, a page at a time; returns how many there were.

    `begin` is called before the first page, and again where the list has to be begun again.

    Raises:
        UpstreamUnavailable, UpstreamRefused: the API server did not answer, or not with a list.
    """
    pods = 0

    def start() -> None:
        nonlocal pods
        pods = 0
        begin()

    def count(page: list[RunningPod | None]) -> None:
        nonlocal pods
        living = [pod for pod in page if pod is not None]
        pods += len(living)
        consume(living)

    page = _Page(cluster.core.list_pod_for_all_namespaces, _read_pod, field_selector=LIVE)
    odd = await _walk(cluster, "list pods", page, consume=count, begin=start)
    return Found(pods, odd)


async def _walk(
    cluster: Cluster,
    what: str,
    page: "_Page",
    *,
    consume: Callable[[list[Any]], object],
    begin: Callable[[], object],
) -> int:
    """Ask for page after page; returns how many objects could not be read."""
    for attempt in range(TRIES):
        begin()
        after, odd = "", 0
        try:
            while True:
                more = {"_continue": after} if after else {}
                values, after, bad = await cluster.ask(what, page.fetch, limit=PAGE, **more)
                odd += bad
                consume(values)
                if not after:
                    return odd
        except UpstreamRefused as error:
            if error.status != GONE or attempt == TRIES - 1:
                raise
    raise AssertionError  # the last try returns or raises


class _Page:
    """One call of a list method whose answer is read in the thread that made it."""

    def __init__(self, method: Callable[..., Any], read: Callable[[Any], Any], **named: str) -> None:
        self._method, self._read, self._named = method, read, named

    def fetch(self, **named: Any) -> tuple[list[Any], str, int]:
        """Return the values of a page, the token of the next one, and how many objects could not be read."""
        response = self._method(**self._named, **named, _preload_content=False)
        try:
            document = json.loads(response.data)
            items, after = document["items"] or [], document["metadata"].get("continue") or ""
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise MalformedInput("the API server's answer is no list") from error
        finally:
            response.release_conn()
        values, bad = [], 0
        for item in items:
            try:
                values.append(self._read(item))
            except ValidationError:
                bad += 1
        return values, after, bad


def _read_pod(item: Any) -> RunningPod | None:
    """Return a pod, or None when it is over."""
    pod = _Pod.model_validate(item)
    metadata, spec = pod.metadata, pod.spec
    if pod.status.phase in OVER:
        return None
    labels, selector = metadata.labels or {}, spec.node_selector or {}
    system = (spec.os.name if spec.os else "") or next((selector[key] for key in OS_KEYS if key in selector), "linux")
    containers = (*spec.init_containers, *spec.containers, *spec.ephemeral_containers)
    return RunningPod(
        namespace=metadata.namespace,
        name=metadata.name,
        uid=metadata.uid,
        created=metadata.creation_timestamp or datetime.now(UTC),
        images={container.name: container.image for container in containers if container.image},
        annotations={key: text for key, text in (metadata.annotations or {}).items() if key.startswith(_KEPT)},
        controller=_controller(metadata.owner_references or []),
        template=labels.get("pod-template-hash", ""),
        ready=any(each.type == "Ready" and each.status == "True" for each in pod.status.conditions),
        deleting=metadata.deletion_timestamp is not None,
        windows=system.lower() == "windows",
        architectures=bound_architectures(selector, spec.affinity),
        pull_secrets=tuple(each.name for each in spec.image_pull_secrets or () if each.name)[:MAX_SECRETS],
        service_account=spec.service_account_name or "",
        running=_running(pod.status),
    )


def _running(status: _Status) -> dict[str, str]:
    """Return what the node says that it pulled: container runtimes write `name@digest`, some with a scheme before."""
    lists = (status.init_container_statuses, status.container_statuses, status.ephemeral_container_statuses)
    given = {each.name: each.image_id.rpartition("@")[2] for statuses in lists for each in statuses}
    return {name: digest for name, digest in given.items() if digest.startswith("sha256:")}


_KEPT = ("admend.dev/", "kubernetes.io/config.mirror")  # annotations


def _controller(owners: list[_Owner]) -> Controller | None:
    for owner in owners:
        if owner.controller:
            return Controller(owner.api_version, owner.kind, owner.name, owner.uid)
    return None
