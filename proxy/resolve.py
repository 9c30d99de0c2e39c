"""Resolve: an image reference to an outcome.

Owns the cache, single flight, freshness and the deadline:

1. the reference is read; one that points into the mirror is mapped back to its original;
2. its digest is found, and whether whoever asks may have the image (see `entrance`): nothing below is done or told
   for who may not, whatever is known already. A record that says `public` is proof enough for its digest;
3. a record of that digest, the platforms and the policy is looked for in memory, then in the mirror;
4. a record younger than `refresh_seconds` is the answer; an older one is confirmed against its sources first, and
   kept when they have not changed;
5. otherwise the image is patched, signed and pushed: once, however many ask (single flight per key);
6. of a private image, the answer names the pull secret that nodes need, or says why the image stays (see `privacy`).

The work goes on when a caller's deadline passes; the caller gets the older patched result if there is one, else
`pending`. A failure is remembered for `negative_ttl` seconds; an older patched result stays in force. Dry runs answer
from the caches and start nothing. A patched image is only answered with on the mirror's word of at most `mirror_ttl`
ago that it has it. Every answer says whether nodes are known to reach the mirror (`hold`).
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

from certs.traces import child_span
from proxy.api import Outcome, ResolveRequest, ResolveResponse
from proxy.clocks import is_recent
from proxy.codec import decode
from proxy.engine.family import PackageSource
from proxy.entrance import Asker, Entrance, Entry
from proxy.errors import AdmendError, MalformedInput, TrustFailure, Unsupported, UpstreamRefused, UpstreamUnavailable
from proxy.flight import SingleFlight
from proxy.images import RegistryImage
from proxy.lanes import Lane, current_lane
from proxy.mirror import Mirror
from proxy.oci.digest import Digest
from proxy.oci.manifest import Index, Platform
from proxy.oci.reference import ImageRef
from proxy.patcher import Patcher, Target
from proxy.phases import Phases
from proxy.privacy import Privacy
from proxy.publish import Publisher, describe
from proxy.records import Record, Records, record_key
from proxy.results import present_platforms
from proxy.sources import Sources
from proxy.witness import Witness, answer_of_mirror

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

_log = logging.getLogger(__name__)

MAX_REMEMBERED = 10_000  # records, tags and failures kept in memory, each


@dataclass(frozen=True, slots=True)
class ResolveSettings:
    """Times in seconds; see `proxy.config` for what each means."""

    platforms: tuple[str, ...]
    policy_hash: str
    tag_ttl: float
    refresh_seconds: float
    max_index_age: float
    negative_ttl: float
    mirror_ttl: float
    resign_seconds: float = 86_400.0


@dataclass(frozen=True, slots=True)
class _Wanted:
    """One resolve after its reference was understood."""

    image: ImageRef  # as asked for, mapped back from the mirror
    name: ImageRef  # where its patched image lives in the mirror
    digest: Digest
    platforms: tuple[str, ...]
    key: str
    asker: Asker
    private: bool

    @property
    def work(self) -> str:
        """Names the work: one image under two names is two results, each signed for its own name."""
        return f"{self.name.name} {self.key}"


@dataclass(frozen=True, slots=True)
class _Failure:
    error: AdmendError
    until: float


class Resolve:
    """Answers what /v1/resolve, the pull-through path and the command line ask."""

    def __init__(
        self,
        *,
        entrance: Entrance,
        privacy: Privacy,
        mirror: Mirror,
        records: Records,
        sources: Sources,
        patcher: Patcher,
        publisher: Publisher,
        settings: ResolveSettings,
        hold: Callable[[], str] = lambda: "",
    ) -> None:
        self._entrance, self._privacy = entrance, privacy
        self._mirror, self._records = mirror, records
        self._sources, self._patcher, self._publisher = sources, patcher, publisher
        self._settings, self._hold = settings, hold
        self.lookups = Counter[tuple[str, str]]()  # records that were there (hit) or not (miss)
        self.published: Callable[[Record, Phases], None] | None = None  # told of each patch that was made
        self._known: dict[str, Record] = {}
        self._failed: dict[str, _Failure] = {}
        self._flights: SingleFlight[str, Record] = SingleFlight()
        self._lanes: dict[str, Lane] = {}  # of the flights
        self._loads: SingleFlight[str, Record | None] = SingleFlight()
        self._witness = Witness(mirror, settings.mirror_ttl)

    @property
    def tag_lookups(self) -> Counter[str]:
        """What tags and rights were known (hit) or had to be asked for (miss)."""
        return self._entrance.lookups

    @property
    def running(self) -> int:
        """How many images are being confirmed or patched now."""
        return len(self._flights)

    async def resolve(self, request: ResolveRequest, asker: Asker | None = None) -> ResolveResponse:
        """Answer one request; errors become the outcome `failed` with their reason.

        `asker` is for whom, if the request itself does not say it.
        """
        start = time.perf_counter()
        try:
            answer = await self._resolve(request, asker or Asker.of(request))
        except Unsupported as error:
            answer = ResolveResponse(outcome=Outcome.UNSUPPORTED, image=request.image, reason=str(error))
        except AdmendError as error:
            answer = ResolveResponse(outcome=Outcome.FAILED, image=request.image, reason=f"{error.code}: {error}")
        return answer.model_copy(update={"milliseconds": 1000 * (time.perf_counter() - start), "hold": self._hold()})

    async def close(self) -> None:
        """End all background work."""
        await self._entrance.close()
        await self._loads.close()
        await self._flights.close()
        await self._witness.close()

    async def _resolve(self, request: ResolveRequest, asker: Asker) -> ResolveResponse:
        image = await self._original(ImageRef.parse(request.image))
        deadline = time.monotonic() + request.wait_seconds
        entry = await self._find_public(image, asker, request.platforms, deadline)
        if entry is None:
            entry = await self._entrance.enter(
                image, asker, always=request.always, dry_run=request.dry_run, deadline=deadline
            )
        if entry is None:
            why = "a dry run asks no registry" if request.dry_run else "the registry has not answered yet"
            return ResolveResponse(outcome=Outcome.PENDING, image=str(image), reason=f"digest not known: {why}")
        wanted = self._wanted(image, entry, asker, request.platforms)
        kept = self._privacy.keeps(asker) if entry.private else ""
        if kept:
            source = str(image.with_digest(entry.digest))
            return ResolveResponse(outcome=Outcome.UNSUPPORTED, image=str(image), source=source, reason=kept)
        if not request.dry_run:
            await self._privacy.note(wanted.name, private=entry.private)
        answer = await self._look(wanted, deadline, dry_run=request.dry_run)
        if not entry.private or answer.outcome is not Outcome.PATCHED:
            return answer
        secret = await self._privacy.make_pull_secret(
            asker.namespace, wanted.name, dry_run=request.dry_run or request.audit
        )
        return answer.model_copy(update={"pull_secret": secret})

    async def _find_public(
        self, image: ImageRef, asker: Asker, platforms: Sequence[str], deadline: float
    ) -> Entry | None:
        """Return an image named by digest whose record says that anybody may have it: nobody need be asked."""
        if image.digest is None or self._privacy.is_private(self._mirror.name_for(image)):
            return None
        entry = Entry(image.digest, private=False)
        record = await self._cached(self._wanted(image, entry, asker, platforms), deadline)
        return entry if record is not None and record.public else None

    async def _look(self, wanted: _Wanted, deadline: float, *, dry_run: bool) -> ResolveResponse:
        """Answer for an image that the asker may have."""
        record = await self._cached(wanted, deadline)
        if record is not None and not await self._served(wanted, record, deadline):
            self._known.pop(wanted.work, None)
            record = None
        if record is not None and not record.public and not wanted.private:
            record = record.model_copy(update={"public": True})  # written down with the next signature
            _remember(self._known, wanted.work, record)
        if record is not None and (dry_run or self._fresh(record)):
            return record.response(wanted.image, wanted.name)
        if dry_run:
            return self._pending(wanted, "a dry run patches nothing; no result is cached")
        return await self._answer(wanted, record, deadline)

    async def _answer(self, wanted: _Wanted, record: Record | None, deadline: float) -> ResolveResponse:
        """Answer with what the shared work comes to; until it succeeds, an older patched result stays in force."""
        reason = "the patch is under way and goes on in the background"
        try:
            renewed = await self._renewed(wanted, record, deadline)
            if renewed is not None:
                return await self._respond(wanted, renewed, deadline)
        except AdmendError as error:
            if record is None or record.outcome is not Outcome.PATCHED:
                raise
            reason = f"a newer one failed: {error}"
        if record is None or record.outcome is not Outcome.PATCHED:
            return self._pending(wanted, reason)
        stale = record.stale or not is_recent(record.checked, datetime.now(UTC), self._settings.max_index_age)
        kept = {"stale": stale, "reason": f"an older result: {reason}"}
        return (await self._respond(wanted, record, deadline)).model_copy(update=kept)

    async def _respond(self, wanted: _Wanted, record: Record, deadline: float) -> ResolveResponse:
        """Answer with a record, unless the mirror lacks its image: work may have taken longer than a word holds."""
        if not await self._served(wanted, record, deadline):
            why = "though it was put there; the next request puts it there again"
            raise UpstreamUnavailable(f"the mirror does not have {wanted.name.name}@{record.patched}, {why}")
        return record.response(wanted.image, wanted.name)

    async def _renewed(self, wanted: _Wanted, record: Record | None, deadline: float) -> Record | None:
        """Return the renewed record, or None when it is not there in time; raises what the work failed with."""
        failure = self._recent_failure(wanted.work)
        if failure is not None:
            raise failure
        if current_lane().background:
            self._lanes.setdefault(wanted.work, current_lane())
        elif wanted.work in self._lanes:
            self._lanes[wanted.work].lift()  # what was begun ahead of need is waited for now
        joined = wanted.work in self._flights
        task = self._flights.start(wanted.work, lambda: self._renew(wanted, record))
        done, _ = await asyncio.wait([task], timeout=max(0.0, deadline - time.monotonic()))
        if not done:
            return None
        if joined and wanted.private and isinstance(task.exception(), UpstreamRefused):
            return await self._renewed(wanted, record, deadline)  # another namespace's credentials were refused
        return task.result()

    def _recent_failure(self, work: str) -> AdmendError | None:
        failure = self._failed.get(work)
        return failure.error if failure is not None and failure.until > time.monotonic() else None

    async def _original(self, asked: ImageRef) -> ImageRef:
        """Map a reference into the mirror back to what it was made from; any other is what was asked for."""
        original = self._mirror.original_of(asked)
        if original is None:
            return asked
        if asked.digest is None:
            return original
        return await self._publisher.find_source(asked) or original

    def _wanted(self, image: ImageRef, entry: Entry, asker: Asker, platforms: Sequence[str]) -> _Wanted:
        chosen = tuple(sorted(str(Platform.parse(text)) for text in platforms or self._settings.platforms))
        key = record_key(entry.digest, chosen, self._settings.policy_hash)
        name = self._mirror.name_for(image)
        return _Wanted(image, name, entry.digest, chosen, key, asker, entry.private)

    def _pending(self, wanted: _Wanted, reason: str) -> ResolveResponse:
        source = str(wanted.image.with_digest(wanted.digest))
        return ResolveResponse(outcome=Outcome.PENDING, image=str(wanted.image), source=source, reason=reason)

    async def _cached(self, wanted: _Wanted, deadline: float) -> Record | None:
        record = self._believed(self._known.get(wanted.work), "record_memory")
        if record is None:
            what = f"has a result for {wanted.image}"
            found = await answer_of_mirror(self._loads, wanted.work, lambda: self._load(wanted), deadline, what)
            record = self._believed(found, "record_mirror")
            if record is not None:
                _remember(self._known, wanted.work, record)
        return record

    def _believed(self, record: Record | None, layer: str) -> Record | None:
        """Return the record that a cache held, if it is of a key that counts; counts the lookup."""
        believed = record if record is not None and self._records.believes(record) else None
        self.lookups[layer, "miss" if believed is None else "hit"] += 1
        return believed

    async def _load(self, wanted: _Wanted) -> Record | None:
        try:
            return await self._records.load(wanted.name, wanted.key)
        except (MalformedInput, TrustFailure):
            return None  # a record that does not hold is as good as none: the image is patched again

    async def _served(self, wanted: _Wanted, record: Record, deadline: float) -> bool:
        """Say whether the mirror has the record's image, by its word of at most `mirror_ttl` ago."""
        if not record.patched:
            return True
        return await self._witness.serves(wanted.name.with_digest(Digest.parse(record.patched)), deadline)

    def _fresh(self, record: Record) -> bool:
        return is_recent(record.checked, datetime.now(UTC), self._settings.refresh_seconds)

    async def _renew(self, wanted: _Wanted, record: Record | None) -> Record:
        """Confirm the record against its sources, or patch the image; remembers what it came to."""
        try:
            renewed = await self._confirm(wanted, record) if record else None
            if renewed is None:
                renewed = await self._patch(wanted)
        except AdmendError as error:
            if not (wanted.private and isinstance(error, UpstreamRefused)):  # that is one namespace's, not the image's
                self._remember_failure(wanted.work, error)
            _log.warning("%s: %s", wanted.image, error)
            raise
        finally:
            self._lanes.pop(wanted.work, None)
        self._failed.pop(wanted.work, None)
        _remember(self._known, wanted.work, renewed)
        return renewed

    def _remember_failure(self, work: str, error: AdmendError) -> None:
        _remember(self._failed, work, _Failure(error, time.monotonic() + self._settings.negative_ttl))

    async def _confirm(self, wanted: _Wanted, record: Record) -> Record | None:
        """Return the record with a new time of check if its sources have not changed since, else None."""
        if not record.sources:
            return None
        sources = tuple(decode(PackageSource, item, "source") for item in record.sources)
        states, _ = await self._sources.refresh_all(sources)
        dates = {state.index.source.label: state.index.date.isoformat() for state in states}
        if dates != {item.source: item.date for item in record.as_of}:
            return None
        await self._records.mend(wanted.name, record)
        now = datetime.now(UTC)
        stale = any(state.stale for state in states)
        checked = min(state.checked for state in states)
        confirmed = record.model_copy(update={"checked": checked, "stale": stale})
        if is_recent(record.signed, now, self._settings.resign_seconds):
            return confirmed
        return await self._publisher.resign(wanted.name, confirmed)

    async def _patch(self, wanted: _Wanted) -> Record:
        """Patch, push and sign; returns the record that now holds."""
        ref = wanted.image.with_digest(wanted.digest)
        registry = await self._entrance.connect(ref, wanted.asker, private=wanted.private)
        source = RegistryImage(registry, ref, private=wanted.private)
        phases = Phases()
        with ExitStack() as keep:
            keep.enter_context(child_span("patch")).set("container.image.name", str(ref))
            with phases.phase("pull"):
                top = await source.get_manifest(wanted.digest)
            target = Target(source, wanted.image.name, phases, keep)
            platforms: Sequence[Platform] = [Platform.parse(text) for text in wanted.platforms]
            if isinstance(top, Index):
                platforms = present_platforms(top, platforms)
            result = await self._patcher.patch(top, target, platforms)
            record = describe(wanted.key, ref, result, phases, public=not wanted.private)
            held = await self._publisher.publish(wanted.name, record, result, phases)
            if self.published is not None:
                self.published(held, phases)
            return held


def _remember(memory: dict[K, V], key: K, value: V) -> None:
    """Put a value into a bounded dictionary, dropping the one that was put in first."""
    memory.pop(key, None)
    memory[key] = value
    if len(memory) > MAX_REMEMBERED:
        memory.pop(next(iter(memory)))
