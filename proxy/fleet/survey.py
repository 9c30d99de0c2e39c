"""A survey: which images run in the cluster, for whom, and as what they were admitted.

Owns the way from pods to uses: one use is a container of a workload that runs an image, with its pods. What a pod's
annotation says about its image is believed only where the names agree; it decides what is asked, never what is trusted.
Pods that are none of admend's business (other namespaces, mirror pods, Windows) count for what is in use and no more.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from fnmatch import fnmatchcase

from proxy.config import NamespaceSelection
from proxy.errors import MalformedInput
from proxy.kube.pods import Controller, RunningPod
from proxy.mirror import Mirror
from proxy.oci.digest import Digest
from proxy.oci.reference import ImageRef
from proxy.placement import platforms_of
from proxy.provenance import OPT_OUT, RESTART, Provenance, parse_provenance

MIRROR_POD = "kubernetes.io/config.mirror"
OURS = ("enabled", "permissive", "enforce", "audit")
MAX_INSTANCES = 1000  # pods of one use that are remembered by name


@dataclass(frozen=True, slots=True, order=True)
class Workload:
    """What pods belong to; a pod of nobody is its own."""

    namespace: str
    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.kind}/{self.name}"


@dataclass(frozen=True, slots=True)
class Question:
    """What the proxy is asked about an image."""

    image: str
    platforms: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Asker:
    """On whose behalf: a pod's namespace and what it pulls with."""

    namespace: str
    pull_secrets: tuple[str, ...] = ()
    service_account: str = ""


@dataclass(frozen=True, slots=True)
class Instance:
    """One pod of a use."""

    name: str
    uid: str
    created: datetime
    ready: bool = False
    deleting: bool = False
    controller: Controller | None = None
    may_restart: bool = True


@dataclass(slots=True)
class Use:
    """A container of a workload that runs `image`, the reference in the pods' specs.

    `patched` is its digest where that is an image of the mirror; `admitted` the upstream digest that the pods' author
    got, where they say so; `running` the digest that nodes say they pulled. `left` says why nothing
    is expected of it, or nothing.
    """

    workload: Workload
    container: str
    image: str
    question: Question
    asker: Asker
    patched: Digest | None = None
    admitted: str = ""
    running: str = ""
    left: str = ""
    audit: bool = False
    pods: int = 0
    instances: list[Instance] = field(default_factory=list)


@dataclass(slots=True)
class Survey:
    """All uses, and every digest of the mirror that a pod names."""

    uses: dict[tuple[Workload, str, str, str, str], Use] = field(default_factory=dict)
    in_use: set[Digest] = field(default_factory=set)
    pods: int = 0
    odd: int = 0  # pods that could not be read

    def questions(self) -> dict[Question, Asker]:
        """Return what is to be asked, for whom; most pods first."""
        counted: dict[Question, int] = {}
        askers: dict[Question, Asker] = {}
        for use in self.uses.values():
            if not use.left:
                counted[use.question] = counted.get(use.question, 0) + use.pods
                askers.setdefault(use.question, use.asker)
        return {question: askers[question] for question in sorted(counted, key=lambda each: -counted[each])}


