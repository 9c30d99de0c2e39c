"""What admend writes about a pod on the pod, and reads there again: annotations and labels.

Owns their names and the provenance annotation: one JSON object, container name -> {original, digest, image}: what the
pod's author wrote, the upstream digest that it was at admission, and the reference that admend put in its place. One
annotation and not one per container, since a container's name alone may fill the 63 characters of an annotation's name.
Anyone may write these; who reads them decides what to believe.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

PREFIX = "admend.dev/"
OPT_OUT = f"{PREFIX}patch"
PROVENANCE = f"{PREFIX}provenance"
UNPATCHED = f"{PREFIX}unpatched"
RESTART = f"{PREFIX}restart"


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where one container's image came from: as written, its upstream digest, and what admend wrote instead."""

    original: str
    digest: str
    image: str


def render_provenance(entries: Mapping[str, Provenance]) -> str | None:
    """Return the annotation's value, or None for no entries; `parse_provenance` gives them back."""
    if not entries:
        return None
    document = {
        name: {"original": entry.original, "digest": entry.digest, "image": entry.image}
        for name, entry in sorted(entries.items())
    }
    return json.dumps(document, separators=(",", ":"))


def parse_provenance(annotations: Mapping[str, str] | None) -> dict[str, Provenance]:
    """Return the entries of a pod's annotation; what does not have its form is left out, since anyone may write it."""
    try:
        document = json.loads((annotations or {}).get(PROVENANCE, "{}"))
    except (ValueError, RecursionError):
        return {}
    entries: dict[str, Provenance] = {}
    for name, entry in document.items() if isinstance(document, dict) else ():
        if isinstance(entry, dict) and entry.keys() == {"original", "digest", "image"}:
            original, digest, image = entry["original"], entry["digest"], entry["image"]
            if isinstance(original, str) and isinstance(digest, str) and isinstance(image, str):
                entries[name] = Provenance(original, digest, image)
    return entries
