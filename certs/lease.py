"""One of several: leader election over a Lease (coordination.k8s.io/v1).

Owns who of several processes does what only one should do. It follows client-go's rules: a Lease counts as given up
when it was not seen to change for its own duration, measured on one's own monotonic clock, so clocks that differ do
no harm; a write names the resourceVersion that was read, so of two that try one wins. A holder that could not renew
for two thirds of the duration holds no more, before anybody else may.

https://kubernetes.io/docs/concepts/architecture/leases/
https://github.com/kubernetes/client-go/blob/v0.34.0/tools/leaderelection/leaderelection.go
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Self

from certs.connection import CONFLICT, NOT_FOUND, Refused, call

DURATION = 15.0  # seconds, client-go's default
HELD_SHARE = 2 / 3  # of the duration: how long a renewal counts for its holder
RETRY_SHARE = 2 / 15  # of the duration: the pause between two tries

log = logging.getLogger(__name__)


class Lease:
    """Tries to hold a Lease while it is entered, and gives it up at the end.

    Args:
        api: a kubernetes CoordinationV1Api.
        namespace: where the Lease is.
        name: its name; it is made where it is missing.
        identity: names this process, differently from every other.
        seconds: after how long without a sign of life others may take it; whole seconds.
        clock: a monotonic clock.
    """

    def __init__(
        self,
        api: Any,
        namespace: str,
        name: str,
        identity: str,
        *,
        seconds: float = DURATION,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api, self._namespace, self._name, self.identity = api, namespace, name, identity
        self._seconds, self._clock = max(1, round(seconds)), clock
        self._until = float("-inf")  # how long the last renewal counts
        self._seen: tuple[str | None, float] = (None, float("-inf"))  # the last version of another's, and when
        self._trouble = ""
        self._change = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def __str__(self) -> str:
        return f"Lease {self._namespace}/{self._name}"

    @property
    def held(self) -> bool:
        """Whether this process is the one, now."""
        return self._clock() < self._until

    async def wait_held(self) -> None:
        """Return when this process is the one."""
        while not self.held:
            self._change.clear()
            await self._change.wait()

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._repeat())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self.held:
            self._until = float("-inf")
            with contextlib.suppress(Refused):  # it runs out by itself
                await asyncio.to_thread(self._give_up)

    async def _repeat(self) -> None:
        while True:
            before = self.held
            await asyncio.to_thread(self.attempt)
            if self.held != before:
                log.info("%s is %s", self, f"held by this process ({self.identity})" if self.held else "lost")
            if self.held:
                self._change.set()
            await asyncio.sleep(self._seconds * RETRY_SHARE)

    def attempt(self) -> bool:
        """Take or renew the Lease once, if that may be; blocks. Says whether it is held; never raises."""
        start = self._clock()
        try:
            won = self._take(start)
        except Refused as refused:
            if str(refused) != self._trouble:
                log.warning("%s cannot be kept: %s", self, refused)
            self._trouble = str(refused)
            return self.held
        self._trouble = ""
        self._until = start + self._seconds * HELD_SHARE if won else float("-inf")
        return won

    def _take(self, now: float) -> bool:
        try:
            found = call(self._api.read_namespaced_lease, self._name, self._namespace)
        except Refused as refused:
            if refused.status != NOT_FOUND:
                raise
            return self._write(None, self._spec(None))
        spec, version = found.spec, found.metadata.resource_version
        holder = (spec.holder_identity or "") if spec else ""
        if holder and holder != self.identity:
            if self._seen[0] != version:
                self._seen = (version, now)
            if now < self._seen[1] + (spec.lease_duration_seconds or self._seconds):
                return False
        return self._write(found, self._spec(spec))

    def _spec(self, before: Any | None) -> dict[str, object]:
        """Return what the Lease is to say."""
        now = _with_microseconds(datetime.now(UTC))
        if before is None:
            since, transitions = now, 0
        elif before.holder_identity == self.identity and before.acquire_time:
            since, transitions = _with_microseconds(before.acquire_time), before.lease_transitions or 0
        else:
            since, transitions = now, (before.lease_transitions or 0) + 1
        return {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": self._seconds,
            "acquireTime": since,
            "renewTime": now,
            "leaseTransitions": transitions,
        }

    def _write(self, found: Any | None, spec: dict[str, object]) -> bool:
        """Write the Lease; False when somebody else was faster."""
        metadata = {"name": self._name, "namespace": self._namespace}
        if found is not None:
            metadata |= {"resourceVersion": found.metadata.resource_version}
        body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}
        try:
            if found is None:
                call(self._api.create_namespaced_lease, self._namespace, body)
            else:
                call(self._api.replace_namespaced_lease, self._name, self._namespace, body)
        except Refused as refused:
            if refused.status == CONFLICT:
                return False
            raise
        return True

    def _give_up(self) -> None:
        found = call(self._api.read_namespaced_lease, self._name, self._namespace)
        if found.spec and found.spec.holder_identity == self.identity:
            self._write(found, {**self._spec(found.spec), "holderIdentity": "", "leaseDurationSeconds": 1})


def _with_microseconds(moment: datetime) -> datetime:
    """Return a time whose text has a fraction: the client leaves one of zero out, and the API server wants it."""
    return moment.replace(microsecond=moment.microsecond or 1)
