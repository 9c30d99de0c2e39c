"""Package sources: fetches what a family asks for, caches it, and knows no format.

Owns freshness. A source is asked again at most every `refresh_seconds`; files without a digest (the signed release
file) are asked for conditionally (ETag, Last-Modified), files with one come from the blob store. Verification and
indexing are a worker's job; an unchanged signed file means that the index made from it still holds. When a source
does not answer, or goes back in time, its last verified index serves on, and is called stale past `max_index_age`.
The high-water marks (`admit_date`) refuse an index older than one that any replica has seen.
"""

import asyncio
import hashlib
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from proxy.blobs import BlobStore
from proxy.clocks import is_recent
from proxy.codec import decode, encode
from proxy.derived import mark_used
from proxy.egress import Egress, Purpose
from proxy.engine.family import VALID_UNTIL, Fetch, PackageSource, SkippedSource, SourceSettings
from proxy.errors import AdmendError, TrustFailure, Unsupported, UpstreamRefused, UpstreamUnavailable
from proxy.files import writing
from proxy.flight import SingleFlight, gather_all
from proxy.jobs import EPOCH, IndexFile, RefreshStep
from proxy.packages import fetch_into
from proxy.pool import WorkerPool

PAUSE = 30.0  # seconds; a source that does not answer is left alone for so long, while its old index serves
RECENT = 3600.0  # seconds within which a source that was used counts as used
MAX_STEPS = 32  # rounds of asking that one refresh may take


@dataclass(frozen=True, slots=True)
class Validator:
    """A file that was fetched without a digest: where it is kept and how to ask whether it changed."""

    file: str
    etag: str = ""
    last_modified: str = ""


@dataclass(frozen=True, slots=True)
class SourceState:
    """A source's verified index, when it was last confirmed with the source, and whether that is too long ago."""

    index: IndexFile
    checked: datetime
    validators: Mapping[str, Validator] = field(default_factory=dict)
    stale: bool = False


