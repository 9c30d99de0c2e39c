"""Root file systems for tests, made of a tar as an image's layer is, and read through the engine's own scan."""

import io
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from proxy.engine.rootfs import RootFS, extract_layer, scan_layer
from proxy.oci.manifest import OCI_LAYER


@dataclass(frozen=True)
class Link:
    """A symlink's target."""

    target: str


def make_fs(files: Mapping[str, bytes | Link], keep: Callable[[str], bool]) -> RootFS:
    """Return a root file system of one layer with these files and symlinks; what was not kept is read again."""
    blob, captures = _tar(files).getvalue(), io.BytesIO()
    index = scan_layer(
        io.BytesIO(blob), OCI_LAYER, keep=keep, captures=captures, captures_name="captures", where="test layer"
    )

    def again(_: int, paths: set[str]) -> dict[str, bytes]:
        out = io.BytesIO()
        found = extract_layer(io.BytesIO(blob), OCI_LAYER, paths, captures=out, captures_name="", where="test layer")
        return {path: out.getvalue()[span.offset : span.offset + span.size] for path, span in found.items()}

    kept = captures.getvalue()
    return RootFS([index], lambda span: kept[span.offset : span.offset + span.size], again)


def _tar(files: Mapping[str, bytes | Link]) -> io.BytesIO:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path, content in files.items():
            member = tarfile.TarInfo(path)
            if isinstance(content, Link):
                member.type, member.linkname = tarfile.SYMTYPE, content.target
                tar.addfile(member)
            else:
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    buffer.seek(0)
    return buffer


def layered(*layers: Mapping[str, bytes | Link], keep: Callable[[str], bool]) -> tuple[RootFS, ...]:
    """Return the root file system after each of these layers; `dir/.wh.name` removes `dir/name`."""
    indexes, kept = [], {}
    for number, files in enumerate(layers):
        captures, name = io.BytesIO(), f"layer {number}"
        index = scan_layer(_tar(files), OCI_LAYER, keep=keep, captures=captures, captures_name=name, where=name)
        indexes.append(index)
        kept[name] = captures.getvalue()
    read = lambda span: kept[span.file][span.offset : span.offset + span.size]  # noqa: E731 - shared by all views
    return tuple(RootFS(indexes[: number + 1], read) for number in range(len(layers)))


def open_fs(archive: Path, keep: Callable[[str], bool]) -> RootFS:
    """Return the root file system in a gzip-compressed tar."""
    with archive.open("rb") as stream:
        return _scan(stream, f"{OCI_LAYER}+gzip", keep, archive.name)


def _scan(stream: io.BufferedIOBase, media_type: str, keep: Callable[[str], bool], where: str) -> RootFS:
    captures = io.BytesIO()
    index = scan_layer(stream, media_type, keep=keep, captures=captures, captures_name="captures", where=where)
    kept = captures.getvalue()
    return RootFS([index], lambda span: kept[span.offset : span.offset + span.size])
