"""Who may have which upstream image, and with whose credentials it is opened.

Owns what is known of tags, and the proofs that somebody may have what their registry does not give to everybody:

1. an image that the registry gives without credentials is public, and anybody's;
2. any other is private: the pull secrets of the pod that asks for it must open it, or the proxy's own credentials,
   which serve requests without a namespace and the namespaces that the operator lists;
3. a proof holds for one namespace and one repository, `tag_ttl` seconds at the most. It names no secret.

Credentials are read when they are used and forgotten with the client that used them; what one namespace was refused,
or was told, is never another's answer. Nothing is told to who has no proof, not even in a dry run.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TypeVar

from proxy.api import ResolveRequest
from proxy.credentials import Credentials
from proxy.egress import Egress
from proxy.errors import AdmendError, UpstreamRefused
from proxy.flight import SingleFlight
from proxy.kube.secrets import Secrets
from proxy.oci.digest import Digest
from proxy.oci.reference import ImageRef
from proxy.registry import Registry

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

MAX_REMEMBERED = 10_000  # tags, proofs and failures kept in memory, each


@dataclass(frozen=True, slots=True)
class Asker:
    """For whom an image is asked: a pod of a namespace, or without one somebody whom `own` credentials may serve."""

    namespace: str = ""
    pull_secrets: tuple[str, ...] = ()
    service_account: str = ""
    own: bool = True

    @classmethod
    def of(cls, request: ResolveRequest) -> "Asker":
        """Return for whom a request asks."""
        return cls(request.namespace, request.pull_secrets, request.service_account)

    @property
    def party(self) -> tuple[str, bool]:
        """What proofs belong to."""
        return self.namespace, self.own and not self.namespace


@dataclass(frozen=True, slots=True)
class Entry:
    """An image that an asker may have: what its reference names now, and whether it is private."""

    digest: Digest
    private: bool


@dataclass(frozen=True, slots=True)
class FoundBlob:
    """A blob that an asker may have: its size in bytes, what opens it, and whether it is private."""

    registry: Registry
    size: int
    private: bool


@dataclass(frozen=True, slots=True)
class EntranceSettings:
    """Times in seconds, and whom the own credentials serve; see `proxy.config`."""

    tag_ttl: float
    negative_ttl: float
    credential_namespaces: tuple[str, ...] = ()
    credentials_open: bool = False


@dataclass(frozen=True, slots=True)
class _Client:
    registry: Registry
    own: bool


class Entrance:
    """Answers who may have what.

    Args:
        egress: the way out.
        own: the client with the proxy's own credentials.
        credentials: those.
        secrets: the cluster's pull secrets; None outside of one.
        settings: times and namespaces.
    """

    def __init__(
        self,
        egress: Egress,
        own: Registry,
        credentials: Credentials,
        secrets: Secrets | None,
        settings: EntranceSettings,
    ) -> None:
        self._egress, self._own, self._credentials = egress, own, credentials
        self._secrets, self._settings = secrets, settings
        self._anybody = Registry(egress, Credentials(where="a pull secret, or the proxy's own credentials"))
        self._public: dict[ImageRef, tuple[Digest, float]] = {}
        self._private: dict[tuple[Hashable, ImageRef], tuple[Digest, float]] = {}
        self._proofs: dict[tuple[Hashable, str], float] = {}
        self._failed: dict[Hashable, tuple[AdmendError, float]] = {}
        self._heads: SingleFlight[ImageRef, Digest] = SingleFlight()
        self.lookups = Counter[str]()  # what was known (hit) or had to be asked for (miss)
        self._knocks: SingleFlight[tuple[ImageRef, Asker], Entry] = SingleFlight()

    async def close(self) -> None:
        """End all questions under way."""
        await self._knocks.close()
        await self._heads.close()

    async def enter(
        self, image: ImageRef, asker: Asker, *, always: bool = False, dry_run: bool = False, deadline: float
    ) -> Entry | None:
        """Return what the asker may have by this reference, or None when that cannot be known in time.

        With `always` the registry is asked what a tag names now; a dry run asks nobody anything.

        Raises:
            UpstreamRefused: the asker may not have it, or it is not there; the two cannot always be told apart.
            AdmendError: the registry, or the API server, could not be asked.
        """
        known = self._look(image, asker, stale=dry_run)
        if known is not None and (dry_run or not always or image.digest is not None):
            self.lookups["hit"] += 1
            return known
        if dry_run:
            return None
        self.lookups["miss"] += 1
        self._check_failed((image, asker))
        task = self._knocks.start((image, asker), lambda: self._knock(image, asker))
        done, _ = await asyncio.wait([task], timeout=max(0.0, deadline - time.monotonic()))
        return task.result() if done else None

    async def find_blob(self, blob: ImageRef, asker: Asker) -> FoundBlob | None:
        """Return a blob, named by its repository and digest, that the asker may have; None where there is none.

        Raises:
            UpstreamRefused: the asker may not have it, or it is not there; the two cannot always be told apart.
            AdmendError: the registry, or the API server, could not be asked.
        """
        if blob.digest is None:
            return None
        try:
            size = await self._anybody.blob_size(blob, blob.digest)
            return None if size is None else FoundBlob(self._anybody, size, private=False)
        except UpstreamRefused as error:
            refused = error
        clients, _ = await self._clients(blob, asker)
        for client in clients:
            try:
                size = await client.registry.blob_size(blob, blob.digest)
            except UpstreamRefused:
                continue
            if size is not None:
                private = not (client.own and self._settings.credentials_open)
                return FoundBlob(client.registry, size, private=private)
        raise refused

    async def connect(self, image: ImageRef, asker: Asker, *, private: bool) -> Registry:
        """Return a client that opens the image for the asker, to be let go of after the work it is for."""
        if not private:
            helpful = self._serves(asker) and self._credentials.find(image.name) is not None
            return self._own if helpful else self._anybody
        return (await self._open(image, asker))[0].registry

    @property
    def is_open(self) -> bool:
        """Whether what the own credentials open counts as public."""
        return self._settings.credentials_open

    def is_suspect(self, name: ImageRef) -> bool:
        """Say whether the proxy's own credentials might have opened what is known under an upstream name."""
        return self._credentials.find(name.name) is not None and not self._settings.credentials_open

    def _look(self, image: ImageRef, asker: Asker, *, stale: bool) -> Entry | None:
        """Return what is remembered; of a private image only while the asker's proof holds."""
        now = time.monotonic()
        digest, until = self._public.get(image, (None, 0.0))
        if digest is not None and (stale or until > now):
            return Entry(digest, private=False)
        if self._proofs.get((asker.party, image.name), 0.0) <= now:
            return None
        if image.digest is not None:
            return Entry(image.digest, private=True)
        digest, until = self._private.get((asker.party, image), (None, 0.0))
        return Entry(digest, private=True) if digest is not None and (stale or until > now) else None

    async def _knock(self, image: ImageRef, asker: Asker) -> Entry:
        try:
            return await self._try_all(image, asker)
        except AdmendError as error:
            self._fail((image, asker), error)
            raise

    async def _try_all(self, image: ImageRef, asker: Asker) -> Entry:
        until = time.monotonic() + self._settings.tag_ttl
        try:
            self._check_failed(image)
            digest = await self._heads.run(image, lambda: self._ask_anonymously(image))
        except UpstreamRefused as refused:
            client, digest = await self._open(image, asker, refused)
            if client.own and self._settings.credentials_open:
                _remember(self._public, image, (digest, until))
                return Entry(digest, private=False)
            for known in [known for known in self._public if known.name == image.name]:
                del self._public[known]  # it was public; what is known of its other tags must not say that it is
            _remember(self._private, (asker.party, image), (digest, until))
            _remember(self._proofs, (asker.party, image.name), until)
            return Entry(digest, private=True)
        _remember(self._public, image, (digest, until))
        return Entry(digest, private=False)

    async def _ask_anonymously(self, image: ImageRef) -> Digest:
        try:
            return await _head(self._anybody, image)
        except AdmendError as error:
            self._fail(image, error)
            raise

    async def _open(
        self, image: ImageRef, asker: Asker, refused: UpstreamRefused | None = None
    ) -> tuple[_Client, Digest]:
        """Return the first client with credentials of the asker's that opens the image, and what it found."""
        clients, notes = await self._clients(image, asker)
        last = refused
        for client in clients:
            try:
                return client, await _head(client.registry, image)
            except UpstreamRefused as error:
                last = error
        if last is None:
            last = UpstreamRefused(f"{image}: nobody's credentials open it", status=403)
        if notes:
            raise UpstreamRefused(f"{last} ({'; '.join(notes)})", status=last.status)
        raise last

    async def _clients(self, image: ImageRef, asker: Asker) -> tuple[Sequence[_Client], Sequence[str]]:
        """Return a client for each login that may be used for the asker, and why there are not more."""
        clients: list[_Client] = []
        notes: list[str] = []
        if asker.namespace and self._secrets is not None:
            found = await self._secrets.read(asker.namespace, asker.pull_secrets, asker.service_account)
            notes += found.notes
            for item in found.credentials:
                if item.find(image.name) is None:
                    notes.append(f"{item.where} has no login for {image.host}")
                else:
                    clients.append(_Client(Registry(self._egress, item), own=False))
        if self._credentials.find(image.name) is not None:
            if self._serves(asker):
                clients.append(_Client(self._own, own=True))
            elif asker.namespace:
                setting = "upstream.credential_namespaces"
                notes.append(f"the proxy's own login does not serve the namespace {asker.namespace} ({setting})")
            else:
                notes.append("the proxy's own login serves nobody who pulls without credentials")
        elif self._serves(asker) and self._credentials.helper(image.host):
            clients.append(_Client(self._own, own=True))  # it knows what to say of credential helpers
        return clients, notes

    def _serves(self, asker: Asker) -> bool:
        """Say whether the proxy's own credentials may be used for the asker."""
        if not asker.namespace:
            return asker.own
        return any(fnmatchcase(asker.namespace, pattern) for pattern in self._settings.credential_namespaces)

    def _check_failed(self, key: Hashable) -> None:
        error, until = self._failed.get(key, (None, 0.0))
        if error is not None and until > time.monotonic():
            raise error

    def _fail(self, key: Hashable, error: AdmendError) -> None:
        _remember(self._failed, key, (error, time.monotonic() + self._settings.negative_ttl))


async def _head(registry: Registry, image: ImageRef) -> Digest:
    descriptor = await registry.head_manifest(image)
    if descriptor is None:
        raise UpstreamRefused(f"{image}: not found in {image.host}: check the name and the tag", status=404)
    return descriptor.digest


def _remember(memory: dict[K, V], key: K, value: V) -> None:
    """Put a value into a bounded dictionary, dropping the one that was put in first."""
    memory.pop(key, None)
    memory[key] = value
    if len(memory) > MAX_REMEMBERED:
        memory.pop(next(iter(memory)))