class Sources:
    """The verified indexes of all sources that images have needed so far."""

    def __init__(
        self,
        root: Path,
        store: BlobStore,
        egress: Egress,
        pool: WorkerPool,
        settings: SourceSettings,
        *,
        refresh_seconds: float,
        max_index_age: float,
    ) -> None:
        self._root, self._store, self._egress, self._pool = root, store, egress, pool
        self._settings = encode(settings)
        self._refresh = refresh_seconds
        self._max_age = max_index_age
        self.admit_date: Callable[[str, datetime], Awaitable[None]] | None = None  # the high-water marks, if any
        self._states: dict[str, SourceState] = {}
        self._pauses: dict[str, float] = {}  # until when, of time.monotonic()
        self._flights: SingleFlight[str, SourceState] = SingleFlight()
        self.lookups = Counter[str]()  # indexes that were young enough (hit) or were confirmed first (miss)
        self.refreshes = Counter[str]()  # by what they came to
        self._used: dict[str, float] = {}
        keys = {name: hashlib.sha256(ring).hexdigest() for name, ring in settings.keyrings.items()}
        self._trust = json.dumps([keys, EPOCH], sort_keys=True)

    @property
    def settings(self) -> object:
        """The source settings as JSON types, as the engine's jobs take them."""
        return self._settings

    async def refresh_all(
        self, sources: Sequence[PackageSource]
    ) -> tuple[tuple[SourceState, ...], tuple[SkippedSource, ...]]:
        """Return the states of the sources, refreshed where due, and those that have nothing for the architecture.

        The native tool passes over the latter as well. Raises the first source's error of any other kind.
        """
        found = await gather_all(self._state_or_skip(source) for source in sources)
        states = tuple(item for item in found if isinstance(item, SourceState))
        return states, tuple(item for item in found if isinstance(item, SkippedSource))

    async def _state_or_skip(self, source: PackageSource) -> SourceState | SkippedSource:
        try:
            return await self.state(source)
        except Unsupported as error:
            return SkippedSource(source.uri, source.written, str(error))

    async def state(self, source: PackageSource) -> SourceState:
        """Return one source's state, refreshed if it was not asked for `refresh_seconds`."""
        key = self._key(source)
        known = self._states.get(key)
        if known is None or not mark_used(self._root / known.index.file):
            known = await asyncio.to_thread(self._load, key)
        self._used[key] = time.monotonic()
        fresh = known is not None and is_recent(known.checked, datetime.now(UTC), self._refresh)
        young = known is not None and (fresh or time.monotonic() < self._pauses.get(key, 0.0))
        self.lookups["hit" if young else "miss"] += 1
        if known is not None and young:
            self._states[key] = known
            return known
        return await self._flights.run(key, lambda: self._update(key, source, known))

    def oldest_age(self) -> float:
        """Return the seconds since the oldest confirmation of a source, of those used in the last hour."""
        now, since = datetime.now(UTC), time.monotonic() - RECENT
        used = [self._states[key] for key, when in self._used.items() if when > since and key in self._states]
        return max(((now - state.checked).total_seconds() for state in used), default=0.0)

    async def _update(self, key: str, source: PackageSource, known: SourceState | None) -> SourceState:
        now = datetime.now(UTC)
        try:
            state = _not_older(await self._confirm(key, source, known, now), known)
        except UpstreamUnavailable:  # a mirror that lags counts as one that does not answer: what is newer stays
            if known is None or _expired(known, now):
                self.refreshes["failed"] += 1
                raise
            self.refreshes["kept"] += 1
            self._pauses[key] = time.monotonic() + PAUSE
            state = replace(known, stale=not is_recent(known.checked, now, self._max_age))
            self._states[key] = state
            return state
        except Unsupported:
            self.refreshes["unsupported"] += 1
            raise
        except AdmendError:
            self.refreshes["failed"] += 1
            raise
        self.refreshes["unchanged" if known is not None and state.index == known.index else "new"] += 1
        if self.admit_date is not None:
            await self.admit_date(source.label, state.index.date)
        self._states[key] = state
        await asyncio.to_thread(self._save, key, state, known)
        return state

    async def _confirm(self, key: str, source: PackageSource, known: SourceState | None, now: datetime) -> SourceState:
        """Ask the source for what it has now, verify it, and return the new state."""
        answers: dict[str, str | None] = {}
        validators: dict[str, Validator] = {}
        old = known.validators if known else {}
        if known is not None and not _expired(known, now) and (self._root / known.index.file).exists():
            fetched = await gather_all(self._fetch_mutable(key, Fetch(url), old.get(url)) for url in old)
            validators = {url: item for url, item in zip(old, fetched, strict=True) if item is not None}
            if {url: item.file for url, item in validators.items()} == {url: item.file for url, item in old.items()}:
                return replace(known, checked=now, validators=validators, stale=False)
            answers = {url: item.file for url, item in validators.items()}
        for _ in range(MAX_STEPS):
            step = await self._step(key, source, now, answers)
            if step.index is not None:
                return SourceState(step.index, now, validators)
            for fetch, validator, name in await gather_all(self._answer(key, fetch, old) for fetch in step.need):
                answers[fetch.url] = name
                if validator is not None:
                    validators[fetch.url] = validator
        raise TrustFailure(f"{source.label}: still asks for files after {MAX_STEPS} rounds; refused")

    async def _step(
        self, key: str, source: PackageSource, now: datetime, answers: Mapping[str, str | None]
    ) -> RefreshStep:
        pinned = [name for name in answers.values() if name is not None]
        name = f"sources/{key}.{hashlib.sha256(json.dumps(sorted(pinned)).encode()).hexdigest()[:16]}.index"
        answer = await self._pool.run(
            "refresh",
            root=str(self._root),
            source=encode(source),
            settings=self._settings,
            now=now.isoformat(),
            answers=dict(answers),
            name=name,
        )
        return decode(RefreshStep, answer, "refresh")

    async def _answer(
        self, key: str, fetch: Fetch, old: Mapping[str, Validator]
    ) -> tuple[Fetch, Validator | None, str | None]:
        """Answer one request of the family: a file name, or None where the source does not have the file."""
        if fetch.digest is None:
            validator = await self._fetch_mutable(key, fetch, old.get(fetch.url))
            return fetch, validator, validator.file if validator else None
        try:
            return fetch, None, str(await fetch_into(self._store, self._egress, fetch))
        except UpstreamRefused as error:
            if error.status in {404, 410}:
                return fetch, None, None
            raise

    async def _fetch_mutable(self, key: str, fetch: Fetch, old: Validator | None) -> Validator | None:
        """Fetch a file that has no digest, conditionally; None where the source does not have it."""
        headers = {}
        if old is not None and (self._root / old.file).exists():
            headers = {"If-None-Match": old.etag} if old.etag else {}
            headers |= {"If-Modified-Since": old.last_modified} if old.last_modified else {}
        response = await self._egress.fetch(fetch.url, limit=fetch.limit, headers=headers, purpose=Purpose.SOURCE)
        if response.status == 304 and old is not None:  # noqa: PLR2004 - HTTP Not Modified
            return old
        if response.status in {404, 410}:
            return None
        if response.status != 200:  # noqa: PLR2004 - HTTP OK
            raise UpstreamRefused(f"{fetch.url}: the source answered {response.status}", status=response.status)
        content = hashlib.sha256(response.body).hexdigest()
        name = f"sources/{key}.{content[:32]}.signed"
        if not (self._root / name).exists():
            with writing(self._root / name) as out:
                out.write(response.body)
        etag, modified = response.headers.get("etag", ""), response.headers.get("last-modified", "")
        return Validator(name, etag, modified)

    def _key(self, source: PackageSource) -> str:
        identity = json.dumps(encode(replace(source, written="")), sort_keys=True) + self._trust
        return hashlib.sha256(identity.encode()).hexdigest()[:32]

    def _load(self, key: str) -> SourceState | None:
        path = self._root / f"sources/{key}.json"
        try:
            state = decode(SourceState, json.loads(path.read_bytes()), str(path))
        except (OSError, ValueError, AdmendError):
            return None  # a cache: what cannot be read is fetched again
        return state if mark_used(self._root / state.index.file) else None

    def _save(self, key: str, state: SourceState, known: SourceState | None) -> None:
        """Write the state, and remove files older than the previous one's, which a running job may still read."""
        with writing(self._root / f"sources/{key}.json") as out:
            out.write(json.dumps(encode(state)).encode())
        keep = {name for kept in (state, known) if kept for name in _files(kept)}
        for path in (self._root / "sources").glob(f"{key}.*"):
            name = f"sources/{path.name}"
            if name not in keep and path.suffix in {".index", ".signed"}:
                path.unlink(missing_ok=True)


def _not_older(state: SourceState, known: SourceState | None) -> SourceState:
    if known is not None and state.index.date < known.index.date:
        source = state.index.source.label
        raise UpstreamUnavailable(f"{source}: its index went back to {state.index.date:%Y-%m-%d %H:%M} UTC")
    return state


def _files(state: SourceState) -> tuple[str, ...]:
    return (state.index.file, *(validator.file for validator in state.validators.values()))


def _expired(state: SourceState, now: datetime) -> bool:
    until = state.index.facts.get(VALID_UNTIL)
    return until is not None and datetime.fromisoformat(until) < now
