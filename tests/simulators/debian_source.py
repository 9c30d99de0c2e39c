"""A signed Debian package source on loopback, with faults on demand.

`DebianSource` is a real HTTP server on an ephemeral port of 127.0.0.1, in a thread of its own, so that synchronous and
asynchronous tests use it alike. It answers conditional requests with 304 and notes every request.
"""

import email.utils
import hashlib
import lzma
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import TracebackType
from typing import Self
from urllib.parse import unquote

from pysequoia import Tsk

from webhook.demo.package_source import (
    Deb,
    DebFile,
    Suite,
    build_deb,
    clear_sign,
    keyring,
    new_key,
    render_suite,
)

__all__ = ["Deb", "DebFile", "DebianSource", "Suite", "build_deb", "keyring", "new_key"]

DETACHED = {
    "no-release": ("InRelease", "Release", "Release.gpg"),
    "detached": ("InRelease",),  # what is left is as good
    "detached-bad": ("InRelease",),  # and one letter of Release changed
    "detached-alone": ("InRelease", "Release.gpg"),
}
FAULTS = frozenset(
    {
        "bad-signature",  # one letter of the signed text changed
        "foreign-key",  # signed by a key that is not in the keyring
        "unsigned",  # the bare Release text served as InRelease
        "expired",  # Valid-Until in the past
        "future",  # Date a year ahead
        "wrong-codename",  # another suite's Release behind this address
        "wrong-hash",  # Packages files that are not those the Release lists
        "wrong-deb",  # packages that are not those the index lists
        *DETACHED,
        "truncated-index",  # a signed Packages.xz that ends too early
    }
)


class DebianSource:
    """The server; use as a context manager, then `uri` is its address and `keyring` the key to trust.

    Args:
        suites: what it offers; `publish` replaces it while it runs.
        fault: one of FAULTS, or "".
        key: the signing key; a new one if None.
    """

    def __init__(self, suites: Iterable[Suite], fault: str = "", key: Tsk | None = None) -> None:
        self.key = key or new_key()
        self.files: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.publish(suites, fault)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/debian"

    @property
    def keyring(self) -> bytes:
        return keyring(self.key)

    def publish(self, suites: Iterable[Suite], fault: str = "") -> None:
        """Replace everything that is offered."""
        assert not fault or fault in FAULTS, fault
        files: dict[str, bytes] = {}
        for suite in suites:
            files |= render_with_fault(suite, self.key, fault)
        self.files = files

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        source = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                source.requests.append(self.path)
                data = source.files.get(unquote(self.path).removeprefix("/debian/"))
                if data is None:
                    self._answer(404, b"not here\n", {})
                    return
                tag = f'"{hashlib.sha256(data).hexdigest()[:16]}"'
                if self.headers.get("If-None-Match") == tag:
                    self._answer(304, b"", {"ETag": tag})
                else:
                    self._answer(200, data, {"ETag": tag, "Last-Modified": email.utils.formatdate(0, usegmt=True)})

            def _answer(self, status: int, data: bytes, headers: dict[str, str]) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                """Say nothing: tests read `requests`."""

        return Handler


def render_with_fault(suite: Suite, key: Tsk, fault: str = "") -> dict[str, bytes]:
    """Return the suite's files as `render_suite` does, spoiled by `fault`."""
    ahead = datetime.now(UTC).replace(year=datetime.now(UTC).year + 2, day=1)
    dates = {"expired": {"valid_until": datetime(2020, 1, 1, tzinfo=UTC)}, "future": {"date": ahead}}
    suite = replace(suite, **dates.get(fault, {}))
    files = render_suite(suite, new_key() if fault == "foreign-key" else key)
    base = f"dists/{suite.codename}"
    release, signed = files[f"{base}/Release"], files[f"{base}/InRelease"]
    if fault == "bad-signature":
        files[f"{base}/InRelease"] = signed.replace(b"Origin: Debian", b"Origin: Debiam")
    elif fault == "unsigned":
        files[f"{base}/InRelease"] = release
    elif fault in DETACHED:
        files = {path: data for path, data in files.items() if path.removeprefix(f"{base}/") not in DETACHED[fault]}
        wrong = release.replace(b"Origin: Debian", b"Origin: Debiam")
        files |= {f"{base}/Release": wrong} if fault == "detached-bad" else {}
    elif fault == "wrong-codename":
        other = release.replace(b"Codename: " + suite.codename.encode(), b"Codename: elsewhere")
        other = other.replace(b"Suite: " + suite.name.encode(), b"Suite: elsewhere")
        files[f"{base}/InRelease"] = clear_sign(other, key)
    elif fault in {"wrong-hash", "truncated-index"}:
        _spoil_indexes(files, base, key, fault)
    elif fault == "wrong-deb":
        files |= {path: data[:-2] + b"!\n" for path, data in files.items() if path.endswith(".deb")}
    return files


def _spoil_indexes(files: dict[str, bytes], base: str, key: Tsk, fault: str) -> None:
    indexes = [path for path in files if "/binary-" in path and ("/Packages" in path or "/by-hash/" in path)]
    if fault == "wrong-hash":
        files |= {path: files[path][:-1] + bytes([files[path][-1] ^ 1]) for path in indexes}
        return
    release = files[f"{base}/Release"]
    for path in [path for path in indexes if path.endswith("Packages.xz")]:
        whole, short = files[path], lzma.compress(b"Package: cut\n")[:-8]
        old, new = (hashlib.sha256(data).hexdigest().encode() for data in (whole, short))
        release = release.replace(b"%s %8d" % (old, len(whole)), b"%s %8d" % (new, len(short)))
        files[path] = short
        files[f"{path.rsplit('/', 1)[0]}/by-hash/SHA256/{new.decode()}"] = short
    files[f"{base}/InRelease"] = clear_sign(release, key)
