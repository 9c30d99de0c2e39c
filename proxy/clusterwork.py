"""What a proxy does because it serves a cluster, beside answering: its parts, their start and their end.

Owns which of them exist by the configuration, nothing of what they do.
"""

from contextlib import AsyncExitStack
from typing import Self

from proxy.audit import AuditConfig, open_audit
from proxy.blobs import BlobStore
from proxy.canary import CanaryKeeper
from proxy.fleet.walker import Ask, Fleet
from proxy.kube.cluster import Cluster
from proxy.kube.probe import Probe
from proxy.mirror import Mirror
from proxy.trust import KeyRing


class ClusterWork:
    """What runs over a connection to the cluster, until it is left.

    Args:
        cluster: the connection, with the section `cluster` of the configuration.
        mirror: where patched images, and the canary, are.
        store: keeps blobs on their way there.
    """

    def __init__(self, cluster: Cluster, mirror: Mirror, store: BlobStore) -> None:
        self._cluster, self._mirror = cluster, mirror
        self.fleet: Fleet | None = None
        self.canary: CanaryKeeper | None = None
        self.probe: Probe | None = None
        if cluster.config.probe is not None:
            self.canary = keeper = CanaryKeeper(mirror, store)
            self.probe = Probe(cluster, cluster.config.probe, canary=lambda: keeper.problem)
        self._stack = AsyncExitStack()

    def hold(self) -> str:
        """Return why nothing should be rewritten to the mirror now, or nothing."""
        return self.probe.hold() if self.probe else ""

    def add_fleet(self, ask: Ask, keys: KeyRing, audit: AuditConfig) -> Fleet | None:
        """Make the part that looks after running pods, if the configuration wants it; `ask` resolves an image."""
        config = self._cluster.config.fleet
        if config is not None:
            log = open_audit(audit)
            self._stack.push_async_callback(log.close)
            self.fleet = Fleet(self._cluster, self._mirror, ask=ask, keys=keys, config=config, audit=log)
        return self.fleet

    async def __aenter__(self) -> Self:
        for part in (self.canary, self.probe, self.fleet):
            if part is not None:
                await self._stack.enter_async_context(part)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()
