"""Composes the demonstration's image: distroless, of the release suite of Debian 12, without a shell.

Owns the package list and how a distroless image is laid out: every package's files, and one control stanza per
package in `var/lib/dpkg/status.d` with its md5sums beside it. The packages come from the archive that the machine's
apt configuration names, through the same verified path as any upgrade. Where it names none, `local` composes a small
signed source instead.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from proxy.engine.families.dpkg.architecture import architecture_of, platform_of
from proxy.engine.families.dpkg.index import IndexReader
from proxy.engine.families.dpkg.sources import image_sources
from proxy.engine.family import Blob, Candidate, Distribution, PackageIndex, PackageSource, Payload, SourceSettings
from proxy.engine.layer import WrittenLayer, write_layer
from proxy.engine.rootfs import RootFS
from proxy.engine.tar import Entry, Kind
from proxy.errors import UpstreamRefused
from proxy.files import writing
from proxy.flight import gather_all
from proxy.oci.digest import Digest
from proxy.oci.manifest import OCI_CONFIG, OCI_MANIFEST, Manifest, parse_manifest, render_json
from proxy.payloads import parse_payload
from proxy.serve import Engine, machine_platform
from proxy.spans import SpanReader

PACKAGES = (
    "base-files",
    "netbase",
    "tzdata",
    "media-types",
    "libc6",
    "libssl3",
    "openssl",
    "ca-certificates",
    "zlib1g",
    "libgcc-s1",
    "gcc-12-base",
)
RELEASE = "bookworm"
MERGED = ("bin", "sbin", "lib", "lib64")  # Debian 12's merged /usr
STATUS = "var/lib/dpkg/status.d"


@dataclass(frozen=True, slots=True)
class Composed:
    """An image on this machine: its manifest, and the files of its blobs."""

    manifest: Manifest
    blobs: dict[Digest, Path]


def find_release(settings: SourceSettings) -> PackageSource | None:
    """Return the release suite of Debian 12 at the archive that the machine's apt names; None where it names none."""
    arch = architecture_of(machine_platform())
    fs = RootFS([], lambda _: b"")
    sources, _ = image_sources(fs, Distribution("debian", "12", RELEASE), arch, settings)
    return next((source for source in sources if source.suite == RELEASE), None)


async def compose(engine: Engine, source: PackageSource, packages: Sequence[str], scratch: Path) -> Composed:
    """Compose an image of `packages` at the versions that `source` has now.

    Raises UpstreamRefused when the source lacks one of them.
    """
    root = engine.config.cache
    state = await engine.sources.state(source)
    path = root / state.index.file
    blob = Blob(state.index.file, path.stat().st_size, lambda: path.open("rb"))
    reader = IndexReader(PackageIndex(source, state.index.date, state.index.facts, blob))
    try:
        chosen = [_newest(reader, name) for name in packages]
    finally:
        reader.close()
    names = await gather_all(engine.packages.unpacked("dpkg", candidate) for candidate in chosen)
    payloads = [parse_payload((root / f"{name}.payload").read_bytes(), name) for name in names]
    return _assemble(payloads, source.arch, root, scratch)


def _newest(reader: IndexReader, name: str) -> Candidate:
    found = reader.lookup(name)
    if not found:
        raise UpstreamRefused(f"{reader.index.source.label}: has no package {name}", status=404)
    return reader.candidate(found[-1])


def _assemble(payloads: Sequence[Payload], arch: str, root: Path, scratch: Path) -> Composed:
    """Write layer and config, and return the image."""
    layer_file = scratch / "layer"
    with writing(layer_file) as out, SpanReader(str(root)) as spans:
        layer = write_layer(_entries(payloads), out, compression="gzip", media="oci", read_span=spans.chunks)
    config = render_json(_config(arch, layer))
    config_file = scratch / "config"
    with writing(config_file) as out:
        out.write(config)
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": OCI_CONFIG, "digest": str(Digest.of(config)), "size": len(config)},
        "layers": [{"mediaType": layer.media_type, "digest": str(layer.digest), "size": layer.size}],
    }
    manifest = parse_manifest(render_json(document), OCI_MANIFEST)
    assert isinstance(manifest, Manifest)  # noqa: S101 - it has a config
    return Composed(manifest, {layer.digest: layer_file, Digest.of(config): config_file})


def _config(arch: str, layer: WrittenLayer) -> dict[str, object]:
    platform = platform_of(arch)
    return {
        "architecture": platform.architecture,
        "os": platform.os,
        **({"variant": platform.variant} if platform.variant else {}),
        "config": {"Entrypoint": ["/usr/bin/openssl"], "Cmd": ["version"], "User": "65532"},
        "rootfs": {"type": "layers", "diff_ids": [str(layer.diff_id)]},
        "history": [{"created_by": "admend-webhook demo"}],
    }


def _entries(payloads: Sequence[Payload]) -> list[Entry]:
    """Return the image's paths: directories once, files where merged /usr puts them, the package database."""
    entries = {name: Entry(name, Kind.SYMLINK, 0o777, target=f"usr/{name}") for name in MERGED}
    entries |= {name: Entry(name, Kind.DIR, 0o755) for name in (*(f"usr/{name}" for name in MERGED), STATUS)}
    for payload in payloads:
        for entry in payload.entries:
            path = _merged(entry.path)
            if path and (entry.kind is not Kind.DIR or path not in entries):
                target = _merged(entry.target) if entry.kind is Kind.HARDLINK else entry.target
                entries[path] = replace(entry, path=path, target=target)
        for entry in _records(payload):
            entries[entry.path] = entry
    return list(entries.values())


def _records(payload: Payload) -> Iterator[Entry]:
    name = f"{STATUS}/{payload.package.name}"
    control, sums = payload.control["control"], payload.control.get("md5sums", b"")
    yield Entry(name, Kind.FILE, size=len(control), content=control)
    yield Entry(f"{name}.md5sums", Kind.FILE, size=len(sums), content=sums)


def _merged(path: str) -> str:
    first = path.split("/", 1)[0]
    return f"usr/{path}" if first in MERGED and path != first else "" if first in MERGED else path
