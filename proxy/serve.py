"""The composition root: a configuration in, a running proxy out.

Owns which parts exist and how they hang together, their start and their end; decides nothing else. `Engine` is what
the command line needs too (cache, workers, sources, patcher); `Proxy` adds the mirror, signatures and the server.
"""

import asyncio
import gc
import platform
import signal
from collections.abc import Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Self

from aiohttp import web

from certs.logs import start_logging
from certs.serving import ServingContext, bound_tls_buffers
from certs.settings import describe_listening
from certs.traces import open_tracing
from proxy.access import Access
from proxy.blobs import BlobStore
from proxy.clusterwork import ClusterWork
from proxy.config import ProxyConfig
from proxy.credentials import Credentials, CredentialsFile
from proxy.derived import Derived
from proxy.egress import Egress, EgressPolicy
from proxy.entrance import Entrance, EntranceSettings
from proxy.errors import AdmendError, MalformedInput, ResourceExhausted
from proxy.figures import (
    show_certificate,
    show_fleet,
    show_lookups,
    show_mirror,
    show_room,
    show_ways_out,
    show_workers,
)
from proxy.grants import GrantBook
from proxy.kube.cluster import Cluster
from proxy.kube.secrets import Secrets
from proxy.kube.tokens import TokenReviews
from proxy.machine import read_settings, read_source_credentials, source_hosts
from proxy.marks import MarkBook
from proxy.mirror import EmbeddedMirror, Mirror, open_mirror
from proxy.oci.manifest import Platform
from proxy.originals import Originals
from proxy.packages import Packages
from proxy.patcher import Patcher, policy_hash
from proxy.pool import PoolLimits, WorkerPool
from proxy.privacy import Privacy, PullSecretMaker
from proxy.publish import Publisher
from proxy.pullthrough import PullThrough
from proxy.pulltokens import PULL_KEY, NamespacePasswords, PullTokens, load_or_make_pull_key
from proxy.records import Records
from proxy.registry import Registry
from proxy.resolve import Resolve, ResolveSettings
from proxy.server import Parts, make_app
from proxy.sources import Sources
from proxy.telemetry import Metrics
from proxy.trust import FollowedKeys, SigningKey
from proxy.upkeep import Upkeep


