"""One admission, from the request to the decision.

Owns the order of things: select, resolve, check, decide, edit, tell. Knows no HTTP. Whatever the proxy does, `admit`
returns within the request's own time.
"""

import asyncio
import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from certs.traces import child_span, tell_image
from proxy.api import Outcome, ResolveRequest, ResolveResponse
from proxy.audit import AuditLog
from proxy.errors import AdmendError, TrustFailure, Unsupported
from proxy.placement import platforms_of
from webhook.answer import Checked, FollowedTrust, Trust, check_answer
from webhook.config import Mode, WebhookConfig
from webhook.finding import Finding, Level, annotate, deny, edit_pod, report, warn
from webhook.pod import Edit, Pod
from webhook.policy import Choice, decide, find_notes, is_untouchable, select
from webhook.resolver import Accept, Resolver, failed
from webhook.review import AdmissionRequest, Decision
from webhook.stance import Stance, take_stance
from webhook.verdict import Verdict

MAX_IMAGES = 128  # distinct images of one pod that are resolved
MAX_TIMEOUT = 30.0  # seconds, the most that the API server waits for a webhook
DEFAULT_TIMEOUT = 10.0  # seconds, the API server's own default

log = logging.getLogger(__name__)

_DURATION = re.compile(r"(?:\d{1,9}(?:\.\d{0,9})?(?:h|ms|m|s|us|\u00b5s|ns))+")
_PART = re.compile(r"(\d+(?:\.\d*)?)(h|ms|m|s|us|\u00b5s|ns)")
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "\u00b5s": 1e-6, "ns": 1e-9}

Answers = Mapping[str, tuple[ResolveResponse, float]]  # by what was asked; with milliseconds


def parse_timeout(text: str | None) -> float:
    """Return the seconds of a `?timeout=` as Go writes durations (`10s`, `1m30s`); its default where it is none."""
    if not text or _DURATION.fullmatch(text) is None:
        return DEFAULT_TIMEOUT
    return min(MAX_TIMEOUT, sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(text)))


