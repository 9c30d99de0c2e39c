"""Reads a layer once, from its blob to its index.

Owns which contents are kept, outlines of shared libraries among them, and what a layer's member names mean:
`.wh.NAME` hides NAME of lower layers, `.wh..wh..opq` hides all that lower layers have in its directory, other
`.wh..wh.` names are AUFS' own book-keeping and are passed over, as every runtime does. Other bodies are never copied.
Specification: https://github.com/opencontainers/image-spec/blob/v1.1.1/layer.md#whiteouts
"""

from collections.abc import Callable, Collection, Iterator
from typing import BinaryIO

from proxy.engine.inflate import open_layer
from proxy.engine.layerindex import IndexBuilder, LayerIndex
from proxy.engine.outline import NONE, is_library_name, outline_stream
from proxy.engine.tar import LIMITS, NO_XATTRS, Kind, Limits, Readable, Span
from proxy.engine.tarread import Header, TarReader
from proxy.errors import MalformedInput

WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"
_META = ".wh..wh."
MAX_OUTLINES = 64 << 20  # bytes, of one layer; a desktop's programs and libraries have 30 MB


def scan_layer(
    stream: Readable,
    media_type: str,
    *,
    keep: Callable[[str], bool],
    captures: BinaryIO,
    captures_name: str,
    where: str,
    limits: Limits = LIMITS,
) -> LayerIndex:
    """Read a layer's blob to its end.

    Args:
        stream: the blob as it came; the caller checks its digest.
        media_type: the descriptor's media type; see `open_layer`.
        keep: says of a regular file's path, as the layer names it, whether its content is wanted.
        captures: where wanted contents are appended, from its present position on.
        captures_name: the name that spans give that file.
        where: the layer's name in errors.
        limits: what the layer may have.

    Raises:
        MalformedInput: the compression, the tar or a name in it is wrong. `captures` is then of no use.
    """
    layer = open_layer(stream, media_type, where=where, limits=limits)
    reader = TarReader(layer, where=where, limits=limits)
    builder = IndexBuilder()
    at = captures.tell()
    for header in _members(reader, builder.add_opaque):
        span = None
        outline = None
        if header.kind is Kind.FILE and header.size:
            if keep(header.path):
                reader.copy(captures.write)
                span = Span(captures_name, at, header.size)
                at += header.size
            elif is_library_name(header.path):
                found = outline_stream(reader.read, header.size, header.path)
                if found is not None:
                    captures.write(found)
                    outline = Span(captures_name, at, len(found))
                    at += len(found)
        builder.add(header, span, outline)
    return builder.finish(layer.diff_id, layer.size)


def extract_layer(
    stream: Readable,
    media_type: str,
    wanted: Collection[str],
    *,
    captures: BinaryIO,
    captures_name: str,
    where: str,
    limits: Limits = LIMITS,
) -> dict[str, Span]:
    """Read a layer's blob again and append the contents of the files that it names as in `wanted` to `captures`.

    Returns where each content lies, for `RootFS.supply`; a path that the layer does not have as a file is absent. Of a
    path that it has twice the last one counts.
    """
    layer = open_layer(stream, media_type, where=where, limits=limits)
    reader = TarReader(layer, where=where, limits=limits)
    names = frozenset(wanted)
    found: dict[str, Span] = {}
    at = captures.tell()
    for header in _members(reader, lambda _: None):
        if header.kind is Kind.FILE and header.path in names:
            reader.copy(captures.write)
            found[header.path] = Span(captures_name, at, header.size)
            at += header.size
    return found


def outline_layer(
    stream: Readable, media_type: str, wanted: Collection[str], *, where: str, limits: Limits = LIMITS
) -> dict[str, bytes | None]:
    """Read a layer's blob again for the outlines (see `outline`) of those of the files `wanted` that are ELF files.

    None stands for a file of which none can be had so. Of a path that the layer has twice the last one counts.

    Raises:
        MalformedInput: they are more than MAX_OUTLINES bytes.
    """
    layer = open_layer(stream, media_type, where=where, limits=limits)
    reader = TarReader(layer, where=where, limits=limits)
    names = frozenset(wanted)
    found: dict[str, bytes | None] = {}
    total = 0
    for header in _members(reader, lambda _: None):
        if header.kind is Kind.FILE and header.path in names:
            outline = found[header.path] = outline_stream(reader.read, header.size, header.path)
            total += len(outline or b"")
            if total > MAX_OUTLINES:
                raise MalformedInput("programs with more symbols than are looked at", file=where)
    return {path: outline for path, outline in found.items() if outline != NONE}


def _members(reader: TarReader, opaque: Callable[[str], None]) -> Iterator[Header]:
    while (header := reader.next()) is not None:
        path = header.path
        if WHITEOUT not in path:
            yield header
            continue
        folder, slash, name = path.rpartition("/")
        if any(part.startswith(WHITEOUT) and not part.startswith(_META) for part in folder.split("/")):
            raise MalformedInput("a whiteout with something below it", file=reader.where, text=path)
        if name == OPAQUE:
            opaque(folder)
        elif name.startswith(_META) or f"/{_META}" in f"/{folder}":
            continue
        elif name.startswith(WHITEOUT):
            hidden = name[len(WHITEOUT) :]
            if hidden in {"", ".", ".."}:
                raise MalformedInput("a whiteout that names nothing", file=reader.where, text=path)
            yield header._replace(path=folder + slash + hidden, kind=Kind.WHITEOUT, size=0, target="", xattrs=NO_XATTRS)
        else:
            yield header
