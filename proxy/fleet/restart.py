"""Restarts: pods that run without a patch that is there are evicted, so that they are made again with it.

Owns which, when, and what is said of the rest. A pod is only evicted if it was made before the patched image was: one
that was made afterwards and runs without it shows that making it again is no help, so nothing goes round in circles.
Of a workload one pod at a time goes, while all its others are ready, and then none for `cooldown` seconds. Only what
a controller makes again goes: pods of Deployments, StatefulSets and DaemonSets. Disruption budgets are the API
server's to keep; every eviction is audited.
"""

import logging
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase

from proxy.api import ResolveResponse
from proxy.audit import AuditEvent, AuditLog
from proxy.config import RestartConfig
from proxy.errors import AdmendError
from proxy.fleet.judge import BEHIND, Judged
from proxy.fleet.pace import Pace
from proxy.fleet.survey import Instance, Use, Workload
from proxy.kube.cluster import Cluster
from proxy.kube.evictions import Evicted, evict

MADE_AGAIN = {("ReplicaSet", "apps/v1"), ("StatefulSet", "apps/v1"), ("DaemonSet", "apps/v1")}

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Chosen:
    """A pod to evict, and the container that it is for."""

    use: Use
    instance: Instance
    answer: ResolveResponse


class Restarts:
    """Evicts pods, a few at a time.

    Args:
        cluster: is asked for evictions.
        config: in which namespaces, how fast.
        audit: gets a line per eviction.
        clock: a monotonic clock.
    """

    def __init__(
        self, cluster: Cluster, config: RestartConfig, audit: AuditLog, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._cluster, self._config, self._audit, self._clock = cluster, config, audit, clock
        self._pace = Pace(config.per_minute, clock=clock)
        self._last: dict[Workload, float] = {}
        self.notes: dict[Workload, str] = {}
        self.counts: dict[str, int] = {each.value: 0 for each in Evicted} | {"failed": 0}

    async def run(self, judged: Iterable[Judged]) -> int:
        """Evict what is to go now; returns how many pods wait for their turn or a budget."""
        groups: dict[Workload, list[Judged]] = {}
        for each in judged:
            groups.setdefault(each.use.workload, []).append(each)
        self._last = {workload: when for workload, when in self._last.items() if workload in groups}
        self.notes, left = {}, 0
        for workload, group in groups.items():
            pods, why = self._candidates(workload, group)
            left += len(pods)
            if pods and not why:
                why = await self._evict(pods[0])
            if why:
                self.notes[workload] = why
        return left

    def _candidates(self, workload: Workload, group: list[Judged]) -> tuple[list[Chosen], str]:
        """Return the pods of a workload that should go, oldest first, and why none may now."""
        chosen = {item.instance.uid: item for each in group for item in choose(each)}
        if not chosen or not any(fnmatchcase(workload.namespace, each) for each in self._config.namespaces):
            return [], ""
        oldest = sorted(chosen.values(), key=lambda each: (each.instance.created, each.instance.name))
        pods = {pod.uid: pod for each in group for pod in each.use.instances}
        kinds = {pod.controller.kind for pod in pods.values() if pod.controller}
        if len(pods) == 1 and kinds != {"DaemonSet"} and not self._config.single_pods:
            return [], "its only pod is left running: restart.single_pods is off"
        since = self._clock() - self._last.get(workload, float("-inf"))
        if since < self._config.cooldown:
            return oldest, f"{len(oldest)} pods to go; the last one went {since:.0f} s ago"
        waiting = [pod.name for pod in pods.values() if pod.deleting or not pod.ready]
        if waiting:
            return oldest, f"{len(oldest)} pods to go; waits until {waiting[0]} is ready"
        return oldest, ""

    async def _evict(self, chosen: Chosen) -> str:
        """Evict one pod and return what is to be said about it."""
        namespace, pod = chosen.use.workload.namespace, chosen.instance
        await self._pace.wait("")
        start = time.perf_counter()
        try:
            came = await evict(self._cluster, namespace, pod.name, pod.uid, dry_run=self._config.dry_run)
        except AdmendError as error:
            self.counts["failed"] += 1
            _log.warning("%s/%s: %s", namespace, pod.name, error)
            self._write(chosen, "failed", str(error), start)
            return f"{pod.name} could not be evicted: {error}"
        self.counts[came.value] += 1
        if came is Evicted.REFUSED:
            reason = "a disruption budget does not allow it now"
            self._write(chosen, came.value, reason, start)
            return f"{pod.name} waits: {reason}"
        self._last[chosen.use.workload] = self._clock()
        verdict = f"would-be-{came.value}" if self._config.dry_run else came.value
        self._write(chosen, verdict, f"made {pod.created.isoformat()}, before its patched image was", start)
        return f"{pod.name}: {verdict} at {datetime.now(UTC).isoformat(timespec='seconds')}"

    def _write(self, chosen: Chosen, verdict: str, reason: str, start: float) -> None:
        use, answer, pod = chosen.use, chosen.answer, chosen.instance
        owner = pod.controller
        event = AuditEvent(
            event="eviction",
            time=datetime.now(UTC),
            uid=str(uuid.uuid4()),
            dry_run=self._config.dry_run,
            operation="EVICT",
            namespace=use.workload.namespace,
            pod=pod.name,
            owner=f"{owner.kind}/{owner.name}" if owner else "",
            container=use.container,
            original=use.question.image,
            source_digest=answer.source.partition("@")[2],
            outcome=answer.outcome,
            patched=answer.patched,
            reason=reason,
            mode="restart",
            verdict=verdict,
            milliseconds=1000 * (time.perf_counter() - start),
        )
        self._audit.write(event)


def choose(judged: Judged) -> list[Chosen]:
    """Return the pods of one use that are better made again."""
    use, answer = judged.use, judged.answer
    if judged.state not in BEHIND or answer is None or answer.made is None or answer.hold or use.audit:
        return []
    return [
        Chosen(use, pod, answer)
        for pod in use.instances
        if pod.may_restart
        and not pod.deleting
        and pod.created < answer.made
        and pod.controller is not None
        and (pod.controller.kind, pod.controller.api_version) in MADE_AGAIN
    ]
