"""The mirror's own tags, and which patched images have had their time.

Owns the names and the decision, no IO:

- `src-<key>` points at the newest patched image of a source; it moves.
- `sha256-<hex>.patched` points at the patched digest it names, for as long as that is kept; it never moves. It cannot
  collide with cosign's `.sig`, `.att` and `.sbom` nor with the referrers fallback tag, which has no suffix.
- `sha256-<hex>.superseded-<seconds>` says since when (Unix time) no `src-` tag points there. It is a tag, since tags
  are all that every registry keeps; of several the newest counts.
"""

import re
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from proxy.oci.digest import Digest
from proxy.oci.naming import is_internal

_SOURCE = re.compile(r"src-[0-9a-f]{16,64}")
_SUPERSEDED = re.compile(r"(sha256|sha512)-([0-9a-f]{64,128})\.superseded-([0-9]{1,15})")
_COMPANIONS = ("", ".sig", ".att", ".sbom", ".patched")


def patched_tag(digest: Digest) -> str:
    """Return the immutable tag of a patched digest."""
    return f"{digest.algorithm}-{digest.hex}.patched"


def superseded_tag(digest: Digest, since: float) -> str:
    """Return the tag that says since when (Unix seconds) a patched digest is not the newest of any source."""
    return f"{digest.algorithm}-{digest.hex}.superseded-{int(since)}"


def companion_tags(digest: Digest) -> tuple[str, ...]:
    """Return the tags that go with a digest: its own, its signature's and attestations', the referrers fallback."""
    return tuple(f"{digest.algorithm}-{digest.hex}{suffix}" for suffix in _COMPANIONS)


def is_source(tag: str) -> bool:
    """Return whether the tag is a `src-` tag itself, not a record beside it."""
    return _SOURCE.fullmatch(tag) is not None


def is_immutable(tag: str) -> bool:
    """Return whether the tag may point at one digest only."""
    return is_internal(tag) and tag.endswith(".patched")


@dataclass(frozen=True, slots=True)
class Retention:
    """What a pass does: digests to mark as superseded now, and digests whose time is over, the oldest first."""

    mark: tuple[Digest, ...]
    drop: tuple[Digest, ...]


def plan_retention(
    tags: Mapping[str, Digest],
    parts: Mapping[Digest, AbstractSet[Digest]],
    *,
    in_use: AbstractSet[Digest],
    now: float,
    retain: float,
) -> Retention:
    """Decide about the patched images of one repository.

    Args:
        tags: all tags and where they point.
        parts: for a patched index the digests of its platforms, which a pod may name as well.
        in_use: digests that live pods run.
        now: Unix time in seconds.
        retain: how many seconds a superseded image is kept.
    """
    since: dict[Digest, int] = {}
    for tag in tags:
        if found := _SUPERSEDED.fullmatch(tag):
            digest = Digest(found[1], found[2])
            since[digest] = max(since.get(digest, 0), int(found[3]))
    named = {digest for tag, digest in tags.items() if is_source(tag) or not is_internal(tag)}
    spare = {
        digest
        for tag, digest in tags.items()
        if tag == patched_tag(digest) and digest not in named and not in_use & ({digest} | parts.get(digest, set()))
    }
    old = sorted((since[digest], digest) for digest in spare if digest in since and now - since[digest] >= retain)
    return Retention(
        mark=tuple(sorted(digest for digest in spare if digest not in since)),
        drop=tuple(digest for _, digest in old),
    )
