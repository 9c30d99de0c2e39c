"""Publish: a patch result into the mirror, signed, in the order that no reader ever sees half of it.

Owns that order: blobs and manifests, then the signatures, then the record that answers are made from, and last the tag
that points at the newest image. A signature made anew takes the place of the older one. The signing key is used here
and for records, nowhere else, and over digests only.
"""

import base64
import io
import logging
from collections.abc import Hashable, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import TypeVar

from proxy.api import Outcome, SignatureInfo
from proxy.codec import encode
from proxy.errors import AdmendError, MalformedInput, TrustFailure, Unsupported
from proxy.mirror import Mirror
from proxy.oci.digest import Digest
from proxy.oci.manifest import Descriptor, Index, Manifest
from proxy.oci.reference import ImageRef
from proxy.phases import Phases
from proxy.records import Record, Records
from proxy.registry import Registry
from proxy.results import PatchResult
from proxy.trust import (
    SIGNATURE_ARTIFACT,
    Claim,
    KeyRing,
    Signature,
    SigningKey,
    parse_signatures,
    payload_descriptors,
    render_referrer,
    render_tag_manifest,
    sign_claim,
    signature_tag,
    verify_signature,
)

T = TypeVar("T", bound=Hashable)

MAX_PAYLOAD = 64 << 10  # bytes of one signed payload

_log = logging.getLogger(__name__)


async def attach_signature(
    registry: Registry, name: ImageRef, patched: Manifest | Index, claim: Claim, key: SigningKey
) -> Signature:
    """Sign a claim about `patched` and push the signature beside it, as `.sig` tag and as referrer."""
    signature = sign_claim(claim, key)
    tagged = render_tag_manifest([signature])
    referrer = render_referrer(patched, [signature])
    for digest, data in {**tagged.blobs, **referrer.blobs}.items():
        await registry.push_blob(name, Descriptor("", digest, len(data)), lambda data=data: io.BytesIO(data))  # type: ignore[misc]
    await registry.push_manifest(name.with_tag(signature_tag(patched.digest)), tagged.manifest)
    await registry.push_referrer(name.with_digest(referrer.manifest.digest), referrer.manifest)
    return signature


def describe(key: str, source: ImageRef, result: PatchResult, phases: Phases, *, public: bool) -> Record:
    """Return the unsigned record of what `source`, named by digest, came to."""
    now = datetime.now(UTC)
    sources = {
        item.label: encode(item)
        for platform in result.platforms
        if platform.inspection
        for item in platform.inspection.sources
    }
    return Record(
        key=key,
        outcome=result.outcome,
        source=str(source),
        patched=str(result.top.digest) if result.top else "",
        upgrades=_merge(platform.upgrades for platform in result.platforms),
        skipped=_merge(platform.skipped for platform in result.platforms),
        reason=result.reason,
        platforms={platform.platform: platform.outcome for platform in result.platforms},
        as_of=_merge(platform.as_of for platform in result.platforms),
        public=public,
        stale=any(platform.stale for platform in result.platforms),
        sources=tuple(sources.values()),
        checked=min((item.checked for item in result.platforms if item.checked), default=now),
        signed=now,
        phases=dict(phases.milliseconds),
    )


def _merge(groups: Iterable[Iterable[T]]) -> tuple[T, ...]:
    """Return the items of all groups, each once, in order."""
    return tuple(dict.fromkeys(item for group in groups for item in group))


