"""Debian binary packages: an ar container of `debian-binary`, a control archive and a data archive.

Owns taking one apart: control files into memory, file contents into a spool, each path as an entry. Refuses format
versions other than 2.x, unknown compressions, members out of order, archives over the limits, control fields that are
not those of the package that was asked for, and payloads with device files.
Formats: deb(5), deb-control(5)
"""

import bz2
import hashlib
import lzma
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import BinaryIO, Protocol

from isal import igzip_lib

from proxy.engine.families.dpkg.deb822 import parse_stanzas
from proxy.engine.family import Package, Payload
from proxy.engine.tar import CHUNK, Entry, Kind, Limits, Span
from proxy.engine.tarread import Body, read_tar
from proxy.errors import MalformedInput

MAX_CONTROL = 16 << 20  # bytes of all control files; texlive's md5sums are 6 MiB
MAX_DATA = 8 << 30  # bytes of all files; the largest real packages unpack to 3 GiB
MAX_RATIO = 1_200  # uncompressed over compressed; xz of sparse data reaches some hundreds
RATIO_FREE = 64 << 20
MAX_ENTRIES = 500_000
MAX_INLINE = 256 << 10  # bytes of a conffile or certificate, which is kept in the entry since it is looked into
MAX_ALL_INLINE = 16 << 20

OWN_SUMS = ".md5sums"  # the control file that stands for the missing md5sums; no package can have one of this name

_CONTROL_LIMITS = Limits(size=MAX_CONTROL, entries=10_000)
_DATA_LIMITS = Limits(size=MAX_DATA, entries=MAX_ENTRIES)
_CERTIFICATES = "usr/share/ca-certificates/"
_AR_MAGIC = b"!<arch>\n"
_AR_HEADER = 60
_CONTROL_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


class _Inflater(Protocol):
    @property
    def eof(self) -> bool: ...
    def decompress(self, data: bytes, size: int, /) -> bytes: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...


def unpack_package(package: Package, archive: BinaryIO, spool: BinaryIO, spool_name: str) -> Payload:
    """Unpack a .deb; contents of files go to `spool`, and entries name them as spans of `spool_name`.

    A package without md5sums gets them under the name `OWN_SUMS`: dpkg makes its own then.
    Raises MalformedInput for anything that is not the package that `package` says.
    """
    where = f"{package.name}_{package.version}_{package.arch}.deb"
    members = _Members(archive, where)
    members.check_format()
    name, stream = members.take("control.tar")
    control = _read_control(stream, f"{where} {name}")
    stream.finish()
    _check_identity(package, control, where)
    name, stream = members.take("data.tar")
    sums: dict[str, str] | None = None if "md5sums" in control else {}
    reading = _Reading(conffile_paths(control), spool, spool_name, sums)
    entries = tuple(_read_data(stream, f"{where} {name}", reading))
    stream.finish()
    if sums is not None:
        lines = "".join(f"{digest}  {path}\n" for path, digest in sums.items())
        control[OWN_SUMS] = lines.encode("utf-8", "surrogateescape")
    return Payload(package, control, entries)


def conffile_paths(control: dict[str, bytes]) -> frozenset[str]:
    """Return the paths (without leading slash) that a package's conffiles file lists, flags left out."""
    lines = control.get("conffiles", b"").decode("utf-8", "surrogateescape").split("\n")
    return frozenset(line.strip().rpartition(" ")[2].lstrip("/") for line in lines if line.strip())


