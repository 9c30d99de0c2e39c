"""Audit lines out of files, folders, gzip archives and standard input, among whatever else a log holds.

Owns the way from bytes to events. A line may have something before its JSON object (what `kubectl logs --prefix
--timestamps` and container runtimes write), or be the text of a line of Docker's json-file log; the pieces into which
runtimes cut long lines are put together (`pieces`). Lines of other kinds are passed over and counted; memory does not
grow with the input.
"""

import gzip
import io
import json
import sys
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, BinaryIO, cast

from pydantic import AfterValidator, AwareDatetime, ConfigDict, ValidationError

from proxy.api import make_printable
from proxy.audit.event import SCHEMA_VERSION, AuditEvent
from proxy.audit.pieces import join_pieces
from proxy.errors import UsageError

MAX_LINE = 4 << 20  # bytes; the webhook's lines have at most a few hundred thousand
FIRST_LINES = 1000  # of a file, among which its first event is looked for
GZIP = b"\x1f\x8b"
INPUT = Path("-")  # standard input
_OLDEST = datetime.min.replace(tzinfo=UTC)


def _in_utc(time: datetime) -> datetime:
    try:
        return time.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("no time that UTC has") from error


class ReadEvent(AuditEvent):
    """An event of this version or an older one; fields that a newer admend added are passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    time: Annotated[AwareDatetime, AfterValidator(_in_utc)]


@dataclass(slots=True)
class Passed:
    """What was not an event, and the first that should have been one."""

    others: int = 0  # lines of somebody else
    newer: int = 0  # events of a version that is not known here
    damaged: int = 0  # events that cannot be read, lines that are too long, archives that are cut off
    first: str = ""  # where the first damaged one is, and what is wrong with it

    def damage(self, where: str, what: str) -> None:
        """Count what is damaged; names of files and of fields may come from anybody."""
        self.damaged += 1
        self.first = self.first or make_printable(f"{where}: {what}")


@dataclass(frozen=True, slots=True)
class Read:
    """One event and the object that it was read from."""

    event: AuditEvent
    raw: dict[str, Any] = field(repr=False)


def read_events(paths: Sequence[Path], passed: Passed) -> Iterator[Read]:
    """Yield the events of files, each in its order; files come by the time of their first event.

    Args:
        paths: files (plain or gzip), folders of such, or `-` for standard input.
        passed: counts what is not an event.

    Raises:
        UsageError: there is no such file.
    """
    files = [file for path in paths for file in _files(path)]
    if len(files) > 1:
        files.sort(key=_first_time)
    for file in files:
        yield from _events(file, passed)


def _files(path: Path) -> Sequence[Path]:
    if path == INPUT:
        return [path]
    if path.is_dir():
        return sorted(each for each in path.iterdir() if each.is_file())
    if not path.exists():
        raise UsageError(
            "there is no such file; give audit files, a folder of them, or - for standard input", file=str(path)
        )
    return [path]


def _first_time(path: Path) -> datetime:
    """Return the time of a file's first event; standard input cannot be looked at twice and comes last."""
    if path == INPUT:
        return datetime.max.replace(tzinfo=UTC)
    first = next(_events(path, Passed(), most=FIRST_LINES), None)
    return first.event.time if first else _OLDEST


def _events(path: Path, passed: Passed, most: int | None = None) -> Iterator[Read]:
    name = "standard input" if path == INPUT else str(path)
    try:
        with _open(path) as stream:
            for number, line in join_pieces(enumerate(_lines(stream), 1), MAX_LINE):
                if most is not None and number > most:
                    return
                read = _parse(line, f"{name}:{number}", passed)
                if read is not None:
                    yield read
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        passed.damage(name, f"not a whole gzip file: {error}")


@contextmanager
def _open(path: Path) -> Iterator[BinaryIO]:
    raw = io.FileIO(sys.stdin.fileno() if path == INPUT else path, closefd=path != INPUT)
    with io.BufferedReader(raw) as stream:
        if stream.peek(2)[:2] != GZIP:
            yield stream
            return
        with gzip.GzipFile(fileobj=stream) as unpacked:
            yield cast("BinaryIO", unpacked)


def _lines(stream: BinaryIO) -> Iterator[bytes]:
    """Yield lines; of one that is too long the beginning, one byte longer than is allowed."""
    while line := stream.readline(MAX_LINE + 1):
        yield line
        while len(line) > MAX_LINE and not line.endswith(b"\n"):
            line = stream.readline(MAX_LINE + 1)


def _parse(line: bytes, where: str, passed: Passed) -> Read | None:
    if len(line) > MAX_LINE:
        passed.damage(where, f"a line of more than {MAX_LINE} bytes")
        return None
    raw = _object(line)
    if raw is None or not {"schema_version", "event", "uid", "verdict"} <= raw.keys():
        if b'"schema_version"' in line and b'"verdict"' in line:
            passed.damage(where, "an audit line that is cut off or is no JSON object")
        else:
            passed.others += 1
        return None
    version = raw["schema_version"]
    if isinstance(version, int) and version > SCHEMA_VERSION:
        passed.newer += 1
        return None
    try:
        return Read(ReadEvent.model_validate(raw), raw)
    except ValidationError as error:
        wrong = error.errors(include_url=False)[0]
        passed.damage(where, f"{'.'.join(map(str, wrong['loc']))}: {wrong['msg']}")
        return None


def _object(line: bytes) -> dict[str, Any] | None:
    """Return the JSON object of a line, that of Docker's record of a line if it is one."""
    start = line.find(b"{")
    if start < 0:
        return None
    try:
        found = json.loads(line[start:])
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
