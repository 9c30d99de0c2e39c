"""A small signed package source on loopback, for machines whose apt configuration names no Debian archive.

Owns its packages (a release suite, and a security suite with a newer libdemo and demo), its key and its server. The
image that is composed from it has the shape of the real demonstration: distroless, one library and its user.
"""

import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Self

from proxy.config import ExtraSource, SourcesConfig
from proxy.engine.family import PackageSource
from webhook.demo.package_source import Deb, DebFile, Suite, keyring, new_key, render_suite

PACKAGES = ("base-files", "libdemo1", "demo")
OS_RELEASE = b'PRETTY_NAME="Demonstration 12"\nID=debian\nVERSION_ID="12"\nVERSION_CODENAME=bookworm\n'


class Substitute:
    """The source; use as a context manager."""

    packages = PACKAGES

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        key = new_key()
        self._keyring = folder / "keyring.pgp"
        folder.mkdir(parents=True)
        self._keyring.write_bytes(keyring(key))
        suites = (
            Suite("bookworm", _packages("1.0-1")),
            Suite("bookworm-security", _packages("1.0-1+deb12u1")[1:], name="stable-security"),
        )
        for suite in suites:
            for name, data in render_suite(suite, key).items():
                path = folder / "www" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
        handler = partial(_Quiet, directory=str(folder / "www"))
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def uri(self) -> str:
        """The source's address."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def release(self) -> PackageSource:
        """The release suite."""
        return PackageSource("dpkg", self.uri, "bookworm", ("main",), "amd64", ("debian",), written="demonstration")

    @property
    def sources(self) -> SourcesConfig:
        """Settings that trust this source's key, and nothing of the machine."""
        suites = ("bookworm", "bookworm-security")
        return SourcesConfig(
            machine=None,
            private=("127.0.0.1",),
            keyrings={"debian": (self._keyring,)},
            extra=tuple(
                ExtraSource(uri=self.uri, suite=suite, keyring="debian", security=suite.endswith("-security"))
                for suite in suites
            ),
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing: the demonstration's output is its story."""


def _packages(version: str) -> tuple[Deb, ...]:
    library = DebFile("usr/lib/libdemo.so.1", f"libdemo {version}\n".encode() * 1000)
    program = DebFile("usr/bin/demo", f"demo {version}\n".encode(), 0o755)
    release = DebFile("usr/lib/os-release", OS_RELEASE)
    link = DebFile("etc/os-release", target="../usr/lib/os-release")
    return (
        Deb("base-files", "12.4", files=(release, link)),
        Deb("libdemo1", version, files=(library,)),
        Deb("demo", version, fields={"Depends": f"libdemo1 (= {version})"}, files=(program,)),
    )
