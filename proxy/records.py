"""The record of a resolve: what an image came to, kept signed in the mirror so that any replica finds it.

Owns the record's form, its name and its place: an OCI artifact under the tag `src-<key>.result` beside the patched
image's own `src-<key>`. A record is used only if its signature holds and it names the key that was asked for: an
external mirror is storage, not authority.
Specification: https://github.com/opencontainers/image-spec/blob/v1.1.1/manifest.md#guidelines-for-artifact-usage
"""

import base64
import contextlib
import hashlib
import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pydantic import Field, ValidationError

from proxy.api import Outcome, ResolveResponse, SignatureInfo, SkipInfo, SourceDate, UpgradeInfo, Wire
from proxy.errors import AdmendError, MalformedInput, TrustFailure, UpstreamUnavailable
from proxy.mirror import Mirror
from proxy.oci.artifact import render_artifact
from proxy.oci.digest import Digest
from proxy.oci.manifest import Index, Manifest, render_json
from proxy.oci.reference import ImageRef
from proxy.trust import KeyRing, SigningKey, VerifyKey

RECORD_TYPE = "application/vnd.admend.result.v1+json"
MAX_RECORD = 8 << 20  # bytes
MAX_TRIES = 32  # each that fails means that another replica wrote in between


class Record(Wire):
    """What one source digest came to, for one set of platforms and one policy."""

    key: str
    outcome: Outcome
    source: str  # upstream name@digest
    patched: str = ""  # digest
    upgrades: tuple[UpgradeInfo, ...] = ()
    fixed: tuple[str, ...] = ()
    skipped: tuple[SkipInfo, ...] = ()
    reason: str = ""
    platforms: dict[str, Outcome] = Field(default_factory=dict)
    as_of: tuple[SourceDate, ...] = ()
    stale: bool = False
    published: datetime | None = None  # of the newest fix in it, by the date of the index that has it
    made: datetime | None = None  # when the patched image was first put into the mirror
    public: bool = False  # the upstream gave this digest without credentials
    sources: tuple[dict[str, Any], ...] = ()  # the package sources, to ask whether they changed
    checked: datetime
    signed: datetime
    phases: dict[str, float] = Field(default_factory=dict)
    signature: SignatureInfo | None = None

    def response(self, image: ImageRef, patched: ImageRef) -> ResolveResponse:
        """Return the wire answer for `image`; `patched` is the mirror's name for it."""
        return ResolveResponse(
            outcome=self.outcome,
            image=str(image),
            source=self.source,
            patched=str(patched.with_digest(Digest.parse(self.patched))) if self.patched else "",
            upgrades=self.upgrades,
            fixed=self.fixed,
            skipped=self.skipped,
            reason=self.reason,
            platforms=self.platforms,
            stale=self.stale,
            as_of=self.as_of,
            published=self.published,
            made=self.made,
            signature=self.signature,
            phases=self.phases,
        )

    def newer_than(self, other: "Record") -> bool:
        """Say whether, of the sources that both have, none is older here than in `other`, and one is newer."""
        mine = {item.source: datetime.fromisoformat(item.date) for item in self.as_of}
        theirs = {item.source: datetime.fromisoformat(item.date) for item in other.as_of}
        shared = mine.keys() & theirs.keys()
        older = any(mine[name] < theirs[name] for name in shared)
        return not older and any(mine[name] > theirs[name] for name in shared)


class _Envelope(Wire):
    payload: str
    signature: str
    key_id: str


def record_key(source: Digest, platforms: Sequence[str], policy: str) -> str:
    """Return the key (32 hex digits) of what a result depends on: source digest, platforms, policy and epoch."""
    text = json.dumps([str(source), sorted(platforms), policy])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def source_tag(key: str) -> str:
    """Return the tag that points at the newest patched image of a key."""
    return f"src-{key}"


def render_record(record: Record, key: SigningKey) -> bytes:
    """Return the signed envelope of a record."""
    payload = record.model_dump_json().encode()
    envelope = {
        "payload": base64.b64encode(payload).decode(),
        "signature": base64.b64encode(key.sign(payload)).decode(),
        "key_id": key.public.key_id,
    }
    return render_json(envelope)


