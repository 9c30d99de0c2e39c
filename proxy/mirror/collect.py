"""Garbage collection of the embedded mirror: mark what tags reach, then sweep manifests, then blobs.

Owns reachability. Roots are tags, digests in use, manifests that a push is writing right now and untagged ones younger
than the grace; from there indexes reach their manifests, subjects their referrers, manifests their blobs. Indexes go
before their manifests and these before their blobs, so a crash leaves nothing visible that is not whole. Plain calls,
made in a thread while the mirror's writer lock is held.
"""

import time
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet

from proxy.blobs import BlobStore
from proxy.errors import AdmendError, MalformedInput
from proxy.mirror.layout import Layout
from proxy.mirror.tags import Retention, companion_tags, plan_retention
from proxy.oci.digest import Digest
from proxy.oci.manifest import Descriptor, Index, Manifest, parse_manifest

GRACE = 3600.0  # seconds between the first byte of a push and its tag, as registries commonly allow


def content(manifest: Manifest | Index) -> tuple[Descriptor, ...]:
    """Return the blobs that a manifest must have in the mirror: not those that are fetched from elsewhere."""
    if isinstance(manifest, Index):
        return ()
    return (manifest.config, *(layer for layer in manifest.layers if not layer.urls))


def load(layout: Layout, blobs: BlobStore, repository: str, digest: Digest) -> Manifest | Index | None:
    """Return a manifest of the repository, or None when it is not there or damaged."""
    descriptor = layout.descriptor(repository, digest)
    if descriptor is None:
        return None
    try:
        return parse_manifest(blobs.final(digest).read_bytes(), descriptor.media_type, where=str(digest))
    except (FileNotFoundError, AdmendError):
        return None


def retire(layout: Layout, blobs: BlobStore, repository: str, digest: Digest) -> None:
    """Remove a manifest and its tags; raises MalformedInput when an index of the repository lists it."""
    for other in layout.manifests(repository):
        parent = load(layout, blobs, repository, other)
        if isinstance(parent, Index) and any(item.digest == digest for item in parent.manifests):
            raise MalformedInput(f"{digest} is part of the index {other}; delete that first", file=repository)
    _drop(layout, blobs, repository, digest, [])


def expire(layout: Layout, blobs: BlobStore, repository: str, digest: Digest) -> None:
    """Remove a patched image whose time is over, with its signatures' tags and those of its platforms."""
    manifest = load(layout, blobs, repository, digest)
    _drop(
        layout, blobs, repository, digest, [tag for part in (digest, *_parts(manifest)) for tag in companion_tags(part)]
    )


def _drop(layout: Layout, blobs: BlobStore, repository: str, digest: Digest, more: Iterable[str]) -> None:
    manifest = load(layout, blobs, repository, digest)
    named = [tag for tag, item in layout.tags(repository).items() if item.digest == digest]
    layout.drop_tags(repository, [*named, *more])
    subject = manifest.subject.digest if manifest and manifest.subject else None
    layout.drop_manifest(repository, digest, subject)


def plan(layout: Layout, blobs: BlobStore, repository: str, *, in_use: AbstractSet[Digest], retain: float) -> Retention:
    """Decide about the patched images of one repository."""
    tags = {tag: item.digest for tag, item in layout.tags(repository).items()}
    parts: dict[Digest, AbstractSet[Digest]] = {}
    for digest in set(tags.values()):
        manifest = load(layout, blobs, repository, digest)
        if isinstance(manifest, Index):
            parts[digest] = {item.digest for item in manifest.manifests}
    return plan_retention(tags, parts, in_use=in_use, now=time.time(), retain=retain)


def sweep_manifests(layout: Layout, blobs: BlobStore, *, in_use: AbstractSet[Digest], grace: float) -> set[Digest]:
    """Remove the manifests that nothing reaches; returns every digest that the others need."""
    needed: set[Digest] = set()
    for repository in layout.repositories():
        all_of_it = layout.manifests(repository)
        parsed = {digest: load(layout, blobs, repository, digest) for digest in all_of_it}
        cutoff = time.time() - grace
        roots = {item.digest for item in layout.tags(repository).values()}
        roots |= {d for d, came in all_of_it.items() if came > cutoff or d in in_use or blobs.pinned(d)}
        live = _reach(roots, parsed)
        for digest in _parents_first(all_of_it.keys() - live, parsed):
            manifest = parsed[digest]
            layout.drop_manifest(repository, digest, manifest.subject.digest if manifest and manifest.subject else None)
        layout.forget_empty(repository)
        needed |= live
        for digest in live:
            manifest = parsed.get(digest)
            needed.update(item.digest for item in (content(manifest) if manifest else ()))
    return needed


def _reach(roots: Iterable[Digest], parsed: dict[Digest, Manifest | Index | None]) -> set[Digest]:
    referrers: dict[Digest, list[Digest]] = {}
    for digest, manifest in parsed.items():
        if manifest is not None and manifest.subject is not None:
            referrers.setdefault(manifest.subject.digest, []).append(digest)
    live: set[Digest] = set()
    waiting = [digest for digest in roots if digest in parsed]
    while waiting:
        digest = waiting.pop()
        if digest in live:
            continue
        live.add(digest)
        waiting += [other for other in (*_parts(parsed[digest]), *referrers.get(digest, ())) if other in parsed]
    return live


def _parents_first(dead: AbstractSet[Digest], parsed: Mapping[Digest, Manifest | Index | None]) -> list[Digest]:
    """Order manifests so that an index goes before what it lists: a crash in between leaves no index with a hole."""
    ordered: list[Digest] = []
    waiting = sorted(dead)
    while waiting:
        listed = {digest for other in waiting for digest in _parts(parsed[other])}
        ordered += [digest for digest in waiting if digest not in listed]
        waiting = [digest for digest in waiting if digest in listed]
    return ordered


def _parts(manifest: Manifest | Index | None) -> tuple[Digest, ...]:
    return tuple(item.digest for item in manifest.manifests) if isinstance(manifest, Index) else ()


def unneeded(
    blobs: BlobStore, candidates: Iterable[Digest], needed: AbstractSet[Digest], *, grace: float
) -> tuple[Digest, ...]:
    """Return the blobs that can go: nothing needs them, no push holds them, and the grace is over."""
    cutoff = time.time() - grace
    spare = (digest for digest in candidates if digest not in needed and not blobs.pinned(digest))
    return tuple(digest for digest in spare if blobs.last_used(digest) <= cutoff)
