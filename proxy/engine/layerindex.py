"""What one layer holds: its entries in order, its whiteouts and opaque directories, as columns.

Owns the noun, its builder and its form on disk, since an index is cached by layer digest and read for every image that
shares the layer. Columns rather than objects: 50,000 entries take 10 MiB and load in milliseconds. The form holds
numbers and text only, its length and checksum are verified, and a damaged one is refused (scan the layer again).
Form: `MAGIC`, SHA-256 of the rest, one line of JSON, then the columns, little-endian, in the order of `_COLUMNS`,
spans and outlines, then the paths and the link targets, each ended by NUL.
"""

import base64
import hashlib
import json
import sys
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

from proxy.engine.tar import NO_XATTRS, Entry, Kind, Span
from proxy.engine.tarread import Header
from proxy.errors import MalformedInput
from proxy.oci.digest import Digest

MAGIC = b"admend layer index 2\n"
KINDS = tuple(Kind)
NUMBERS: dict[Kind, int] = {kind: number for number, kind in enumerate(KINDS)}
_COLUMNS = (("kinds", "B"), ("modes", "H"), ("uids", "I"), ("gids", "I"), ("mtimes", "q"), ("sizes", "Q"))
_LINKS = frozenset({NUMBERS[Kind.SYMLINK], NUMBERS[Kind.HARDLINK]})
_NO_DEVICE = (0, 0)


@dataclass(frozen=True, slots=True)
class LayerIndex:
    """The entries of one layer; row `n` of every column is the n-th entry.

    `size` is the layer's uncompressed size in bytes. `opaque` are the directories whose lower content is hidden.
    `targets`, `spans`, `xattrs`, `devices` and `outlines` (see `outline`) hold the rows that have one. A whiteout's
    path is that of what it hides.
    """

    diff_id: Digest
    size: int
    opaque: tuple[str, ...]
    paths: list[str]
    kinds: "array[int]"
    modes: "array[int]"
    uids: "array[int]"
    gids: "array[int]"
    mtimes: "array[int]"
    sizes: "array[int]"
    targets: Mapping[int, str]
    spans: Mapping[int, Span]
    xattrs: Mapping[int, Mapping[str, bytes]]
    devices: Mapping[int, tuple[int, int]]
    outlines: Mapping[int, Span]

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def entries(self) -> Sequence[Entry]:
        """All entries in the layer's order, made on demand."""
        return _Entries(self)

    def entry(self, number: int, path: str | None = None) -> Entry:
        """Return entry `number`, under another `path` if one is given."""
        kind = KINDS[self.kinds[number]]
        size = self.sizes[number]
        content: bytes | Span | None = self.spans.get(number)
        if kind is Kind.FILE and not size:
            content = b""
        return Entry(
            self.paths[number] if path is None else path,
            kind,
            self.modes[number],
            self.uids[number],
            self.gids[number],
            self.mtimes[number],
            size,
            self.targets.get(number, ""),
            content,
            self.xattrs.get(number, NO_XATTRS),
            self.devices.get(number, _NO_DEVICE),
        )

    def render(self) -> bytes:
        """Return the form on disk; `parse` gives the same index back."""
        names = sorted({span.file for table in (self.spans, self.outlines) for span in table.values()})
        facts: dict[str, Any] = {
            "diff_id": str(self.diff_id),
            "size": self.size,
            "entries": len(self),
            "opaque": self.opaque,
            "files": names,
            "xattrs": [
                [number, {name: base64.b64encode(value).decode() for name, value in values.items()}]
                for number, values in self.xattrs.items()
            ],
            "devices": [[number, *device] for number, device in self.devices.items()],
        }
        files = {name: number for number, name in enumerate(names)}
        parts = [_little(getattr(self, name)) for name, _ in _COLUMNS]
        for table in (self.spans, self.outlines):
            spans = array("Q")
            for number, span in table.items():
                spans.extend((number, files[span.file], span.offset, span.size))
            parts.append(_little(spans))
        parts.append(_join(self.paths))
        parts.append(_join([self.targets[row] for row, kind in enumerate(self.kinds) if kind in _LINKS]))
        facts["lengths"] = [len(part) for part in parts]
        parts.insert(0, json.dumps(facts, separators=(",", ":")).encode() + b"\n")
        checksum = hashlib.sha256()
        for part in parts:
            checksum.update(part)
        return b"".join([MAGIC, checksum.digest(), *parts])

    @classmethod
    def parse(cls, raw: bytes, *, where: str = "layer index") -> "LayerIndex":
        """Parse what `render` made; raises MalformedInput for anything else."""
        start = len(MAGIC) + 32
        body = memoryview(raw)[start:]
        if not raw.startswith(MAGIC) or hashlib.sha256(body).digest() != raw[len(MAGIC) : start]:
            raise MalformedInput("damaged, or of another version: remove it, the layer is scanned again", file=where)
        try:
            return _parse(raw, start)
        except (ValueError, KeyError, IndexError, TypeError, RecursionError) as error:
            raise MalformedInput(
                f"does not read ({error}): remove it, the layer is scanned again", file=where
            ) from error


