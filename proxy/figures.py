"""What the running parts of the proxy count themselves, shown to Prometheus when it asks.

Owns the names of these figures and the way from a part's own counters to labels. docs/metrics.md lists all figures.
"""

from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime

from certs.figures import Counts
from certs.serving import ServingContext
from proxy.blobs import BlobStore
from proxy.derived import Derived
from proxy.egress import Egress
from proxy.fleet.judge import BEHIND
from proxy.fleet.walker import Fleet
from proxy.mirror import EmbeddedMirror, Mirror
from proxy.packages import Packages
from proxy.patcher import Patcher
from proxy.pool import WorkerPool
from proxy.publish import Publisher
from proxy.pullthrough import PullThrough
from proxy.resolve import Resolve
from proxy.sources import Sources
from proxy.telemetry import Metrics
from proxy.upkeep import Upkeep


def show_workers(metrics: Metrics, pool: WorkerPool) -> None:
    """Show the engine's workers and their jobs."""
    metrics.gauge("jobs_queued", "Engine jobs that run or wait.", lambda: pool.queued)
    metrics.gauge("workers", "Worker processes that live.", lambda: len(pool.pids))
    metrics.counts("workers_started", "Worker processes started.", (), lambda: {(): pool.started})
    metrics.counts("workers_ended", "Worker processes ended, by why.", ("reason",), lambda: _single(pool.ended))
    metrics.counts("jobs", "Engine jobs by name and result.", ("job", "result"), lambda: _pairs(pool.jobs))


def show_room(metrics: Metrics, store: BlobStore, derived: Derived) -> None:
    """Show what the caches hold."""
    metrics.gauge("cache_blob_bytes", "Pulled layers and packages.", lambda: store.used)
    metrics.gauge("cache_derived_bytes", "Scans, unpacked packages, indexes.", lambda: derived.used)


def show_lookups(metrics: Metrics, resolve: Resolve, patcher: Patcher, packages: Packages, sources: Sources) -> None:
    """Show how often the caches help, and how old what they hold of sources is."""
    metrics.gauge("patches_running", "Images that are being confirmed or patched.", lambda: resolve.running)

    def lookups() -> Counts:
        layers = {"layer_scan": patcher.scans, "package": packages.lookups, "index": sources.lookups}
        found = {(name, result): count for name, held in layers.items() for result, count in held.items()}
        tags = {("tag", result): count for result, count in resolve.tag_lookups.items()}
        return _pairs({**resolve.lookups, **tags, **found})

    metrics.counts("cache_lookups", "Lookups in the caches, by layer and result.", ("layer", "result"), lookups)
    text = "Package sources that were asked for news, by what that came to."
    metrics.counts("source_refreshes", text, ("result",), lambda: _single(sources.refreshes))
    text = "Time since the last confirmation of the source that waits longest, of those used in the last hour."
    metrics.gauge("source_oldest_age_seconds", text, sources.oldest_age)


def show_ways_out(metrics: Metrics, registry: Egress, source: Egress) -> None:
    """Show requests to registries (the external mirror's among them) and package sources."""
    ways = {"registry": registry, "source": source}

    def requests() -> Counts:
        found = Counter[tuple[str, str]]()
        for name, egress in ways.items():
            for (_, status), count in egress.requests.items():
                found[name, f"{status // 100}xx" if status else "none"] += count
        return _pairs(found)

    def moved(way: str) -> Counts:
        return {(name,): egress.moved[way] for name, egress in ways.items()}

    text = "Requests to registries and package sources, by class of status."
    metrics.counts("upstream_requests", text, ("purpose", "status"), requests)
    text = "Bytes of bodies received from registries and package sources."
    metrics.counts("upstream_received_bytes", text, ("purpose",), lambda: moved("received"))
    metrics.counts("upstream_sent_bytes", "Bytes of bodies sent to them.", ("purpose",), lambda: moved("sent"))


def show_mirror(
    metrics: Metrics, mirror: Mirror, publisher: Publisher, through: PullThrough | None, upkeep: Upkeep
) -> None:
    """Show the mirror and what goes in and out of it."""
    metrics.counts("signatures", "Signatures made over images.", (), lambda: {(): publisher.signatures})
    if through is not None:
        text = "Manifests that registry clients asked for by an upstream's name, by what they came to."
        metrics.counts("pull_through_requests", text, ("result",), lambda: _single(through.results))
    text = "When mirror and cache were last cleaned up, in seconds since the epoch."
    metrics.gauge("upkeep_success_timestamp_seconds", text, lambda: upkeep.succeeded)
    if isinstance(mirror, EmbeddedMirror):
        metrics.gauge("mirror_bytes", "Bytes in the mirror.", lambda: mirror.blobs.used)
        metrics.gauge("mirror_limit_bytes", "Bytes that fit into the mirror.", lambda: mirror.blobs.max_bytes)


def show_certificate(metrics: Metrics, tls: ServingContext) -> None:
    """Show when the serving certificate ends."""
    text = "When the serving certificate expires, in seconds since the epoch."
    metrics.gauge("certificate_expiry_timestamp_seconds", text, tls.expiry)


def show_fleet(metrics: Metrics, fleet: Fleet) -> None:
    """Show how running pods stand; only the proxy that leads knows, the others show nothing of it."""

    def states() -> Counts:
        counted = Counter[tuple[str, ...]]()
        for each in fleet.judged() if fleet.leads else ():
            counted[each.state.value,] += each.use.pods
        return counted

    def exposed() -> float:
        now = datetime.now(UTC)
        behind = [each.answer for each in fleet.judged() if each.state in BEHIND] if fleet.leads else []
        return max(((now - each.published).total_seconds() for each in behind if each and each.published), default=0.0)

    metrics.gauge("leader", "1 for the proxy that looks after running pods, else 0.", lambda: float(fleet.leads))
    metrics.levels("fleet_containers", "Containers of running pods, by how they stand.", ("state",), states)
    text = "How long the running pod waits that has waited longest for a fix that is there."
    metrics.gauge("fleet_longest_exposure_seconds", text, exposed)
    text = "When running pods were last surveyed, in seconds since the epoch."
    metrics.gauge("fleet_survey_timestamp_seconds", text, lambda: fleet.surveyed)
    if fleet.restarts is not None:
        counts = fleet.restarts.counts
        metrics.counts("evictions", "Evictions asked for, by what they came to.", ("result",), lambda: _single(counts))


def _pairs(counts: Mapping[tuple[str, str], int]) -> Counts:
    return {(first, second): count for (first, second), count in counts.items()}


def _single(counts: Mapping[str, int]) -> Counts:
    return {(word,): count for word, count in counts.items()}
