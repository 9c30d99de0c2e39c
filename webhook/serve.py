"""The composition root: a configuration in, a running webhook out.

Owns which parts exist and how they hang together, their start and their end; decides nothing else.
"""

import asyncio
import gc
import signal
from contextlib import AsyncExitStack
from typing import Self

from aiohttp import web

from certs.serving import ServingContext, bound_tls_buffers
from certs.traces import open_tracing
from proxy.audit import AuditLog, open_audit
from proxy.oci.naming import Naming
from webhook.admission import MAX_TIMEOUT, Admitter
from webhook.answer import FollowedTrust
from webhook.config import WebhookConfig
from webhook.metrics import Metrics
from webhook.resolver import ProxyResolver
from webhook.server import Health, make_app


class Webhook:
    """A webhook that serves until it is left; `port` is the one it listens on."""

    def __init__(self, config: WebhookConfig, log: AuditLog | None = None) -> None:
        self.config = config
        naming = Naming.parse(config.mirror.reference, config.mirror.naming)
        self._resolver = ProxyResolver(config.proxy)
        self.audit = log or open_audit(config.audit)
        self._admitter = Admitter(config, self._resolver, FollowedTrust(config.trust, naming), self.audit)
        self.metrics, self.health = Metrics(), Health()
        self.tracing = open_tracing(config.tracing, "admend-webhook")
        self.port = 0
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        listen = self.config.listen
        self._stack.push_async_callback(self.tracing.close)
        self._stack.push_async_callback(self.audit.close)
        self._stack.push_async_callback(self._resolver.close)
        tls = (
            ServingContext(listen.tls.cert_file, listen.tls.key_file, listen.tls.client_ca_file) if listen.tls else None
        )
        if tls is not None:
            text = "When the serving certificate expires, in seconds since the epoch."
            self.metrics.gauge("certificate_expiry_timestamp_seconds", text, tls.expiry)
        self.metrics.show_audit(self.audit)
        self.metrics.show_spans(self.tracing)
        self.metrics.show_requests(lambda: self._resolver.results)
        known_clients = listen.tls is not None and listen.tls.client_ca_file is not None
        max_body = self.config.max_body_bytes
        app = make_app(
            self._admitter,
            self.metrics,
            self.health,
            max_body=max_body,
            known_clients=known_clients,
            tracing=self.tracing,
        )
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=MAX_TIMEOUT)
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        site = web.TCPSite(runner, listen.host, listen.port, ssl_context=tls.context if tls else None)
        await site.start()
        self.port = runner.addresses[0][1]
        self.health.ready = True
        return self

    async def __aexit__(self, *_: object) -> None:
        self.health.ready = False
        await self._stack.aclose()


async def serve(config: WebhookConfig) -> None:
    """Serve until SIGTERM or SIGINT; admissions under way are answered first."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    bound_tls_buffers()
    async with Webhook(config):
        gc.collect()
        gc.freeze()  # what was made until now stays: to look it all over again takes 50 ms in the midst of requests
        await stop.wait()
