"""The proxy under test: `admend proxy`, its own process, configured as in production.

Owns its folder, configuration (TLS, token, embedded mirror, two workers), start and end, and asking it.
"""

import shutil
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import httpx
import yaml
from images import APT
from needs import FOLDER
from processes import free_port, listening, running, wait_until

from certs.holdings import CA_CERT, SERVER_CERT, SERVER_KEY, Wanted
from certs.rotate import reconcile
from certs.serving import client_context
from certs.store import FolderStore

HOME = FOLDER / "proxy"
CERTS = FOLDER / "certs"
TOKEN = FOLDER / "token"
SOURCES = FOLDER / "sources"  # verified indexes, as a proxy left them
WAIT = 120.0


@dataclass(frozen=True, slots=True)
class Answer:
    """One resolve: what came back, and its milliseconds as the client saw them."""

    document: dict[str, Any]
    milliseconds: float


class Subject:
    """A running proxy with an empty mirror and empty caches.

    Args:
        upstreams: `host:port` of the registries that it may ask.
        archive_port: the loopback archive's.
        warm: whether the verified indexes of an earlier proxy are in its cache.
        refresh_seconds: for how long its sources are not asked again.
    """

    def __init__(
        self, upstreams: tuple[str, ...], archive_port: int, *, warm: bool, refresh_seconds: float = 900.0
    ) -> None:
        self._upstreams, self._archive_port, self._warm = upstreams, archive_port, warm
        self._refresh_seconds = refresh_seconds
        self._stack = ExitStack()
        self.port = free_port()
        self.pid = 0

    def __enter__(self) -> Self:
        shutil.rmtree(HOME, ignore_errors=True)
        HOME.mkdir(parents=True)
        if self._warm:
            shutil.copytree(SOURCES, HOME / "cache" / "sources")
        reconcile(FolderStore(CERTS), Wanted(dns_names=("localhost",), ips=("127.0.0.1",), client="webhook"))
        TOKEN.write_text("bench-token\n")
        file, log = HOME / "proxy.yaml", FOLDER / "proxy.log"
        file.write_text(yaml.safe_dump(self._config()))
        command = [sys.executable, "-m", "proxy.cli", "proxy", "--config", file]
        process = self._stack.enter_context(running(command, log))
        self.pid = process.pid
        wait_until(lambda: listening(self.port), "the proxy", process, log)
        self._client = self._stack.enter_context(
            httpx.Client(
                base_url=f"https://127.0.0.1:{self.port}",
                verify=client_context(CERTS / CA_CERT),
                headers={"Authorization": f"Bearer {TOKEN.read_text().strip()}"},
                timeout=WAIT + 5,
                trust_env=False,
            )
        )
        self._client.get("/healthz").raise_for_status()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    def resolve(self, image: str, *, always: bool = False) -> Answer:
        """Ask for an image; raises RuntimeError unless the outcome is patched or clean."""
        body = {"image": image, "wait_seconds": WAIT, "always": always}
        start = time.perf_counter()
        response = self._client.post("/v1/resolve", json=body)
        milliseconds = 1000 * (time.perf_counter() - start)
        response.raise_for_status()
        document = response.json()
        if document["outcome"] not in {"patched", "clean"}:
            raise RuntimeError(f"{image}: {document['outcome']}: {document['reason']} {document['skipped']}")
        return Answer(document, milliseconds)

    def keep_sources(self) -> None:
        """Keep the verified indexes for later proxies."""
        shutil.rmtree(SOURCES, ignore_errors=True)
        shutil.copytree(HOME / "cache" / "sources", SOURCES)

    def _config(self) -> dict[str, Any]:
        return {
            "listen": {
                "port": self.port,
                "tls": {"cert_file": str(CERTS / SERVER_CERT), "key_file": str(CERTS / SERVER_KEY)},
            },
            "auth": {"token_file": str(TOKEN)},
            "mirror": {"reference": f"127.0.0.1:{self.port}", "path": str(HOME / "mirror")},
            "upstream": {"private": list(self._upstreams), "plain_http": list(self._upstreams)},
            "sources": {"machine": str(APT), "refresh_seconds": self._refresh_seconds},
            "workers": {"count": 2},
            "signing_key": str(HOME / "keys" / "signing.pem"),
            "cache": str(HOME / "cache"),
        }
