"""What one admission found about one image, and how the pod and its people are told.

Owns the value `Finding` and everything made from findings: edits of the pod, warnings for kubectl, audit annotations
for the API server's own audit log, audit events, and the text of a denial. Pure, and bounded in every direction: the
API server cuts warnings over 256 characters, and drops those beyond 4096 in all.
Limits: https://github.com/kubernetes/kubernetes/blob/v1.34.0/staging/src/k8s.io/apiserver/pkg/endpoints/filters/warning.go
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from certs.logs import TRACE_ID
from proxy.api import Outcome, ResolveResponse
from proxy.audit import AuditEvent
from proxy.provenance import PROVENANCE, UNPATCHED, Provenance, parse_provenance, render_provenance
from webhook.answer import Checked
from webhook.config import Mode
from webhook.pod import Edit, Pod, annotation_fits, edit_images, edit_map, edit_secrets
from webhook.policy import Choice
from webhook.review import AdmissionRequest
from webhook.verdict import Verdict

MAX_WARNING = 256  # characters, the API server's own limit
MAX_WARNINGS = 4096  # characters of all warnings, likewise
MAX_ANNOTATION = 8192  # characters of one audit annotation
MAX_MESSAGE = 4096  # characters of a denial
MAX_REASON = 1024  # characters of a reason in an event
MAX_LISTED = 200  # upgrades, skips and CVEs in one event; the count is always right

Level = Literal["info", "warning", "error"]

CHANGING = frozenset({Verdict.REWRITE, Verdict.PIN})
RANKS = (  # the strongest first
    Verdict.DENY,
    Verdict.WOULD_DENY,
    Verdict.REWRITE,
    Verdict.WOULD_REWRITE,
    Verdict.PIN,
    Verdict.WOULD_PIN,
    Verdict.KEEP,
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One container's story; `image` is what it gets, or its own where the verdict changes nothing.

    `reason` is the image's own, `restraint` what keeps the whole pod from being changed.
    """

    choice: Choice
    verdict: Verdict
    image: str
    outcome: Outcome | None = None
    reason: str = ""
    answer: ResolveResponse | None = None
    checked: Checked | None = None
    level: Level = "info"
    milliseconds: float = 0.0
    restraint: str = ""

    @property
    def why(self) -> str:
        """Every reason, the pod's before the image's."""
        return "; ".join(part for part in (self.restraint, self.reason) if part)

    @property
    def source_digest(self) -> str:
        """The upstream digest that the answer is about, if it is known."""
        source = self.checked.source if self.checked else None
        return str(source.digest) if source else ""


def edit_pod(
    request: AdmissionRequest, pod: Pod, findings: Sequence[Finding]
) -> tuple[tuple[Edit, ...], Sequence[str]]:
    """Return the edits of the pod, and a note where its annotations are full.

    The annotation and the label say what admend did, whatever the pod's author wrote there; in an update, the entries
    of containers that did not change are those of the pod before it. The API server drops metadata changes that come
    with ephemeral containers, so none are made; a pod's list of pull secrets never changes after its creation.
    """
    images = edit_images((item.choice.container, item.image) for item in findings)
    if request.subresource:
        return images, ()
    notes: Sequence[str] = ()
    value = render_provenance(_provenance(pod, request.old, findings))
    if value is not None and not annotation_fits(pod.annotations, value):
        value, notes = None, (f"the annotation {PROVENANCE} is left out: the pod's annotations are full",)
    annotation = edit_map("/metadata/annotations", pod.annotations, PROVENANCE, value)
    label = edit_map("/metadata/labels", pod.labels, UNPATCHED, _unpatched(request, pod, findings))
    secrets: tuple[Edit, ...] = ()
    if request.old is None:
        rewritten = [item.answer for item in findings if item.verdict is Verdict.REWRITE and item.answer]
        secrets = edit_secrets(pod, (answer.pull_secret for answer in rewritten if answer.pull_secret))
    return (*images, *secrets, *annotation, *label), notes


def _provenance(pod: Pod, old: Pod | None, findings: Sequence[Finding]) -> dict[str, Provenance]:
    seen = {item.choice.container.name for item in findings}
    names = {container.name for container in pod.containers}
    kept = parse_provenance(old.annotations) if old else {}
    entries = {name: entry for name, entry in kept.items() if name in names - seen}
    for item in findings:
        container = item.choice.container
        if item.verdict in CHANGING and item.image != item.choice.original:
            entries[container.name] = Provenance(item.choice.original, item.source_digest, item.image)
    return entries


def _unpatched(request: AdmissionRequest, pod: Pod, findings: Sequence[Finding]) -> str | None:
    """Return the label's value, or None for no label; an update that changed no image leaves what is there."""
    waiting = {item.outcome for item in findings if item.verdict is Verdict.KEEP}
    if Outcome.PENDING in waiting and not request.dry_run:
        return "pending"
    if Outcome.FAILED in waiting:
        return "failed"
    if request.old is None:
        return None
    settled = set(_provenance(pod, request.old, findings)) | {item.choice.container.name for item in findings}
    others = {container.name for container in pod.containers if not container.ephemeral} - settled
    return (pod.labels or {}).get(UNPATCHED) if others or not findings else None


