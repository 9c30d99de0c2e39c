"""High-water marks: the newest index date seen of every package source, kept signed in the mirror.

Owns their place (artifacts beside the images, so that every replica and every restart finds them) and when they are
read and written: read at first, written when a source got newer. A source that goes back in time is refused.

A registry knows no exchange that cannot be overtaken, so each process writes a document of its own, under a tag of its
own, and what holds is all documents merged. Who writes removes the documents that say no more than his own, but only
those whose tags come after his: so two never remove each other's, and few of processes long gone are left.
"""

import asyncio
import contextlib
import secrets
import time
from dataclasses import dataclass
from datetime import datetime

from proxy.errors import AdmendError, MalformedInput, TrustFailure
from proxy.mirror import Mirror
from proxy.oci.artifact import render_artifact
from proxy.oci.digest import Digest
from proxy.oci.manifest import Manifest
from proxy.oci.reference import ImageRef
from proxy.trust import KeyRing, Marks, check_mark, sign_marks, verify_marks

NAME = ImageRef("admend.internal", "marks", "latest")  # no registry: the mirror's own corner
KIND = "application/vnd.admend.marks.v1+json"
MAX_DOCUMENT = 8 << 20  # bytes
LOOK_EVERY = 600.0  # seconds between two looks at what others wrote


@dataclass(frozen=True, slots=True)
class _Document:
    """What one process wrote."""

    tag: str
    digest: Digest
    marks: Marks


class MarkBook:
    """The marks of a mirror.

    Args:
        mirror: keeps them.
        keys: sign and verify them.
        tag: of this process's own document.
    """

    def __init__(self, mirror: Mirror, keys: KeyRing, tag: str = "") -> None:
        self._mirror, self._keys = mirror, keys
        self._name = mirror.name_for(NAME)
        self._tag = tag or f"by-{secrets.token_hex(8)}"
        self._marks = Marks()
        self._looked = float("-inf")  # when the mirror's marks were last read
        self._lock = asyncio.Lock()

    async def admit(self, source: str, date: datetime) -> None:
        """Take note of an index of `source` made at `date`; raises TrustFailure when a newer one was seen before."""
        async with self._lock:
            if time.monotonic() - self._looked >= LOOK_EVERY:
                await self._look()
            check_mark(self._marks, source, date)
            if self._marks.dates.get(source) == date:
                return
            others = await self._look()
            check_mark(self._marks, source, date)
            await self._write(self._marks.merge(Marks({source: date})), others)

    async def _look(self) -> list[_Document]:
        """Read all documents and merge them into the marks known here; own marks that are lost are written again."""
        found = [await self._read(tag) for tag in await self._mirror.tags(self._name)]
        documents = [each for each in found if each is not None]
        merged = Marks()
        for document in documents:
            merged = merged.merge(document.marks)
        known = self._marks
        self._marks, self._looked = merged.merge(known), time.monotonic()
        if self._marks != merged:
            await self._write(self._marks, documents)
        return documents

    async def _write(self, marks: Marks, others: list[_Document]) -> None:
        manifest, blobs = render_artifact(KIND, sign_marks(marks, self._keys.signing))
        await self._mirror.put_artifact(self._name.with_tag(self._tag), manifest, blobs)
        self._marks = marks
        for other in others:
            if other.tag > self._tag and other.marks.merge(marks) == marks:
                with contextlib.suppress(AdmendError):  # by digest: a newer one under its tag stays
                    await self._mirror.delete(self._name.with_digest(other.digest))

    async def _read(self, tag: str) -> _Document | None:
        """Return a document; None where there is none (any more), or it is of a key that is not believed."""
        manifest = await self._mirror.get_manifest(self._name.with_tag(tag))
        if not isinstance(manifest, Manifest) or len(manifest.layers) != 1:
            return None
        try:
            raw = await self._mirror.read_blob(self._name, manifest.layers[0], limit=MAX_DOCUMENT)
            return _Document(tag, manifest.digest, verify_marks(raw, self._keys.accepted))
        except (MalformedInput, TrustFailure):
            return None  # it cannot be told from a forged one