class Admitter:
    """Decides about pods.

    Args:
        config: the webhook's configuration.
        resolver: turns an image into an outcome.
        trust: what signatures are held against.
        log: takes the audit events.
        now: the present, with a time zone.
    """

    def __init__(
        self,
        config: WebhookConfig,
        resolver: Resolver,
        trust: Trust | FollowedTrust,
        log: AuditLog,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._config, self._resolver, self._trust, self._log, self._now = config, resolver, trust, log, now

    async def admit(self, request: AdmissionRequest, seconds: float, mode: Mode | None = None) -> Decision:
        """Return the decision on one request, within `seconds` less the margin, and log what happened.

        `mode` is that of the request's path; None takes the configuration's.

        1. Images are selected; a pod of which none is costs nothing.
        2. Each distinct image is resolved once, all at the same time.
        3. Each answer is checked against the pod, then judged, in view of what keeps the whole pod from being changed.
        4. One denied container denies the pod.
        5. The pod is edited, unless it is to be left alone.
        6. What happened is told: to the log, to the API server's audit log, to the person at the keyboard.
        """
        pod, config = request.pod, self._config
        mode = mode or config.mode
        if pod is None:
            return Decision()
        deadline = time.monotonic() + max(seconds / 2, seconds - config.margin)
        choices = select(pod, request.old, config.selection, self._trust.current.naming, mode)  # (1)
        answers = await self._resolve_all(request, pod, choices, mode, deadline)  # (2)
        hold = next((answer.hold for answer, _ in answers.values() if answer.hold), "")
        stance = take_stance(pod, hold, mode, config.selection, config.enforce)
        secrets = None if request.old is None else frozenset(pod.pull_secrets)
        case = _Case(mode, stance, self._now(), request.dry_run, secrets)
        findings = [self._judge(choice, answers, case) for choice in choices]  # (3)
        message = deny(findings)
        if message:  # (4)
            findings = [_deny_too(item) for item in findings]
        edits: tuple[Edit, ...] = ()
        notes = (*stance.notes, *find_notes(pod, request.old, config.selection, mode))
        if not message and not stance.frozen and not is_untouchable(pod):  # (5)
            edits, full = edit_pod(request, pod, findings)
            notes = (*notes, *full)
        events = tuple(report(request, pod, item, mode, case.now) for item in findings)  # (6)
        for event in events:
            self._log.write(event)
        return Decision(
            allowed=not message,
            message=message,
            edits=edits,
            warnings=warn(findings, notes) if mode is not Mode.AUDIT else (),
            audit_annotations=annotate(findings, mode),
            events=events,
        )

    async def _resolve_all(
        self, request: AdmissionRequest, pod: Pod, choices: Sequence[Choice], mode: Mode, deadline: float
    ) -> Answers:
        """Ask for each distinct image; what is not answered by `deadline` has failed."""
        always: dict[str, bool] = {}
        for choice in choices:
            if choice.reference is not None:
                always[choice.ask] = always.get(choice.ask, False) or choice.container.pull_policy == "Always"
        questions = {
            ask: ResolveRequest(
                image=ask,
                platforms=platforms_of(pod.architectures),
                dry_run=request.dry_run,
                always=fresh,
                namespace=pod.namespace,
                pull_secrets=pod.pull_secrets,
                service_account=pod.service_account,
                audit=mode is Mode.AUDIT,
            )
            for ask, fresh in always.items()
        }
        start = time.perf_counter()
        tasks = {
            ask: asyncio.create_task(_timed(self._resolver, question, deadline, self._accept(ask, choices)))
            for ask, question in list(questions.items())[:MAX_IMAGES]
        }
        try:
            if tasks:
                await asyncio.wait(tasks.values(), timeout=max(0.0, deadline - time.monotonic()))
        finally:
            for task in tasks.values():
                task.cancel()
        late = 1000 * (time.perf_counter() - start)
        return {ask: _collect(question, tasks.get(ask), late) for ask, question in questions.items()}

    def _accept(self, ask: str, choices: Sequence[Choice]) -> Accept:
        """Return the check that an answer about `ask` holds for all containers that it is for."""
        references = {choice.reference for choice in choices if choice.reference is not None and choice.ask == ask}

        def accept(answer: ResolveResponse) -> None:
            for reference in references:
                check_answer(answer, reference, self._trust.current, self._now())

        return accept

    def _judge(self, choice: Choice, answers: Answers, case: "_Case") -> Finding:
        """Return what the answer for one container comes to."""
        container = choice.container
        if choice.reference is None:
            verdict = self._decide(Outcome.FAILED, choice, case) if choice.invalid else Verdict.KEEP
            verdict = case.stance.apply(verdict, changes=verdict is Verdict.DENY)
            return Finding(choice, verdict, container.image, None, choice.reason, level=_level(Outcome.FAILED, choice))
        answer, milliseconds = answers[choice.ask]
        level: Level = _level(answer.outcome, choice)
        try:
            checked = check_answer(answer, choice.reference, self._trust.current, case.now)
            verdict = self._decide(answer.outcome, choice, case)
            if verdict is Verdict.REWRITE:
                case.check_pull_secret(answer.pull_secret)
            if verdict is Verdict.PIN and checked.source is None:
                raise TrustFailure("the proxy's answer names no digest that the image could be pinned to")
        except AdmendError as error:
            answer, checked, level = failed(choice.ask, f"{error.code}: {error}"), Checked(None), "error"
            verdict = self._decide(Outcome.FAILED, choice, case)
        image = container.image
        if verdict is Verdict.REWRITE:
            image = str(checked.patched)
        elif verdict is Verdict.PIN and (choice.mapped or choice.reference.digest is None):
            image = str(checked.source)
        stance = case.stance
        settled = stance.apply(verdict, changes=image != container.image or verdict is Verdict.DENY)
        if settled is not verdict:
            image, level = container.image, "warning" if stance.held and level == "info" else level
        reason = answer.reason or _first_reason(answer)
        told = stance.reason
        return Finding(choice, settled, image, answer.outcome, reason, answer, checked, level, milliseconds, told)

    def _decide(self, outcome: Outcome, choice: Choice, case: "_Case") -> Verdict:
        config = self._config
        return decide(
            outcome, case.mode, config.enforce, mapped=choice.mapped, dry_run=case.dry_run, pinned=config.pinned
        )


@dataclass(frozen=True, slots=True)
class _Case:
    """What is the same for all containers of one admission."""

    mode: Mode
    stance: Stance
    now: datetime
    dry_run: bool
    secrets: frozenset[str] | None  # the pull secrets of a pod that is there already, which never change

    def check_pull_secret(self, name: str) -> None:
        """Raise Unsupported where the pod neither has the pull secret that an image needs nor can be given it."""
        if self.secrets is None or name in {"", *self.secrets}:
            return
        what = f"the pod lacks the pull secret {name}, and a pod that is there is given no further ones"
        raise Unsupported(f"{what}; make the pod anew")


async def _timed(
    resolver: Resolver, question: ResolveRequest, deadline: float, accept: Accept
) -> tuple[ResolveResponse, float]:
    start = time.perf_counter()
    with child_span("resolve", "client") as span:
        answer = await resolver.resolve(question, deadline, accept)
        tell_image(span, question.image, answer.outcome, answer.reason)
    return answer, 1000 * (time.perf_counter() - start)


def _collect(
    question: ResolveRequest, task: asyncio.Task[tuple[ResolveResponse, float]] | None, late: float
) -> tuple[ResolveResponse, float]:
    if task is None:
        return failed(
            question.image, f"the pod has more than {MAX_IMAGES} distinct images; the others are not looked at"
        ), 0.0
    if not task.done() or task.cancelled():
        return failed(question.image, f"no answer within {late / 1000:.1f} s"), late
    if error := task.exception():
        log.error("a resolver raised, which it must not", exc_info=error)
        return failed(question.image, f"internal: {type(error).__name__}"), late
    return task.result()


def _deny_too(item: Finding) -> Finding:
    """Return the finding of a container whose pod is denied, maybe because of another one."""
    if item.verdict is Verdict.DENY:
        return item
    reason = f"the pod is denied because of another container; {item.reason}".removesuffix("; ")
    return replace(item, verdict=Verdict.DENY, image=item.choice.container.image, reason=reason)


def _level(outcome: Outcome, choice: Choice) -> Level:
    if choice.reference is None:
        return "warning" if choice.invalid else "info"
    return "warning" if outcome is Outcome.FAILED else "info"


def _first_reason(answer: ResolveResponse) -> str:
    """Return the reason of the first package that could not move, for an image of which none did."""
    if answer.outcome is not Outcome.BLOCKED or not answer.skipped:
        return ""
    first = answer.skipped[0]
    more = f" (and {len(answer.skipped) - 1} more)" if len(answer.skipped) > 1 else ""
    return f"{first.package}: {first.reason}{more}"
