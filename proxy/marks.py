"""High-water marks: the newest index date seen of every package source, kept signed in the mirror.

Owns their place (an artifact beside the images, so that every replica and every restart finds them) and when they are
read and written: read once, written when a source got newer. A source that goes back in time is refused.
"""

import asyncio
from datetime import datetime

from proxy.errors import MalformedInput, TrustFailure
from proxy.mirror import Mirror
from proxy.oci.artifact import render_artifact
from proxy.oci.manifest import Manifest
from proxy.oci.reference import ImageRef
from proxy.trust import KeyRing, Marks, check_mark, sign_marks, verify_marks

NAME = ImageRef("admend.internal", "marks", "latest")  # no registry: the mirror's own corner
KIND = "application/vnd.admend.marks.v1+json"
MAX_DOCUMENT = 8 << 20  # bytes


class MarkBook:
    """The marks of a mirror."""

    def __init__(self, mirror: Mirror, keys: KeyRing) -> None:
        self._mirror, self._keys = mirror, keys
        self._ref = mirror.name_for(NAME)
        self._marks: Marks | None = None
        self._lock = asyncio.Lock()

    async def admit(self, source: str, date: datetime) -> None:
        """Take note of an index of `source` made at `date`; raises TrustFailure when a newer one was seen before."""
        async with self._lock:
            if self._marks is None:
                self._marks = await self._load()
            check_mark(self._marks, source, date)
            if self._marks.dates.get(source) == date:
                return
            merged = (await self._load()).merge(self._marks).merge(Marks({source: date}))  # another replica may write
            manifest, blobs = render_artifact(KIND, sign_marks(merged, self._keys.signing))
            await self._mirror.put_artifact(self._ref, manifest, blobs)
            self._marks = merged
            check_mark(merged, source, date)

    async def _load(self) -> Marks:
        """Return the mirror's marks; none when there are none yet, or when they are not this proxy's."""
        manifest = await self._mirror.get_manifest(self._ref)
        if not isinstance(manifest, Manifest) or len(manifest.layers) != 1:
            return Marks()
        raw = await self._mirror.read_blob(self._ref, manifest.layers[0], limit=MAX_DOCUMENT)
        try:
            return verify_marks(raw, self._keys.accepted)
        except (MalformedInput, TrustFailure):
            return Marks()  # of a key that was replaced: they cannot be told from forged ones, so they begin anew
