"""The packages and sources that the demonstration builds, judged by dpkg-deb where it exists."""

import subprocess
import urllib.request
from pathlib import Path

import pytest
from pysequoia import Cert, verify

from tests.simulators.debian_source import Deb, DebFile, DebianSource, Suite, build_deb
from tests.support import require_tool

DEB = Deb(
    "libdemo1",
    "1:1.0-2",
    fields={"Depends": "libc6 (>= 2.31)"},
    files=(
        DebFile("usr/lib/libdemo.so.1", b"\x7fELF", 0o644),
        DebFile("usr/lib/libdemo.so", target="libdemo.so.1"),
    ),
    control={"postinst": b"#!/bin/sh\n"},
)


def test_the_same_package_is_built_twice_to_the_same_bytes() -> None:
    assert build_deb(DEB) == build_deb(DEB)


@pytest.mark.interop
def test_dpkg_deb_reads_a_built_package(tmp_path: Path) -> None:
    tool = require_tool("dpkg-deb")
    path = tmp_path / "x.deb"
    path.write_bytes(build_deb(DEB))
    fields = subprocess.run([tool, "-f", path], capture_output=True, check=True, text=True).stdout
    subprocess.run([tool, "-x", path, tmp_path / "tree"], check=True)
    assert "Package: libdemo1\n" in fields
    assert "Version: 1:1.0-2\n" in fields
    assert (tmp_path / "tree/usr/lib/libdemo.so").read_bytes() == b"\x7fELF"


def test_the_served_release_verifies_and_lists_what_is_served() -> None:
    with DebianSource([Suite("bookworm", (DEB,))]) as source:
        with urllib.request.urlopen(f"{source.uri}/dists/bookworm/InRelease") as answer:
            signed = answer.read()
        text = verify(bytes=signed, store=lambda _: Cert.split_bytes(source.keyring)).bytes.decode()
        path = next(line.split() for line in text.splitlines() if line.endswith("Packages.xz"))
        with urllib.request.urlopen(f"{source.uri}/dists/bookworm/{path[2]}") as answer:
            assert len(answer.read()) == int(path[1])
        with urllib.request.urlopen(f"{source.uri}/{DEB.filename}") as answer:
            assert answer.read() == build_deb(DEB)
