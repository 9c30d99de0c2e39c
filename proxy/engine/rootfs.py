"""Layers and whiteouts merged into a read-only view of the root file system of an image.

Owns looking up, listing and reading paths, symlinks followed inside the root and never out of it. How layers become
one tree is told in `overlay`. Contents that were not kept when a layer was scanned are never passed off as absent.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from proxy.engine.layerindex import KINDS, NUMBERS, LayerIndex
from proxy.engine.outline import NONE, outline_bytes
from proxy.engine.overlay import IMPLIED, ROW_BITS, SYMLINK, follow, kind_of, merge_layers
from proxy.engine.scan import extract_layer, scan_layer
from proxy.engine.tar import Entry, Kind, Span
from proxy.errors import AdmendError, MalformedInput

__all__ = ["LayerIndex", "RootFS", "extract_layer", "scan_layer"]

FILE = NUMBERS[Kind.FILE]
FETCH_LIMIT = 128 << 20  # bytes of files that were not kept and are read all the same

MAX_KNOWN = 20_000  # entries that are held, 6 MB
_ASKED_OFTEN = frozenset({Kind.DIR, Kind.SYMLINK})


class RootFS:
    """The merged view of an image's layers.

    Args:
        layers: the layers' indexes, the lowest first.
        read_span: gives the bytes of a kept content.
        read_missing: gives the contents of files that were not kept, by the layer's place in `layers` and the paths
            that the layer has them under; without it such a read is an error.
        outline_missing: gives in the same way the outlines of those of the files that are ELF files (see `outline`).

    Raises:
        MalformedInput: layers that no runtime could unpack.
    """

    def __init__(
        self,
        layers: Sequence[LayerIndex],
        read_span: Callable[[Span], bytes],
        read_missing: Callable[[int, set[str]], Mapping[str, bytes]] | None = None,
        outline_missing: Callable[[int, set[str]], Mapping[str, bytes | None]] | None = None,
    ) -> None:
        self._layers = layers
        self._read_span, self._read_missing, self._outline_missing = read_span, read_missing, outline_missing
        self._supplied: dict[int, Span] = {}
        self._fetched: dict[int, bytes] = {}
        self._sorted: list[str] | None = None
        self._known: dict[str, Entry] = {}  # directories and symlinks that were asked for: they are again and again
        self._last: Entry | None = None  # what was asked for last: many ask twice
        self._tree = merge_layers(layers)

    def get(self, path: str) -> Entry | None:
        """Return the entry at `path` (symlinked parents followed, a symlink at the end not), or None."""
        where = self.locate(path)
        known = self._known.get(where) or self._last
        if known is not None and known.path == where:
            return known
        number = self._tree.get(where)
        if number is None:
            return None
        entry = self._entry(where, number)
        if entry.kind in _ASKED_OFTEN and len(self._known) < MAX_KNOWN:
            self._known[where] = entry
        self._last = entry
        return entry

    def resolve(self, path: str) -> str:
        """Return the canonical path of `path` (every symlink followed, the last one too); it need not exist."""
        number = self._tree.get(path)
        if number is not None and kind_of(self._layers, number) != SYMLINK:
            return path
        return follow(self._layers, self._tree, path, last=True)

    def locate(self, path: str) -> str:
        """Return where an entry named `path` really lies: parents' symlinks followed, the last component kept."""
        return path if path in self._tree else follow(self._layers, self._tree, path, last=False)

    def read(self, path: str) -> bytes | None:
        """Return the content of the regular file at `path` (symlinks followed), or None if there is none.

        Raises:
            AdmendError: the file is there, but its content was not kept and nobody can give it.
        """
        number = self._file(path)
        if number is None:
            return None
        index, row = self._row(number)
        if not index.sizes[row]:
            return b""
        span = index.spans.get(row) or self._supplied.get(number)
        if span is not None:
            return self._read_span(span)
        if number not in self._fetched:
            self.fetch([path])
        if number in self._fetched:
            return self._fetched[number]
        raise AdmendError(f"{path}: its content was not kept when the layer was scanned; extract it first")

    def read_span(self, span: Span) -> bytes:
        """Return the bytes that a span stands for."""
        return self._read_span(span)

    def fetch(self, paths: Iterable[str]) -> None:
        """Get the contents of files that were not kept, each layer read once however many they are.

        Raises:
            AdmendError: they are more than FETCH_LIMIT bytes.
        """
        if self._read_missing is None:
            return
        rows = {number: self._row(number) for path in paths if (number := self._unkept(path)) is not None}
        if sum(index.sizes[row] for index, row in rows.values()) > FETCH_LIMIT:
            raise AdmendError(f"files of more than {FETCH_LIMIT >> 20} MiB would have to be read again")
        for place in sorted({number >> ROW_BITS for number in rows}):
            names = {number: index.paths[row] for number, (index, row) in rows.items() if number >> ROW_BITS == place}
            found = self._read_missing(place, set(names.values()))
            self._fetched |= {number: found[name] for number, name in names.items()}

    def outlines(self, paths: Iterable[str]) -> dict[str, bytes]:
        """Return the outlines (see `outline`) of those of the files at `paths` that are ELF files.

        Those of shared libraries were kept; for others each layer is read once however many they are.

        Raises:
            AdmendError: files of which no outline can be taken piece by piece are more than FETCH_LIMIT bytes.
        """
        found: dict[str, bytes | None] = {}
        again: dict[int, dict[str, list[str]]] = {}
        for path in paths:
            number = self._file(path)
            if number is None:
                continue
            index, row = self._row(number)
            if row in index.outlines:
                found[path] = self._read_span(index.outlines[row])
            elif row in index.spans or number in self._supplied or self._outline_missing is None:
                found[path] = None
            elif index.sizes[row]:
                again.setdefault(number >> ROW_BITS, {}).setdefault(index.paths[row], []).append(path)
        for place, names in sorted(again.items()):
            if self._outline_missing is not None:
                read = self._outline_missing(place, set(names))
                found |= {path: outline for name, outline in read.items() for path in names[name]}
        whole = [path for path, outline in found.items() if outline is None]
        self.fetch(whole)
        found |= {path: _outline(self.read(path) or b"", path) for path in whole}
        return {path: outline for path, outline in found.items() if outline}

    def _unkept(self, path: str) -> int | None:
        number = self._file(path)
        if number is None or number in self._supplied or number in self._fetched:
            return None
        index, row = self._row(number)
        return number if index.sizes[row] and row not in index.spans else None

    def origin(self, path: str) -> tuple[int, str] | None:
        """Return which layer (its place) has the file at `path`, and under which name; None if it is no file."""
        number = self._file(path)
        if number is None:
            return None
        index, row = self._row(number)
        return number >> ROW_BITS, index.paths[row]

    def removed(self, path: str) -> bool:
        """Say whether a layer had a file at `path` that a later one took away."""
        return path not in self._tree and any(
            kind_of(self._layers, place << ROW_BITS | row) == FILE
            for place, index in enumerate(self._layers)
            for row, name in enumerate(index.paths)
            if name == path
        )

    def missing(self, paths: Iterable[str]) -> dict[int, set[str]]:
        """Return what `extract_layer` must be asked for, by layer, before all of `paths` can be read."""
        wanted: dict[int, set[str]] = {}
        for path in paths:
            number = self._file(path)
            if number is None or number in self._supplied:
                continue
            index, row = self._row(number)
            if index.sizes[row] and row not in index.spans:
                wanted.setdefault(number >> ROW_BITS, set()).add(index.paths[row])
        return wanted

    def supply(self, place: int, spans: Mapping[str, Span]) -> None:
        """Take the contents that `extract_layer` found in the layer at `place`."""
        index = self._layers[place]
        last = {
            path: row for row, path in enumerate(index.paths) if path in spans and KINDS[index.kinds[row]] is Kind.FILE
        }
        for path, row in last.items():
            if index.sizes[row] != spans[path].size:
                raise MalformedInput("not the content that the layer's index describes", text=path)
            self._supplied[place << ROW_BITS | row] = spans[path]
        self._last = None

    def listdir(self, path: str) -> Sequence[str]:
        """Return the names in the directory `path`, sorted; empty if it is no directory."""
        prefix, paths = self._below(path)
        start = len(prefix)
        return [name[start:] for name in paths if "/" not in name[start:]]

    def walk(self, path: str = "") -> Iterator[Entry]:
        """Yield every entry below `path`, sorted by path."""
        _, paths = self._below(path)
        return (self._entry(name, self._tree[name]) for name in paths)

    def _below(self, path: str) -> tuple[str, list[str]]:
        """Return the prefix of everything below the directory `path`, and all paths that have it."""
        if self._sorted is None:
            self._sorted = sorted(self._tree)
        where = self.resolve(path)
        if not where:
            return "", self._sorted[1:]
        first = bisect_left(self._sorted, f"{where}/")
        return f"{where}/", self._sorted[first : bisect_left(self._sorted, f"{where}0")]  # "0" comes after "/"

    def _file(self, path: str) -> int | None:
        number = self._tree.get(self.resolve(path))
        if number is None or number == IMPLIED:
            return None
        index, row = self._row(number)
        return number if KINDS[index.kinds[row]] is Kind.FILE else None

    def _row(self, number: int) -> tuple[LayerIndex, int]:
        return self._layers[number >> ROW_BITS], number & (1 << ROW_BITS) - 1

    def _entry(self, path: str, number: int) -> Entry:
        if number == IMPLIED:
            return Entry(path, Kind.DIR, 0o755)
        index, row = self._row(number)
        entry = index.entry(row, path)
        span = self._supplied.get(number)
        if span is None or entry.content is not None:
            return entry
        return Entry(
            path, entry.kind, entry.mode, entry.uid, entry.gid, entry.mtime, entry.size, "", span, entry.xattrs
        )


def _outline(data: bytes, path: str) -> bytes:
    """Return the outline of a file; a damaged one has none: nothing can load it."""
    try:
        return outline_bytes(data, path)
    except MalformedInput:
        return NONE
