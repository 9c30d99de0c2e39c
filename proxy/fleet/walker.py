"""Going round: what runs is surveyed, its images are looked at ahead of need, and what comes of it is told and done.

Owns the rounds and who makes them: of several proxies the one that holds the Lease. A round that fails is logged, and
the next one comes as if it had not. Images are looked at in the background lane (`lanes`), so nobody who waits is
delayed, and as fast as `pace` allows, most pods first. Answers are kept from round to round, so that a report is whole
while a round is under way.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from collections.abc import Set as AbstractSet
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import Self

from pydantic import ValidationError

from proxy.api import Outcome, ResolveRequest, ResolveResponse
from proxy.audit import AuditLog
from proxy.config import FleetConfig
from proxy.errors import AdmendError, MalformedInput, UpstreamUnavailable
from proxy.fleet.judge import Judged, judge, report
from proxy.fleet.keeper import Keeper
from proxy.fleet.notices import Notices
from proxy.fleet.pace import Pace
from proxy.fleet.report import StatusReport
from proxy.fleet.restart import Restarts
from proxy.fleet.survey import Asker, Question, Survey, Surveyor
from proxy.kube.cluster import Cluster
from proxy.kube.events import Events
from proxy.kube.pods import list_namespaces, list_pods
from proxy.lanes import in_background
from proxy.mirror import Mirror
from proxy.oci.digest import Digest
from proxy.oci.reference import ImageRef
from proxy.trust import KeyRing

WAIT = 600.0  # seconds that one image may take
RECENT = 60.0  # seconds for which a survey is good enough to act on
LATE = 3  # rounds after which a survey says nothing of what is in use

Ask = Callable[[ResolveRequest], Awaitable[ResolveResponse]]

_log = logging.getLogger(__name__)


class Fleet:
    """Goes round while it is entered.

    Args:
        cluster: what is surveyed.
        mirror: where patched images are, and the report is kept.
        ask: resolves an image.
        keys: sign the report.
        config: how often, and what is done.
        audit: gets a line per eviction.
    """

    def __init__(
        self, cluster: Cluster, mirror: Mirror, *, ask: Ask, keys: KeyRing, config: FleetConfig, audit: AuditLog
    ) -> None:
        self._cluster, self._mirror, self._ask, self._config = cluster, mirror, ask, config
        prewarm = config.prewarm
        self._surveyor = Surveyor(mirror, cluster.config.namespaces, include=prewarm.include, exclude=prewarm.exclude)
        self._pace = Pace(prewarm.per_minute)
        self._keeper = Keeper(mirror, keys)
        self._notices = Notices(Events(cluster), repeat=config.events.repeat) if config.events.enabled else None
        self.restarts = Restarts(cluster, config.restart, audit) if config.restart.enabled else None
        self.survey = Survey()
        self.surveyed = 0.0  # when the last survey was whole, in seconds since the epoch; 0: not yet
        self.rounds = 0  # that were made to the end
        self._taken = float("-inf")  # the same, by the monotonic clock
        self._answers: dict[Question, ResolveResponse] = {}
        self._problem = ""
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self._cluster.lease)
        await self._stack.enter_async_context(_running(self._repeat()))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    @property
    def leads(self) -> bool:
        """Whether this proxy makes the rounds."""
        return self._cluster.lease.held

    async def status(self) -> StatusReport | None:
        """Return the report: this proxy's own if it leads, else the kept one; None where there is none yet."""
        if self.leads and self.surveyed:
            return self._report(self.judged())
        return await self._keeper.load()

    def judged(self) -> list[Judged]:
        """Return how every use stands, by what is known now."""
        return judge(self.survey, self._answers)

    async def in_use(self) -> AbstractSet[Digest] | None:
        """Return every digest of the mirror that a pod names; None where this proxy is not the one to say.

        Raises UpstreamUnavailable where it is, and has not seen the cluster lately.
        """
        if not self.leads:
            return None
        if time.monotonic() - self._taken > LATE * self._config.every + WAIT:
            raise UpstreamUnavailable(f"what pods run is not known: {self._problem or 'no survey yet'}")
        return frozenset(self.survey.in_use)

    async def _repeat(self) -> None:
        while True:
            await self._cluster.lease.wait_held()
            pause = self._config.every
            try:
                pause = await self.round()
                self._problem = ""
            except AdmendError as error:
                self._problem = str(error)
                _log.warning("the round over the cluster's images failed: %s", error)
            except Exception:  # noqa: BLE001 - whatever it was, it must not be the last round
                self._problem = "a mistake of admend's own, see the proxy's log"
                _log.exception("the round over the cluster's images failed")
            await asyncio.sleep(pause)

    async def round(self) -> float:
        """Make one round, while no other is made, and return after how many seconds the next one is due.

        Raises:
            UpstreamUnavailable, UpstreamRefused: the API server did not answer as it should.
        """
        await self._take_survey()
        await self._look_at_all()
        if not self.leads:
            return self._config.every
        if time.monotonic() - self._taken > RECENT:
            await self._take_survey()
        judged = self.judged()
        if self._notices is not None:
            await self._notices.tell(judged)
        left = await self.restarts.run(judged) if self.restarts is not None else 0
        try:
            await self._keeper.save(self._report(judged))
        except AdmendError as error:
            _log.warning("the report could not be kept: %s", error)
        self.rounds += 1
        return min(self._config.every, self._config.restart.cooldown) if left else self._config.every

    async def _take_survey(self) -> None:
        began = time.monotonic()
        self._surveyor.set_namespaces(await list_namespaces(self._cluster))
        found = await list_pods(self._cluster, self._surveyor.take, begin=self._surveyor.begin)
        survey = self._surveyor.survey
        survey.odd = found.odd
        self.survey, self.surveyed, self._taken = survey, time.time(), began
        wanted = survey.questions()
        self._answers = {question: answer for question, answer in self._answers.items() if question in wanted}

    async def _look_at_all(self) -> None:
        """Ask about every image, so many at a time."""
        waiting = iter(self.survey.questions().items())

        async def work() -> None:
            for question, asker in waiting:
                if not self.leads:
                    return
                try:
                    await self._look_at(question, asker)
                except (MalformedInput, ValidationError) as error:
                    _log.warning("%s: %s", question.image, error)

        await asyncio.gather(*(work() for _ in range(self._config.prewarm.concurrency)))

    async def _look_at(self, question: Question, asker: Asker) -> None:
        """Ask about one image: the caches first, then, where it is to be patched ahead of need, all that it takes."""
        request = ResolveRequest(
            image=question.image,
            platforms=question.platforms,
            dry_run=True,
            namespace=asker.namespace,
            pull_secrets=asker.pull_secrets,
            service_account=asker.service_account,
        )
        known = await self._ask(request)
        host = self._host(question.image)
        if self._config.prewarm.enabled and not self._pace.resting(host):
            if known.outcome in {Outcome.PENDING, Outcome.FAILED} or ImageRef.parse(question.image).digest is None:
                await self._pace.wait(host)
            with in_background():
                known = await self._ask(request.model_copy(update={"dry_run": False, "wait_seconds": WAIT}))
            failed = known.outcome is Outcome.FAILED and known.reason.startswith(UpstreamUnavailable.code)
            self._pace.note(host, failed=failed)
        elif known.outcome is Outcome.PENDING and question in self._answers:
            return  # what was known once says more
        self._answers[question] = known.model_copy(update={"upgrades": (), "signature": None, "phases": {}})

    def _host(self, image: str) -> str:
        ref = ImageRef.parse(image)
        return (self._mirror.original_of(ref) or ref).host

    def _report(self, judged: list[Judged]) -> StatusReport:
        questions = self.survey.questions()
        asked = sum(question in self._answers for question in questions)
        notes = self.restarts.notes if self.restarts else {}
        made = report(judged, datetime.now(UTC), notes)
        return made.model_copy(
            update={
                "by": self._cluster.lease.identity,
                "complete": asked == len(questions),
                "pods": self.survey.pods,
                "unreadable": self.survey.odd,
                "images": len(questions),
                "asked": asked,
                "problem": self._problem,
            }
        )


@asynccontextmanager
async def _running(work: Awaitable[None]) -> AsyncIterator[None]:
    task = asyncio.ensure_future(work)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
