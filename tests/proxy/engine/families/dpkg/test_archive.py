"""Debian packages taken apart."""

import io
import tarfile
from pathlib import Path

import pytest

from proxy.engine.families.dpkg.archive import unpack_package
from proxy.engine.family import Package, Payload
from proxy.engine.tar import Kind, Span
from proxy.errors import MalformedInput
from tests.proxy.engine.families.dpkg.debs import SPOOL, Deb, unpack
from tests.proxy.engine.filesystems import Link
from tests.support import require_tool

PACKAGE = Package("tool", "1.0-1", "amd64")
CONTROL = b"Package: tool\nVersion: 1.0-1\nArchitecture: amd64\n"


def tar(*members: tuple[str, bytes, bytes]) -> bytes:
    """Make a tar of names, types and contents (or link targets)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, kind, content in members:
            info = tarfile.TarInfo(name)
            info.type = kind
            if kind == tarfile.REGTYPE:
                info.size = len(content)
            else:
                info.linkname = content.decode()
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def deb(*members: tuple[str, bytes]) -> bytes:
    """Make an ar container."""
    out = b"!<arch>\n"
    for name, data in members:
        out += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}`\n".encode() + data + b"\n" * (len(data) % 2)
    return out


def take(data: bytes, package: Package = PACKAGE) -> Payload:
    return unpack_package(package, io.BytesIO(data), io.BytesIO(), SPOOL)


def whole(control: bytes = CONTROL, data: bytes | None = None) -> bytes:
    packed = tar(("./control", tarfile.REGTYPE, control))
    return deb(("debian-binary", b"2.0\n"), ("control.tar", packed), ("data.tar", tar() if data is None else data))


@pytest.mark.interop
@pytest.mark.parametrize("compression", ["gzip", "xz", "zstd", "none"])
def test_packages_of_dpkg_deb_unpack_in_every_compression(tmp_path: Path, compression: str) -> None:
    require_tool("dpkg-deb")
    made = Deb(
        "tool",
        files={"usr/bin/tool": b"x" * 3_000_000, "usr/bin/t": Link("tool"), "etc/t": b"conf"},
        hardlinks={"usr/bin/u": "usr/bin/tool"},
        control={"conffiles": b"/etc/t\n", "md5sums": b""},
        modes={"usr/bin/tool": 0o4711},
    )
    payload, spool = unpack(made, made.build(tmp_path, compression))
    entries = {entry.path: entry for entry in payload.entries}
    assert entries["usr/bin/tool"].mode == 0o4711 or entries["usr/bin/u"].mode == 0o4711
    links = [entry for entry in payload.entries if entry.kind is Kind.HARDLINK]
    assert len(links) == 1
    body = entries[links[0].target]
    assert isinstance(body.content, Span)
    assert spool[body.content.offset :][: body.content.size] == b"x" * 3_000_000
    assert entries["usr/bin/t"].target == "tool"
    assert entries["etc/t"].content == b"conf"
    assert payload.control["conffiles"] == b"/etc/t\n"


@pytest.mark.parametrize("field", ["Package", "Version", "Architecture"])
def test_a_package_that_is_another_one_is_refused(field: str) -> None:
    control = CONTROL.replace(f"{field}: ".encode(), f"{field}: x".encode())
    with pytest.raises(MalformedInput, match=f"its {field} is not"):
        take(whole(control))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"PK\3\4", "no ar archive"),
        (deb(("debian-binary", b"3.0\n")), "not format version 2"),
        (deb(("control.tar", b"")), "not debian-binary"),
        (deb(("debian-binary", b"2.0\n"), ("control.tar.rar", b"")), "known compression"),
        (deb(("debian-binary", b"2.0\n"), ("control.tar.xz", b"no xz at all" * 3)), "broken compressed data"),
        (deb(("debian-binary", b"2.0\n"), ("control.tar.gz", b"\x1f\x8b\x08")), "compressed data"),
        (whole()[:-300], "cut short"),
        (whole()[:200], "cut short"),
        (whole(data=tar(("./dev/x", tarfile.CHRTYPE, b""))), "special file"),
        (whole(data=tar(("a", tarfile.REGTYPE, b""), ("./a", tarfile.REGTYPE, b""))), "there twice"),
        (whole(data=tar(("a", tarfile.LNKTYPE, b"../../etc/shadow"))), "climbs out|hard link"),
        (whole(data=tar(("a", tarfile.LNKTYPE, b"etc/shadow"))), "hard link"),
        (whole(data=tar(("../a", tarfile.REGTYPE, b""))), "climbs out"),
        (whole(b"Package: tool\n\nPackage: other\n"), "one stanza"),
    ],
)
def test_a_damaged_or_hostile_package_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(MalformedInput, match=message):
        take(data)


def test_control_files_that_are_no_plain_files_are_refused() -> None:
    for member in [("./sub/x", tarfile.REGTYPE, b""), ("./x", tarfile.SYMTYPE, b"/etc/shadow")]:
        packed = tar(("./control", tarfile.REGTYPE, CONTROL), member)
        with pytest.raises(MalformedInput, match="plain control file"):
            take(deb(("debian-binary", b"2.0\n"), ("control.tar", packed), ("data.tar", tar())))


def test_members_with_an_underscore_are_skipped_as_the_format_says() -> None:
    packed = tar(("./control", tarfile.REGTYPE, CONTROL))
    extra = ("_extra", b"abc")
    assert not take(
        deb(("debian-binary", b"2.0\n"), extra, ("control.tar", packed), extra, ("data.tar", tar()))
    ).entries


def test_a_package_without_md5sums_gets_those_of_its_files() -> None:
    data = tar(("a", tarfile.REGTYPE, b"1"), ("b", tarfile.LNKTYPE, b"a"))
    one = "c4ca4238a0b923820dcc509a6f75849b"
    assert take(whole(data=data)).control[".md5sums"].decode() == f"{one}  a\n{one}  b\n"
