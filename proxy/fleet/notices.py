"""What workloads are told: an Event where somebody can do something about an image.

Owns what is said and how often. A matter is one workload's container, its image and what became of it; it is said once,
and again after `repeat` seconds while it stands. So many are said in a round at the most: a new release of a base
image concerns half of a cluster at once.
"""

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from proxy.errors import AdmendError
from proxy.fleet.judge import Judged
from proxy.fleet.report import State
from proxy.kube.events import Events, Notice

MAX_ROUND = 50
MAX_REMEMBERED = 20_000

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Said:
    """How a state is told."""

    reason: str
    text: str
    kind: str = "Warning"


_TOLD = {
    State.OUTDATED: _Said("PatchedImageAvailable", "a newer patched image is there for", "Normal"),
    State.UNPATCHED: _Said("RunsUnpatchedImage", "runs without its patches:"),
    State.BLOCKED: _Said("ImagePatchBlocked", "fixes exist that cannot be applied to"),
}


class Notices:
    """Tells workloads, each matter once in a while.

    Args:
        events: writes what is said.
        repeat: seconds after which a matter that stands is said again.
        clock: seconds since the epoch.
    """

    def __init__(self, events: Events, *, repeat: float, clock: Callable[[], float] = time.time) -> None:
        self._events, self._repeat, self._clock = events, repeat, clock
        self._told: dict[tuple[str, ...], float] = {}

    async def tell(self, judged: Iterable[Judged]) -> int:
        """Say what is to be said; returns how many were. A failure is logged and ends the round."""
        said = 0
        for each in judged:
            notice, matter = self._notice(each)
            if notice is None or said >= MAX_ROUND:
                continue
            try:
                await self._events.tell(notice)
            except AdmendError as error:
                _log.warning("workloads cannot be told: %s", error)
                break
            said += 1
            self._told.pop(matter, None)
            self._told[matter] = self._clock()
            while len(self._told) > MAX_REMEMBERED:
                self._told.pop(next(iter(self._told)))
        return said

    def _notice(self, judged: Judged) -> tuple[Notice | None, tuple[str, ...]]:
        use, answer, told = judged.use, judged.answer, _TOLD.get(judged.state)
        controller = next((each.controller for each in use.instances if each.controller), None)
        if told is None or answer is None or controller is None:
            return None, ()
        became = answer.patched or answer.source
        matter = (str(use.workload), use.container, use.image, told.reason, became)
        now = self._clock()
        if now - self._told.get(matter, float("-inf")) < self._repeat:
            return None, matter
        message = f"container {use.container}: {told.text} {use.question.image} ({use.pods} pods)"
        if judged.state is State.BLOCKED:
            why = "; ".join(f"{item.package}: {item.reason}" for item in answer.skipped[:2])
            message += f": {why or answer.reason}"
        else:
            message += f": a new pod would get {answer.patched or answer.source}"
        bucket = str(int(now // self._repeat))  # in the Event's name: another proxy says it once in that time, too
        key = f"{use.container} {use.image} {became} {bucket}"
        return Notice(use.workload.namespace, controller, told.reason, message, key, kind=told.kind), matter