class Publisher:
    """Pushes, signs and records."""

    def __init__(self, mirror: Mirror, records: Records, keys: KeyRing, policy_hash: str) -> None:
        self._mirror, self._records, self._keys, self._policy_hash = mirror, records, keys, policy_hash
        self.signatures = 0  # made

    async def publish(self, name: ImageRef, record: Record, result: PatchResult, phases: Phases) -> Record:
        """Put a result into the mirror under `name` and return the record that now holds.

        Only a `patched` result has an image to push; the record is kept for every outcome.
        """
        if result.outcome is Outcome.PATCHED and result.top is not None:
            with phases.phase("push"):
                await self._mirror.put_image(name, result.top, result.children, result.blobs)
            with phases.phase("sign"):
                for child in result.children:
                    await self._sign(name, record, child)
                signature = await self._sign(name, record, result.top)
            history = await self._history(name, record)
            record = record.model_copy(update={**history, "signature": signature, "phases": dict(phases.milliseconds)})
        kept = await self._records.save(name, record)
        if kept is record and record.patched:
            await self._records.point(name, record)
        return kept

    async def _history(self, name: ImageRef, record: Record) -> dict[str, datetime]:
        """Return since when this patched image is there, and when the newest fix in it was published.

        An image that the last record had already keeps its dates: sources that changed without touching it are no news.
        """
        try:
            held = await self._records.load(name, record.key)
        except (MalformedInput, TrustFailure):
            held = None
        if held is not None and held.patched == record.patched and held.made and held.published:
            return {"made": held.made, "published": held.published}
        used = {item.source for item in record.upgrades}
        dates = [item for item in record.as_of if item.source in used] or record.as_of
        published = max((datetime.fromisoformat(item.date) for item in dates), default=record.signed)
        return {"made": record.signed, "published": published}

    async def resign(self, name: ImageRef, record: Record) -> Record:
        """Sign a confirmed record anew, so that its signature does not grow older than verifiers allow."""
        now = datetime.now(UTC)
        renewed = record.model_copy(update={"signed": now})
        if record.outcome is Outcome.PATCHED:
            top = await self._mirror.get_manifest(name.with_digest(Digest.parse(record.patched)))
            if top is not None:
                signature = await self._sign(name, renewed, top)
                renewed = renewed.model_copy(update={"signature": signature})
        return await self._records.save(name, renewed)

    async def find_source(self, patched: ImageRef) -> ImageRef | None:
        """Return the upstream name@digest that the mirror's image was made from, as this proxy signed it, or None."""
        if patched.digest is None:
            return None
        manifest = await self._mirror.get_manifest(patched.with_tag(signature_tag(patched.digest)))
        if not isinstance(manifest, Manifest):
            return None
        for claim in await self._claims(patched, manifest):
            if claim is not None and claim.patched_digest == patched.digest:
                return ImageRef.parse(f"{claim.source_repository}@{claim.source_digest}")
        return None

    async def _claims(self, ref: ImageRef, manifest: Manifest) -> list[Claim | None]:
        """Return what the signatures of a manifest claim; None for an older key's, or somebody else's."""
        blobs = {
            layer.digest: await self._mirror.read_blob(ref, layer, limit=MAX_PAYLOAD)
            for layer in payload_descriptors(manifest)
        }
        claims: list[Claim | None] = []
        for item in parse_signatures(manifest, lambda layer: blobs[layer.digest]):
            try:
                claims.append(verify_signature(item.payload, item.signature, self._keys.accepted))
            except TrustFailure:
                claims.append(None)
        return claims

    async def _sign(self, name: ImageRef, record: Record, patched: Manifest | Index) -> SignatureInfo:
        """Sign one manifest and attach the signature in both forms that verifiers look for."""
        key = self._keys.signing
        source = ImageRef.parse(record.source)
        if source.digest is None:
            raise ValueError("a record names its source by digest")
        claim = Claim(
            source_repository=source.name,
            source_digest=source.digest,
            patched_repository=name.name,
            patched_digest=patched.digest,
            policy_hash=self._policy_hash,
            signed_at=record.signed,
        )
        signature = sign_claim(claim, key)
        self.signatures += 1
        tagged = render_tag_manifest([signature])
        await self._mirror.put_artifact(name.with_tag(signature_tag(patched.digest)), tagged.manifest, tagged.blobs)
        referrer = render_referrer(patched, [signature])
        await self._mirror.put_artifact(name.with_digest(referrer.manifest.digest), referrer.manifest, referrer.blobs)
        try:
            await self._drop_older(name.with_digest(patched.digest), claim)
        except Unsupported:
            pass  # this registry keeps what it has
        except AdmendError as error:
            _log.warning("%s: older signatures stay beside the new one: %s", name, error)
        return _describe(signature, key)

    async def _drop_older(self, signed: ImageRef, newest: Claim) -> None:
        """Remove the referrers in which this key said the same earlier; everything else stays."""
        for item in await self._mirror.referrers(signed, SIGNATURE_ARTIFACT):
            ref = signed.with_digest(item.digest)
            manifest = await self._mirror.get_manifest(ref)
            if not isinstance(manifest, Manifest):
                continue
            claims = await self._claims(ref, manifest)
            if claims and all(claim is not None and _replaces(newest, claim) for claim in claims):
                await self._mirror.delete(ref)


def _describe(signature: Signature, key: SigningKey) -> SignatureInfo:
    return SignatureInfo(
        key_id=key.public.key_id,
        payload=base64.b64encode(signature.payload).decode(),
        signature=base64.b64encode(signature.signature).decode(),
    )


def _replaces(newest: Claim, claim: Claim) -> bool:
    """Say whether `newest` says what `claim` says, at a later time."""
    return claim.signed_at < newest.signed_at and replace(claim, signed_at=newest.signed_at) == newest