class _Members:
    """The ar container: hands out its members in order, skipping those whose names begin with an underscore."""

    def __init__(self, archive: BinaryIO, where: str) -> None:
        self._archive, self._where = archive, where
        if archive.read(len(_AR_MAGIC)) != _AR_MAGIC:
            raise MalformedInput("not a Debian package (no ar archive)", file=where)

    def _header(self) -> tuple[str, int]:
        header = self._archive.read(_AR_HEADER)
        if len(header) != _AR_HEADER or header[58:] != b"`\n":
            raise MalformedInput("the ar container is cut short or damaged", file=self._where)
        size = header[48:58].strip()
        if not size.isdigit():
            raise MalformedInput("a member without a size", file=self._where, text=repr(header[:16]))
        return header[:16].decode("ascii", "replace").rstrip().rstrip("/"), int(size)

    def check_format(self) -> None:
        """Read the first member, `debian-binary`."""
        name, size = self._header()
        if name != "debian-binary" or size > 64:  # noqa: PLR2004 - it is "2.0\n", and may get lines
            raise MalformedInput("the first member is not debian-binary", file=self._where, text=name)
        version = self._archive.read(size + size % 2).split(b"\n")[0]
        if re.fullmatch(rb"2\.[0-9]{1,4}", version) is None:
            raise MalformedInput("not format version 2", file=self._where, text=repr(version))

    def take(self, stem: str) -> tuple[str, "_Member"]:
        """Return the next member, which must be `stem` with a known compression."""
        name, size = self._header()
        while name.startswith("_"):
            skipped = size + size % 2
            while skipped:
                piece = self._archive.read(min(skipped, CHUNK))
                if not piece:
                    raise MalformedInput("the ar container is cut short", file=self._where)
                skipped -= len(piece)
            name, size = self._header()
        suffix = name.removeprefix(stem)
        if not name.startswith(stem) or suffix not in _COMPRESSIONS:
            raise MalformedInput(f"expected {stem} in a known compression", file=self._where, text=name)
        return name, _Member(self._archive, size, _COMPRESSIONS[suffix], f"{self._where} {name}")


class _Member:
    """One member, inflated: `read` as the tar reader wants it, bounded by size and ratio."""

    def __init__(self, archive: BinaryIO, size: int, inflater: Callable[[], _Inflater] | None, where: str) -> None:
        self._archive, self._size, self._left, self._where = archive, size, size, where
        self._make, self._inflater = inflater, inflater() if inflater else None
        self._given, self._rest = 0, b""
        self._empty = False

    def read(self, size: int = CHUNK, /) -> bytes:
        """Return up to `size` uncompressed bytes; ``b""`` at the end."""
        if not self._rest:
            self._rest = self._more()
            self._given += len(self._rest)
            if self._given > MAX_DATA or (self._given > RATIO_FREE and self._given > self._size * MAX_RATIO):
                raise MalformedInput("unpacks to more than is taken; refused as a bomb", file=self._where)
        piece, self._rest = self._rest[:size], self._rest[size:]
        return piece

    def finish(self) -> None:
        """Read what is left, and the padding of the container."""
        while self.read():
            pass
        if self._size % 2:
            self._archive.read(1)

    def _raw(self) -> bytes:
        piece = self._archive.read(min(self._left, CHUNK))
        if not piece and self._left:
            raise MalformedInput("the package is cut short; fetch it again", file=self._where)
        self._left -= len(piece)
        return piece

    def _more(self) -> bytes:
        if self._inflater is None or self._make is None:
            return self._raw()
        while True:
            if self._inflater.eof:
                rest = self._inflater.unused_data
                if not rest and not self._left:
                    return b""
                self._inflater = self._make()
                data = rest
            elif self._inflater.needs_input:
                data = self._raw()
                if not data:
                    raise MalformedInput("the compressed data is cut short; fetch it again", file=self._where)
            else:
                data = b""
            try:
                piece = self._inflater.decompress(data, CHUNK)
            except (lzma.LZMAError, OSError, EOFError, ValueError, igzip_lib.IsalError, _ZstdBroken) as error:  # type: ignore[misc]  # isal's stub calls the class an instance
                raise MalformedInput(f"broken compressed data ({error})", file=self._where) from error
            if piece:
                return piece


class _ZstdBroken(Exception):
    """A zstd stream that cannot be decoded."""


class _Zstd:
    """zstd with the interface of Python's own decompressors; its library loads where it is needed."""

    def __init__(self) -> None:
        import zstandard  # noqa: PLC0415 - 2 MiB that few packages need

        self._error = zstandard.ZstdError
        self._inner = zstandard.ZstdDecompressor(max_window_size=128 << 20).decompressobj()
        self._ready = b""
        self._input = b""

    @property
    def eof(self) -> bool:
        return self._inner.eof and not self._ready

    @property
    def needs_input(self) -> bool:
        return not self._ready and not self._input and not self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data + self._input

    def decompress(self, data: bytes, size: int, /) -> bytes:
        """Return up to `size` bytes; input is fed in small pieces, for each may grow by a large factor."""
        self._input += data
        try:
            while not self._ready and self._input and not self._inner.eof:
                feed, self._input = self._input[:4096], self._input[4096:]
                self._ready = self._inner.decompress(feed)
        except self._error as error:
            raise _ZstdBroken(str(error)) from error
        piece, self._ready = self._ready[:size], self._ready[size:]
        return piece


