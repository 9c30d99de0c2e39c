"""Layers as streams of uncompressed bytes: gzip with many members, zstd with many frames, or plain.

Owns the sniffing of the compression, the bounds against decompression bombs and the running digest of what comes
out (the layer's diff_id). Refuses a stream that is cut short, has bytes after its end that are not zeros, or is not
what its media type says. Nothing is ever held but one piece of `CHUNK` bytes and the decompressor's window.
Formats: RFC 1952 (gzip), RFC 8878 (zstd), https://github.com/opencontainers/image-spec/blob/v1.1.1/layer.md
"""

import hashlib
from collections.abc import Iterator
from typing import cast

from isal import igzip_lib

from proxy.engine.behind import Behind
from proxy.engine.tar import CHUNK, LIMITS, Limits, Readable
from proxy.errors import MalformedInput
from proxy.oci.digest import Digest

_INPUT = 64 << 10  # bytes of compressed input in hand; small, for each gzip member's end copies what is left of it
_MAX_WINDOW = 128 << 20  # bytes; what the zstd command itself decodes without being told to
_DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPABLE = (0x184D2A50, 0x184D2A5F)
_ZSTD_BLOCK = 128 << 10  # bytes that one zstd block gives at the most
_ISAL_ERROR = cast("type[Exception]", igzip_lib.IsalError)  # its stub declares an instance


class LayerStream:
    """The uncompressed bytes of one layer, counted, bounded and hashed on their way.

    `where` names the layer in errors. `size` is the count of uncompressed bytes read so far.
    """

    __slots__ = ("_behind", "_hash", "_input", "_limits", "_pieces", "_rest", "size", "where")

    def __init__(self, stream: Readable, media_type: str, *, where: str = "layer", limits: Limits = LIMITS) -> None:
        self.where, self.size = where, 0
        self._limits = limits
        self._hash = hashlib.sha256()
        self._behind = Behind(self._hash.update)
        self._input = _Input(stream, where)
        self._pieces = _pieces(self._input, media_type, limits)
        self._rest = b""

    def read(self, size: int = CHUNK, /) -> bytes:
        """Return up to `size` bytes, and ``b""`` at the end only; raises MalformedInput."""
        piece = self._rest
        if not piece:
            piece = next(self._pieces, b"")
            self.size += len(piece)
            self._check_size()
            self._behind.put(piece)
        if len(piece) <= size:
            self._rest = b""
            return piece
        self._rest = piece[size:]
        return piece[:size]

    def _check_size(self) -> None:
        limits = self._limits
        if self.size > limits.size:
            raise MalformedInput(f"more than {limits.size} bytes uncompressed; refused", file=self.where)
        if self.size > limits.ratio_free and self.size > self._input.taken * limits.ratio:
            raise MalformedInput(
                f"{self._input.taken} bytes become more than {limits.ratio} times as many; refused as a bomb",
                file=self.where,
            )

    @property
    def diff_id(self) -> Digest:
        """The SHA-256 digest of all bytes read so far: the layer's diff_id once `read` has returned ``b""``."""
        self._behind.catch_up()
        return Digest("sha256", self._hash.hexdigest())


def open_layer(stream: Readable, media_type: str = "", *, where: str = "layer", limits: Limits = LIMITS) -> LayerStream:
    """Open a layer's blob for reading as an uncompressed tar.

    Args:
        stream: the blob; the caller checks its digest.
        media_type: the descriptor's media type, which the bytes must match; empty takes what the bytes say. Docker's
            type without a suffix was used for both forms, as in containerd it is believed in neither.
        where: the layer's name in errors.
        limits: what the layer may have.

    Raises:
        MalformedInput: at once or from `read`.
    """
    return LayerStream(stream, media_type, where=where, limits=limits)


class _Input:
    """The compressed bytes: a buffer with a position, and the count of bytes taken from the stream."""

    __slots__ = ("_at", "_buffer", "_read", "taken", "where")

    def __init__(self, stream: Readable, where: str) -> None:
        self._read = stream.read
        self._buffer, self._at = b"", 0
        self.taken = 0
        self.where = where

    def more(self) -> bytes:
        """Take the rest of the buffer, or the next piece of the stream; ``b""`` at the end."""
        piece = self._buffer[self._at :]
        self._buffer, self._at = b"", 0
        return piece or self._fetch()

    def peek(self, size: int) -> bytes:
        """Return the next `size` bytes without taking them; fewer at the end."""
        while len(self._buffer) - self._at < size:
            piece = self._fetch()
            if not piece:
                break
            self._buffer, self._at = self._buffer[self._at :] + piece, 0
        return self._buffer[self._at : self._at + size]

    def take(self, size: int) -> bytes:
        """Take exactly `size` bytes; MalformedInput where the stream ends before."""
        piece = self.peek(size)
        if len(piece) < size:
            raise MalformedInput("cut short; fetch the layer again", file=self.where)
        self._at += size
        return piece

    def give_back(self, piece: bytes) -> None:
        """Put bytes that were taken too many in front of the rest."""
        self._buffer, self._at = piece + self._buffer[self._at :], 0

    def _fetch(self) -> bytes:
        piece = self._read(_INPUT)
        self.taken += len(piece)
        return piece


