"""The package sources of a root file system: those of the machine's archive, or newer packages signed on loopback.

Owns what admend and apt are both told: a layer with the source list (and the key), and admend's settings.
"""

import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from proxy.config import SourcesConfig
from proxy.engine.families.dpkg.sources import image_sources
from proxy.engine.family import Distribution, PackageSource
from proxy.engine.rootfs import RootFS
from proxy.machine import read_settings
from proxy.serve import machine_platform
from tests.differential.handmade import NEW, build_handmade, install_handmade
from tests.differential.newer import build_newer, installed, render_pocket
from tests.differential.packages import OWNER, PACKAGES
from tests.differential.removals import REMOVALS, REMOVALS_OWNER
from tests.differential.roots import EVERYTHING, Root
from tests.differential.trees import CACHE, KEYRING, kept, pack, tree_of
from tests.simulators.debian_source import DebianSource

LIST = "etc/apt/sources.list.d/judge.sources"
KEY = "usr/share/keyrings/judge.gpg"
POCKETS = ("updates", "security")


@dataclass(frozen=True, slots=True)
class Offer:
    """Sources as both sides see them: the layers of the image, and admend's settings `sources`."""

    suites: tuple[str, ...]
    layers: tuple[Path, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    missing: tuple[str, ...] = ()


@contextmanager
def offer(root: Root, folder: Path) -> Iterator[Offer]:
    """Give the sources of a root file system and its layers, for as long as they are served; `folder` is for files."""
    if root.newer or root.handmade:
        with _loopback(root, folder) as made:
            yield made
    else:
        yield _machine(root, folder)


def _machine(root: Root, folder: Path) -> Offer:
    """Return the suites of the release that the machine's archive has."""
    named, found = _found(root)
    uris = sorted({source.uri for source in found})
    layers = (tree_of(root, found[0].uri), _list(folder, [(item.uri, item.suite) for item in found], root.recorded))
    missing = tuple(source.suite for source in named if source not in found)
    return Offer(tuple(source.suite for source in found), layers, _settings(uris), missing)


def offer_later(root: Root, later: Root, folder: Path) -> Offer:
    """Return a root file system as one has it who is about to upgrade it to a later release."""
    found = _found(later)[1]
    tree = folder / "release"
    (tree / "usr/lib").mkdir(parents=True)
    lines = f'ID={later.distribution}\nVERSION_ID="{later.version}"\nVERSION_CODENAME={later.suite}\n'
    (tree / "usr/lib/os-release").write_text(lines)
    pack(tree, folder / "release.tar")
    suites = [(item.uri, item.suite) for item in found]
    layers = (
        tree_of(root, _found(root)[1][0].uri),
        _list(folder, suites, key=Path(KEYRING)),
        folder / "release.tar",
    )
    return Offer(tuple(suite for _, suite in suites), layers, _settings(sorted({uri for uri, _ in suites})))


def _found(root: Root) -> tuple[Sequence[PackageSource], list[PackageSource]]:
    """Return the suites that the release should have, and those that the archive has; the release's is the first."""
    distribution = Distribution(root.distribution, root.version, root.suite)
    settings = read_settings(SourcesConfig())
    named, _ = image_sources(RootFS([], lambda _: b""), distribution, machine_platform().architecture, settings)
    found = sorted((source for source in named if _has(source)), key=lambda source: source.suite != root.suite)
    if not found or found[0].suite != root.suite:
        raise AssertionError(f"the machine's archive has no suite {root.suite}")
    return named, found


def _has(source: PackageSource) -> bool:
    try:
        with urllib.request.urlopen(f"{source.uri}/dists/{source.suite}/InRelease", timeout=60) as answer:
            return bool(answer.status == 200)
    except urllib.error.HTTPError:
        return False


def _settings(uris: list[str]) -> dict[str, Any]:
    hosts = sorted({urlsplit(uri).hostname or "" for uri in uris})
    return {"allow": uris, "private": hosts, "refresh_seconds": 0}


@contextmanager
def _loopback(root: Root, folder: Path) -> Iterator[Offer]:
    """Serve newer versions of a tree's own packages, half of them in the security pocket."""
    full = root.transitions == "full"
    packages, owner = (PACKAGES | REMOVALS, OWNER + REMOVALS_OWNER) if full else (PACKAGES, OWNER)
    about = (root, packages, owner)
    release = "" if root.recorded else _found(root)[1][0].uri
    base = tree_of(root, release, partial(install_handmade, packages, owner) if root.handmade else None, about)

    def build(scratch: Path, new: Path) -> None:
        if root.handmade:
            build_handmade(packages, NEW, scratch, new)
        else:
            build_newer(base, installed(base) if root.newer == EVERYTHING else root.newer, scratch, new)

    with (
        kept(f"{root.name}-newer", about, "", build) as debs,
        DebianSource(()) as source,
    ):
        suites = tuple(f"{root.suite}-{pocket}" for pocket in POCKETS)
        built = sorted(debs.iterdir())
        for number, suite in enumerate(suites):
            chosen = built[number :: len(suites)]
            source.files |= render_pocket(root, suite, chosen, source.key, datetime.now(UTC))
        key = folder / "judge.gpg"
        key.write_bytes(source.keyring)
        layer = _list(folder, [(source.uri, suite) for suite in suites], key=key)
        settings = {**_settings([source.uri]), "keyrings": {root.distribution: [str(key)]}}
        yield Offer(suites, (base, layer), settings)


def _list(folder: Path, suites: list[tuple[str, str]], old: str = "", key: Path | None = None) -> Path:
    """Write the layer that holds the source list; trees that are `old` have their keys where apt finds them itself."""
    tree = folder / "sources"
    (tree / LIST).parent.mkdir(parents=True)
    signed = f"Signed-By: /{KEY}\n" if key else "" if old else f"Signed-By: {KEYRING}\n"
    stanzas = [f"Types: deb\nURIs: {uri}\nSuites: {suite}\nComponents: main\n{signed}" for uri, suite in suites]
    (tree / LIST).write_text("\n".join(stanzas))
    if key is not None:
        (tree / KEY).parent.mkdir(parents=True)
        shutil.copyfile(key, tree / KEY)
    pack(tree, folder / "sources.tar")
    return folder / "sources.tar"


def state_of(root: Root, folder: Path) -> Path:
    """Return the folder where apt keeps what it fetches for a root file system: what was made here is not kept."""
    return folder / "state" if root.newer or root.handmade else CACHE / "apt" / root.name
