"""Asks a package source for its index as the shell does."""

import io
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from proxy.engine.families.dpkg.index import refresh_source
from proxy.engine.family import Absent, Blob, Fetch, PackageIndex, PackageSource, SourceSettings
from proxy.errors import TrustFailure
from proxy.oci.digest import Digest
from tests.simulators.debian_source import Deb, DebianSource, Suite

NOW = datetime(2026, 6, 1, tzinfo=UTC)
OPENSSL = Deb("openssl", "3.0.2-1", fields={"Depends": "libssl3 (>= 3), libc6 | libc", "Breaks": "old (<< 2)"})
LIBSSL = Deb("libssl3", "3.0.2-1", fields={"Source": "openssl (3.0.2-0)", "Provides": "ssl-abi (= 3),\n ssl-virtual"})
SUITE = Suite("bookworm", (OPENSSL, LIBSSL, Deb("foreign", "1", "arm64")), archs=("amd64", "arm64"))


def fetch(request: Fetch) -> Blob | Absent:
    """Do what the shell does: fetch, check, answer."""
    try:
        with urllib.request.urlopen(request.url) as answer:
            data = answer.read()
    except urllib.error.HTTPError as error:
        return Absent(f"{error.code}")
    if request.digest is not None and Digest.of(data) != request.digest:
        raise TrustFailure(f"{request.url}: digest is not the expected one")
    return Blob(request.url, len(data), lambda: io.BytesIO(data))


def refresh(
    source: PackageSource,
    keys: dict[str, bytes],
    now: datetime = NOW,
    answer: Callable[[Fetch], Blob | Absent] = fetch,
) -> PackageIndex:
    steps = refresh_source(source, SourceSettings(keyrings=keys), now, io.BytesIO())
    need = next(steps)
    while True:
        try:
            need = steps.send({request: answer(request) for request in need})
        except StopIteration as finished:
            index = finished.value
            assert isinstance(index, PackageIndex)
            return index


def asked(server: DebianSource, **changes: object) -> PackageSource:
    source = PackageSource("dpkg", server.uri, "bookworm", ("main",), "amd64", ("debian",))
    return replace(source, **changes)  # type: ignore[arg-type]
