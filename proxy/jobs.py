"""The engine's jobs: files in, files out, one function each, run in a worker process.

Owns opening the files that the shell names and calling the engine on them; it is the only place where the engine
meets a disk. It makes no decision of its own. Every file is named relative to `root`, the proxy's cache folder, by a
name that the shell chose. Output files are written under a temporary name and renamed, so that a killed worker
leaves nothing half-written under a name that somebody reads.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal

from proxy.codec import decode, encode
from proxy.engine.abi import refuse_broken
from proxy.engine.families import FAMILIES
from proxy.engine.family import (
    Absent,
    Blob,
    Distribution,
    Effect,
    Family,
    Fetch,
    Installed,
    InstalledDb,
    Judgement,
    NotRecordable,
    Package,
    PackageIndex,
    PackageSource,
    Payload,
    SkippedSource,
    SourceSettings,
)
from proxy.engine.layer import COMPRESSION_EPOCH, WrittenLayer, write_layer
from proxy.engine.layerindex import LayerIndex
from proxy.engine.nodatabase import why_none
from proxy.engine.plan import PlanPolicy, plan_upgrades
from proxy.engine.rootfs import RootFS
from proxy.engine.scan import extract_layer, outline_layer, scan_layer
from proxy.engine.tar import Readable
from proxy.errors import MalformedInput, Unsupported
from proxy.files import Abandoned, writing
from proxy.growing import GrowingFile, Stalled
from proxy.payloads import parse_payload, render_payload
from proxy.spans import SpanReader, read_span

EPOCH = f"5-{COMPRESSION_EPOCH}"


@dataclass(frozen=True, slots=True)
class Scanned:
    """A scanned layer: its index and captures are in the cache under the name that was asked for."""

    diff_id: str
    entries: int


@dataclass(frozen=True, slots=True)
class LayerFile:
    """A scanned layer: its scan's name in the cache, and its blob (absolute path, media type) for a second look."""

    name: str
    blob: str
    media_type: str


@dataclass(frozen=True, slots=True)
class Inspection:
    """What an image holds. `family` is empty where no package database was found, and `reason` then says so."""

    family: str
    reason: str = ""
    distribution: Distribution = field(default_factory=lambda: Distribution(""))
    arch: str = ""
    packages: tuple[Installed, ...] = ()
    sources: tuple[PackageSource, ...] = ()
    skipped_sources: tuple[SkippedSource, ...] = ()


@dataclass(frozen=True, slots=True)
class IndexFile:
    """A verified source index in the cache (`PackageIndex` with a file name for the blob)."""

    source: PackageSource
    date: datetime
    facts: Mapping[str, str]
    file: str


@dataclass(frozen=True, slots=True)
class RefreshStep:
    """Either the files that are needed next, or the finished index."""

    need: tuple[Fetch, ...] = ()
    index: IndexFile | None = None


@dataclass(frozen=True, slots=True)
class Built:
    """The payloads' judgements by package key, and the written patch layer unless one of them speaks against it."""

    layer: WrittenLayer | None = None
    judgements: Mapping[str, Judgement] = field(default_factory=dict)

    @property
    def unsupported(self) -> dict[str, str]:
        """The reasons of those packages that cannot be recorded faithfully."""
        return {key: judgement.reason for key, judgement in self.judgements.items() if judgement.reason}


@dataclass(frozen=True, slots=True)
class Image:
    """An opened image: its merged root file system, the family that owns its database, and the database."""

    fs: RootFS
    family: Family
    db: InstalledDb


def scan(*, root: str, layer: str, media_type: str, where: str, name: str) -> Any:
    """Scan the layer file `layer` (an absolute path) into `<name>.index` and `<name>.captures`."""
    with Path(layer).open("rb") as stream:
        return _scan(stream, root, media_type, where, name, name)


def scan_early(
    *, root: str, layer: str, partial: str, size: int, media_type: str, where: str, name: str, out: str
) -> Any:
    """Scan a layer that is still being written to `partial` and becomes `layer` when it has `size` bytes.

    As `scan`, but into `<out>.index` and `<out>.captures`, since nobody has checked the layer's digest so far; they
    are right under `name` once it was. Returns None where the writer is too slow to wait for.
    """
    try:
        with GrowingFile(Path(partial), Path(layer), size) as stream:
            return _scan(stream, root, media_type, where, name, out)
    except (Stalled, FileNotFoundError):
        return None


def _scan(stream: Readable, root: str, media_type: str, where: str, name: str, out: str) -> Any:  # noqa: PLR0917
    base = Path(root)
    with writing(base / f"{out}.captures") as captures:
        index = scan_layer(
            stream, media_type, keep=_kept, captures=captures, captures_name=f"{name}.captures", where=where
        )
    with writing(base / f"{out}.index") as file:
        file.write(index.render())
    return encode(Scanned(str(index.diff_id), len(index.entries)))


