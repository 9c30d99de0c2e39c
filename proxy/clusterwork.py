"""What a proxy does because it serves a cluster, beside answering: its parts, their start and their end.

Owns which of them exist by the configuration, nothing of what they do.
"""

from contextlib import AsyncExitStack
from typing import Self

from proxy.blobs import BlobStore
from proxy.canary import CanaryKeeper
from proxy.kube.cluster import Cluster
from proxy.kube.probe import Probe
from proxy.mirror import Mirror


class ClusterWork:
    """What runs over a connection to the cluster, until it is left.

    Args:
        cluster: the connection, with the section `cluster` of the configuration.
        mirror: where patched images, and the canary, are.
        store: keeps blobs on their way there.
    """

    def __init__(self, cluster: Cluster, mirror: Mirror, store: BlobStore) -> None:
        self.canary: CanaryKeeper | None = None
        self.probe: Probe | None = None
        if cluster.config.probe is not None:
            self.canary = keeper = CanaryKeeper(mirror, store)
            self.probe = Probe(cluster, cluster.config.probe, canary=lambda: keeper.problem)
        self._stack = AsyncExitStack()

    def hold(self) -> str:
        """Return why nothing should be rewritten to the mirror now, or nothing."""
        return self.probe.hold() if self.probe else ""

    async def __aenter__(self) -> Self:
        for part in (self.canary, self.probe):
            if part is not None:
                await self._stack.enter_async_context(part)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()