def parse_record(raw: bytes, keys: Sequence[VerifyKey], expected: str) -> Record:
    """Check and parse a record that one of `keys` signed; `expected` is the key that was asked for.

    Raises TrustFailure when the signature or the key does not hold, MalformedInput when it is no record.
    """
    try:
        envelope = _Envelope.model_validate_json(raw)
        payload = base64.b64decode(envelope.payload, validate=True)
        signature = base64.b64decode(envelope.signature, validate=True)
    except (ValidationError, ValueError) as error:
        raise MalformedInput(f"not a signed result: {error}", file=expected) from error
    if not any(key.made(payload, signature) for key in keys):
        raise TrustFailure(f"the result {expected} in the mirror is not signed with this proxy's key; ignored")
    try:
        record = Record.model_validate_json(payload)
    except ValidationError as error:
        raise MalformedInput(f"not a result: {error}", file=expected) from error
    if record.key != expected:
        raise TrustFailure(f"the result {expected} in the mirror is about {record.key}; ignored")
    return record


class Records:
    """Reads and writes records in the mirror."""

    def __init__(self, mirror: Mirror, keys: KeyRing) -> None:
        self._mirror, self._keys = mirror, keys

    def believes(self, record: Record) -> bool:
        """Say whether the signature that a record carries is of a key that is still believed."""
        given = record.signature
        return given is None or any(key.key_id == given.key_id for key in self._keys.accepted)

    async def load(self, name: ImageRef, key: str) -> Record | None:
        """Return the record of `key` kept with the mirror's image `name`, or None.

        Raises TrustFailure or MalformedInput when what is there does not hold.
        """
        ref = _place(name, key)
        return await self._parse(ref, await self._mirror.get_manifest(ref), key)

    async def save(self, name: ImageRef, record: Record) -> Record:
        """Keep a record unless the mirror holds one made from newer sources; returns the one that holds.

        Several replicas may write: who finds that the tag has moved since it was read reads again.
        """
        ref = _place(name, record.key)
        manifest, blobs = render_artifact(RECORD_TYPE, render_record(record, self._keys.signing))
        for _ in range(MAX_TRIES):
            try:
                held = await self._mirror.get_manifest(ref)
            except (MalformedInput, TrustFailure):  # damaged beyond telling which it is: nobody's work is lost
                await self._mirror.put_artifact(ref, manifest, blobs)
                return record
            current = await self._holding(ref, held, record.key)
            if current is not None and current.newer_than(record):
                return current
            await self._mirror.put_artifact(name.with_digest(manifest.digest), manifest, blobs)
            if await self._mirror.exchange_tag(ref, manifest.digest, held.digest if held else None):
                return record
        raise UpstreamUnavailable(f"{ref}: other replicas wrote {MAX_TRIES} times while this one tried; try again")

    async def point(self, name: ImageRef, record: Record) -> bool:
        """Move the `src-` tag to the record's image, unless another record holds by then; returns whether it moved.

        The tag is read before the record, so that a replica with newer sources, which writes its record first, either
        is seen here or makes the exchange fail.
        """
        ref = name.with_tag(source_tag(record.key))
        for _ in range(MAX_TRIES):
            held = await self._mirror.get_manifest(ref)
            place = _place(name, record.key)
            current = await self._holding(place, await self._mirror.get_manifest(place), record.key)
            if current is None or current.patched != record.patched:
                return False
            if await self._mirror.exchange_tag(ref, Digest.parse(record.patched), held.digest if held else None):
                return True
        raise UpstreamUnavailable(f"{ref}: other replicas moved it {MAX_TRIES} times while this one tried; try again")

    async def mend(self, name: ImageRef, record: Record) -> None:
        """Set the `src-` tag of a record whose writer ended before he could; what fails is tried again another time."""
        if not record.patched:
            return
        with contextlib.suppress(AdmendError):
            held = await self._mirror.get_manifest(name.with_tag(source_tag(record.key)))
            if held is None or str(held.digest) != record.patched:
                await self.point(name, record)

    async def _holding(self, ref: ImageRef, manifest: Manifest | Index | None, key: str) -> Record | None:
        try:
            return await self._parse(ref, manifest, key)
        except (MalformedInput, TrustFailure):
            return None  # damaged, or of a key that was replaced: it is overwritten

    async def _parse(self, ref: ImageRef, manifest: Manifest | Index | None, key: str) -> Record | None:
        if not isinstance(manifest, Manifest) or len(manifest.layers) != 1:
            return None
        raw = await self._mirror.read_blob(ref, manifest.layers[0], limit=MAX_RECORD)
        record = parse_record(raw, self._keys.accepted, key)
        if self._mirror.name_for(ImageRef.parse(record.source)).name != ref.name:
            raise TrustFailure(f"the result {ref} is about {record.source}, another image; ignored")
        return record


def _place(name: ImageRef, key: str) -> ImageRef:
    return name.with_tag(f"{source_tag(key)}.result")
