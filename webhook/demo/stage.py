"""The demonstration's stage: an upstream registry, the proxy and the webhook, all on loopback ports of their own.

Owns starting and ending them, with certificates and a signing key made for this run, and sending the AdmissionReview
as an API server would: over HTTPS, the authority checked.
"""

import base64
import json
import time
import uuid
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx
from aiohttp import web

from certs.holdings import CA_CERT, CLIENT_CERT, CLIENT_KEY, SERVER_CERT, SERVER_KEY, Wanted
from certs.rotate import reconcile
from certs.serving import client_context
from certs.settings import TlsConfig
from certs.store import FolderStore
from proxy.access import Access
from proxy.audit import AuditLog
from proxy.config import ListenConfig, MirrorConfig, PolicyConfig, ProxyConfig, SourcesConfig, UpstreamConfig
from proxy.mirror import EmbeddedMirror, Naming
from proxy.oci.reference import ImageRef
from proxy.serve import Proxy
from proxy.v2 import Hooks, add_v2_routes
from webhook.config import ListenConfig as WebhookListenConfig
from webhook.config import MirrorConfig as WebhookMirrorConfig
from webhook.config import ProxyClientConfig, TrustConfig, WebhookConfig
from webhook.demo.compose import Composed
from webhook.serve import Webhook

ADMISSION_SECONDS = 30  # the longest timeout that a webhook configuration may ask for
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Admission:
    """One answered AdmissionReview: the pod's image afterwards, warnings, and how long it took."""

    image: str
    allowed: bool
    warnings: tuple[str, ...]
    milliseconds: float


class Upstream:
    """A registry that holds one image, spoken to over plain HTTP on loopback."""

    def __init__(self, folder: Path, name: str, image: Composed) -> None:
        self._folder, self._name, self._image = folder, name, image
        self._stack = AsyncExitStack()
        self.host = ""

    async def __aenter__(self) -> Self:
        """Start serving."""
        mirror = EmbeddedMirror(self._folder, Naming.parse("upstream.localhost"), 8 << 30)
        self._stack.push_async_callback(mirror.close)
        name, _, tag = self._name.partition(":")
        await mirror.put_image(
            ImageRef(mirror.naming.host, name), self._image.manifest, (), self._image.blobs, tags=(tag,)
        )
        app = web.Application()
        add_v2_routes(app, mirror, Access(), Hooks())
        self.host = f"{LOOPBACK}:{await _start(self._stack, app)}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    @property
    def reference(self) -> str:
        """The image as a pod names it."""
        return f"{self.host}/{self._name}"


class Stage:
    """Proxy and webhook, started for the upstream `hosts`."""

    def __init__(self, folder: Path, sources: SourcesConfig, policy: PolicyConfig, hosts: tuple[str, ...]) -> None:
        self.folder, self._sources, self._policy, self._hosts = folder, sources, policy, hosts
        self.certs = folder / "certs"
        self.audit_file = folder / "audit.jsonl"
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Make certificates, start both services."""
        wanted = Wanted(dns_names=("localhost",), ips=(LOOPBACK,), client="webhook")
        reconcile(FolderStore(self.certs), wanted)
        self.proxy = await self._stack.enter_async_context(Proxy(self._proxy_config(_free_port())))
        public = self.folder / "signing.pub"
        public.write_bytes(self.proxy.keys.signing.public.render_pem())
        log = self._stack.enter_context(self.audit_file.open("w"))
        self.webhook = await self._stack.enter_async_context(Webhook(self._webhook_config(public), AuditLog(log)))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    @property
    def mirror_reference(self) -> str:
        """The mirror's host as pods name it."""
        return self.proxy.config.mirror.reference

    async def admit(self, image: str) -> Admission:
        """Send one AdmissionReview for a pod with `image` and return what came back."""
        review = _review(image)
        context = client_context(self.certs / CA_CERT)
        async with httpx.AsyncClient(verify=context, trust_env=False, timeout=ADMISSION_SECONDS + 5) as client:
            start = time.perf_counter()
            url = f"https://{LOOPBACK}:{self.webhook.port}/mutate?timeout={ADMISSION_SECONDS}s"
            answer = await client.post(url, json=review)
            milliseconds = 1000 * (time.perf_counter() - start)
        answer.raise_for_status()
        response = answer.json()["response"]
        edits = json.loads(base64.b64decode(response["patch"])) if "patch" in response else []
        images = [edit["value"] for edit in edits if edit["op"] == "replace" and edit["path"].endswith("/image")]
        warnings = tuple(response.get("warnings", ()))
        return Admission(images[0] if images else image, response["allowed"], warnings, milliseconds)

    def audit_events(self) -> list[dict[str, Any]]:
        """Return the audit lines so far."""
        return [json.loads(line) for line in self.audit_file.read_text().splitlines()]

    def _proxy_config(self, port: int) -> ProxyConfig:
        tls = TlsConfig(
            cert_file=self.certs / SERVER_CERT,
            key_file=self.certs / SERVER_KEY,
            client_ca_file=self.certs / CA_CERT,
        )
        return ProxyConfig(
            listen=ListenConfig(host=LOOPBACK, port=port, tls=tls),
            mirror=MirrorConfig(reference=f"{LOOPBACK}:{port}", path=self.folder / "mirror"),
            upstream=UpstreamConfig(private=self._hosts, plain_http=self._hosts),
            sources=self._sources,
            policy=self._policy,
            signing_key=self.folder / "keys" / "signing.pem",
            cache=self.folder / "cache",
        )

    def _webhook_config(self, public: Path) -> WebhookConfig:
        tls = TlsConfig(cert_file=self.certs / SERVER_CERT, key_file=self.certs / SERVER_KEY)
        return WebhookConfig(
            listen=WebhookListenConfig(host=LOOPBACK, port=0, tls=tls),
            proxy=ProxyClientConfig(
                urls=(f"https://{LOOPBACK}:{self.proxy.port}",),
                ca_file=self.certs / CA_CERT,
                client_cert_file=self.certs / CLIENT_CERT,
                client_key_file=self.certs / CLIENT_KEY,
            ),
            mirror=WebhookMirrorConfig(reference=self.mirror_reference),
            trust=TrustConfig(keys=(public,)),
        )


async def _start(stack: AsyncExitStack, app: web.Application) -> int:
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.TCPSite(runner, LOOPBACK, 0).start()
    port: int = runner.addresses[0][1]
    return port


def _free_port() -> int:
    """Return a port that was free a moment ago: the mirror's own name holds it before it listens."""
    import socket  # noqa: PLC0415

    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def _review(image: str) -> dict[str, Any]:
    """Return an AdmissionReview as an API server sends it for `kubectl run`."""
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "demo", "namespace": "default"},
        "spec": {"containers": [{"name": "app", "image": image, "imagePullPolicy": "IfNotPresent"}]},
    }
    kind = {"group": "", "version": "v1", "kind": "Pod"}
    resource = {"group": "", "version": "v1", "resource": "pods"}
    return {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": str(uuid.uuid4()),
            "kind": kind,
            "resource": resource,
            "requestKind": kind,
            "requestResource": resource,
            "name": "demo",
            "namespace": "default",
            "operation": "CREATE",
            "userInfo": {"username": "demo", "groups": ["system:authenticated"]},
            "object": pod,
            "oldObject": None,
            "dryRun": False,
            "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"},
        },
    }