def _parse(raw: bytes, start: int) -> LayerIndex:
    line = raw.index(b"\n", start)
    facts: dict[str, Any] = json.loads(raw[start:line])
    at = line + 1
    parts = []
    view = memoryview(raw)
    for length in facts["lengths"]:
        parts.append(view[at : at + length])
        at += length
    *columns, spans, outlines, paths, targets = parts
    rows = int(facts["entries"])
    loaded = {name: _load(form, part, rows) for (name, form), part in zip(_COLUMNS, columns, strict=True)}
    kinds = loaded["kinds"]
    links = [row for row, kind in enumerate(kinds) if kind in _LINKS]
    names, texts = _split(paths), _split(targets)
    if at != len(raw) or len(names) != rows or len(texts) != len(links) or (rows and max(kinds) >= len(KINDS)):
        raise ValueError("the columns are of different lengths")
    files = [str(name) for name in facts["files"]]
    return LayerIndex(
        diff_id=Digest.parse(facts["diff_id"]),
        size=int(facts["size"]),
        opaque=tuple(str(path) for path in facts["opaque"]),
        paths=names,
        targets=dict(zip(links, texts, strict=True)),
        spans=_load_spans(spans, files),
        outlines=_load_spans(outlines, files),
        xattrs={
            int(row): {str(name): base64.b64decode(value) for name, value in values.items()}
            for row, values in facts["xattrs"]
        },
        devices={int(row): (int(major), int(minor)) for row, major, minor in facts["devices"]},
        **loaded,
    )


def _little(column: "array[int]") -> bytes:
    if sys.byteorder == "big":
        column = column[:]
        column.byteswap()
    return column.tobytes()


def _load(form: str, raw: memoryview, rows: int | None) -> "array[int]":
    column = array(form)
    column.frombytes(raw)
    if sys.byteorder == "big":
        column.byteswap()
    if rows is not None and len(column) != rows:
        raise ValueError("a column has a wrong length")
    return column


def _load_spans(raw: memoryview, files: Sequence[str]) -> dict[int, Span]:
    table = _load("Q", raw, None)
    return {table[i]: Span(files[table[i + 1]], table[i + 2], table[i + 3]) for i in range(0, len(table), 4)}


def _join(texts: list[str]) -> bytes:
    return "".join([f"{text}\0" for text in texts]).encode("utf-8", "surrogateescape")


def _split(raw: memoryview) -> list[str]:
    texts = str(raw, "utf-8", "surrogateescape").split("\0")
    if texts.pop():
        raise ValueError("text without its end")
    return texts


class _Entries(Sequence[Entry]):
    """The entries of an index as a sequence."""

    __slots__ = ("_index",)

    def __init__(self, index: LayerIndex) -> None:
        self._index = index

    def __len__(self) -> int:
        return len(self._index)

    def __iter__(self) -> Iterator[Entry]:
        return map(self._index.entry, range(len(self._index)))

    @overload
    def __getitem__(self, key: int) -> Entry: ...
    @overload
    def __getitem__(self, key: slice) -> Sequence[Entry]: ...
    def __getitem__(self, key: int | slice) -> Entry | Sequence[Entry]:
        rows = range(len(self._index))[key]
        return self._index.entry(rows) if isinstance(rows, int) else [self._index.entry(row) for row in rows]


class IndexBuilder:
    """Collects the entries of a layer while it is read."""

    __slots__ = ("_columns", "_devices", "_opaque", "_outlines", "_paths", "_spans", "_targets", "_xattrs")

    def __init__(self) -> None:
        self._paths: list[str] = []
        self._columns = tuple(array(form) for _, form in _COLUMNS)
        self._opaque: list[str] = []
        self._targets: dict[int, str] = {}
        self._spans: dict[int, Span] = {}
        self._outlines: dict[int, Span] = {}
        self._xattrs: dict[int, Mapping[str, bytes]] = {}
        self._devices: dict[int, tuple[int, int]] = {}

    def add(self, header: Header, span: Span | None = None, outline: Span | None = None) -> None:
        """Append one entry."""
        path, kind, mode, uid, gid, mtime, size, target, xattrs, device = header
        row = len(self._paths)
        self._paths.append(path)
        kinds, modes, uids, gids, mtimes, sizes = self._columns
        kinds.append(NUMBERS[kind])
        modes.append(mode)
        uids.append(uid)
        gids.append(gid)
        mtimes.append(mtime)
        sizes.append(size)
        if target:
            self._targets[row] = target
        if span is not None:
            self._spans[row] = span
        if outline is not None:
            self._outlines[row] = outline
        if xattrs:
            self._xattrs[row] = xattrs
        if kind is Kind.CHAR or kind is Kind.BLOCK:
            self._devices[row] = device

    def add_opaque(self, path: str) -> None:
        """Say that the directory `path` hides what lower layers have in it."""
        self._opaque.append(path)

    def finish(self, diff_id: Digest, size: int) -> LayerIndex:
        """Return the index."""
        kinds, modes, uids, gids, mtimes, sizes = self._columns
        return LayerIndex(
            diff_id, size, tuple(self._opaque), self._paths, kinds, modes, uids, gids, mtimes, sizes,
            self._targets, self._spans, self._xattrs, self._devices, self._outlines,
        )  # fmt: skip
