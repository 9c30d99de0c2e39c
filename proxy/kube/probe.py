"""Whether the cluster's nodes are known to reach the mirror: the probe DaemonSet runs the canary on each of them.

Owns the judgement over that DaemonSet and how long it holds. A node counts once its container has started from the
mirror's reference that the DaemonSet names now, ready or not: a node that went away afterwards has shown that it could
pull. The proof is a latch: nodes that join (or a new canary) may take `grace` before it is lost. While the API server
does not answer, its last word stands; before the first word nothing is proven. Changes nothing in the cluster.
Specification: https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/daemon-set-v1/#DaemonSetStatus
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

from proxy.api import make_printable
from proxy.config import ProbeConfig
from proxy.errors import AdmendError, UpstreamRefused
from proxy.kube.cluster import Cluster

FIRST = 5.0  # seconds that a start waits for the first look
PAGE = 250  # pods of one answer
MAX_NAMED = 3  # nodes that the reason names
MAX_ERROR = 160  # characters of what a node says
NOT_FOUND = 404

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Lacking:
    """A node without proof (or a pod without a node), and what it says about it."""

    node: str
    error: str


@dataclass(frozen=True, slots=True)
class Sight:
    """What one look at the DaemonSet came to; `problem` is why there is nothing to see."""

    pulled: int = 0
    nodes: int = 0
    lacking: tuple[Lacking, ...] = ()
    problem: str = ""

    @property
    def complete(self) -> bool:
        """Whether every node has pulled."""
        return not self.problem and 0 < self.nodes <= self.pulled

    def describe(self) -> str:
        """Return what is missing, in a line."""
        if self.problem:
            return self.problem
        if not self.nodes:
            return "the probe runs on no node yet"
        named = "; ".join(f"{item.node}: {item.error}" for item in self.lacking[:MAX_NAMED])
        more = len(self.lacking) - MAX_NAMED
        said = f" ({named}{f'; and {more} more' if more > 0 else ''})" if named else ""
        return f"{self.pulled} of {self.nodes} nodes have pulled the canary from the mirror{said}"


class Probe:
    """Watches the probe DaemonSet from its start to its end.

    Args:
        cluster: the way to the API server.
        config: which DaemonSet, how often it is looked at, how long nodes may take.
        canary: says why the canary is not in the mirror, or nothing.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        cluster: Cluster,
        config: ProbeConfig,
        *,
        canary: Callable[[], str] = lambda: "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cluster, self._config, self._canary, self._clock = cluster, config, canary, clock
        self._sight = Sight(problem="the probe has not been looked at yet")
        self._seen = False
        self._proven = False
        self._doubted: float | None = None  # since when a proof that holds lacks a node
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FIRST):
                await self.look()
        self._task = asyncio.create_task(self._repeat())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    @property
    def proven(self) -> bool:
        """Whether nodes are known to reach the mirror."""
        return self._proven

    def hold(self) -> str:
        """Return why nothing should be rewritten to the mirror, and what to do; nothing while it is proven."""
        if self._proven:
            return ""
        name = f"{self._cluster.config.namespace}/{self._config.daemonset}"
        problem = self._canary()
        why = f"the canary is not in the mirror ({problem}); " if problem else ""
        return (
            f"{why}{self._sight.describe()}; let the nodes reach the mirror, see docs/nodes.md and the pods of the "
            f"DaemonSet {name}"
        )

    async def look(self) -> None:
        """Look at the DaemonSet once; errors are told, and leave the last word standing."""
        try:
            sight = await self._examine()
        except UpstreamRefused as error:
            if error.status != NOT_FOUND:
                self._keep_word(error)
                return
            sight = Sight(problem=f"there is no DaemonSet {self._config.daemonset} to prove it: {error}")
        except (AdmendError, AttributeError, TypeError, ValueError) as error:  # or an answer that is not as they are
            self._keep_word(error)
            return
        self._sight, self._seen = sight, True
        self._judge(sight)

    def _keep_word(self, error: Exception) -> None:
        _log.warning("the probe cannot be looked at, its last word stands: %s", error)
        if not self._seen:
            self._sight = Sight(problem=f"whether nodes reach the mirror is not known: {error}")

    def _judge(self, sight: Sight) -> None:
        now, before = self._clock(), self._proven
        if sight.complete:
            self._proven, self._doubted = True, None
        elif self._proven:
            self._doubted = now if self._doubted is None else self._doubted
            if now - self._doubted >= self._config.grace:
                self._proven, self._doubted = False, None
        if self._proven and not before:
            _log.info("all %d nodes have pulled from the mirror: pods may be rewritten", sight.nodes)
        elif before and not self._proven:
            _log.warning("pods are not rewritten any more: %s", self.hold())

    async def _repeat(self) -> None:
        while True:
            await asyncio.sleep(self._config.every)
            await self.look()

    async def _examine(self) -> Sight:
        """Return what the DaemonSet says; its pods are asked only where its numbers do not prove every node."""
        ask, namespace = self._cluster.ask, self._cluster.config.namespace
        apps, core = self._cluster.apps, self._cluster.core
        name = self._config.daemonset
        found: Any = await ask(f"read the DaemonSet {name}", apps.read_namespaced_daemon_set, name, namespace)
        status = found.status
        wanted = status.desired_number_scheduled or 0
        current = (status.observed_generation or 0) >= (found.metadata.generation or 0)
        if current and 0 < wanted == (status.number_ready or 0) == (status.updated_number_scheduled or 0):
            return Sight(wanted, wanted)
        images = {item.image for item in found.spec.template.spec.containers}
        selector = ",".join(f"{key}={value}" for key, value in sorted((found.spec.selector.match_labels or {}).items()))
        pulled, lacking, after = set(), [], None
        while True:
            page: Any = await ask(
                "list the probe's pods",
                core.list_namespaced_pod,
                namespace,
                label_selector=selector,
                limit=PAGE,
                **({"_continue": after} if after else {}),
            )
            for pod in page.items:
                if _has_pulled(pod, images):
                    pulled.add(pod.spec.node_name)
                elif pod.metadata.deletion_timestamp is None:
                    lacking.append(_describe(pod))
            after = page.metadata._continue  # noqa: SLF001 - the name that the client gives the field
            if not after:
                break
        if not current:
            return Sight(problem="the cluster has not taken up the newest probe yet")
        missing = tuple(item for item in lacking if item.node not in pulled)
        return Sight(len(pulled), wanted, missing)


