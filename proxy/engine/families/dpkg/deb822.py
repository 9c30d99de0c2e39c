"""Stanzas of `Name: value` fields, and the relationship fields among them, as dpkg and apt write them.

Owns parsing and rendering. A stanza keeps its own bytes: one that is not changed renders byte for byte, whatever it
holds. Fields are parsed when the first one is asked for, so walking a large index costs little more than reading it.
Refuses duplicate fields, lines that are no field, values with a blank line, and stanzas over `MAX_STANZA`.
Formats: deb822(5), deb-control(5), Debian Policy 5.1 and 7.1
"""

import io
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Self

from proxy.engine.family import Constraint
from proxy.engine.tar import CHUNK, Readable
from proxy.errors import MalformedInput

MAX_STANZA = 4 << 20  # bytes; the largest real ones (Provides of rust packages, Conffiles) stay under 200 KiB
MAX_STANZAS = 1_000_000  # Debian's largest suite has 64,000
MAX_RELATIONS = 65_536  # relations in one field

_FIELD = re.compile(rb"([!\"$-,.-9;-~][!-9;-~]*)[ \t]*:[ \t]*([^\n]*(?:\n[ \t][^\n]*)*)(?:\n|\Z)")
_BLANK_LINE = re.compile(rb"\n[ \t]+(?:\n|\Z)")
_RELATION = re.compile(
    r"\s*([A-Za-z0-9][A-Za-z0-9+.-]*)(?::([A-Za-z0-9-]+))?"
    r"\s*(?:\(\s*(<<|<=|>=|>>|=|<|>)\s*([A-Za-z0-9][^\s()]*)\s*\))?"
    r"\s*(?:\[([^]]*)\])?\s*"
)
_OPERATORS = {"<<": "<", ">>": ">", "<": "<=", ">": ">="}  # the last two are the old spelling, deb-control(5)


class Stanza:
    """One stanza: field order kept, names compared without case, `raw` its exact bytes with the final newline."""

    __slots__ = ("_fields", "line", "raw", "where")

    def __init__(self, raw: bytes, where: str = "", line: int = 1) -> None:
        self.raw, self.where, self.line = raw, where, line
        self._fields: dict[str, tuple[str, str]] | None = None

    @classmethod
    def of(cls, fields: Iterable[tuple[str, str]], where: str = "") -> Self:
        """Make a stanza of names and values (as `items` gives them); raises MalformedInput if it would not parse."""
        lines = (f"{name}:{'' if not value or value[0] == chr(10) else ' '}{value}\n" for name, value in fields)
        stanza = cls("".join(lines).encode("utf-8", "surrogateescape"), where)
        stanza.items()
        return stanza

    def items(self) -> tuple[tuple[str, str], ...]:
        """Return names and values in order; continuation lines keep their newline and first blank."""
        return tuple(self._parse().values())

    def get(self, name: str, default: str = "") -> str:
        """Return the value of the field `name`, or `default`."""
        found = self._parse().get(name.lower())
        return default if found is None else found[1]

    def need(self, name: str) -> str:
        """Return the value of the field `name`; raises MalformedInput where it is missing or empty."""
        value = self.get(name)
        if not value:
            raise self.wrong(f"a stanza without the field {name}")
        return value

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._parse()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stanza) and self.raw == other.raw

    def __hash__(self) -> int:
        return hash(self.raw)

    def __repr__(self) -> str:
        return f"Stanza({self.raw[:60]!r}, {self.where!r}, {self.line})"

    def wrong(self, message: str, text: str = "", offset: int = 0) -> MalformedInput:
        """Return a MalformedInput that names this stanza's file and the line at `offset` bytes into it."""
        line = self.line + self.raw.count(b"\n", 0, offset)
        return MalformedInput(message, file=self.where, line=line, text=text)

    def _parse(self) -> dict[str, tuple[str, str]]:
        if self._fields is None:
            self._fields = self._split()
        return self._fields

    def _split(self) -> dict[str, tuple[str, str]]:
        raw, at, fields = self.raw, 0, dict[str, tuple[str, str]]()
        if b"\0" in raw:
            raise self.wrong("a NUL byte; not a text file", offset=raw.index(b"\0"))
        blank = _BLANK_LINE.search(raw)
        if blank is not None:
            raise self.wrong("a blank line inside a field; write ' .' instead", offset=blank.start() + 1)
        while at < len(raw):
            match = _FIELD.match(raw, at)
            if match is None:
                line = raw[at : at + 200].partition(b"\n")[0]
                raise self.wrong("not a field (Name: value)", line.decode("utf-8", "replace"), at)
            name = match[1].decode("ascii")
            value = match[2].decode("utf-8", "surrogateescape").rstrip(" \t")
            if name.lower() in fields:
                raise self.wrong(f"the field {name} is there twice", offset=at)
            fields[name.lower()] = (name, value)
            at = match.end()
        return fields


