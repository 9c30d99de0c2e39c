"""Chisel's manifest of an image: which parts of which packages it has, with the sums of their files.

Owns reading it and writing it again with what an upgrade changed; every other line keeps its bytes. The lines of files
that a slice's script changed, and of hard links, cannot be made true again: `why_not` says so beforehand.
Format: zstd, JSON lines sorted (jsonwall 1.0), https://documentation.ubuntu.com/chisel/en/latest/reference/manifest/
"""

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import zstandard

from proxy.engine.families.dpkg.database import MANIFEST
from proxy.engine.family import Package
from proxy.engine.rootfs import RootFS
from proxy.engine.tar import Entry, Kind, Span
from proxy.errors import MalformedInput

MAX_MANIFEST = 64 << 20  # bytes as text; a large chiselled image has 5,000 lines of 200 bytes
LEVEL = 3


@dataclass(frozen=True, slots=True)
class Manifest:
    """The lines as they are, and what those say that are of a path (by path in the image) or a package (by name)."""

    lines: tuple[str, ...]
    paths: Mapping[str, int]
    packages: Mapping[str, int]

    def line(self, number: int) -> dict[str, Any]:
        """Return what a line says."""
        found: dict[str, Any] = json.loads(self.lines[number])
        return found


def read_manifest(fs: RootFS) -> Manifest | None:
    """Return the manifest of an image, or None where it has none; raises MalformedInput."""
    data = fs.read(MANIFEST)
    return None if data is None else parse_manifest(data)


def parse_manifest(data: bytes) -> Manifest:
    """Parse a manifest; `render_manifest` gives the same text back."""
    try:
        with zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(io.BytesIO(data)) as stream:
            text = stream.read(MAX_MANIFEST + 1)
        lines = text.decode().splitlines()
        rows = [json.loads(line) for line in lines]
        if len(text) > MAX_MANIFEST or not rows or rows[0]["schema"] != "1.0" or rows[0]["count"] != len(rows):
            raise MalformedInput("not a manifest of schema 1.0, cut off or too large", file=MANIFEST)
        paths = {row["path"].strip("/"): at for at, row in enumerate(rows) if row.get("kind") == "path"}
        packages = {row["name"]: at for at, row in enumerate(rows) if row.get("kind") == "package"}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, zstandard.ZstdError) as error:
        raise MalformedInput(f"not a manifest of chisel ({error})", file=MANIFEST) from error
    return Manifest(tuple(lines), paths, packages)


def render_manifest(manifest: Manifest) -> bytes:
    """Return the bytes of a manifest."""
    text = "".join(f"{line}\n" for line in manifest.lines).encode()
    return zstandard.ZstdCompressor(level=LEVEL, threads=0).compress(text)


def why_not(manifest: Manifest, package: Package, files: Sequence[Entry]) -> str:
    """Say why the manifest could not be made true after these files of a package were replaced, or return ``""``."""
    if package.name not in manifest.packages or "SHA256" not in package.fields:
        return f"/{MANIFEST} does not name it"
    for entry in files:
        number = manifest.paths.get(entry.path)
        line = {} if number is None else manifest.line(number)
        if number is None:
            return f"/{entry.path} is a new name, of which no slice says that the image has it"
        if "final_sha256" in line:
            return f"/{entry.path} was changed by a slice's script when the image was made"
        if "inode" in line or (entry.kind is Kind.SYMLINK) != ("link" in line):
            return f"/{entry.path} is of another kind in /{MANIFEST}"
    return ""


def renewed(fs: RootFS, manifest: Manifest, packages: Sequence[Package], entries: Sequence[Entry]) -> Manifest:
    """Return the manifest with new versions, and with what `entries` make of its paths."""
    lines = list(manifest.lines)
    for package in packages:
        number = manifest.packages[package.name]
        digest = package.fields["SHA256"]
        lines[number] = _text(manifest.line(number) | {"version": package.version, "sha256": digest})
    for entry in entries:
        at = manifest.paths.get(entry.path)
        if at is None or entry.kind not in {Kind.FILE, Kind.SYMLINK}:
            continue
        line = manifest.line(at) | {"mode": f"0{entry.mode:o}"}
        if entry.kind is Kind.SYMLINK:
            line |= {"mode": "0777", "link": entry.target}
        else:
            content = entry.content
            data = fs.read_span(content) if isinstance(content, Span) else content or b""
            key = "final_sha256" if "final_sha256" in line else "sha256"
            line |= {key: hashlib.sha256(data).hexdigest(), "size": len(data)}
        lines[at] = _text(line)
    return Manifest(tuple(lines), manifest.paths, manifest.packages)


def _text(line: Mapping[str, Any]) -> str:
    return json.dumps(line, separators=(",", ":"), ensure_ascii=False)
