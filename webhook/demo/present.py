"""How the demonstration tells a person what happened. Owns text only."""

import json
from dataclasses import dataclass
from typing import Any

from proxy.api import UpgradeInfo
from proxy.mirror import patched_tag
from proxy.oci.reference import ImageRef
from proxy.tell import table


@dataclass(frozen=True, slots=True)
class Story:
    """What happened; times in milliseconds. `audit` is the webhook's audit event, `folder` the mirror on disk."""

    outcome: str
    original: str
    patched: str
    upgrades: tuple[UpgradeInfo, ...]
    skipped: tuple[str, ...]
    first_sight_ms: float
    cached_ms: float
    signature_verified: bool
    versions_verified: bool
    audit: dict[str, Any]
    folder: str
    note: str = ""
    reason: str = ""


def render_json(story: Story) -> dict[str, Any]:
    """Return the document of `--json`."""
    return {
        "outcome": story.outcome,
        "original": story.original,
        "patched": story.patched,
        "upgrades": [{"package": u.package, "from": u.from_version, "to": u.to_version} for u in story.upgrades],
        "skipped": list(story.skipped),
        "first_sight_ms": round(story.first_sight_ms, 1),
        "cached_ms": round(story.cached_ms, 1),
        "signature_verified": story.signature_verified,
        "versions_verified": story.versions_verified,
        "reason": story.reason,
        "audit": story.audit,
        "mirror": story.folder,
    }


def render_text(story: Story) -> str:
    """Return the story as lines for a terminal."""
    lines = [
        *([story.note, ""] if story.note else []),
        f"outcome   {story.outcome}" + (f": {story.reason}" if story.reason else ""),
        f"before    {story.original}",
        f"after     {story.patched or story.original}",
        "",
    ]
    lines += table([(u.package, u.from_version, "->", u.to_version) for u in story.upgrades])
    lines += [f"skipped   {text}" for text in story.skipped]
    lines += [
        "",
        f"first sight        {story.first_sight_ms:9.1f} ms   (pulled, patched, pushed, signed, admitted)",
        f"second admission   {story.cached_ms:9.1f} ms",
    ]
    if story.patched:
        lines += [
            f"signature          {'verified' if story.signature_verified else 'NOT VERIFIED'}",
            f"versions inside    {'verified in what the mirror serves' if story.versions_verified else 'NOT VERIFIED'}",
        ]
    lines += ["", "audit line", json.dumps(story.audit)]
    if story.patched:
        lines += ["", "pull it", f"  skopeo copy oci:{story.folder}:{_name_on_disk(story.patched)} oci:patched:latest"]
    return "\n".join(lines)


def _name_on_disk(patched: str) -> str:
    """Return what the mirror's folder calls the patched image, in skopeo's words."""
    ref = ImageRef.parse(patched)
    return f"{ref.repository}:{patched_tag(ref.digest)}" if ref.digest else ref.repository
