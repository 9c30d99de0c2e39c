"""apk's database of installed packages, and `world`, the list of what the user asked for.

Owns parsing and rendering of `installed`. A record keeps its own bytes: what is not changed is written back byte for
byte, whatever fields later versions of apk add. Refuses lines that are no field, records without name or version, and
the same name twice.
Specification: apk-world(5), https://wiki.alpinelinux.org/wiki/Apk_spec#Installed_Database_V2
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from proxy.engine.family import Constraint, Distribution, Installed, Package
from proxy.errors import MalformedInput

MAX_DATABASE = 256 << 20  # bytes; a desktop's has some 20 MB
MAX_PACKAGES = 100_000  # Alpine has some 30,000
MAX_RELATIONS = 65_536  # in one field

_NAME = r"[^\s@<>=~!][^\s@<>=~]*"
_RELATION = re.compile(rf"(!)?({_NAME})(?:@([^\s<>=~]+))?(?:(><|[<>=~]+)(\S+))?")
_OPERATORS = {op: op for op in ("<", "<=", "=", ">=", ">", "~", "<~", ">~", "><")} | {"=~": "~", "~=": "~"}
_NO_FIELD = re.compile(rb"^(?![A-Za-z]:|$)", re.MULTILINE)
_FILES = b"\nF:"  # the first line about files; everything about the package stands before it
_BROKEN = {"f": "files are missing", "s": "a script failed", "x": "extended attributes failed"}


@dataclass(frozen=True, slots=True)
class Record:
    """One package's record: `raw` is its exact bytes, the blank line behind it included."""

    raw: bytes
    line: int = 1

    def fields(self) -> Iterator[tuple[str, str]]:
        """Yield every line as letter and value, in order; bytes that are not UTF-8 carry surrogate escapes."""
        return _fields(self.raw)

    def header(self) -> Iterator[tuple[str, str]]:
        """Yield the lines about the package itself, without those about its files."""
        return _fields(self.raw.partition(_FILES)[0])


@dataclass(frozen=True, slots=True)
class Wish:
    """One word of `world`: a constraint, whether it is a refusal (`!name`), and the repository tag (`name@edge`)."""

    constraint: Constraint
    refused: bool = False
    tag: str = ""


@dataclass(frozen=True, slots=True)
class ApkDb:
    """An opened database. `path` is where `installed` lies, `records` are in its order, like `packages`."""

    path: str
    records: tuple[Record, ...]
    packages: tuple[Installed, ...]
    distribution: Distribution
    arch: str

    @property
    def owners(self) -> Mapping[str, tuple[str, ...]]:
        """Which packages own each path, as the records write it."""
        found: dict[str, tuple[str, ...]] = {}
        for record, installed in zip(self.records, self.packages, strict=True):
            folder = ""
            for letter, value in record.fields():
                if letter == "F":
                    folder = f"{value}/" if value else ""
                elif letter == "R":
                    found[folder + value] = (*found.get(folder + value, ()), installed.key)
        return found


def parse_installed(data: bytes, *, where: str) -> tuple[Record, ...]:
    """Parse `installed` into records; `render_installed` gives the same bytes back."""
    if len(data) > MAX_DATABASE:
        raise MalformedInput(f"a package database of {len(data)} bytes, {MAX_DATABASE} at the most", file=where)
    if b"\0" in data or (data and not data.endswith(b"\n")):
        raise MalformedInput("not apk's database of installed packages, or cut off", file=where)
    wrong = _NO_FIELD.search(data)
    if wrong is not None:
        line = data.count(b"\n", 0, wrong.start()) + 1
        raise MalformedInput("not a field (a letter and a colon)", file=where, line=line, text=_line_at(data, wrong))
    records: list[Record] = []
    start, line = 0, 1
    while start < len(data):
        end = data.find(b"\n\n", start)
        end = len(data) if end < 0 else end + 2
        while data[end : end + 1] == b"\n":  # apk skips blank lines wherever they are
            end += 1
        records.append(Record(data[start:end], line))
        line += data.count(b"\n", start, end)
        start = end
        if len(records) > MAX_PACKAGES:
            raise MalformedInput(f"more than {MAX_PACKAGES} packages; refused", file=where)
    return tuple(records)


def render_installed(records: Sequence[Record]) -> bytes:
    """Return the bytes of `installed`."""
    return b"".join(record.raw for record in records)


