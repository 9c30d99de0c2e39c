"""How workloads stand: what runs, beside what the proxy answers for it now.

Owns the judgement of one use and the making of the report. Pure.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from proxy.api import MOVED, Outcome, ResolveResponse, make_printable
from proxy.fleet.report import MAX_NAMED, ORDER, ContainerStatus, State, StatusReport, WorkloadStatus
from proxy.fleet.survey import Question, Survey, Use, Workload
from proxy.oci.reference import ImageRef

MAX_REASON = 300  # characters
MAX_WORKLOADS = 5000

_PLAIN = {
    Outcome.BLOCKED: State.BLOCKED,
    Outcome.UNSUPPORTED: State.UNSUPPORTED,
    Outcome.PENDING: State.UNKNOWN,
    Outcome.FAILED: State.UNKNOWN,
}

BEHIND = frozenset({State.OUTDATED, State.UNPATCHED})

Answers = Mapping[Question, ResolveResponse]


@dataclass(frozen=True, slots=True)
class Judged:
    """A use and how it stands."""

    use: Use
    state: State
    answer: ResolveResponse | None = None


def judge(survey: Survey, answers: Answers) -> list[Judged]:
    """Return how every use stands."""
    return [_judge(use, answers.get(use.question)) for use in survey.uses.values()]


def _judge(use: Use, answer: ResolveResponse | None) -> Judged:
    if use.left:
        return Judged(use, State.EXCLUDED)
    if answer is None:
        return Judged(use, State.UNKNOWN)
    if answer.outcome is Outcome.PATCHED:
        return Judged(use, _behind(use, answer), answer)
    if answer.outcome is Outcome.CLEAN:
        # A patched image runs, and the original has nothing to fix by now: its tag names a newer original.
        return Judged(use, State.CLEAN if use.patched is None else State.OUTDATED, answer)
    return Judged(use, _PLAIN[answer.outcome], answer)


def _behind(use: Use, answer: ResolveResponse) -> State:
    """Return how a use stands whose image has a patched one.

    A pod that names the original may run the patched image all the same, where nodes pull through the proxy.
    """
    newest = ImageRef.parse(answer.patched).digest
    if newest == use.patched or (use.patched is None and use.running == str(newest)):
        return State.CURRENT
    original = not use.running or use.running == answer.source.partition("@")[2]
    return State.UNPATCHED if use.patched is None and original else State.OUTDATED


def report(judged: Iterable[Judged], now: datetime, restarts: Mapping[Workload, str]) -> StatusReport:
    """Return the report's workloads and sums; the worst, and of these the longest exposed, come first."""
    groups: dict[Workload, list[Judged]] = {}
    states: dict[State, int] = dict.fromkeys(State, 0)
    for each in judged:
        groups.setdefault(each.use.workload, []).append(each)
        states[each.state] += each.use.pods
    workloads = [_workload(workload, group, now, restarts.get(workload, "")) for workload, group in groups.items()]
    workloads.sort(key=_urgency)
    kept = workloads[:MAX_WORKLOADS]
    return StatusReport(time=now, workloads=tuple(kept), left_out=len(workloads) - len(kept), states=states)


def _urgency(status: WorkloadStatus) -> tuple[int, float, str, str, str]:
    exposed = max((each.exposed_seconds or 0.0 for each in status.containers), default=0.0)
    return -ORDER[status.state], -exposed, status.namespace, status.kind, status.name


def _workload(workload: Workload, group: list[Judged], now: datetime, restart: str) -> WorkloadStatus:
    containers = tuple(sorted((_container(each, now) for each in group), key=lambda each: (each.container, each.runs)))
    return WorkloadStatus(
        namespace=workload.namespace,
        kind=workload.kind,
        name=workload.name,
        state=max((each.state for each in containers), key=lambda state: ORDER[state]),
        pods=max(_pods_by_container(containers).values()),
        containers=containers,
        restart=restart,
    )


def _pods_by_container(containers: Iterable[ContainerStatus]) -> dict[str, int]:
    counted: dict[str, int] = {}
    for each in containers:
        counted[each.container] = counted.get(each.container, 0) + each.pods
    return counted


def _container(judged: Judged, now: datetime) -> ContainerStatus:
    use, answer = judged.use, judged.answer
    published = answer.published if answer else None
    running = max((each.created for each in use.instances), default=None) if judged.state is State.CURRENT else None
    exposed = judged.state in BEHIND and published is not None
    return ContainerStatus(
        container=use.container,
        image=use.question.image,
        runs=use.image,
        state=judged.state,
        pods=use.pods,
        patched=answer.patched if answer else "",
        published=published,
        made=answer.made if answer else None,
        running=running,
        delay_seconds=_seconds(published, running),
        exposed_seconds=_seconds(published, now) if exposed else None,
        fixed=len(answer.fixed) if answer else 0,
        blockers=_blockers(answer) if answer else (),
        reason=_shorten(use.left or _reason(judged)),
    )


def _seconds(begin: datetime | None, end: datetime | None) -> float | None:
    return None if begin is None or end is None else max(0.0, (end - begin).total_seconds())


def _reason(judged: Judged) -> str:
    answer = judged.answer
    if answer is None:
        return "not looked at yet"
    if judged.state in BEHIND and answer.hold:
        return f"held: {answer.hold}"
    if judged.state is State.OUTDATED and answer.outcome is Outcome.CLEAN:
        return "the tag names a newer original, which has nothing to fix"
    if judged.state is State.UNPATCHED and judged.use.audit:
        return "the namespace is in mode audit"
    return answer.reason


def _blockers(answer: ResolveResponse) -> tuple[str, ...]:
    held = [item for item in answer.skipped if not item.reason.startswith(MOVED)]
    named = [_shorten(f"{item.package}: {item.reason}" if item.package else item.reason) for item in held[:MAX_NAMED]]
    more = len(held) - len(named)
    return (*named, f"and {more} more") if more else tuple(named)


def _shorten(text: str) -> str:
    plain = make_printable(text)
    return plain if len(plain) <= MAX_REASON else f"{plain[: MAX_REASON - 3]}..."
