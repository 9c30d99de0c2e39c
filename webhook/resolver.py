"""The way to the proxy: one question, one answer, whatever happens on the way.

Owns the `Resolver` protocol, and when which replica is asked (`channel` asks it):

1. The first in the order of `replicas` is asked; each failure goes on to the next. One that broke off its answer is
   asked once more, last: behind one address there may be several, or one that starts again.
2. One that took the question and is silent for `HEDGE_SHARE` of the time is not waited for alone: the next is asked
   what it already knows (a dry run, which starts no second patch). What is settled there is the answer.
3. An answer that may not be used (`accept` says so) is kept for want of a better one, and the next replica is asked:
   its key may be an old one, or its clock wrong.
4. When the time is over, a `pending` of the second is better than nothing.

Every failure becomes the outcome `failed` with a reason: the webhook answers the API server in any case.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from proxy.api import Outcome, ResolveRequest, ResolveResponse
from proxy.errors import AdmendError, MalformedInput, UpstreamRefused, UpstreamUnavailable
from webhook.channel import Channel
from webhook.config import ProxyClientConfig
from webhook.replicas import Lookup, Replica, Replicas, look_up

GRACE = 0.05  # seconds of the deadline that are kept to answer in
HEDGE_SHARE = 0.3  # of the time


_RESULTS = {UpstreamRefused: "refused", MalformedInput: "malformed"}

Ask = Callable[[Replica, ResolveRequest, float], Coroutine[Any, Any, ResolveResponse]]


Accept = Callable[[ResolveResponse], object]


def accept_all(_: ResolveResponse) -> None:
    """Accept any answer."""


class Resolver(Protocol):
    """Whatever turns an image into an outcome."""

    async def resolve(self, request: ResolveRequest, deadline: float, accept: Accept = accept_all) -> ResolveResponse:
        """Answer by `deadline` (of `time.monotonic()`); never raises but for cancellation.

        `accept` raises TrustFailure for an answer that may not be used; a better one is looked for then.
        """
        ...


def failed(image: str, reason: str) -> ResolveResponse:
    """Return the answer `failed`."""
    return ResolveResponse(outcome=Outcome.FAILED, image=image, reason=reason)


class ProxyResolver:
    """Asks the proxy.

    Args:
        config: where the replicas are, and who asks.
        lookup: turns a host name into addresses.
    """

    def __init__(self, config: ProxyClientConfig, *, lookup: Lookup = look_up) -> None:
        self._channel = Channel(config)
        self._replicas = Replicas(config.urls, lookup=lookup)
        self.results = Counter[str]()  # requests to proxies by what became of them

    async def close(self) -> None:
        """Close all connections."""
        await self._replicas.close()
        await self._channel.close()

    async def resolve(self, request: ResolveRequest, deadline: float, accept: Accept = accept_all) -> ResolveResponse:
        """Ask one proxy after the other until one answers; see `Resolver`."""
        ask, end = self._channel.ask, deadline - GRACE
        round_ = _Round(self._replicas, ask, request, end, results=self.results, accept=accept)
        try:
            return await round_.run()
        finally:
            await round_.close()


class _Round:
    """One question, and the replicas that are asked it."""

    def __init__(
        self,
        replicas: Replicas,
        ask: Ask,
        request: ResolveRequest,
        end: float,
        *,
        results: Counter[str],
        accept: Accept,
    ) -> None:
        self._replicas, self._ask, self._request, self._end = replicas, ask, request, end
        self._results, self._accept = results, accept
        self._running: dict[asyncio.Task[ResolveResponse], tuple[Replica, bool]] = {}  # and whether it is a hedge
        self._left: deque[Replica] = deque()  # those still to be asked
        self._again: list[Replica] = []  # those that broke off once
        self._reasons: list[str] = []
        self._pending: ResolveResponse | None = None
        self._refused: ResolveResponse | None = None  # an answer that may not be used

    async def run(self) -> ResolveResponse:
        """Return the first answer that holds, or at the end what is known."""
        begin = time.monotonic()
        left = self._left
        left.extend(await self._replicas.order(self._request.image))
        hedge_at = begin + HEDGE_SHARE * (self._end - begin)
        while True:
            now = time.monotonic()
            if now >= self._end:
                break
            if not any(not hedge for _, hedge in self._running.values()):
                if not left:
                    break
                self._start(left.popleft(), hedge=False)
            elif now >= hedge_at and left:
                hedge_at = self._end
                self._start(left[0], hedge=True)
            until = min(hedge_at, self._end) if left else self._end
            done, _ = await asyncio.wait(
                self._running, timeout=max(0.0, until - now), return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                answer = self._collect(task)
                if answer is not None:
                    return answer
        return self._give_up(time.monotonic() - begin)

    def _start(self, replica: Replica, *, hedge: bool) -> None:
        # A tag that must be asked anew is not answered from a cache: there the hedge is a question like the first.
        dry_run = self._request.dry_run or (hedge and not self._request.always)
        question = self._request.model_copy(update={"dry_run": dry_run})
        end = self._replicas.begin(replica, self._request.image, work=not question.dry_run)
        task = asyncio.create_task(self._ask(replica, question, self._end - time.monotonic()))
        task.add_done_callback(lambda _: end())
        self._running[task] = (replica, hedge)

    def _collect(self, task: asyncio.Task[ResolveResponse]) -> ResolveResponse | None:
        """Return the answer of a task that ended, if it may be used as it is."""
        replica, hedge = self._running.pop(task)
        try:
            answer = task.result()
        except (AdmendError, OSError) as error:
            self._fail(replica, str(error))
            self._results[_RESULTS.get(type(error), "unavailable")] += 1
            if isinstance(error, UpstreamUnavailable) and error.retry_after is not None and replica not in self._again:
                self._again.append(replica)
                self._left.append(replica)
        else:
            self._results["answered"] += 1
            self._replicas.succeeded(replica)
            try:
                self._accept(answer)
            except AdmendError as error:
                self._reasons.append(f"{replica.url}: {error}")
                self._refused = answer
                return None
            if not hedge or answer.outcome not in {Outcome.PENDING, Outcome.FAILED}:
                return answer
            self._pending = answer if answer.outcome is Outcome.PENDING else self._pending
        return None

    def _fail(self, replica: Replica, reason: str) -> None:
        self._replicas.failed(replica)
        self._reasons.append(f"{replica.url}: {reason}")

    def _give_up(self, seconds: float) -> ResolveResponse:
        for replica, _ in self._running.values():
            self._fail(replica, f"no answer within {seconds:.1f} s")
            self._results["late"] += 1
        text = "the proxy gave no answer: " + "; ".join(self._reasons)
        if self._pending is not None:
            return self._pending.model_copy(update={"reason": text})
        if self._refused is not None:
            return self._refused  # who asks finds the same fault with it
        return failed(self._request.image, text)

    async def close(self) -> None:
        """End what is still under way."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
