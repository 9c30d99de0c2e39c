"""A small world on loopback: a signed Debian source, an upstream registry, and settings for proxies between them.

The source has three packages: `base-files` never changes; `libdemo1` and `demo` come in the release suite, and newer in
the security suite as `World.publish` says. Images are distroless: files, and `status.d` as their database.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from proxy.config import (
    AuthConfig,
    ExtraSource,
    ListenConfig,
    MirrorConfig,
    ProxyConfig,
    SourcesConfig,
    UpstreamConfig,
    WorkersConfig,
)
from proxy.engine.image import parse_config
from proxy.oci.digest import Digest
from proxy.oci.manifest import Index, Manifest
from proxy.patcher import Patcher
from tests.simulators.debian_source import Deb, DebFile, DebianSource, Suite
from tests.simulators.registry import RegistrySimulator, make_layer

__all__ = [
    "FIXED",
    "FIXED_AGAIN",
    "LOGIN",
    "MIRROR",
    "RELEASED",
    "TOKEN",
    "World",
    "make_packages",
    "make_rootfs",
    "spy_on",
]

RELEASED, FIXED, FIXED_AGAIN = "1.0-1", "1.0-1+deb12u1", "1.0-1+deb12u2"
RELEASE_DATE = datetime(2026, 1, 1, tzinfo=UTC)
MIRROR = "mirror.example"
TOKEN = "a-token-for-tests"
LOGIN = "user:secret"
ARCHS = ("amd64", "arm64")
OS_RELEASE = b'PRETTY_NAME="Simulated 12"\nID=debian\nVERSION_ID="12"\nVERSION_CODENAME=bookworm\n'
STATUS = "var/lib/dpkg/status.d"


def make_packages(version: str, arch: str = "amd64") -> tuple[Deb, ...]:
    """Return the three packages, libdemo1 and demo at `version`."""
    library = DebFile("usr/lib/libdemo.so.1", f"libdemo {version} for {arch}\n".encode() * 100)
    program = DebFile("usr/bin/demo", f"demo {version} for {arch}\n".encode(), 0o755)
    return (
        Deb("base-files", "12.4", arch, files=(DebFile("usr/lib/os-release", OS_RELEASE),)),
        Deb("libdemo1", version, arch, files=(library,)),
        Deb("demo", version, arch, fields={"Depends": f"libdemo1 (= {version})"}, files=(program,)),
    )


def make_rootfs(packages: Sequence[Deb], more: Mapping[str, bytes] | None = None) -> dict[str, bytes]:
    """Return the files of a distroless image with these packages installed."""
    files = {"etc/os-release": OS_RELEASE, **(more or {})}
    for deb in packages:
        files |= {item.path: item.data for item in deb.files}
        sums = "".join(f"{hashlib.md5(item.data).hexdigest()}  {item.path}\n" for item in deb.files)
        files[f"{STATUS}/{deb.name}"] = deb.stanza().encode()
        files[f"{STATUS}/{deb.name}.md5sums"] = sums.encode()
    return files


class World:
    """Source and registry; use as an async context manager.

    Args:
        folder: where proxies keep their files and keys.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.source = DebianSource(())
        self.upstream = RegistrySimulator()
        self._stack = AsyncExitStack()
        self._images = 0
        self.publish(FIXED)

    async def __aenter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "keyring.pgp").write_bytes(self.source.keyring)
        (self.folder / "token").write_text(TOKEN)
        (self.folder / "login").write_text(LOGIN)
        self._stack.enter_context(self.source)
        await self._stack.enter_async_context(self.upstream)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def publish(self, version: str, month: int = 2, fault: str = "") -> None:
        """Offer `version` in the security suite, dated the first of `month`; the release suite stays what it is."""
        release = tuple(deb for arch in ARCHS for deb in make_packages(RELEASED, arch))
        fixes = tuple(deb for arch in ARCHS for deb in make_packages(version, arch)[1:])
        newer = Suite("bookworm-security", fixes, name="stable-security", archs=ARCHS)
        suites = (
            Suite("bookworm", release, date=RELEASE_DATE, archs=ARCHS),
            replace(newer, date=RELEASE_DATE.replace(month=month)),
        )
        self.source.publish(suites, fault)

    def add_image(self, version: str = RELEASED, *, tag: str = "1", name: str = "", **options: Any) -> str:
        """Put an image that no proxy has seen into the registry; returns its reference `host/name:tag`."""
        self._images += 1
        name = name or f"team/app{self._images}"
        self.push(name, tag, version, **options)
        return f"{self.upstream.host}/{name}:{tag}"

    def push(
        self, name: str, tag: str, version: str = RELEASED, *, arch: str = "amd64", text: str = "", **options: Any
    ) -> Manifest:
        """Put an image into the registry; `text` or its name makes it unlike any other."""
        files = make_rootfs(make_packages(version, arch), {"srv/text": (text or name).encode()})
        return self.upstream.add_image(name, tag, [make_layer(files)], platform=f"linux/{arch}", **options)

    def diff_ids(self, manifest: Manifest) -> tuple[Digest, ...]:
        """Return the diff_ids of an image that was pushed."""
        config = next(
            blobs[manifest.config.digest] for blobs in self.upstream.blobs.values() if manifest.config.digest in blobs
        )
        return parse_config(config).diff_ids

    def push_index(self, name: str, tag: str, archs: Sequence[str] = ARCHS) -> Index:
        """Put a multi-platform image into the registry."""
        images = {f"linux/{arch}": self.push(name, "", arch=arch) for arch in archs}
        return self.upstream.add_index(name, images, tag)

    def sources(self, **changes: Any) -> SourcesConfig:
        """Return settings that trust this world's source and nothing of the machine."""
        extra = tuple(
            ExtraSource(uri=self.source.uri, suite=suite, keyring="debian", security=suite.endswith("-security"))
            for suite in ("bookworm", "bookworm-security")
        )
        keyrings = {"debian": (self.folder / "keyring.pgp",)}
        return SourcesConfig(machine=None, private=("127.0.0.1",), keyrings=keyrings, extra=extra, **changes)

    def config(self, folder: str = "proxy", *, refresh_seconds: float = 900.0, **changes: Any) -> ProxyConfig:
        """Return the settings of a proxy that keeps everything under `folder`."""
        home = self.folder / folder
        given: dict[str, Any] = {
            "listen": ListenConfig(port=0),
            "auth": AuthConfig(token_file=self.folder / "token", password_file=self.folder / "login"),
            "mirror": MirrorConfig(reference=MIRROR, path=home / "mirror"),
            "upstream": UpstreamConfig(private=("127.0.0.1",), plain_http=("127.0.0.1",), timeout=10),
            "sources": self.sources(refresh_seconds=refresh_seconds),
            "workers": WorkersConfig(count=1),
            "signing_key": home / "keys" / "signing.pem",
            "cache": home / "cache",
            **changes,
        }
        return ProxyConfig(**given)


def spy_on(patcher: Patcher, monkeypatch: Any) -> Counter[str]:
    """Count, by image name, the patches that a patcher makes from now on; the patches are real."""
    patches: Counter[str] = Counter()
    real = patcher.patch

    async def counted(top: Any, target: Any, platforms: Any) -> Any:
        patches[target.base_name] += 1
        return await real(top, target, platforms)

    monkeypatch.setattr(patcher, "patch", counted)
    return patches
