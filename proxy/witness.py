"""Whether the mirror has a patched image, by its own word of a moment ago.

Owns that word: how long it is believed (`mirror_ttl`), that many who ask at once are one question, and that nobody
waits past his deadline for it. A pod must never be given an image that its node cannot get, so no answer is an error,
never a guess. It says nothing about nodes; those are the probe's matter.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import TypeVar

from proxy.errors import UpstreamRefused, UpstreamUnavailable
from proxy.flight import SingleFlight
from proxy.mirror import Mirror
from proxy.oci.reference import ImageRef

MAX_REMEMBERED = 10_000  # images
PATIENCE = 2.0  # seconds that the mirror has at least, however little the caller would wait

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Witness:
    """Asks the mirror.

    Args:
        mirror: where patched images are.
        ttl: seconds for which its word is believed.
    """

    def __init__(self, mirror: Mirror, ttl: float) -> None:
        self._mirror, self._ttl = mirror, ttl
        self._seen: OrderedDict[ImageRef, float] = OrderedDict()  # until when the word holds
        self._flights: SingleFlight[ImageRef, bool] = SingleFlight()

    async def serves(self, patched: ImageRef, deadline: float) -> bool:
        """Say whether the mirror has the manifest that `patched` names by digest.

        Raises UpstreamUnavailable when it does not answer, or not by `deadline` (of `time.monotonic()`).
        """
        if self._seen.get(patched, 0.0) > time.monotonic():
            return True
        what = f"has {patched}"
        return await answer_of_mirror(self._flights, patched, lambda: self._ask(patched), deadline, what)

    async def close(self) -> None:
        """End the questions under way."""
        await self._flights.close()

    async def _ask(self, patched: ImageRef) -> bool:
        asked = time.monotonic()
        there = await self._mirror.get_manifest(patched) is not None
        self._seen.pop(patched, None)
        if there:
            self._seen[patched] = asked + self._ttl
            while len(self._seen) > MAX_REMEMBERED:
                self._seen.popitem(last=False)
        return there


async def answer_of_mirror(
    flights: SingleFlight[K, V], key: K, work: Callable[[], Awaitable[V]], deadline: float, what: str
) -> V:
    """Wait for a question to the mirror that others may share; `what` says in errors what was asked.

    Raises UpstreamUnavailable when it does not answer by `deadline`, or refuses to.
    """
    task = flights.start(key, work)
    await asyncio.wait([task], timeout=max(PATIENCE, deadline - time.monotonic()))
    until_then = "pods keep their own images until it does"
    if not task.done():
        raise UpstreamUnavailable(f"the mirror has not said in time whether it {what}; {until_then}")
    try:
        return task.result()
    except (UpstreamUnavailable, UpstreamRefused) as error:
        raise UpstreamUnavailable(f"the mirror does not say whether it {what}: {error}; {until_then}") from error
