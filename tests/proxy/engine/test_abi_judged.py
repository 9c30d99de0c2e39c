"""The ABI gate over real libraries: upgrades that distributions made pass, and what would break a program is seen."""

import io
import lzma
import subprocess
import time
from pathlib import Path

import pytest

from proxy.engine.abi import check_abi
from proxy.engine.families.dpkg.database import keeps
from proxy.engine.layer import add_parents
from proxy.engine.outline import is_library_name
from proxy.engine.rootfs import RootFS, scan_layer
from proxy.engine.scan import extract_layer, outline_layer
from proxy.engine.tar import CHUNK, Entry, Kind
from proxy.engine.tarread import read_tar
from tests.proxy.engine.test_abi import files, image
from tests.support import data_path, require_tool

NGINX = "debian-11.5-nginx1.23-amd64.tar.xz"
LIBRARIES = ("libc6", "libssl3", "libstdc++6")
IMPORTERS = ("openssl", "coreutils", "apt", "libapt-pkg6.0", "libc-bin", "libcurl4", "libgcc-s1", "zlib1g")


def download(folder: Path, *names: str) -> list[Path]:
    """Download packages by the machine's apt, or skip where it has no such version."""
    apt = require_tool("apt-get")
    folder.mkdir()
    got = subprocess.run([apt, "download", *names], cwd=folder, capture_output=True, text=True, check=False)
    if got.returncode:
        pytest.skip(f"apt has no {' '.join(names)}: {got.stderr.strip()[:200]}")
    return sorted(folder.glob("*.deb"))


def versions(name: str) -> list[str]:
    """Return the versions that the machine's sources offer, newest first."""
    said = subprocess.run(["apt-cache", "madison", name], capture_output=True, text=True, check=True).stdout
    return list(dict.fromkeys(line.split("|")[1].strip() for line in said.splitlines() if "Packages" in line))


def content(deb: Path) -> dict[str, Entry]:
    """Return the regular files of a package, in /usr as merged systems have them."""
    tar = subprocess.run([require_tool("dpkg-deb"), "--fsys-tarfile", deb], capture_output=True, check=True).stdout
    found = {}
    for entry, body in read_tar(io.BytesIO(tar)):
        if entry.kind is Kind.FILE:
            path = f"usr/{entry.path}" if entry.path.startswith("lib") else entry.path
            data = b"".join(iter(lambda body=body: body.read(CHUNK), b""))
            found[path] = Entry(path, Kind.FILE, content=data, size=len(data))
    return found


@pytest.fixture(scope="module")
def nginx(tmp_path_factory):
    """The recorded Debian 11 with nginx, as a scan keeps it."""
    tar = tmp_path_factory.mktemp("nginx") / "layer.tar"
    with lzma.open(data_path(f"rootfs/{NGINX}")) as packed:
        tar.write_bytes(packed.read())
    captures = io.BytesIO()
    with tar.open("rb") as stream:
        index = scan_layer(stream, "", keep=keeps, captures=captures, captures_name="c", where=NGINX)

    def extract(_: int, paths: set[str]) -> dict[str, bytes]:
        out = io.BytesIO()
        with tar.open("rb") as again:
            found = extract_layer(again, "", paths, captures=out, captures_name="", where=NGINX)
        return {path: out.getvalue()[span.offset :][: span.size] for path, span in found.items()}

    def outline(_: int, paths: set[str]) -> dict[str, bytes | None]:
        with tar.open("rb") as again:
            return outline_layer(again, "", paths, where=NGINX)

    kept = captures.getvalue()
    return RootFS([index], lambda span: kept[span.offset :][: span.size], extract, outline)


def moved(fs: RootFS, name: str, found: dict[str, Entry]) -> tuple[Entry, ...]:
    """Return a package's files as entries of a patch, with what only the old version had removed."""
    new = {fs.locate(path): one.content for path, one in found.items()}
    listed = fs.read(f"var/lib/dpkg/info/{name}:amd64.list") or b""
    old = {fs.locate(line.lstrip("/")) for line in listed.decode().split("\n") if is_library_name(line)}
    old -= {path for path in old if (there := fs.get(path)) is None or there.kind is Kind.DIR}
    assert old
    return add_parents(files(dict.fromkeys(old - set(new)) | new), fs)


@pytest.mark.interop
@pytest.mark.parametrize("name", LIBRARIES)
def test_upgrades_of_the_libraries_that_everything_uses_pass(name, tmp_path):
    offered = versions(name)
    if not offered:
        pytest.skip(f"apt offers no {name}")
    (new,) = download(tmp_path / "new", f"{name}={offered[0]}")
    (old,) = download(tmp_path / "old", f"{name}={offered[-1]}")
    others = download(tmp_path / "others", *IMPORTERS)
    held = {path: entry.content for deb in (old, *others) for path, entry in content(deb).items()}
    assert check_abi(image(held), tuple(content(new).values())) == ()


@pytest.mark.data
@pytest.mark.interop
@pytest.mark.parametrize("deb", ["libc6_2.31-13+deb11u14_amd64.deb", "libssl1.1_1.1.1w-0+deb11u8_amd64.deb"])
def test_security_updates_of_a_recorded_image_pass_quickly(deb, nginx):
    entries = moved(nginx, deb.partition("_")[0], content(data_path(f"packages/deb/{deb}")))
    started = time.process_time()
    assert check_abi(nginx, entries) == ()
    assert time.process_time() - started < 2


@pytest.mark.data
@pytest.mark.interop
def test_the_next_releases_c_library_passes_though_threads_moved_to_another_soname(nginx, tmp_path):
    for name in ("libstdc++6", "libc6"):
        (deb,) = download(tmp_path / name, name)
        assert check_abi(nginx, moved(nginx, name, content(deb))) == ()


@pytest.mark.data
@pytest.mark.interop
def test_a_library_of_another_build_under_a_real_name_is_refused(nginx, tmp_path):
    path = nginx.resolve("usr/lib/x86_64-linux-gnu/libssl.so.1.1")
    (deb,) = download(tmp_path / "deb", "libssl3")
    other = next(one.content for where, one in content(deb).items() if where.endswith("/libssl.so.3"))
    found = {(one.importer, one.soname) for one in check_abi(nginx, files({path: other}))}
    assert ("usr/sbin/nginx", "libssl.so.1.1") in found
