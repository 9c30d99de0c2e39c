"""Several proxies, each a process of its own, over one external mirror; they can be killed and started again."""

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from certs.holdings import SERVER_CERT, SERVER_KEY
from certs.settings import TlsConfig
from proxy.access import Access, Caller, How
from proxy.config import ListenConfig, MirrorConfig, ProxyConfig
from proxy.mirror import EmbeddedMirror, Naming
from proxy.v2 import add_v2_routes
from tests.end_to_end.tools import answering, docker_registry, free_port
from tests.simulators.world import World


class Open(Access):
    """Lets anybody push: the registry of a test, on loopback."""

    async def identify(self, _: web.Request) -> Caller:
        return Caller("test", How.PASSWORD)


@asynccontextmanager
async def own_registry(folder: Path) -> AsyncIterator[str]:
    """Serve an embedded mirror as the registry of others."""
    mirror = EmbeddedMirror(folder, Naming("own.example"), 1 << 30)
    app = web.Application()
    add_v2_routes(app, mirror, Open())
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
        await mirror.close()
    assert list(folder.rglob(".tmp-*")) == []  # noqa: ASYNC240 - nothing runs any more


REGISTRIES = {"own": own_registry, "docker-registry": docker_registry}


def configure(world: World, registry: str, name: str, keys: Path, *, port: int = 0) -> ProxyConfig:
    """Return the settings of a replica that serves TLS; all have the same signing key, and caches of their own."""
    return world.config(
        name,
        listen=ListenConfig(port=port, tls=TlsConfig(cert_file=keys / SERVER_CERT, key_file=keys / SERVER_KEY)),
        mirror=MirrorConfig(reference=registry, registry=registry),
        signing_key=keys / "signing.pem",
        refresh_seconds=0.2,
        mirror_ttl=0.5,
    )


@dataclass
class Replica:
    """A proxy process; `config` is its settings file."""

    port: int
    config: Path
    process: asyncio.subprocess.Process | None = None
    starting: "asyncio.Task[None] | None" = None

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def serves(self) -> bool:
        """Whether it has been started and has answered since."""
        return self.starting is not None and self.starting.done() and not self.starting.cancelled()

    def start(self) -> None:
        """Begin to start it."""
        self.starting = asyncio.create_task(self._start())

    async def _start(self) -> None:
        command = (sys.executable, "-m", "proxy.cli", "proxy", "--config", str(self.config))
        self.process = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.DEVNULL)
        await answering(f"{self.url}/readyz", self.process)

    async def end(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End it by a signal, whatever it is doing, its start included; by default without a word."""
        if self.starting is not None:
            self.starting.cancel()
            await asyncio.gather(self.starting, return_exceptions=True)
        self.starting = None
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)
            await self.process.wait()


@asynccontextmanager
async def replicas(world: World, registry: str, keys: Path, count: int = 3) -> AsyncIterator[list[Replica]]:
    """Start that many proxies; they are killed in the end."""
    started = []
    for number in range(count):
        port, file = free_port(), world.folder / f"replica{number}.json"
        file.write_text(configure(world, registry, f"replica{number}", keys, port=port).model_dump_json())
        started.append(Replica(port, file))
    try:
        for each in started:
            each.start()
        await asyncio.gather(*(each.starting for each in started if each.starting))
        yield started
    finally:
        for each in started:
            await each.end()
