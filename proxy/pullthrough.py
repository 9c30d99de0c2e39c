"""Pull-through: a registry client asks the mirror for an upstream image and gets the patched one.

Owns what is answered when the mirror does not have a manifest or blob under an upstream's name. A tag gives the
patched image, or the original where there is nothing to patch; a digest gives exactly that content. Originals are not
kept in the mirror: their manifests are handed through and their blobs come from the proxy's cache.
"""

from dataclasses import dataclass
from pathlib import Path

from proxy.access import Caller
from proxy.api import Outcome, ResolveRequest
from proxy.blobs import BlobStore
from proxy.errors import AdmendError, UpstreamRefused, UpstreamUnavailable
from proxy.mirror import Mirror
from proxy.oci.digest import Digest
from proxy.oci.manifest import Descriptor, Index, Manifest
from proxy.oci.naming import is_internal
from proxy.oci.reference import ImageRef
from proxy.registry import Registry
from proxy.resolve import Resolve

WAIT_SECONDS = 60.0  # a pull waits as long for a first sight; after that the client is told to try again
RETRY_AFTER = 5.0
MAX_SEEN = 10_000  # blobs of originals whose descriptors are remembered
MAX_BLOB = 32 << 30  # bytes


@dataclass(frozen=True, slots=True)
class PullThrough:
    """Answers misses of the mirror's /v2 routes."""

    resolve: Resolve
    mirror: Mirror
    registry: Registry
    store: BlobStore
    reference: str  # the mirror's host as nodes name it
    seen: dict[Digest, Descriptor]

    async def manifest(self, repository: str, reference: str, _caller: Caller) -> Manifest | Index | None:
        """Return the manifest for a name and a tag or digest; None where the name is no upstream's.

        Raises UpstreamUnavailable when the patch is still under way: the client tries again.
        """
        if is_internal(reference):
            return None  # a signature, a record: what the mirror does not have of these is nowhere
        at = "@" if ":" in reference else ":"
        original = self.mirror.original_of(ImageRef.parse(f"{self.reference}/{repository}{at}{reference}"))
        if original is None:
            return None
        if original.digest is not None:
            return self._remember(await self.registry.get_manifest(original))
        request = ResolveRequest(image=str(original), wait_seconds=WAIT_SECONDS)
        answer = await self.resolve.resolve(request)
        if answer.outcome is Outcome.PATCHED:
            return await self.mirror.get_manifest(ImageRef.parse(answer.patched))
        if answer.outcome is Outcome.PENDING:
            raise UpstreamUnavailable(f"{original}: {answer.reason}", retry_after=RETRY_AFTER)
        if answer.outcome is Outcome.FAILED and answer.reason.startswith(UpstreamRefused.code):
            return None
        if answer.outcome is Outcome.FAILED:
            raise UpstreamUnavailable(f"{original}: {answer.reason}")
        return self._remember(await self.registry.get_manifest(ImageRef.parse(answer.source)))

    async def blob(self, repository: str, digest: Digest, _caller: Caller) -> Path | None:
        """Return a blob of an original whose manifest was handed through before, from the cache or the upstream."""
        descriptor = self.seen.get(digest)
        original = self.mirror.original_of(ImageRef.parse(f"{self.reference}/{repository}@{digest}"))
        if descriptor is None or original is None:
            return None
        if not self.store.has(digest, descriptor.size):
            try:
                stream = self.registry.stream_blob(original, descriptor)
                await self.store.ingest(digest, descriptor.size, stream, f"{original.name} {digest}", MAX_BLOB)
            except AdmendError:
                self.seen.pop(digest, None)
                raise
        return self.store.path(digest)

    def _remember(self, manifest: Manifest | Index) -> Manifest | Index:
        if isinstance(manifest, Manifest):
            for descriptor in (manifest.config, *manifest.layers):
                self.seen[descriptor.digest] = descriptor
            while len(self.seen) > MAX_SEEN:
                self.seen.pop(next(iter(self.seen)))
        return manifest
