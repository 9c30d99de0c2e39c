"""Grants: which namespace may pull from which private repository of the embedded mirror, and until when.

Owns their book. A grant is a proof that the namespace's credentials opened the repository upstream; it ends `seconds`
after the newest one. The book is a signed document in the mirror, so that it survives a restart and nobody else writes
in it; one that does not hold is as good as none, and everybody proves anew.
"""

import asyncio
import json
import logging
import time
from collections.abc import Callable, Mapping
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from proxy.errors import MalformedInput, ResourceExhausted, TrustFailure
from proxy.mirror import Mirror
from proxy.oci.artifact import render_artifact
from proxy.oci.manifest import Manifest
from proxy.oci.reference import ImageRef
from proxy.trust import KeyRing, sign_document, verify_document

NAME = ImageRef("admend.internal", "grants", "latest")  # no registry: the mirror's own corner
KIND = "application/vnd.admend.grants.v1+json"
MAX_GRANTS = 50_000
MAX_DOCUMENT = 16 << 20  # bytes
RENEWAL = 0.125  # of a grant's life: a newer proof is not written down every time

_log = logging.getLogger(__name__)

Book = Mapping[str, Mapping[str, float]]  # by namespace and repository, when it was proven (Unix seconds)


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    grants: dict[
        Annotated[str, Field(min_length=1, max_length=63)],
        dict[Annotated[str, Field(max_length=255)], Annotated[float, Field(ge=0, allow_inf_nan=False)]],
    ]


def render_grants(book: Book) -> bytes:
    """Return the unsigned document, in order."""
    ordered = {namespace: dict(sorted(names.items())) for namespace, names in sorted(book.items())}
    return json.dumps({"grants": ordered}, separators=(",", ":")).encode()


def parse_grants(document: bytes) -> Book:
    """Parse what `render_grants` wrote; raises MalformedInput."""
    try:
        return _Document.model_validate_json(document).grants
    except ValidationError as error:
        raise MalformedInput("not a book of grants", file="grants") from error


class GrantBook:
    """The grants of a mirror.

    Args:
        mirror: where the book is kept.
        keys: sign and check it.
        seconds: how long a grant lasts after the newest proof.
        now: the present, Unix seconds.
    """

    def __init__(self, mirror: Mirror, keys: KeyRing, seconds: float, now: Callable[[], float] = time.time) -> None:
        self._mirror, self._keys, self._seconds, self._now = mirror, keys, seconds, now
        self._ref = mirror.name_for(NAME)
        self._book: dict[str, dict[str, float]] = {}
        self._lock = asyncio.Lock()

    async def open(self) -> None:
        """Read the book of an earlier run."""
        manifest = await self._mirror.get_manifest(self._ref)
        if not isinstance(manifest, Manifest) or len(manifest.layers) != 1:
            return
        try:
            raw = await self._mirror.read_blob(self._ref, manifest.layers[0], limit=2 * MAX_DOCUMENT)
            payload = verify_document(raw, KIND, self._keys.accepted, where="grants", limit=MAX_DOCUMENT)
            self._book = {namespace: dict(names) for namespace, names in parse_grants(payload).items()}
        except (MalformedInput, TrustFailure) as error:
            _log.warning("the book of grants does not hold; namespaces prove anew what they may pull: %s", error)

    @property
    def namespaces(self) -> tuple[str, ...]:
        """The namespaces that have a grant now."""
        return tuple(sorted(name for name, held in self._book.items() if any(map(self._lasts, held.values()))))

    def granted(self, namespace: str, repository: str) -> bool:
        """Say whether a namespace may pull from a private repository now."""
        return self._lasts(self._book.get(namespace, {}).get(repository, float("-inf")))

    async def grant(self, namespace: str, repository: str) -> None:
        """Note that a namespace has just proven that it may have what a repository holds.

        Raises ResourceExhausted when there are too many grants.
        """
        async with self._lock:
            if self._is_young(namespace, repository):
                return
            self._drop_ended()
            before = self._book
            renewal = repository in before.get(namespace, {})
            if not renewal and sum(len(names) for names in before.values()) >= MAX_GRANTS:
                raise ResourceExhausted(f"more than {MAX_GRANTS} grants; a shorter mirror.grants.seconds ends some")
            self._book = {**before, namespace: {**before.get(namespace, {}), repository: self._now()}}
            try:
                await self._write()
            except BaseException:
                self._book = before  # what is not written down would be gone with the process
                raise

    async def _write(self) -> None:
        document = sign_document(KIND, render_grants(self._book), self._keys.signing)
        manifest, blobs = render_artifact(KIND, document)
        await self._mirror.put_artifact(self._ref, manifest, blobs)

    def _drop_ended(self) -> None:
        lasting = {
            namespace: {name: proven for name, proven in names.items() if self._lasts(proven)}
            for namespace, names in self._book.items()
        }
        self._book = {namespace: names for namespace, names in lasting.items() if names}

    def _lasts(self, proven: float) -> bool:
        return self._now() - self._seconds < proven <= self._now() + self._seconds

    def _is_young(self, namespace: str, repository: str) -> bool:
        proven = self._book.get(namespace, {}).get(repository, float("-inf"))
        return 0 <= self._now() - proven < RENEWAL * self._seconds
