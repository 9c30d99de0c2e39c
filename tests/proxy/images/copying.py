"""Copies an image from one location to another, everything in it, through the protocols that a patch uses."""

import io

from proxy.images import ImageDest, ImageSource, open_dest, open_source, parse_location
from proxy.oci.manifest import Index, Manifest
from proxy.registry import Registry


async def read_all(source: ImageSource) -> tuple[Manifest | Index, list[Manifest], dict[str, bytes]]:
    """Return an image's top, the manifests of an index, and every blob."""
    top = await source.get_manifest()
    entries = top.manifests if isinstance(top, Index) else ()
    found = [await source.get_manifest(entry.digest) for entry in entries]
    children = [child for child in found if isinstance(child, Manifest)]
    blobs: dict[str, bytes] = {}
    for manifest in children or [top]:
        assert isinstance(manifest, Manifest)
        for descriptor in (manifest.config, *manifest.layers):
            blobs[str(descriptor.digest)] = b"".join([piece async for piece in source.stream_blob(descriptor)])
    return top, children, blobs


async def write_all(dest: ImageDest, top: Manifest | Index, children: list[Manifest], blobs: dict[str, bytes]) -> None:
    """Write an image in the order that a destination asks for."""
    for manifest in children or [top]:
        assert isinstance(manifest, Manifest)
        for descriptor in (manifest.config, *manifest.layers):
            data = blobs[str(descriptor.digest)]
            await dest.put_blob(descriptor, lambda data=data: io.BytesIO(data))  # type: ignore[misc]
    for manifest in (*children, top):
        await dest.put_manifest(manifest)
    await dest.tag(top)


async def copy(registry: Registry, source: str, dest: str) -> Manifest | Index:
    """Copy an image; returns its top."""
    async with open_source(parse_location(source), registry) as reading:
        top, children, blobs = await read_all(reading)
    async with open_dest(parse_location(dest), registry) as writing:
        await write_all(writing, top, children, blobs)
    return top
