"""What an image can be asked, wherever it lives, and the image in a registry."""

from collections.abc import AsyncGenerator
from typing import Protocol

from proxy.oci.digest import Digest
from proxy.oci.manifest import Descriptor, Index, Manifest
from proxy.oci.reference import ImageRef
from proxy.registry import Registry


class ImageSource(Protocol):
    """One image: its manifests and its blobs.

    Attributes:
        place: the repository that it comes from; "" for an image on this machine.
        private: whether the repository opens with credentials only.
    """

    @property
    def place(self) -> str: ...  # noqa: D102 - the class says it

    @property
    def private(self) -> bool: ...  # noqa: D102 - likewise

    async def get_manifest(self, digest: Digest | None = None) -> Manifest | Index:
        """Return the manifest or index with this digest, or what the image's own name stands for."""
        ...

    def stream_blob(self, descriptor: Descriptor) -> AsyncGenerator[bytes, None]:
        """Yield a blob's bytes; the size holds when the stream ends without error, the digest is for the blob store."""
        ...


class RegistryImage:
    """An image in a registry."""

    def __init__(self, registry: Registry, ref: ImageRef, *, private: bool = False) -> None:
        self._registry, self.ref, self.private = registry, ref, private

    @property
    def place(self) -> str:
        """The repository that it comes from."""
        return self.ref.name

    async def get_manifest(self, digest: Digest | None = None) -> Manifest | Index:
        """Return the manifest or index with this digest, or what the reference stands for."""
        return await self._registry.get_manifest(self.ref.with_digest(digest) if digest else self.ref)

    def stream_blob(self, descriptor: Descriptor) -> AsyncGenerator[bytes, None]:
        """Yield a blob's bytes; its digest is not checked twice."""
        return self._registry.stream_blob(self.ref, descriptor, hashed=False)