def iter_stanzas(stream: Readable, where: str = "") -> Iterator[Stanza]:
    """Yield the stanzas of `stream` one by one; memory stays at a piece of the stream and the stanza in hand.

    Raises MalformedInput for a stanza over `MAX_STANZA` bytes; what is inside one is checked when it is parsed.
    """
    rest, line, count = b"", 1, 0
    while True:
        piece = stream.read(CHUNK)
        block = rest + piece
        if piece:
            end = block.rfind(b"\n\n")
            if end < 0:
                if len(block) > MAX_STANZA:
                    raise MalformedInput(f"a stanza over {MAX_STANZA} bytes; refused", file=where, line=line)
                rest = block
                continue
            block, rest = block[: end + 2], block[end + 2 :]
        for raw in block.split(b"\n\n"):
            text = raw.lstrip(b"\n")
            if text:
                count += 1
                if count > MAX_STANZAS or len(text) > MAX_STANZA:
                    raise MalformedInput("more or larger stanzas than are taken; refused", file=where, line=line)
                yield Stanza(text if text[-1] == 10 else text + b"\n", where, line + len(raw) - len(text))  # noqa: PLR2004
            line += raw.count(b"\n") + 2
        line -= 2
        if not piece:
            return


def parse_stanzas(data: bytes, where: str = "", *, comments: bool = False) -> list[Stanza]:
    """Parse all stanzas of `data`, every field checked.

    Args:
        data: the file's content.
        where: the file's name in errors.
        comments: written by hand (apt's files): ``#`` lines are left out, lines of blanks separate stanzas too.

    Raises:
        MalformedInput: with file and line (lines are counted without comments).
    """
    if comments:
        lines = (line if line.strip() else b"\n" for line in data.splitlines(keepends=True))
        data = b"".join(line for line in lines if not line.startswith(b"#"))
    found = list(iter_stanzas(io.BytesIO(data), where))
    for stanza in found:
        stanza.items()
    return found


def render_stanzas(stanzas: Sequence[Stanza]) -> bytes:
    """Render stanzas as dpkg writes its database: each followed by an empty line."""
    return b"".join(stanza.raw + b"\n" for stanza in stanzas)


def parse_relations(text: str, *, arch: str = "", where: str = "") -> tuple[tuple[Constraint, ...], ...]:
    """Parse a relationship field: commas join what must all hold, bars join alternatives.

    Args:
        text: the field's value.
        arch: an alternative restricted to other architectures (``[amd64]``) is left out, if this is given.
        where: the field's place in errors.

    Raises:
        MalformedInput: the text is not a relationship field.
    """
    if text.count(",") + text.count("|") > MAX_RELATIONS:
        raise MalformedInput(f"more than {MAX_RELATIONS} relations in one field; refused", file=where)
    groups = list[tuple[Constraint, ...]]()
    for group in text.split(","):
        if not group.strip():
            continue  # dpkg takes a trailing comma
        found = tuple(
            relation for part in group.split("|") if (relation := _parse_relation(part, arch, where)) is not None
        )
        if found:
            groups.append(found)
    return tuple(groups)


def _parse_relation(part: str, arch: str, where: str) -> Constraint | None:
    match = _RELATION.fullmatch(part)
    if match is None:
        raise MalformedInput("not a relation, name [:arch] [(operator version)]", file=where, text=part.strip())
    name, qualifier, operator, version, only = match.groups()
    if only is not None and arch and not _applies(only.split(), arch):
        return None
    return Constraint(name, _OPERATORS.get(operator or "", operator or ""), version or "", qualifier or "")


def _applies(restriction: list[str], arch: str) -> bool:
    if restriction and restriction[0].startswith("!"):
        return f"!{arch}" not in restriction
    return arch in restriction or "any" in restriction or "linux-any" in restriction