class Surveyor:
    """Takes in pods.

    Args:
        mirror: whose names are told from upstream ones.
        selection: which namespaces take part.
        include, exclude: patterns of full image names (`docker.io/library/*`) that are looked at, and are not.
    """

    def __init__(
        self, mirror: Mirror, selection: NamespaceSelection, *, include: Iterable[str], exclude: Iterable[str]
    ) -> None:
        self._mirror, self._selection = mirror, selection
        self._include, self._exclude = tuple(include), tuple(exclude)
        self._modes: dict[str, str] = {}
        self.survey = Survey()

    def begin(self) -> None:
        """Start anew."""
        self.survey = Survey()

    def set_namespaces(self, labels: Mapping[str, Mapping[str, str]]) -> None:
        """Take note of every namespace's labels."""
        self._modes = {name: self._mode(name, given) for name, given in labels.items()}

    def _mode(self, name: str, labels: Mapping[str, str]) -> str:
        """Return the mode of a namespace; empty where it takes no part. A word that is none counts as no label."""
        chosen = self._selection
        given = labels.get(chosen.label, "")
        if not chosen.opt_in and given not in {*OURS, "disabled"}:
            given = "enabled"
        if given not in OURS or any(fnmatchcase(name, pattern) for pattern in chosen.exclude):
            return ""
        return chosen.default_mode if given == "enabled" else given

    def take(self, pods: Iterable[RunningPod]) -> None:
        """Take in a page of pods."""
        for pod in pods:
            self.survey.pods += 1
            mode = self._modes.get(pod.namespace, "")
            known = parse_provenance(pod.annotations) if mode else {}
            for container, image in pod.images.items():
                self._take_image(pod, container, image, mode, known.get(container))

    def _take_image(self, pod: RunningPod, container: str, image: str, mode: str, known: Provenance | None) -> None:
        try:
            ref = ImageRef.parse(image)
        except MalformedInput:
            return  # no image that could run
        original = self._mirror.original_of(ref)
        if original is not None and ref.digest is not None:
            self.survey.in_use.add(ref.digest)
        if not mode or pod.windows or MIRROR_POD in pod.annotations:
            return
        believed = known if known is not None and self._agrees(known, image, ref, original) else None
        workload = find_workload(pod)
        asked = believed.original if believed else image
        running = pod.running.get(container, "")
        key = (workload, container, image, asked, running)
        use = self.survey.uses.get(key)
        if use is None:
            use = Use(
                workload=workload,
                container=container,
                image=image,
                question=Question(asked, platforms_of(pod.architectures)),
                asker=Asker(pod.namespace, pod.pull_secrets, pod.service_account),
                patched=ref.digest if original is not None else None,
                admitted=believed.digest if believed else "",
                running=running,
                left=self._left(pod, asked, original),
                audit=mode == "audit",
            )
            self.survey.uses[key] = use
        use.pods += 1
        if len(use.instances) < MAX_INSTANCES:
            allowed = pod.annotations.get(RESTART) != "false"
            use.instances.append(
                Instance(pod.name, pod.uid, pod.created, pod.ready, pod.deleting, pod.controller, allowed)
            )

    def _agrees(self, known: Provenance, image: str, ref: ImageRef, original: ImageRef | None) -> bool:
        """Say whether what a pod says its image was made from goes with the image's name."""
        try:
            said = ImageRef.parse(known.original)
            expected = ref.name if original is None else self._mirror.name_for(ImageRef.parse(known.original)).name
        except MalformedInput:
            return False
        return known.image == image and expected == (said.name if original is None else ref.name)

    def _left(self, pod: RunningPod, asked: str, original: ImageRef | None) -> str:
        """Return why the image is left alone, or nothing."""
        if pod.annotations.get(OPT_OUT) == "false":
            return f'opted out: the pod has the annotation {OPT_OUT}: "false"'
        name = (original or ImageRef.parse(asked)).name
        if any(fnmatchcase(name, pattern) for pattern in self._exclude):
            return "excluded by a pattern"
        if not any(fnmatchcase(name, pattern) for pattern in self._include):
            return "included by no pattern"
        return ""


def find_workload(pod: RunningPod) -> Workload:
    """Return what a pod belongs to; a ReplicaSet's is its Deployment, by the hash that its name ends with."""
    owner = pod.controller
    if owner is None:
        return Workload(pod.namespace, "Pod", pod.name)
    stem = owner.name.removesuffix(f"-{pod.template}")
    if owner.kind == "ReplicaSet" and pod.template and stem != owner.name:
        return Workload(pod.namespace, "Deployment", stem)
    return Workload(pod.namespace, owner.kind, owner.name)
