"""Pull-through: a registry client asks the mirror for an upstream image and gets the patched one.

Owns what is answered when the mirror does not have a manifest or blob under an upstream's name. A tag gives the
patched image, or the original where there is nothing to patch; a digest gives exactly that content. Originals are not
kept in the mirror: their manifests are handed through and their blobs come from the proxy's cache. What a client sends
to be let into the mirror goes no further: originals are opened as `entrance` says, private ones with the proxy's own
credentials, for who is trusted here.
"""

import time
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from proxy.access import Caller
from proxy.api import Outcome, ResolveRequest
from proxy.entrance import Asker, Entrance
from proxy.errors import AdmendError, UpstreamRefused, UpstreamUnavailable
from proxy.images import RegistryImage
from proxy.layers import Layers
from proxy.mirror import EmbeddedMirror
from proxy.oci.digest import Digest
from proxy.oci.manifest import Descriptor, Index, Manifest
from proxy.oci.naming import is_internal
from proxy.oci.reference import ImageRef
from proxy.privacy import Privacy
from proxy.resolve import Resolve

WAIT_SECONDS = 60.0  # a pull waits as long for a first sight; after that the client is told to try again
RETRY_AFTER = 5.0
MAX_SEEN = 10_000  # blobs of originals whose descriptors are remembered


@dataclass(frozen=True, slots=True)
class Seen:
    """A blob of an original whose manifest was handed through."""

    descriptor: Descriptor
    manifest: ImageRef


class PullThrough:
    """Answers misses of the mirror's /v2 routes.

    Args:
        resolve: patches what is asked for by tag.
        mirror: the mirror.
        entrance: says who may have which original, and opens it.
        privacy: says for whom a client asks.
        layers: the cache of blobs.
    """

    def __init__(
        self, resolve: Resolve, mirror: EmbeddedMirror, entrance: Entrance, privacy: Privacy, layers: Layers
    ) -> None:
        self._resolve, self._mirror, self._entrance = resolve, mirror, entrance
        self._privacy, self._layers = privacy, layers
        self._seen: OrderedDict[tuple[str, Digest], Seen] = OrderedDict()

    async def manifest(self, repository: str, reference: str, caller: Caller) -> Manifest | Index | None:
        """Return the manifest for a name and a tag or digest; None where the name is no upstream's.

        Raises UpstreamUnavailable when the patch is still under way: the client tries again.
        """
        if is_internal(reference):
            return None  # a signature, a record: what the mirror does not have of these is nowhere
        original = self._original(repository, reference)
        if original is None:
            return None
        asker = self._privacy.asker(caller)
        if original.digest is not None:
            return await self._hand_through(repository, original, asker)
        request = ResolveRequest(image=str(original), wait_seconds=WAIT_SECONDS)
        answer = await self._resolve.resolve(request, asker)
        if answer.outcome is Outcome.PATCHED:
            return await self._mirror.get_manifest(ImageRef.parse(answer.patched))
        if answer.outcome is Outcome.PENDING:
            raise UpstreamUnavailable(f"{original}: {answer.reason}", retry_after=RETRY_AFTER)
        if answer.outcome is Outcome.FAILED and answer.reason.startswith(UpstreamRefused.code):
            return None
        if answer.outcome is Outcome.FAILED:
            raise UpstreamUnavailable(f"{original}: {answer.reason}")
        return await self._hand_through(repository, ImageRef.parse(answer.source), asker)

    async def blob(self, repository: str, digest: Digest, caller: Caller) -> Path | None:
        """Return a blob of an original whose manifest was handed through before, from the cache or the upstream."""
        seen = self._seen.get((repository, digest))
        if seen is None:
            return None
        source = await self._open(seen.manifest, self._privacy.asker(caller))
        try:
            return await self._layers.pull(source, seen.descriptor)
        except AdmendError:
            self._seen.pop((repository, digest), None)
            raise

    def _original(self, repository: str, reference: str) -> ImageRef | None:
        at = "@" if ":" in reference else ":"
        return self._mirror.original_of(ImageRef.parse(f"{self._mirror.naming.host}/{repository}{at}{reference}"))

    async def _open(self, original: ImageRef, asker: Asker) -> RegistryImage:
        """Return an original that the asker may have, opened."""
        entry = await self._entrance.enter(original, asker, deadline=time.monotonic() + WAIT_SECONDS)
        if entry is None:
            raise UpstreamUnavailable(f"{original}: its registry has not answered yet", retry_after=RETRY_AFTER)
        registry = await self._entrance.connect(original, asker, private=entry.private)
        return RegistryImage(registry, original, private=entry.private)

    async def _hand_through(self, repository: str, original: ImageRef, asker: Asker) -> Manifest | Index:
        source = await self._open(original, asker)
        manifest = await source.get_manifest()
        if isinstance(manifest, Manifest):
            for descriptor in (manifest.config, *manifest.layers):
                self._seen[(repository, descriptor.digest)] = Seen(descriptor, original)
            while len(self._seen) > MAX_SEEN:
                self._seen.popitem(last=False)
        return manifest
