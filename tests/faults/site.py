"""A whole site on loopback, over TLS: a registry as mirror, upstream, package sources, a real proxy and webhook."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any

from certs.holdings import CA_CERT, SERVER_CERT, SERVER_KEY, Wanted
from certs.rotate import reconcile
from certs.settings import TlsConfig
from certs.store import FolderStore
from certs.tracing import TracingConfig
from proxy.api import Outcome
from proxy.config import ListenConfig, MirrorConfig
from proxy.serve import Proxy
from tests.faults.answers import Admitted, admit_in_all_modes, webhook_before
from tests.proxy.asking import ask
from tests.simulators.registry import RegistrySimulator
from tests.simulators.world import World
from webhook.config import Mode
from webhook.serve import Webhook

MIRROR = "mirror.example"


@dataclass
class Site:
    """Everything, running."""

    world: World
    mirror: RegistrySimulator
    proxy: Proxy
    webhook: Webhook
    log: StringIO
    keys: Path

    async def admit(self, image: str) -> dict[Mode, Admitted]:
        """Admit a pod in every mode."""
        return await admit_in_all_modes(self.webhook, self.log, self.keys, image)

    async def patched(self) -> str:
        """Return an image that the proxy has patched."""
        image = self.world.add_image()
        assert (await ask(self.proxy, image)).outcome is Outcome.PATCHED
        return image


@asynccontextmanager
async def open_site(folder: Path, tracing: Mapping[str, Any] | None = None) -> AsyncIterator[Site]:
    """Run a site whose files are below `folder`; both its processes have the settings `tracing`."""
    keys = folder / "keys"
    reconcile(FolderStore(keys), Wanted(dns_names=("localhost",), ips=("127.0.0.1",)))
    (keys / "authorities.crt").write_bytes((keys / CA_CERT).read_bytes())
    tls = TlsConfig(cert_file=keys / SERVER_CERT, key_file=keys / SERVER_KEY)
    async with World(folder / "world") as world, RegistrySimulator() as there:
        config = world.config(
            listen=ListenConfig(port=0, tls=tls),
            mirror=MirrorConfig(reference=MIRROR, registry=there.host),
            mirror_ttl=0.0,
            negative_ttl=0.0,
            refresh_seconds=0.0,
        )
        config = config.model_copy(update={"tracing": TracingConfig.model_validate(tracing or {})})
        async with Proxy(config) as proxy:
            proxy.engine.egress.policy = replace(proxy.engine.egress.policy, backoff=0.01)
            (keys / "signing.pub").write_bytes(proxy.keys.signing.public.render_pem())
            changes = {
                "listen": {"port": 0, "tls": {"cert_file": keys / SERVER_CERT, "key_file": keys / SERVER_KEY}},
                "mirror": {"reference": MIRROR},
                "proxy": {"token_file": world.folder / "token"},
                "tracing": tracing or {},
            }
            async with webhook_before(f"https://127.0.0.1:{proxy.port}", keys, **changes) as (webhook, log):
                yield Site(world, there, proxy, webhook, log, keys)