def _has_pulled(pod: Any, images: set[str]) -> bool:
    """Say whether a probe pod of the present canary has started on its node, which needs the image to be there."""
    if not pod.spec.node_name or {item.image for item in pod.spec.containers} != images:
        return False
    statuses = (pod.status.container_statuses if pod.status else None) or []
    started = [item for item in statuses if item.state and (item.state.running or item.state.terminated)]
    return bool(statuses) and len(started) == len(pod.spec.containers)


def _describe(pod: Any) -> Lacking:
    """Return what a pod that has not started says: of its containers first, then of itself."""
    node = pod.spec.node_name or f"pod {pod.metadata.name}"
    status = pod.status
    for item in (status.container_statuses if status else None) or []:
        waiting = item.state.waiting if item.state else None
        if waiting and waiting.reason:
            return Lacking(node, _short(f"{waiting.reason}: {waiting.message}" if waiting.message else waiting.reason))
    for condition in (status.conditions if status else None) or []:
        if condition.status == "False" and condition.message:
            return Lacking(node, _short(f"{condition.reason or condition.type}: {condition.message}"))
    return Lacking(node, "not started yet")


def _short(text: str) -> str:
    plain = make_printable(text)
    return plain if len(plain) <= MAX_ERROR else f"{plain[: MAX_ERROR - 3]}..."
