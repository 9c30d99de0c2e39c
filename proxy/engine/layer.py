"""Entries to a deterministic layer: the same entries and compressor give the same bytes, so replicas agree.

Owns the order (by path, parents first, hard links last), the checks that keep a layer from doing harm, and the
compressors with their fixed settings. isal never compresses here: its output differs between CPUs. Refuses `..`,
absolute names, an entry below one that is no directory, two different entries of one path, names that a runtime would
take for whiteouts, and hard links to a file outside the layer (overlayfs runtimes cannot make them).
Specification: https://github.com/opencontainers/image-spec/blob/v1.1.1/layer.md
"""

import hashlib
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import BinaryIO, Literal, Protocol

import zstandard

from proxy.engine.behind import Behind
from proxy.engine.rootfs import RootFS
from proxy.engine.scan import WHITEOUT
from proxy.engine.tar import CHUNK, NO_XATTRS, Entry, Kind, Span
from proxy.engine.tarwrite import END, render_member
from proxy.errors import MalformedInput, Unsupported
from proxy.oci.digest import Digest

GZIP_LEVEL = 1  # measured on a Debian /usr: 99 MB/s at ratio 0.46; level 6 gives 31 MB/s at 0.43
ZSTD_LEVEL = 3  # 307 MB/s at 0.38
_GZIP_HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"  # deflate, no name, no time, unknown operating system
_MEDIA_TYPES = {
    ("docker", "gzip"): "application/vnd.docker.image.rootfs.diff.tar.gzip",
    ("oci", "gzip"): "application/vnd.oci.image.layer.v1.tar+gzip",
    ("oci", "zstd"): "application/vnd.oci.image.layer.v1.tar+zstd",
}

Compression = Literal["gzip", "zstd"]
Media = Literal["docker", "oci"]


@dataclass(frozen=True, slots=True)
class WrittenLayer:
    """A layer that was written: its digest and size as stored, the digest of its tar, its media type."""

    digest: Digest
    diff_id: Digest
    size: int
    media_type: str


def write_layer(
    entries: Iterable[Entry],
    out: BinaryIO,
    *,
    compression: Compression,
    media: Media,
    read_span: Callable[[Span], Iterator[bytes]],
) -> WrittenLayer:
    """Write a layer.

    Args:
        entries: in any order, paths already resolved in the image; equal duplicates are merged. A WHITEOUT entry
            hides its path. Missing parents are not added; see `add_parents`.
        out: where the compressed layer goes.
        compression: zstd only with OCI media types: Docker's manifest format has none for it.
        media: the family of media types of the image.
        read_span: gives the content of a `Span`, piece by piece.

    Raises:
        MalformedInput: the entries do not make a sound layer, and nothing was written; or a content that is not of
            its entry's size, and what was written is of no use.
        Unsupported: zstd in a Docker image.
    """
    media_type = _MEDIA_TYPES.get((media, compression))
    if media_type is None:
        raise Unsupported(f"a {media} image cannot hold {compression} layers; compress with gzip")
    ordered = _order(entries)
    sink = _Sink(out, compression)
    for entry in ordered:
        for piece in render_member(_as_member(entry), _content(entry, read_span)):
            sink.write(piece)
    sink.write(END)
    return sink.finish(media_type)


def add_parents(entries: Iterable[Entry], fs: RootFS) -> tuple[Entry, ...]:
    """Return the entries and, as the image has them, the directories above them that are not among them.

    A layer that leaves parents out has them made anew by some runtimes, with other modes and owners than the image's.
    """
    given = {entry.path: entry for entry in entries}
    found = dict(given)
    for path in given:
        while path := path.rpartition("/")[0]:
            if path in found:
                break
            there = fs.get(path)
            found[path] = there if there is not None and there.kind is Kind.DIR else Entry(path, Kind.DIR, 0o755)
    return tuple(found.values())


def _order(entries: Iterable[Entry]) -> Sequence[Entry]:
    """Check the entries against each other and sort them."""
    by_path: dict[str, Entry] = {}
    for entry in entries:
        _check(entry)
        if by_path.setdefault(entry.path, entry) != entry:
            raise MalformedInput("two different entries of one path in a layer", text=entry.path)
    for path, entry in by_path.items():
        parent = path
        while parent := parent.rpartition("/")[0]:
            above = by_path.get(parent)
            if above is not None and above.kind is not Kind.DIR:
                raise MalformedInput(f"{path}: lies below a {above.kind} of the same layer", text=parent)
        if entry.kind is Kind.HARDLINK:
            target = by_path.get(entry.target)
            if target is None or target.kind is not Kind.FILE:
                raise MalformedInput(f"{path}: a hard link to what is no file of the same layer", text=entry.target)
    return sorted(by_path.values(), key=_place)


def _place(entry: Entry) -> tuple[bool, bytes]:
    return entry.kind is Kind.HARDLINK, entry.path.encode("utf-8", "surrogateescape")