def parse_world(data: bytes, *, where: str) -> tuple[Wish, ...]:
    """Parse `world`: words between blanks and line ends."""
    words = data.decode("utf-8", "surrogateescape").split()
    if len(words) > MAX_PACKAGES:
        raise MalformedInput(f"more than {MAX_PACKAGES} packages; refused", file=where)
    return tuple(parse_wish(word, where=where) for word in words)


def parse_wish(word: str, *, where: str) -> Wish:
    """Parse one dependency: `name`, `!name`, `name=1.0-r0`, `name~1.0`, `name@tag>1`, `so:libc.so.6`, `/bin/sh`."""
    match = _RELATION.fullmatch(word)
    if match is None or (match[4] and match[4] not in _OPERATORS):
        raise MalformedInput("not a dependency as apk writes it", file=where, text=word)
    operator = _OPERATORS[match[4]] if match[4] else ""
    return Wish(Constraint(match[2], operator, match[5] or ""), bool(match[1]), match[3] or "")


def installed_packages(records: Sequence[Record], world: Sequence[Wish], *, where: str) -> tuple[Installed, ...]:
    """Return the packages of the records; `fixed` says what `world` or a broken installation holds in place."""
    wishes = {wish.constraint.name: wish for wish in world if not wish.refused}
    found: dict[str, Installed] = {}
    for record in records:
        package = _package(record, where)
        if package.name in found:
            raise MalformedInput("the same package twice", file=where, line=record.line, text=package.name)
        found[package.name] = Installed(package.name, package, _fixed(package, wishes.get(package.name)))
    return tuple(found.values())


def _fixed(package: Package, wish: Wish | None) -> str:
    """Return why a package must not move: apk marked it broken, or `world` holds it.

    A bound (`<2`, `~1.2`) or a tag leaves some versions open, but choosing among them takes the sources' tags, which
    nothing reads yet; holding is the answer that is never wrong.
    """
    broken = [text for flag, text in _BROKEN.items() if flag in package.fields.get("f", "")]
    if broken:
        return f"apk marked it as broken ({', '.join(broken)})"
    if wish is None or not (wish.constraint.op or wish.tag):
        return ""
    tag = f"@{wish.tag}" if wish.tag else ""
    return f"etc/apk/world holds it: {package.name}{tag}{wish.constraint.op}{wish.constraint.version}"


def _package(record: Record, where: str) -> Package:
    fields: dict[str, str] = {}
    for letter, value in record.header():
        if letter in fields:
            raise MalformedInput("a field twice in one record", file=where, line=record.line, text=f"{letter}:{value}")
        fields[letter] = value
    for letter, meaning in (("P", "name"), ("V", "version")):
        if not fields.get(letter):
            raise MalformedInput(f"a package without its {meaning} ({letter}:)", file=where, line=record.line)
    wishes = _relations(fields.get("D", ""), record, where)
    return Package(
        name=fields["P"],
        version=fields["V"],
        arch=fields.get("A", ""),
        source=fields.get("o", ""),
        source_version=fields["V"],
        requires=tuple((wish.constraint,) for wish in wishes if not wish.refused),
        conflicts=tuple(wish.constraint for wish in wishes if wish.refused),
        provides=tuple(wish.constraint for wish in _relations(fields.get("p", ""), record, where)),
        fields=_rest(fields),
    )


def _rest(fields: Mapping[str, str]) -> dict[str, str]:
    """Return the fields that have no place of their own in `Package`."""
    return {letter: value for letter, value in fields.items() if letter not in "PVADpo"}


def _relations(text: str, record: Record, where: str) -> tuple[Wish, ...]:
    words = text.split()
    if len(words) > MAX_RELATIONS:
        raise MalformedInput(f"more than {MAX_RELATIONS} relations in one field", file=where, line=record.line)
    return tuple(parse_wish(word, where=f"{where}:{record.line}") for word in words)


def _line_at(data: bytes, match: re.Match[bytes]) -> str:
    return data[match.start() : match.start() + 200].partition(b"\n")[0].decode("utf-8", "replace")


def _fields(raw: bytes) -> Iterator[tuple[str, str]]:
    for text in raw.split(b"\n"):
        if text:
            yield text[:1].decode("ascii"), text[2:].decode("utf-8", "surrogateescape")