class Engine:
    """What patching needs: egress, registry client, blob store, workers, sources and the patcher."""

    def __init__(self, config: ProxyConfig, *, named: Iterable[str] = ()) -> None:
        settings = read_settings(config.sources)
        self.config = config
        # Two ways out, so that an image cannot name a package archive's host as if it were a registry.
        self.egress = Egress(_registry_policy(config, named))
        self.source_egress = Egress(
            EgressPolicy(
                named=source_hosts(config.sources, settings),
                timeout=config.upstream.timeout,
                source_proxy=config.sources.http_proxy,
                ca_file=config.sources.ca_file,
            ),
            credentials=read_source_credentials(config.sources),
        )
        self.credentials = read_credentials(config.upstream.docker_config)
        self.registry = Registry(self.egress, self.credentials)
        self.store = BlobStore(config.cache, config.cache_max_bytes)
        self.derived = Derived(config.cache, config.derived_max_bytes, config.derived_max_age)
        workers = config.workers
        self.pool = WorkerPool(workers.count, PoolLimits(workers.memory, workers.cpu_seconds, workers.wall_seconds))
        self.sources = Sources(
            config.cache,
            self.store,
            self.source_egress,
            self.pool,
            settings,
            refresh_seconds=config.sources.refresh_seconds,
            max_index_age=config.sources.max_index_age,
        )
        self.packages = Packages(config.cache, self.store, self.pool, self.source_egress)
        self.patcher = Patcher(
            root=config.cache,
            store=self.store,
            pool=self.pool,
            sources=self.sources,
            packages=self.packages,
            policy=config.policy,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.pool.close()
        await self.egress.close()
        await self.source_egress.close()


def _registry_policy(config: ProxyConfig, named: Iterable[str]) -> EgressPolicy:
    """Return what the way to registries allows; the operator named the external mirror, so it is always in."""
    upstream, mirror = config.upstream, config.mirror.registry
    mirrors = (mirror.split("/", 1)[0],) if mirror else ()
    return EgressPolicy(
        upstreams=None if upstream.allow is None else (*upstream.allow, *mirrors),
        named=frozenset({*upstream.private, *mirrors, *named}),
        plain_http=frozenset(upstream.plain_http),
        plain_credentials=frozenset(upstream.plain_http_credentials),
        token_realms=upstream.token_realms,
        ca_file=upstream.ca_file,
        timeout=upstream.timeout,
    )


class Proxy:
    """A proxy that serves until it is left."""

    def __init__(self, config: ProxyConfig) -> None:
        self.config = config
        self.engine = Engine(config)
        self.keys = open_keys(config)
        self.cluster = Cluster(config.cluster) if config.cluster else None
        review = config.auth.token_review
        self.reviews = TokenReviews(self.cluster, review) if self.cluster and review else None
        self.mirror: Mirror = open_mirror(config.mirror, self.engine.registry, cache=self.engine.store)
        self.engine.sources.admit_date = MarkBook(self.mirror, self.keys).admit
        self.cluster_work = ClusterWork(self.cluster, self.mirror, self.engine.store) if self.cluster else None
        self.access = read_access(config, self.reviews)
        self.secrets = Secrets(self.cluster, config.cluster.pull_secrets) if self.cluster and config.cluster else None
        self.entrance = self._make_entrance()
        self.privacy = Privacy(self.mirror, self.entrance, config.mirror.private, self._make_maker())
        self.originals = Originals(self.entrance, self.engine.patcher.layers, config.mirror.pull_wait)
        self.resolve = self._make_resolve()
        kept = config.mirror
        self.upkeep = Upkeep(self.mirror, self.engine.derived, retain=kept.retain, every=kept.retain_every)
        work = self.cluster_work
        self.fleet = work.add_fleet(self.resolve.resolve, self.keys, config.audit) if work else None
        self.upkeep.in_use = self.fleet.in_use if self.fleet else None
        self.tracing = open_tracing(config.tracing, "admend-proxy")
        self.port = 0
        self._stack = AsyncExitStack()

    def _make_resolve(self) -> Resolve:
        config, engine = self.config, self.engine
        records = Records(self.mirror, self.keys)
        settings = ResolveSettings(
            platforms=config.platforms or (str(machine_platform()),),
            policy_hash=policy_hash(config.policy),
            tag_ttl=config.tag_ttl,
            refresh_seconds=config.sources.refresh_seconds,
            negative_ttl=config.negative_ttl,
            max_index_age=config.sources.max_index_age,
            mirror_ttl=config.mirror_ttl,
        )
        self.publisher = Publisher(self.mirror, records, self.keys, settings.policy_hash)
        return Resolve(
            entrance=self.entrance,
            privacy=self.privacy,
            mirror=self.mirror,
            records=records,
            sources=engine.sources,
            patcher=engine.patcher,
            publisher=self.publisher,
            settings=settings,
            hold=self.cluster_work.hold if self.cluster_work else lambda: "",
        )

    def _make_entrance(self) -> Entrance:
        config, engine = self.config, self.engine
        settings = EntranceSettings(
            tag_ttl=config.tag_ttl,
            negative_ttl=config.negative_ttl,
            credential_namespaces=config.upstream.credential_namespaces,
            credentials_open=config.upstream.credentials_open,
        )
        return Entrance(engine.egress, engine.registry, engine.credentials, self.secrets, settings)

    def _make_maker(self) -> PullSecretMaker | None:
        passwords, grants = self.access.namespaces, self.config.mirror.grants
        if passwords is None or self.secrets is None:
            return None
        return PullSecretMaker(GrantBook(self.mirror, self.keys, grants.seconds), self.secrets, passwords)

    def _parts(self, tls: ServingContext | None) -> Parts:
        through = None
        if isinstance(self.mirror, EmbeddedMirror):
            wait = self.config.mirror.pull_wait
            through = PullThrough(self.resolve, self.mirror, self.originals, self.privacy, wait=wait)
        status = self.fleet.status if self.fleet else None
        metrics, rights = self._metrics(through, tls), self.privacy.rights
        return Parts(
            self.resolve, self.mirror, through, self.access, metrics, rights, status=status, tracing=self.tracing
        )

    def _metrics(self, through: PullThrough | None, tls: ServingContext | None) -> Metrics:
        engine, metrics = self.engine, Metrics()
        self.resolve.published = metrics.observe_patch
        metrics.show_spans(self.tracing)
        show_workers(metrics, engine.pool)
        show_room(metrics, engine.store, engine.derived)
        show_lookups(metrics, self.resolve, engine.patcher, engine.packages, engine.sources)
        show_ways_out(metrics, engine.egress, engine.source_egress)
        show_mirror(metrics, self.mirror, self.publisher, through, self.upkeep)
        if self.fleet is not None:
            show_fleet(metrics, self.fleet)
        probe = self.cluster_work.probe if self.cluster_work else None
        if probe is not None:
            text = "1 while all nodes are known to reach the mirror, else 0: pods are not rewritten."
            metrics.gauge("mirror_proven", text, lambda: float(probe.proven))
        if tls is not None:
            show_certificate(metrics, tls)
        return metrics

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()  # a port that is taken must leave no worker behind
            raise
        return self

    async def _start(self) -> None:
        listen = self.config.listen
        self._stack.push_async_callback(self.tracing.close)
        await self._stack.enter_async_context(self.engine)
        if self.cluster is not None:
            self._stack.callback(self.cluster.close)
        if self.reviews is not None:
            self._stack.push_async_callback(self.reviews.close)
        self._stack.push_async_callback(self.mirror.close)
        self._stack.push_async_callback(self.originals.close)
        self._stack.push_async_callback(self.resolve.close)
        await self.privacy.open()
        await self._stack.enter_async_context(self.upkeep)
        if self.cluster_work is not None:
            await self._stack.enter_async_context(self.cluster_work)
        tls = (
            ServingContext(listen.tls.cert_file, listen.tls.key_file, listen.tls.client_ca_file) if listen.tls else None
        )
        runner = web.AppRunner(make_app(self._parts(tls)), access_log=None)
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        await self.engine.pool.warm(self.config.workers.count)
        site = web.TCPSite(runner, listen.host, listen.port, ssl_context=tls.context if tls else None)
        await site.start()
        self.port = runner.addresses[0][1]

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()


def run(config: ProxyConfig) -> None:
    """Serve until SIGTERM or SIGINT; AdmendError says why nothing can be served."""
    start_logging(config.log)
    try:
        asyncio.run(serve(config))
    except OSError as error:
        if error.filename is None:
            raise AdmendError(describe_listening(config.listen, error)) from error
        hint = "give signing_key, cache and mirror.path folders that this user may write to"
        raise ResourceExhausted(f"{error.filename}: {error.strerror}; {hint}") from error


async def serve(config: ProxyConfig) -> None:
    """Serve until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    bound_tls_buffers()
    async with Proxy(config):
        gc.collect()
        gc.freeze()  # what was made until now stays: to look it all over again takes 50 ms in the midst of requests
        await stop.wait()


def machine_platform() -> Platform:
    """Return the platform of this machine."""
    return Platform("linux", platform.machine()).normalized()


def open_keys(config: ProxyConfig) -> FollowedKeys:
    """Return the keys of the configuration; the first start makes the signing key."""
    path = config.signing_key
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        SigningKey.generate().save(path)
    return FollowedKeys(path, config.trusted_keys)


def read_access(config: ProxyConfig, reviews: TokenReviews | None) -> Access:
    """Return who may ask, with the secrets read from their files; MalformedInput names a file that is wrong."""
    auth = config.auth
    username, _, password = _secret(auth.password_file).partition(":")
    if auth.password_file and not (username and password):
        raise MalformedInput("needs one line user:password", file=str(auth.password_file))
    host, grants = config.mirror.reference.partition("/")[0], config.mirror.grants
    key = load_or_make_pull_key(grants.key_file or config.mirror.path / PULL_KEY) if not config.mirror.registry else b""
    return Access(
        username=username,
        password=password,
        token=_secret(auth.token_file),
        pull=auth.pull,
        client_certificates=auth.client_certificates,
        client_names=frozenset(auth.client_names),
        review=reviews.review if reviews else None,
        namespaces=NamespacePasswords(key, grants.epoch) if grants.enabled else None,
        tokens=PullTokens(key, host, auth.token_seconds) if key else None,
        realm=auth.realm,
    )


def _secret(path: Path | None) -> str:
    if path is None:
        return ""
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise MalformedInput(f"cannot be read: {error}", file=str(path)) from error


def read_credentials(path: Path | None) -> Credentials:
    """Return the credentials of a docker config.json, or none."""
    return CredentialsFile(path) if path else Credentials()