def _check(entry: Entry) -> None:
    """Check one entry by itself."""
    path, kind = entry.path, entry.kind
    parts = path.split("/") if path else []
    if "\0" in path or "\0" in entry.target or any(part in {"", ".", ".."} for part in parts):
        raise MalformedInput("not a normalized path below the root", text=path)
    if any(part.startswith(WHITEOUT) for part in parts):
        raise MalformedInput("a name that would be taken for a whiteout", text=path)
    if not path and kind is not Kind.DIR:
        raise MalformedInput(f"the root directory as a {kind}")
    if any(not key or "=" in key or "\0" in key for key in entry.xattrs):
        raise MalformedInput("an extended attribute whose name cannot be written", text=path)
    if kind is Kind.SYMLINK and not entry.target:
        raise MalformedInput("a symlink without a target", text=path)
    if kind is Kind.FILE:
        content = entry.content
        held = 0 if content is None else content.size if isinstance(content, Span) else len(content)
        if held != entry.size:
            raise MalformedInput(f"has {held} bytes of content, but its size is {entry.size}", text=path)


def _as_member(entry: Entry) -> Entry:
    """Return the entry as the tar has it: a whiteout is an empty file with a name of its own."""
    if entry.kind is not Kind.WHITEOUT:
        return entry
    folder, slash, name = entry.path.rpartition("/")
    path = f"{folder}{slash}{WHITEOUT}{name}"
    return replace(entry, path=path, kind=Kind.FILE, mode=0o644, uid=0, gid=0, size=0, target="", xattrs=NO_XATTRS)


def _content(entry: Entry, read_span: Callable[[Span], Iterator[bytes]]) -> Iterator[bytes]:
    if entry.kind is not Kind.FILE or entry.content is None:
        return iter(())
    return read_span(entry.content) if isinstance(entry.content, Span) else iter((entry.content,))


class _Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


class _Gzip:
    """RFC 1952 around the standard library's zlib, with a header that never changes."""

    def __init__(self) -> None:
        self._deflate = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS, 8, zlib.Z_DEFAULT_STRATEGY)
        self._head = _GZIP_HEADER
        self._crc = self._size = 0

    def compress(self, data: bytes, /) -> bytes:
        self._crc = zlib.crc32(data, self._crc)
        self._size += len(data)
        head, self._head = self._head, b""
        return head + self._deflate.compress(data)

    def flush(self) -> bytes:
        tail = self._crc.to_bytes(4, "little") + (self._size & 0xFFFF_FFFF).to_bytes(4, "little")
        return self._head + self._deflate.flush() + tail


def _compressor(compression: Compression) -> _Compressor:
    if compression == "gzip":
        return _Gzip()
    return zstandard.ZstdCompressor(
        level=ZSTD_LEVEL, write_checksum=True, write_content_size=False, write_dict_id=False, threads=0
    ).compressobj()


class _Sink:
    """Compresses into a file in pieces of one size, whatever sizes come in, and keeps both digests.

    What is written may reach `out` later, by `finish` at the latest.
    """

    __slots__ = ("_behind", "_compressor", "_digest", "_held", "_out", "_size", "_tar")

    def __init__(self, out: BinaryIO, compression: Compression) -> None:
        self._out = out
        self._compressor = _compressor(compression)
        self._tar, self._digest = hashlib.sha256(), hashlib.sha256()
        self._held = bytearray()
        self._size = 0
        self._behind = Behind(self._pass_on)

    def write(self, piece: bytes) -> None:
        """Take the next piece of the tar."""
        held = self._held
        held += piece
        if len(held) < CHUNK:
            return
        at = 0
        while len(held) - at >= CHUNK:
            self._behind.put(bytes(held[at : at + CHUNK]))
            at += CHUNK
        del held[:at]

    def finish(self, media_type: str) -> WrittenLayer:
        """End the layer."""
        if self._held:
            self._behind.put(bytes(self._held))
        self._behind.catch_up()
        self._put(self._compressor.flush())
        tar = Digest("sha256", self._tar.hexdigest())
        return WrittenLayer(Digest("sha256", self._digest.hexdigest()), tar, self._size, media_type)

    def _pass_on(self, data: bytes) -> None:
        self._tar.update(data)
        self._put(self._compressor.compress(data))

    def _put(self, data: bytes) -> None:
        self._digest.update(data)
        self._size += len(data)
        self._out.write(data)


def _fingerprint() -> str:
    """Name the compressors by their versions and by what they make of a fixed input."""
    sample = b"".join(b"%d %x\n" % (n, n * n * 2654435761) for n in range(3000))
    made = hashlib.sha256()
    for compression in ("gzip", "zstd"):
        compressor = _compressor(compression)
        made.update(compressor.compress(sample) + compressor.flush())
    versions = f"zlib{zlib.ZLIB_RUNTIME_VERSION}-zstd{'.'.join(map(str, zstandard.ZSTD_VERSION))}"
    return f"{versions}-{made.hexdigest()[:12]}"


COMPRESSION_EPOCH = _fingerprint()
"""Differs wherever the compressors' output may: results of different epochs are never taken for one another."""
