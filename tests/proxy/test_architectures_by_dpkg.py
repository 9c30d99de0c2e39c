"""Images of other architectures, and of several: their patched files and records are what the real dpkg writes."""

import asyncio
import hashlib
import io
import stat
import subprocess
import tarfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
import pytest_asyncio

from proxy.engine.families.dpkg.architecture import platform_of
from proxy.oci.manifest import Manifest
from proxy.serve import Proxy
from tests.proxy.asking import ask, manifest_of
from tests.simulators.debian_source import Deb, DebFile, Suite, build_deb
from tests.simulators.world import OS_RELEASE, World
from tests.support import require_root, require_tool

pytestmark = [pytest.mark.interop, pytest.mark.asyncio(loop_scope="module")]

ARCHS = ("amd64", "arm64", "i386")
OWN = ("lock", "lock-frontend", "status-old", "available", "triggers/Lock", "triggers/Unincorp", "updates")


def packages(version: str, arch: str) -> tuple[Deb, ...]:
    """Return a library that several architectures share documentation of, and a program; newer ones drop a file."""
    where = f"usr/lib/{arch}"
    names = ["libtwin.so.1", *(["old-plugin.so"] if version == "1" else ["new-plugin.so"])]
    library = [DebFile(f"{where}/{name}", f"{name} {version} {arch}\n".encode()) for name in names]
    about = [DebFile("usr/share/doc/libtwin/about", f"libtwin {version}\n".encode())]
    about += [DebFile("usr/share/doc/libtwin/old", b"old\n")] if version == "1" else []
    link = DebFile(f"{where}/libtwin.so", target="libtwin.so.1")
    program = DebFile(f"{where}/bin/tool", f"tool {version} {arch}\n".encode(), 0o755)
    return (
        Deb("libtwin", version, arch, fields={"Multi-Arch": "same"}, files=(*library, link, *about)),
        Deb("tool", version, arch, fields={"Multi-Arch": "foreign", "Depends": "libtwin"}, files=(program,)),
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with World(tmp_path_factory.mktemp("world")) as opened:
        release, security = (tuple(deb for arch in ARCHS for deb in packages(v, arch)) for v in ("1", "2"))
        suites = (Suite("bookworm", release, archs=ARCHS), Suite("bookworm-security", security, archs=ARCHS))
        opened.source.publish(suites)
        yield opened


def install(root: Path, debs: Sequence[Deb], folder: Path) -> None:
    """Let dpkg install packages of any architecture into a root of its own."""
    folder.mkdir()
    files = []
    for deb in debs:
        files.append(folder / f"{deb.name}_{deb.version}_{deb.arch}.deb")
        files[-1].write_bytes(build_deb(deb))
    command = [require_tool("dpkg"), f"--root={root}", "--force-architecture,depends", "--no-triggers", "--install"]
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
    subprocess.run([*command, *files], env=environment, check=True, capture_output=True)


def make_root(root: Path, debs: Sequence[Deb], archs: Sequence[str], folder: Path) -> None:
    """Make a root file system in which dpkg installed these packages."""
    for name in ("var/lib/dpkg/info", "var/lib/dpkg/updates", "var/lib/dpkg/triggers", "etc"):
        (root / name).mkdir(parents=True)
    (root / "var/lib/dpkg/status").touch()
    if len(archs) > 1:
        (root / "var/lib/dpkg/arch").write_text("".join(f"{arch}\n" for arch in archs))
    (root / "etc/os-release").write_bytes(OS_RELEASE)
    install(root, debs, folder)


def as_layer(root: Path) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(root.iterdir()):
            tar.add(path, path.name)
    return out.getvalue()


def unpack(layers: Sequence[Path], root: Path) -> None:
    """Unpack layers one over the other."""
    root.mkdir()
    for layer in layers:
        with layer.open("rb") as stream:
            zipped = stream.read(2) == b"\x1f\x8b"
        data = subprocess.run(["gzip" if zipped else "zstd", "-dc", layer], check=True, capture_output=True).stdout
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            for member in tar:
                folder, _, name = member.name.rpartition("/")
                if name.startswith(".wh."):
                    subprocess.run(["rm", "-rf", root / folder / name.removeprefix(".wh.")], check=True)
                else:
                    tar.extract(member, root, filter="fully_trusted")


def describe(root: Path) -> dict[str, tuple[object, ...]]:
    """Return type, mode, owner, link target and content of every path but dpkg's locks and backups."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(root.rglob("*")):
        name, status = str(path.relative_to(root)), path.lstat()
        if name.removeprefix("var/lib/dpkg/") in OWN:
            continue
        content: object = ""
        if stat.S_ISLNK(status.st_mode):
            content = str(path.readlink())
        elif stat.S_ISREG(status.st_mode):
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        if name == "var/lib/dpkg/status":
            content = sorted(path.read_text().strip().split("\n\n"))
        found[name] = (oct(status.st_mode), status.st_uid, status.st_gid, content)
    return found


@pytest.mark.parametrize("archs", [("amd64",), ("arm64",), ("amd64", "i386"), ("arm64", "amd64")], ids="+".join)
async def test_every_path_of_the_patched_image_is_as_dpkg_leaves_it(
    world: World, tmp_path: Path, archs: tuple[str, ...]
) -> None:
    require_root()
    require_tool("zstd")
    old, new = ([deb for arch in archs for deb in packages(version, arch)] for version in ("1", "2"))
    old = [deb for deb in old if deb.name != "tool" or deb.arch == archs[0]]
    new = [deb for deb in new if deb.name != "tool" or deb.arch == archs[0]]
    root = tmp_path / "root"
    await asyncio.to_thread(make_root, root, old, archs, tmp_path / "old")
    platform, name = platform_of(archs[0]), f"team/{'-'.join(archs)}"
    config = f"{platform.os}/{platform.architecture}"
    world.upstream.add_image(name, "1", [as_layer(root)], platform=config)
    async with Proxy(world.config(f"proxy-{'-'.join(archs)}")) as proxy:
        answer = await ask(proxy, f"{world.upstream.host}/{name}:1", platforms=(config,))
        assert len(answer.upgrades) == len(new), answer.skipped
        manifest = await manifest_of(proxy, answer.patched)
        assert isinstance(manifest, Manifest)
        store = proxy.config.mirror.path
        assert store is not None
        layers = [store / "blobs" / "sha256" / layer.digest.hex for layer in manifest.layers]
        await asyncio.to_thread(unpack, layers, tmp_path / "patched")
    await asyncio.to_thread(install, root, new, tmp_path / "new")
    assert describe(tmp_path / "patched") == describe(root)