def inspect(*, root: str, layers: Any, settings: Any) -> Any:
    """Open the image made of the scanned `layers` (names, bottom first) and say what it holds."""
    try:
        image = _open_image(root, decode(tuple[LayerFile, ...], layers, "layers"))
    except Unsupported as error:
        return encode(Inspection(family="", reason=str(error)))
    sources, skipped = image.family.sources(image.fs, image.db, decode(SourceSettings, settings, "settings"))
    db = image.db
    found = Inspection(
        family=image.family.name,
        reason=image.family.inspect_only,
        distribution=db.distribution,
        arch=db.arch,
        packages=tuple(db.packages),
        sources=tuple(sources),
        skipped_sources=tuple(skipped),
    )
    return encode(found)


def refresh(*, root: str, source: Any, settings: Any, now: str, answers: Mapping[str, str | None], name: str) -> Any:
    """Verify one source's index with the files known so far.

    `answers` maps URLs to file names, or to None where the source does not have the file. Returns a `RefreshStep`;
    the finished index is in the file `name`.
    """
    wanted = decode(PackageSource, source, "source")
    step = RefreshStep()
    with writing(Path(root) / name) as spool:
        steps = family_named(wanted.family).refresh(
            wanted, decode(SourceSettings, settings, "settings"), decode(datetime, now, "now"), spool
        )
        try:
            need = next(steps)
            while all(fetch.url in answers for fetch in need):
                need = steps.send({fetch: _answer(root, fetch.url, answers[fetch.url]) for fetch in need})
        except StopIteration as finished:
            index: PackageIndex = finished.value
            step = RefreshStep(index=IndexFile(index.source, index.date, dict(index.facts), name))
        else:
            step = RefreshStep(need=tuple(fetch for fetch in need if fetch.url not in answers))
            raise Abandoned
    return encode(step)


def plan(*, root: str, layers: Any, indexes: Any, policy: Any, excluded: Mapping[str, str]) -> Any:
    """Plan the upgrades of an image. `excluded` maps package keys to the reason why they must not move."""
    image = _open_image(root, decode(tuple[LayerFile, ...], layers, "layers"))
    opened = tuple(_open_index(root, decode(IndexFile, item, "index")) for item in indexes)
    candidates = image.family.candidates(image.fs, image.db, opened)
    wanted = decode(PlanPolicy, policy, "policy")
    with ExitStack() as stack:
        market = None
        if wanted.transitions != "none":
            market = stack.enter_context(image.family.additions(image.fs, image.db, opened))
        found = plan_upgrades(
            image.db.packages,
            candidates,
            image.family.compare,
            wanted,
            excluded,
            addable=market,
            market=market if wanted.transitions == "full" else None,
        )
    return encode(found)


def unpack(*, root: str, family: str, package: Any, archive: str, name: str) -> Any:
    """Unpack the package file `archive` (absolute path) into `<name>.payload` and `<name>.data`."""
    wanted = decode(Package, package, "package")
    base = Path(root)
    with Path(archive).open("rb") as stream, writing(base / f"{name}.data") as spool:
        payload = family_named(family).unpack(wanted, stream, spool, f"{name}.data")
    with writing(base / f"{name}.payload") as out:
        out.write(render_payload(payload))
    return None


def build(
    *,
    root: str,
    layers: Any,
    payloads: Mapping[str, str],
    out: str,
    compression: Literal["gzip", "zstd"],
    docker: bool,
    check_only: bool,
    apply_unknown: bool = False,
    removals: Sequence[str] = (),
) -> Any:
    """Write the patch layer for the unpacked `payloads` (package key -> name) and the `removals` (keys) to `out`.

    With `check_only` nothing is written: the answer says only what cannot be recorded faithfully. With `apply_unknown`
    packages whose scripts are not understood are recorded without them.
    """
    files = decode(tuple[LayerFile, ...], layers, "layers")
    image = _open_image(root, files)
    unpacked = {key: _load_payload(root, name) for key, name in payloads.items()}
    judged = Built(judgements={key: _judge_removal(root, files, key, apply_unknown) for key in removals})
    if judged.unsupported:
        return encode(judged)
    gone = frozenset(removals)
    bare = frozenset(key for key in gone if judged.judgements[key].effect is Effect.UNKNOWN)
    found = {key: _judge(root, files, name, apply_unknown, gone, bare) for key, name in payloads.items()}
    judged = Built(judgements={**judged.judgements, **found})
    if judged.unsupported:
        return encode(judged)
    try:
        unscripted = {key for key, found in judged.judgements.items() if found.effect is Effect.UNKNOWN}
        payloads_ = tuple(unpacked.values())
        entries = image.family.record(image.fs, image.db, payloads_, unscripted=unscripted, removed=gone)
        refuse_broken(image.fs, image.db, unpacked, entries, gone)
    except NotRecordable as error:
        reasons = {key: Judgement(Effect.UNKNOWN, f"{key}: {reason}") for key, reason in error.reasons.items()}
        return encode(Built(judgements={**judged.judgements, **reasons}))
    if check_only:
        return encode(judged)
    with writing(Path(root) / out) as stream, SpanReader(root) as spans:
        layer = write_layer(
            entries,
            stream,
            compression=compression,
            media="docker" if docker else "oci",
            read_span=spans.chunks,
        )
    for kept in (_open_image, _load_payload, _judge, _judge_removal):
        kept.cache_clear()
    return encode(Built(layer, judged.judgements))


