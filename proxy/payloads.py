"""Unpacked packages as files: a payload to bytes and back.

Owns the form in which a worker leaves an unpacked package for all later builds: one JSON document, entries as rows of
columns. A large package has thousands of entries, and the general `codec` takes ten times as long over them. What does
not read is refused (unpack the package again).
"""

import base64
import json
from typing import Any

from proxy.codec import decode, encode
from proxy.engine.family import Package, Payload
from proxy.engine.tar import NO_XATTRS, Entry, Kind, Span
from proxy.errors import MalformedInput

_KINDS = {kind.value: kind for kind in Kind}


def render_payload(payload: Payload) -> bytes:
    """Return the file's bytes; `parse_payload` gives the same payload back."""
    document = {
        "package": encode(payload.package),
        "control": {name: _text(data) for name, data in payload.control.items()},
        "entries": [_row(entry) for entry in payload.entries],
    }
    return json.dumps(document, separators=(",", ":")).encode()


def parse_payload(raw: bytes, where: str = "payload") -> Payload:
    """Parse what `render_payload` made; raises MalformedInput for anything else."""
    try:
        document = json.loads(raw)
        package = decode(Package, document["package"], where)
        control = {str(name): _bytes(text) for name, text in document["control"].items()}
        return Payload(package, control, tuple(_entry(row) for row in document["entries"]))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise MalformedInput(
            f"does not read ({error}): remove it, the package is unpacked again", file=where
        ) from error


def _row(entry: Entry) -> list[Any]:
    content: Any = entry.content
    if isinstance(content, Span):
        content = [content.file, content.offset, content.size]
    elif content is not None:
        content = _text(content)
    xattrs = {name: _text(value) for name, value in entry.xattrs.items()} if entry.xattrs else None
    numbers = (entry.mode, entry.uid, entry.gid, entry.mtime, entry.size)
    return [entry.path, entry.kind.value, *numbers, entry.target, content, xattrs, *entry.device]


def _entry(row: list[Any]) -> Entry:
    path, kind, mode, uid, gid, mtime, size, target, content, xattrs, *device = row
    numbers = (mode, uid, gid, mtime, size, *device)
    if any(type(number) is not int for number in numbers) or len(device) != 2:  # noqa: PLR2004 - major and minor
        raise TypeError("a row of an entry without its numbers")
    if type(path) is not str or type(target) is not str:
        raise TypeError("a row of an entry without its names")
    if type(content) is list:
        file, offset, length = content
        held: bytes | Span | None = Span(str(file), int(offset), int(length))
    else:
        held = None if content is None else _bytes(content)
    marks = {str(name): _bytes(value) for name, value in xattrs.items()} if xattrs else NO_XATTRS
    major, minor = device
    return Entry(path, _KINDS[kind], mode, uid, gid, mtime, size, target, held, marks, (major, minor))


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)
