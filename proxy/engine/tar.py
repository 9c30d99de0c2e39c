"""Tar streams, read strictly and written deterministically; owns `Entry`, the one noun for a path with its metadata.

The same `Entry` describes a member of a layer, a path of the merged root file system, a file of a package's payload
and a line of the patch layer; only where its content lies differs.
Formats: POSIX.1-2001 pax and ustar, GNU long names, https://github.com/opencontainers/image-spec/blob/v1.1.1/layer.md
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Kind(StrEnum):
    """What a path is."""

    FILE = "file"
    DIR = "dir"
    SYMLINK = "symlink"
    HARDLINK = "hardlink"
    CHAR = "char"
    BLOCK = "block"
    FIFO = "fifo"
    WHITEOUT = "whiteout"


@dataclass(frozen=True, slots=True)
class Span:
    """`size` bytes at `offset` of the file named `file` (a name that the shell chose, never one from an image)."""

    file: str
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One path with its metadata.

    `path` is relative to the root, normalized, without a leading or trailing slash; the root itself is ``""``.
    Names that are not UTF-8 carry surrogate escapes. `mode` holds permission and set-id bits only (0o7777).
    `mtime` is in whole seconds since the epoch. `target` is a symlink's text, or the path of a hard link's file.
    `content` is the bytes of a small file, a `Span` of a larger one, or None where it was not kept.
    """

    path: str
    kind: Kind
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    size: int = 0
    target: str = ""
    content: bytes | Span | None = None
    xattrs: Mapping[str, bytes] = field(default_factory=dict)
    device: tuple[int, int] = (0, 0)