JOBS: Mapping[str, Callable[..., Any]] = {
    job.__name__: job for job in (scan, scan_early, inspect, refresh, plan, unpack, build)
}


def family_named(name: str) -> Family:
    """Return the family of that name."""
    for family in FAMILIES:
        if family.name == name:
            return family
    raise MalformedInput("no such package family", text=name)


def _kept(path: str) -> bool:
    return any(family.keeps(path) for family in FAMILIES)


@lru_cache(maxsize=1)
def _open_image(root: str, layers: tuple[LayerFile, ...]) -> Image:
    """Open an image once for the jobs of one patch, which prefer the same worker; what was kept of another goes."""
    _load_payload.cache_clear()
    _judge.cache_clear()
    _judge_removal.cache_clear()
    indexes = [LayerIndex.parse((Path(root) / f"{layer.name}.index").read_bytes()) for layer in layers]
    fs = RootFS(indexes, partial(read_span, root), partial(_read_again, layers), partial(_outline_again, layers))
    for family in FAMILIES:
        db = family.open(fs)
        if db is not None:
            return Image(fs, family, db)
    raise Unsupported(why_none(fs))


@lru_cache(maxsize=256)
def _load_payload(root: str, name: str) -> Payload:
    """Load an unpacked package once for the builds of one patch: one that excluded a package is followed by another."""
    return parse_payload((Path(root) / f"{name}.payload").read_bytes(), name)


@lru_cache(maxsize=256)
def _judge(  # noqa: PLR0917 - what the answer depends on
    root: str,
    layers: tuple[LayerFile, ...],
    name: str,
    apply_unknown: bool,
    removed: frozenset[str],
    unscripted: frozenset[str],
) -> Judgement:
    """Say, once for the builds of one patch, whether a payload can be recorded faithfully."""
    image = _open_image(root, layers)
    return image.family.judge(
        image.fs,
        image.db,
        _load_payload(root, name),
        apply_unknown=apply_unknown,
        removed=removed,
        unscripted=unscripted,
    )


@lru_cache(maxsize=256)
def _judge_removal(root: str, layers: tuple[LayerFile, ...], key: str, apply_unknown: bool) -> Judgement:
    """Say, once for the builds of one patch, whether a removal can be recorded faithfully."""
    image = _open_image(root, layers)
    return image.family.judge_removal(image.fs, image.db, key, apply_unknown=apply_unknown)


def _read_again(layers: Sequence[LayerFile], place: int, paths: set[str]) -> dict[str, bytes]:
    """Read files that were not kept from their layer's blob; slow, for the rare ones that nobody foresaw."""
    layer, captured = layers[place], io.BytesIO()
    with Path(layer.blob).open("rb") as stream:
        found = extract_layer(
            stream, layer.media_type, paths, captures=captured, captures_name="", where=f"layer {layer.blob}"
        )
    if lacking := sorted(paths - set(found)):
        raise MalformedInput(
            "its index names a file that it does not have; remove the cache folder", file=layer.blob, text=lacking[0]
        )
    data = captured.getbuffer()
    return {path: bytes(data[span.offset : span.offset + span.size]) for path, span in found.items()}


def _outline_again(layers: Sequence[LayerFile], place: int, paths: set[str]) -> dict[str, bytes | None]:
    """Read the outlines of programs from their layer's blob."""
    layer = layers[place]
    with Path(layer.blob).open("rb") as stream:
        return outline_layer(stream, layer.media_type, paths, where=f"layer {layer.blob}")


def _open_index(root: str, index: IndexFile) -> PackageIndex:
    return PackageIndex(index.source, index.date, index.facts, _blob(root, index.file))


def _blob(root: str, name: str) -> Blob:
    path = Path(root) / name
    return Blob(name, path.stat().st_size, lambda: path.open("rb"))


def _answer(root: str, url: str, name: str | None) -> Blob | Absent:
    return Absent(f"{url} is not there (404)") if name is None else _blob(root, name)
