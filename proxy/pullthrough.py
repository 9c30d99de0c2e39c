"""Pull-through: a registry client asks the mirror for an upstream image and gets the patched one.

Owns what is answered when the mirror does not have a manifest or blob under an upstream's name. A tag gives the
patched image, or the original where there is nothing to patch; a digest gives exactly that content. Originals are not
kept in the mirror: their manifests are handed through and their blobs come from the proxy's cache (`originals`). A pull
waits a while for the first patch of its image; container runtimes give up on an answer that does not begin within a
minute, as gateways do, so it does not wait as long. What a client sends to be let into the mirror goes no further:
originals are opened as `entrance` says, private ones with the proxy's own credentials, for who is trusted here.
"""

from collections import Counter
from pathlib import Path

from proxy.access import Caller
from proxy.api import Outcome, ResolveRequest
from proxy.errors import UpstreamRefused, UpstreamUnavailable
from proxy.mirror import EmbeddedMirror
from proxy.oci.digest import Digest
from proxy.oci.manifest import Index, Manifest
from proxy.oci.naming import INTERNAL_HOST, is_internal
from proxy.oci.reference import ImageRef
from proxy.originals import RETRY_AFTER, Coming, Originals
from proxy.privacy import Privacy
from proxy.resolve import Resolve


class PullThrough:
    """Answers misses of the mirror's /v2 routes.

    Args:
        resolve: patches what is asked for by tag.
        mirror: the mirror.
        originals: opens originals for who may have them.
        privacy: says for whom a client asks.
        wait: seconds that a pull waits for a patch; after that the client is told to try again.
    """

    def __init__(
        self, resolve: Resolve, mirror: EmbeddedMirror, originals: Originals, privacy: Privacy, *, wait: float
    ) -> None:
        self._resolve, self._mirror, self._originals, self._privacy = resolve, mirror, originals, privacy
        self._wait = wait
        self.results = Counter[str]()  # manifests asked for, by what they came to

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
            self.results["digest"] += 1
            return await self._originals.manifest(original, asker)
        request = ResolveRequest(image=str(original), wait_seconds=self._wait)
        answer = await self._resolve.resolve(request, asker)
        self.results[answer.outcome.value] += 1
        if answer.outcome is Outcome.PATCHED:
            return await self._mirror.get_manifest(ImageRef.parse(answer.patched))
        if answer.outcome is Outcome.PENDING:
            raise UpstreamUnavailable(f"{original}: {answer.reason}", retry_after=RETRY_AFTER)
        if answer.outcome is Outcome.FAILED and answer.reason.startswith(UpstreamRefused.code):
            return None
        if answer.outcome is Outcome.FAILED:
            raise UpstreamUnavailable(f"{original}: {answer.reason}")
        return await self._originals.manifest(ImageRef.parse(answer.source), asker)

    async def blob(self, repository: str, digest: Digest, caller: Caller) -> Path | Coming | None:
        """Return a blob of an original: a file, or its bytes while they come from the upstream."""
        original = self._original(repository, str(digest))
        return None if original is None else await self._originals.blob(original, self._privacy.asker(caller))

    def _original(self, repository: str, reference: str) -> ImageRef | None:
        """Return what a name of the mirror stands for upstream; None where it is no upstream's, or the mirror's own."""
        at, host = "@" if ":" in reference else ":", self._mirror.naming.host
        original = self._mirror.original_of(ImageRef.parse(f"{host}/{repository}{at}{reference}"))
        return None if original is None or original.host in {host, INTERNAL_HOST} else original