def _gzip() -> _Inflater:
    inflater: _Inflater = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
    return inflater


_COMPRESSIONS: dict[str, Callable[[], _Inflater] | None] = {
    "": None,
    ".gz": _gzip,
    ".xz": lambda: lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=192 << 20),
    ".lzma": lambda: lzma.LZMADecompressor(format=lzma.FORMAT_ALONE, memlimit=192 << 20),
    ".bz2": bz2.BZ2Decompressor,
    ".zst": _Zstd,
}


def _read_control(stream: _Member, where: str) -> dict[str, bytes]:
    control: dict[str, bytes] = {}
    total = 0
    for entry, body in read_tar(stream, where=where, limits=_CONTROL_LIMITS):
        if entry.kind is Kind.DIR and not entry.path:
            continue
        total += entry.size
        if entry.kind is not Kind.FILE or _CONTROL_FILE.fullmatch(entry.path) is None or total > MAX_CONTROL:
            raise MalformedInput("not a plain control file", file=where, text=entry.path)
        if entry.path in control:
            raise MalformedInput("a control file that is there twice", file=where, text=entry.path)
        pieces: list[bytes] = []
        body.copy(pieces.append)
        control[entry.path] = b"".join(pieces)
    return control


def _check_identity(package: Package, control: dict[str, bytes], where: str) -> None:
    stanzas = parse_stanzas(control.get("control", b""), f"{where} control")
    if len(stanzas) != 1:
        raise MalformedInput("no control file with one stanza", file=where)
    for name, wanted in (("Package", package.name), ("Version", package.version), ("Architecture", package.arch)):
        found = stanzas[0].get(name)
        if found != wanted:
            raise MalformedInput(f"its {name} is not {wanted}, as the index says", file=where, text=found)


@dataclass(frozen=True, slots=True)
class _Reading:
    """Where contents go; `sums` takes the md5 sums of all files if the package brings none."""

    conffiles: frozenset[str]
    spool: BinaryIO
    spool_name: str
    sums: dict[str, str] | None
    room: list[int] = field(default_factory=lambda: [MAX_ALL_INLINE])

    def _kept_at_hand(self, entry: Entry) -> bool:
        wanted = entry.path in self.conffiles or entry.path.startswith(_CERTIFICATES)
        if not wanted or entry.size > min(MAX_INLINE, self.room[0]):
            return False
        self.room[0] -= entry.size
        return True

    def take(self, entry: Entry, body: Body) -> Entry:
        """Store a file's content and return its entry with the place."""
        if entry.kind is Kind.HARDLINK and self.sums is not None:
            self.sums[entry.path] = self.sums[entry.target]
        if entry.kind is not Kind.FILE:
            return entry
        pieces: list[bytes] = []
        inline = self._kept_at_hand(entry)
        start = self.spool.tell()
        write: Callable[[bytes], object] = pieces.append if inline else self.spool.write
        if self.sums is None:
            body.copy(write)
        else:
            digest = hashlib.md5(usedforsecurity=False)
            while piece := body.read():
                digest.update(piece)
                write(piece)
            self.sums[entry.path] = digest.hexdigest()
        return replace(entry, content=b"".join(pieces) if inline else Span(self.spool_name, start, entry.size))


def _read_data(stream: _Member, where: str, reading: _Reading) -> Iterator[Entry]:
    kinds: dict[str, Kind] = {}
    for entry, body in read_tar(stream, where=where, limits=_DATA_LIMITS):
        if not entry.path:
            continue
        if entry.path in kinds or entry.kind in {Kind.CHAR, Kind.BLOCK, Kind.FIFO, Kind.WHITEOUT}:
            raise MalformedInput("a path that is there twice, or a special file; refused", file=where, text=entry.path)
        if entry.kind is Kind.HARDLINK and kinds.get(entry.target) not in {Kind.FILE, Kind.HARDLINK}:
            raise MalformedInput("a hard link to no file before it", file=where, text=entry.path)
        kinds[entry.path] = entry.kind
        yield reading.take(entry, body)
