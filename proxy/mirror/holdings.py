"""Which blobs a repository of the embedded mirror holds: those that its manifests reference.

Owns the answer, read from the manifests and kept in memory until the repository changes. The files are shared by all
repositories, so this is what keeps one repository's content from being read through another.
"""

from collections import OrderedDict
from dataclasses import dataclass, field

from proxy.blobs import BlobStore
from proxy.mirror.collect import content, load
from proxy.mirror.layout import Layout
from proxy.oci.digest import Digest

MAX_KNOWN = 512  # repositories whose blobs are remembered


@dataclass(slots=True)
class _Known:
    changes: int = -1
    blobs: dict[Digest, frozenset[Digest]] = field(default_factory=dict)  # by manifest


class Holdings:
    """Answers for a layout; plain calls, to be made in a thread, one at a time."""

    def __init__(self, layout: Layout, blobs: BlobStore) -> None:
        self._layout, self._blobs = layout, blobs
        self._known: OrderedDict[str, _Known] = OrderedDict()

    def has(self, repository: str, digest: Digest) -> bool:
        """Say whether a manifest of the repository references a blob."""
        changes = self._layout.changes(repository)
        known = self._known.get(repository)
        if known is None or known.changes != changes:
            known = _Known(changes, self._read(repository, known or _Known()))
            self._known[repository] = known
            while len(self._known) > MAX_KNOWN:
                self._known.popitem(last=False)
        self._known.move_to_end(repository)
        return any(digest in blobs for blobs in known.blobs.values())

    def _read(self, repository: str, before: _Known) -> dict[Digest, frozenset[Digest]]:
        found = {}
        for digest in self._layout.manifests(repository):
            held = before.blobs.get(digest)
            if held is None:
                manifest = load(self._layout, self._blobs, repository, digest)
                held = frozenset(item.digest for item in content(manifest)) if manifest is not None else frozenset()
            found[digest] = held
        return found
