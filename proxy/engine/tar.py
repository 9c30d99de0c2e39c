"""The nouns of tar streams: `Entry`, a path with its metadata, and the limits that every reader keeps.

`inflate` decompresses, `tarread` reads strictly, `tarwrite` writes deterministically. The same `Entry` describes a
member of a layer, a path of the merged root file system, a file of a package's payload and a line of the patch layer;
only where its content lies differs.
Formats: POSIX.1-2001 pax and ustar, GNU long names, https://github.com/opencontainers/image-spec/blob/v1.1.1/layer.md
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

BLOCK = 512  # bytes: every header and body of a tar is padded to it
CHUNK = 256 << 10  # bytes in one piece of a stream
NO_XATTRS: Mapping[str, bytes] = {}  # shared by all entries that have none


class Readable(Protocol):
    """A stream of bytes: `read(n)` gives up to n bytes, and ``b""`` at the end only."""

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one layer or archive may have; over any of them it is refused as malformed.

    `size` is in uncompressed bytes. `ratio` bounds uncompressed over compressed bytes once `ratio_free` bytes were
    seen: distributions' files stay under 100, a decompression bomb is over 1,000. `path` is Linux' PATH_MAX
    in characters, `depth` the components of a path; `header`
    what Go's archive/tar, the reader in every container runtime, takes as one extended header; `members` the pieces of
    a multi-member gzip (an eStargz layer has one or more per file).
    """

    size: int = 16 << 30
    ratio: int = 250
    ratio_free: int = 256 << 20
    entries: int = 1_000_000
    path: int = 4096
    depth: int = 512
    header: int = 1 << 20
    members: int = 2_000_000


LIMITS = Limits()


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
    xattrs: Mapping[str, bytes] = field(default_factory=lambda: NO_XATTRS)
    device: tuple[int, int] = (0, 0)
