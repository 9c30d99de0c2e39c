"""A pod as far as admission is concerned: its images, and the edits that replace them.

Owns the values `Pod`, `Container` and `Edit`. Pure: no IO, no policy. Edits touch container images, one annotation and
one label, and of a new pod the list of pull secrets, nothing else.

`proxy.provenance` has the names of annotations and labels; the label `admend.dev/unpatched` has the value `pending` or
`failed`.

Specifications: RFC 6902 (JSON Patch), RFC 6901 (JSON Pointer),
https://kubernetes.io/docs/concepts/overview/working-with-objects/annotations/
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from proxy.provenance import PROVENANCE

MAX_ANNOTATIONS = 256 << 10  # bytes of all annotations, the API server's own limit (TotalAnnotationSizeLimitB)


@dataclass(frozen=True, slots=True)
class Container:
    """One container; `field` is the list in the pod's spec that holds it at `index`."""

    field: str
    index: int
    name: str
    image: str
    pull_policy: str = ""

    @property
    def ephemeral(self) -> bool:
        """Whether it is an ephemeral container (`kubectl debug`)."""
        return self.field == "ephemeralContainers"

    @property
    def pointer(self) -> str:
        """Where its image stands in the object (JSON Pointer)."""
        return f"/spec/{self.field}/{self.index}/image"


@dataclass(frozen=True, slots=True)
class ImageVolume:
    """A volume whose content is an image."""

    name: str
    reference: str


@dataclass(frozen=True, slots=True)
class Owner:
    """The controller that made the pod; `group` is empty for the core API."""

    kind: str
    group: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"


@dataclass(frozen=True, slots=True)
class Pod:
    """What admission reads of a pod; `annotations` and `labels` are None where the object has no such map.

    `architectures` are those that the pod's node selector and required affinity allow; empty means any.
    `lists_secrets` says whether there is a list of pull secrets, be it empty.
    """

    name: str
    namespace: str
    containers: tuple[Container, ...]
    annotations: Mapping[str, str] | None = None
    labels: Mapping[str, str] | None = None
    owner: Owner | None = None
    deleting: bool = False
    os: str = "linux"
    architectures: tuple[str, ...] = ()
    image_volumes: tuple[ImageVolume, ...] = ()
    pull_secrets: tuple[str, ...] = ()
    lists_secrets: bool = False
    service_account: str = ""


@dataclass(frozen=True, slots=True)
class Edit:
    """One operation of a JSON Patch; `value` is not used by `remove`."""

    op: str
    path: str
    value: Any = field(default=None)

    def to_json(self) -> dict[str, Any]:
        """Return the operation as RFC 6902 writes it."""
        out: dict[str, Any] = {"op": self.op, "path": self.path}
        return out if self.op == "remove" else {**out, "value": self.value}


def escape_pointer(key: str) -> str:
    """Return a key as one reference token of a JSON Pointer (RFC 6901, section 3)."""
    return key.replace("~", "~0").replace("/", "~1")


def edit_images(images: Iterable[tuple[Container, str]]) -> tuple[Edit, ...]:
    """Return the edits that give containers new images, each behind a test that the old one still stands there."""
    edits: list[Edit] = []
    for container, image in images:
        if image != container.image:
            edits += Edit("test", container.pointer, container.image), Edit("replace", container.pointer, image)
    return tuple(edits)


def edit_secrets(pod: Pod, names: Iterable[str]) -> tuple[Edit, ...]:
    """Return the edits that put pull secrets at the end of a pod's list, each unless it is there."""
    missing = [{"name": name} for name in sorted(set(names) - set(pod.pull_secrets))]
    if not missing:
        return ()
    if not pod.lists_secrets:
        return (Edit("add", "/spec/imagePullSecrets", missing),)
    return tuple(Edit("add", "/spec/imagePullSecrets/-", secret) for secret in missing)


def edit_map(path: str, current: Mapping[str, str] | None, key: str, value: str | None) -> tuple[Edit, ...]:
    """Return the edits that set (or with None remove) one key of the map at `path`, which may be absent."""
    had = (current or {}).get(key)
    if had == value:
        return ()
    place = f"{path}/{escape_pointer(key)}"
    if value is None:
        return (Edit("remove", place),)
    if current is None:
        return (Edit("add", path, {key: value}),)
    return (Edit("add" if had is None else "replace", place, value),)


def annotation_fits(annotations: Mapping[str, str] | None, value: str) -> bool:
    """Say whether the pod's annotations stay within the API server's limit with this provenance."""
    others = {key: text for key, text in (annotations or {}).items() if key != PROVENANCE}
    total = sum(len(key.encode()) + len(text.encode()) for key, text in (others | {PROVENANCE: value}).items())
    return total <= MAX_ANNOTATIONS
