"""Which images are looked at, and what an outcome means for a pod.

Owns `select` (before any network is touched) and `decide` (outcome + mode + settings -> verdict); what concerns the
pod as a whole is in `stance`. Pure. What the two refuse to believe: a `kubernetes.io/config.source` annotation (anybody
may write it; real static pods come as mirror pods), an owner of a familiar kind but another API group, a provenance
annotation that names another repository than the image beside it.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from proxy.api import MAX_IMAGE, Outcome
from proxy.errors import MalformedInput
from proxy.oci.naming import Naming
from proxy.oci.reference import ImageRef
from proxy.provenance import OPT_OUT, Provenance, parse_provenance
from webhook.config import EnforceConfig, Mode, SelectionConfig
from webhook.pod import Container, Pod
from webhook.stance import find_foreign
from webhook.verdict import Verdict

MIRROR_POD = "kubernetes.io/config.mirror"


@dataclass(frozen=True, slots=True)
class Choice:
    """One container and what is to be done about it.

    `reference` is the upstream image to resolve, with the digest that the pod pinned if it did, or None with the
    `reason` for leaving the container alone. `ask` is what the proxy is asked, `original` what the pod's author wrote.
    `mapped` says that the pod names the mirror; `invalid` that the reference cannot be read; `volume` that it is an
    image volume (its container is named `volume/<name>`), which is told about and left alone.
    """

    container: Container
    original: str
    reason: str = ""
    reference: ImageRef | None = None
    ask: str = ""
    mapped: bool = False
    invalid: bool = False
    volume: bool = False


def pass_over(pod: Pod, settings: SelectionConfig, mode: Mode) -> str:
    """Return why no image of this pod is looked at, or nothing."""
    if pod.deleting:
        return "the pod is being deleted"
    if MIRROR_POD in (pod.annotations or {}):
        return "a mirror pod: the kubelet runs it from a file, not from this object"
    if pod.os.lower() == "windows":
        return "a Windows pod"
    if _honours_opt_out(settings, mode) and (pod.annotations or {}).get(OPT_OUT) == "false":
        return f'opted out: the pod has the annotation {OPT_OUT}: "false"'
    return find_foreign(pod, settings) if settings.foreign_owners == "skip" else ""


def select(
    pod: Pod, old: Pod | None, settings: SelectionConfig, naming: Naming, mode: Mode = Mode.PERMISSIVE
) -> tuple[Choice, ...]:
    """Return a choice for each container (and image volume) of the pod; of an update, for each whose image changed."""
    before = {(container.field, container.name): container.image for container in old.containers} if old else {}
    changed = [item for item in pod.containers if before.get((item.field, item.name)) != item.image]
    volumes = () if old else _volumes(pod)  # a pod's volumes never change
    reason = pass_over(pod, settings, mode)
    if reason:
        return tuple(Choice(item, item.image, reason) for item in (*changed, *volumes))
    known = parse_provenance(pod.annotations)
    containers = (_choose(item, known.get(item.name), settings, naming) for item in changed)
    return (*containers, *(Choice(item, item.image, "image volumes are not patched", volume=True) for item in volumes))


def is_untouchable(pod: Pod) -> bool:
    """Say whether nothing of the pod may be edited, not even an annotation that its author forged."""
    return pod.deleting or MIRROR_POD in (pod.annotations or {})


def find_notes(pod: Pod, old: Pod | None, settings: SelectionConfig, mode: Mode = Mode.PERMISSIVE) -> tuple[str, ...]:
    """Return what the author of a new pod should know about his opt-out annotation."""
    value = (pod.annotations or {}).get(OPT_OUT)
    if old is not None or value in {None, "true"}:
        return ()
    if value != "false":
        return (f'the annotation {OPT_OUT} has the value "{value}", which means nothing: write "false"',)
    where = "in mode enforce" if settings.opt_out else "in this cluster"
    return () if _honours_opt_out(settings, mode) else (f"the annotation {OPT_OUT} is not honoured {where}",)


def _honours_opt_out(settings: SelectionConfig, mode: Mode) -> bool:
    """Say whether the opt-out annotation counts; mode audit tells what enforce would do."""
    return settings.opt_out is True or (settings.opt_out == "permissive" and mode is Mode.PERMISSIVE)


def decide(
    outcome: Outcome,
    mode: Mode,
    enforce: EnforceConfig,
    *,
    mapped: bool,
    dry_run: bool,
    pinned: Collection[Outcome] = (),
) -> Verdict:
    """Return the verdict on one container.

    1. What is patched is rewritten.
    2. A dry run patches nothing, so `pending` says nothing there: the image is left.
    3. `enforce` does as its settings say; `permissive` pins the outcomes in `pinned`.
    4. Any mode pins an image that the pod asked of the mirror and that has no patch: nobody chooses an old patched
       image by naming it.
    5. Else the image is left. Mode audit decides as `enforce`; `stance` makes of it what would have been done.
    """
    if outcome is Outcome.PATCHED:
        verdict = Verdict.REWRITE
    elif dry_run and outcome is Outcome.PENDING:
        verdict = Verdict.KEEP
    else:
        permissive = Verdict.PIN if outcome in pinned else Verdict.KEEP
        verdict = permissive if mode is Mode.PERMISSIVE else _VERBS[getattr(enforce, outcome.value)]
        if mapped and verdict is Verdict.KEEP and outcome in _KNOWN_DIGEST:
            verdict = Verdict.PIN
    return verdict


_VERBS: Mapping[str, Verdict] = {
    "pin": Verdict.PIN,
    "leave": Verdict.KEEP,
    "admit": Verdict.KEEP,
    "deny": Verdict.DENY,
}
_KNOWN_DIGEST = frozenset({Outcome.CLEAN, Outcome.BLOCKED, Outcome.UNSUPPORTED})


def _volumes(pod: Pod) -> tuple[Container, ...]:
    return tuple(
        Container("volumes", index, f"volume/{volume.name}", volume.reference)
        for index, volume in enumerate(pod.image_volumes)
    )


def _choose(container: Container, known: Provenance | None, settings: SelectionConfig, naming: Naming) -> Choice:
    choice = _read(container, known, naming)
    if choice.reference is None:
        return choice
    never = "imagePullPolicy is Never" if container.pull_policy == "Never" else ""
    reason = never or _excluded(choice.reference, settings)
    return replace(choice, reason=reason, reference=None) if reason else choice


def _read(container: Container, known: Provenance | None, naming: Naming) -> Choice:
    """Return what a container's reference means: an upstream image, or that it cannot be read."""
    image = container.image
    try:
        written = ImageRef.parse(image)
    except MalformedInput as error:
        return Choice(container, image, f"not an image reference: {error}", invalid=True)
    original = naming.original_of(written)
    mapped, reference, ask, author = original is not None, original or written, str(original or written), image
    if known is not None and (hint := _believe(known, container, reference, naming)):
        reference, ask, author = hint, str(hint), known.original
    elif mapped and reference.digest is not None:  # a digest of the mirror: only the proxy knows of what
        reference, ask = replace(reference, digest=None), str(written)
    elif mapped and reference.tag is None:
        why = "a tag that only the mirror has: name the original image, or a digest in the mirror"
        return Choice(container, image, why, invalid=True)
    if len(ask) > MAX_IMAGE:
        return Choice(container, image, f"longer than the {MAX_IMAGE} characters that admend takes", invalid=True)
    return Choice(container, author, "", reference, ask, mapped)


def _excluded(reference: ImageRef, settings: SelectionConfig) -> str:
    """Return why the operator's patterns leave an image out, or nothing."""
    texts = (str(reference), reference.name)
    if settings.include and not any(fnmatchcase(text, shape) for text in texts for shape in settings.include):
        return "not in selection.include"
    for shape in settings.exclude:
        if any(fnmatchcase(text, shape) for text in texts):
            return f"excluded by the pattern {shape}"
    return ""


def _believe(known: Provenance, container: Container, current: ImageRef, naming: Naming) -> ImageRef | None:
    """Return the original that the provenance annotation gives for an image that admend may have written.

    Whoever forges it gains nothing: it must be of the same repository, and so is what he could have written himself.
    Needed when the API server calls again with the pod already rewritten, and for copies of a pod.
    """
    if known.image != container.image or current.digest is None or len(known.original) > MAX_IMAGE:
        return None
    try:
        original = ImageRef.parse(known.original)
    except MalformedInput:
        return None
    if naming.original_of(original) is not None:
        return None
    return original if original.name == current.name else None