def _pieces(source: _Input, media_type: str, limits: Limits) -> Iterator[bytes]:
    """Choose the decompressor by the first bytes, and check the choice against the media type."""
    magic = source.peek(4)
    found = "gzip" if magic[:2] == _GZIP else "zstd" if _is_zstd(magic) else "plain"
    said = _said(media_type)
    if said and said != found:
        raise MalformedInput(f"its media type {media_type} says {said}, its bytes are {found}", file=source.where)
    match found:
        case "gzip":
            return _gunzip(source, limits)
        case "zstd":
            return _unzstd(source)
        case _:
            return iter(source.more, b"")


def _is_zstd(magic: bytes) -> bool:
    number = int.from_bytes(magic, "little")
    return magic == _ZSTD or _ZSTD_SKIPPABLE[0] <= number <= _ZSTD_SKIPPABLE[1]


def _said(media_type: str) -> str:
    kind = media_type.split(";", 1)[0].strip().lower()
    if not kind or kind == _DOCKER_LAYER:
        return ""
    for suffix, name in (("+gzip", "gzip"), (".gzip", "gzip"), ("+zstd", "zstd"), (".zstd", "zstd"), (".tar", "plain")):
        if kind.endswith(suffix) and ".tar" in kind:
            return name
    raise MalformedInput("not the media type of a tar layer", text=media_type)


def _gunzip(source: _Input, limits: Limits) -> Iterator[bytes]:
    for _ in range(limits.members):
        inflater = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
        try:
            while not inflater.eof:
                data = b""
                if inflater.needs_input:
                    data = source.more()
                    if not data:
                        raise MalformedInput("gzip stream cut short; fetch the layer again", file=source.where)
                piece = inflater.decompress(data, CHUNK)
                if piece:
                    yield piece
        except _ISAL_ERROR as error:
            raise MalformedInput(f"broken gzip stream ({error})", file=source.where) from error
        source.give_back(inflater.unused_data)
        if source.peek(2) != _GZIP:
            _check_end(source)
            return
    raise MalformedInput(f"more than {limits.members} gzip members; refused", file=source.where)


def _check_end(source: _Input) -> None:
    """Take zero padding up to the end of the stream; anything else is refused."""
    while piece := source.more():
        if piece.strip(b"\0"):
            raise MalformedInput("bytes after the end of the compressed data", file=source.where)


def _unzstd(source: _Input) -> Iterator[bytes]:
    """Decode frame by frame and block by block, so that one call never gives more than a few blocks' bytes."""
    while source.peek(1):
        magic = source.peek(4)
        if magic == _ZSTD:
            yield from _zstd_frame(source)
        elif _is_zstd(magic):
            source.take(4)
            _skip(source, int.from_bytes(source.take(4), "little"))
        else:
            _check_end(source)


def _skip(source: _Input, size: int) -> None:
    while size:
        part = min(size, _INPUT)
        source.take(part)
        size -= part


def _zstd_frame(source: _Input) -> Iterator[bytes]:
    import zstandard  # noqa: PLC0415 - few layers are zstd, and it costs 2 MiB

    decoder = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW).decompressobj()
    flags = source.peek(5)[4:5]
    if not flags:
        raise MalformedInput("zstd stream cut short; fetch the layer again", file=source.where)
    pending = bytearray(source.take(5 + _zstd_header_rest(flags[0])))
    checksum = 4 if flags[0] & 0x04 else 0
    given = 0
    last = False
    try:
        while not last:
            head = int.from_bytes(source.take(3), "little")
            last, kind, size = bool(head & 1), head >> 1 & 3, head >> 3
            body = source.take(1 if kind == 1 else min(size, _ZSTD_BLOCK))
            pending += head.to_bytes(3, "little") + body
            given += _ZSTD_BLOCK if kind == 2 else size  # noqa: PLR2004 - RFC 8878: 2 is a compressed block
            if last:
                pending += source.take(checksum)
            if last or given >= CHUNK or len(pending) >= CHUNK:
                piece = decoder.decompress(pending)
                pending, given = bytearray(), 0
                if piece:
                    yield piece
    except zstandard.ZstdError as error:
        raise MalformedInput(f"broken zstd stream ({error})", file=source.where) from error
    if not decoder.eof:
        raise MalformedInput("broken zstd stream (the frame does not end)", file=source.where)


def _zstd_header_rest(flags: int) -> int:
    """Return how many bytes of frame header follow the descriptor byte (RFC 8878, section 3.1.1.1)."""
    single = flags >> 5 & 1
    content = (1 if single else 0, 2, 4, 8)[flags >> 6]
    return (0 if single else 1) + (0, 1, 2, 4)[flags & 3] + content