def warn(findings: Sequence[Finding], notes: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the warnings that a person sees in kubectl: the notes, then one per image that is not as it should be."""
    texts = [f"{_name(item)}: {text}" for item in findings if (text := _warning(item))]
    warnings: list[str] = []
    total = 0
    for text in [*notes, *texts]:
        line = clean_text(f"admend: {text}", MAX_WARNING)
        total += len(line)
        if total > MAX_WARNINGS:
            break
        warnings.append(line)
    return tuple(warnings)


def _warning(item: Finding) -> str:
    """Return what to tell about one image; nothing where all is well, or where the denial says it."""
    if item.verdict is Verdict.DENY:
        return ""
    text = _TOLD.get(item.outcome, "") if item.outcome else ""
    if item.choice.invalid or item.choice.volume:
        text = "left as it is: {reason}"
    elif not text and item.answer is not None and item.answer.stale and item.outcome is not Outcome.UNSUPPORTED:
        text = "judged by package sources older than they should be"
    return f"{item.choice.original}: {text.format(reason=item.reason)}" if text else ""


_TOLD = {
    Outcome.PENDING: "admitted unpatched, its patch is not ready: {reason}",
    Outcome.FAILED: "admitted unpatched: {reason}",
    Outcome.BLOCKED: "newer packages exist, but none could be applied: {reason}",
}


def deny(findings: Sequence[Finding]) -> str:
    """Return why the pod is denied, each container that stands in the way with its reason; nothing if none does."""
    lines = [
        f"{_name(item)} ({item.choice.original}): {item.outcome or 'invalid'}: {item.why}"
        for item in findings
        if item.verdict is Verdict.DENY
    ]
    if not lines:
        return ""
    pending = any(item.verdict is Verdict.DENY and item.outcome is Outcome.PENDING for item in findings)
    hint = "; try again in a moment, the patch goes on in the background" if pending else ""
    return clean_text("admend admits patched images only: " + "; ".join(lines), MAX_MESSAGE - len(hint)) + hint


def annotate(findings: Sequence[Finding], mode: Mode) -> dict[str, str]:
    """Return the audit annotations: the mode, the strongest verdict, and one compact JSON object of all containers."""
    if not findings:
        return {}
    verdicts = {item.verdict for item in findings}
    entries: dict[str, dict[str, str]] = {}
    for item in findings:
        entry = {
            "verdict": item.verdict.value,
            "outcome": item.outcome.value if item.outcome else "",
            "original": item.choice.original,
            "digest": item.source_digest,
            "image": _target(item),
            "reason": clean_text(item.why, MAX_WARNING),
        }
        entries[item.choice.container.name] = {key: value for key, value in entry.items() if value}
    strongest = next(verdict for verdict in RANKS if verdict in verdicts)
    return {"mode": mode.value, "verdict": strongest.value, "containers": _bounded(entries)}


def _target(item: Finding) -> str:
    """Return the reference that a container gets, or in mode audit would get; nothing where it keeps its own."""
    if item.verdict is Verdict.WOULD_REWRITE and item.checked:
        return str(item.checked.patched)
    return item.image if item.verdict in CHANGING else ""


def _name(item: Finding) -> str:
    name = item.choice.container.name
    return name.replace("/", " ", 1) if item.choice.volume else f"container {name}"


def _bounded(entries: dict[str, dict[str, str]]) -> str:
    """Return the entries as JSON, those at the end left out (and counted under `...`) where it gets too long."""
    kept: dict[str, Any] = {}
    size = 64  # for the braces and the count
    for name, entry in entries.items():
        size += len(json.dumps({name: entry}, separators=(",", ":")))
        if size > MAX_ANNOTATION:
            kept["..."] = len(entries) - len(kept)
            break
        kept[name] = entry
    return json.dumps(kept, separators=(",", ":"))


def report(request: AdmissionRequest, pod: Pod, item: Finding, mode: Mode, now: datetime) -> AuditEvent:
    """Return the audit event of one container."""
    answer = item.answer
    patched = item.checked.patched if item.checked else None
    return AuditEvent(
        time=now,
        level=item.level,
        uid=request.uid,
        dry_run=request.dry_run,
        operation=request.operation,
        namespace=request.namespace,
        pod=pod.name,
        owner=str(pod.owner or ""),
        user=request.user,
        container=item.choice.container.name,
        original=item.choice.original,
        source_digest=item.source_digest,
        outcome=item.outcome,
        patched=str(patched or ""),
        upgrades_count=len(answer.upgrades) if answer else 0,
        upgrades=answer.upgrades[:MAX_LISTED] if answer else (),
        fixed=answer.fixed[:MAX_LISTED] if answer else (),
        skipped=answer.skipped[:MAX_LISTED] if answer else (),
        platforms=answer.platforms if answer else {},
        reason=item.why[:MAX_REASON],
        mode=mode.value,
        verdict=item.verdict.value,
        key_id=item.checked.key_id if item.checked else "",
        milliseconds=item.milliseconds,
        trace_id=TRACE_ID.get(),
    )


def clean_text(text: str, limit: int) -> str:
    """Return `text` in printable ASCII, at most `limit` characters: warnings travel in an HTTP header."""
    plain = "".join(char if " " <= char <= "~" else "?" for char in text)
    return plain if len(plain) <= limit else plain[: limit - 3] + "..."
