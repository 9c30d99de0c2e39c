"""From a location to the image that is there."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from proxy.errors import MalformedInput
from proxy.images.docker_save import SavedImage
from proxy.images.files import FolderFiles, TarFiles
from proxy.images.layout import LayoutImage
from proxy.images.location import Kind, Location
from proxy.images.source import ImageSource, RegistryImage
from proxy.registry import Registry


@asynccontextmanager
async def open_source(
    location: Location, registry: Registry, scratch: Path | None = None
) -> AsyncIterator[ImageSource]:
    """Open the image at a location for reading.

    Args:
        location: where it is.
        registry: the client for one in a registry.
        scratch: an existing folder for the unpacked form of compressed archives.

    Raises:
        MalformedInput: there is nothing there, or not what the location says.
    """
    if location.kind is Kind.REGISTRY:
        if location.ref is None:
            raise MalformedInput("a registry's image needs a reference", text=str(location))
        yield RegistryImage(registry, location.ref)
        return
    if location.kind is Kind.OCI:
        image: LayoutImage | SavedImage = LayoutImage(FolderFiles(location.path), location.tag)
    else:
        files = await asyncio.to_thread(TarFiles, location.path, scratch)
        kind = SavedImage if location.kind is Kind.DOCKER_ARCHIVE else LayoutImage
        image = kind(files, location.tag)
    try:
        yield image
    finally:
        await image.close()
