"""Images of other architectures, and of several at once: what a proxy moves is what the real apt would move in them."""

import asyncio
import hashlib
import re
import subprocess
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
import pytest_asyncio

from proxy.api import Outcome, ResolveResponse
from proxy.engine.families.dpkg.architecture import platform_of
from proxy.serve import Proxy
from tests.proxy.asking import ask
from tests.simulators.debian_source import Deb, DebFile, Suite
from tests.simulators.private_apt import private_apt, render_status
from tests.simulators.registry import make_layer
from tests.simulators.world import OS_RELEASE, World
from tests.support import require_tool

pytestmark = [pytest.mark.interop, pytest.mark.asyncio(loop_scope="module")]

ARCHS = ("amd64", "arm64", "armel", "armhf", "i386", "mips64el", "ppc64el", "riscv64", "s390x")
SAME = {"Multi-Arch": "same"}


def deb(name: str, version: str, arch: str, **fields: str) -> Deb:
    """Make a package whose files differ between architectures, but for its documentation."""
    program = DebFile(f"usr/lib/{arch}/{name}", f"{name} {version} {arch}\n".encode())
    about = DebFile(f"usr/share/doc/{name}/about", f"{name} {version}\n".encode())
    given = {key.replace("_", "-"): value for key, value in fields.items()}
    return Deb(name, version, arch, fields=given, files=(program, about))


def offered() -> tuple[tuple[Deb, ...], tuple[Deb, ...]]:
    """Return the release suite and the security suite, which lacks `lagging` of i386 and has `only` of it alone."""
    release, security = [], []
    for arch in ARCHS:
        for version, suite in (("1", release), ("2", security)):
            suite += [deb("base", version, arch), deb("twin", version, arch, **SAME)]
            suite += [deb("tool", version, arch, Depends=f"twin (= {version})")]
            if arch != "i386" or version == "1":
                suite.append(deb("lagging", version, arch, **SAME))
            if arch == "i386" or version == "1":
                suite.append(deb("only", version, arch))
    for version, suite in (("1", release), ("2", security)):
        suite.append(deb("text", version, "all"))
    return tuple(release), tuple(security)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with World(tmp_path_factory.mktemp("world")) as opened:
        release, security = offered()
        suites = (Suite("bookworm", release, archs=ARCHS), Suite("bookworm-security", security, archs=ARCHS))
        opened.source.publish(suites)
        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def proxy(world: World) -> AsyncIterator[Proxy]:
    async with Proxy(world.config()) as opened:
        yield opened


def files_of(installed: Sequence[Deb]) -> dict[str, bytes]:
    """Return a root file system with these packages in dpkg's full database."""
    files = {"etc/os-release": OS_RELEASE, "var/lib/dpkg/status": status_of(installed).encode()}
    archs = dict.fromkeys(item.arch for item in installed if item.arch != "all")
    if len(archs) > 1:  # as `dpkg --add-architecture` writes it, the native one first
        files["var/lib/dpkg/arch"] = "".join(f"{arch}\n" for arch in archs).encode()
    for item in installed:
        stem = f"{item.name}:{item.arch}" if item.fields.get("Multi-Arch") == "same" else item.name
        files |= {one.path: one.data for one in item.files}
        info = f"var/lib/dpkg/info/{stem}"
        files[f"{info}.list"] = "".join(f"/{one.path}\n" for one in item.files).encode()
        sums = [f"{hashlib.md5(one.data).hexdigest()}  {one.path}\n" for one in item.files]
        files[f"{info}.md5sums"] = "".join(sums).encode()
    return files


def status_of(installed: Sequence[Deb]) -> str:
    return render_status("\n\n".join(item.stanza() for item in installed))


def judge(folder: Path, world: World, installed: Sequence[Deb], archs: Sequence[str]) -> dict[str, str]:
    """Return what apt would upgrade, by package."""
    get = require_tool("apt-get")
    (folder / "key.gpg").write_bytes(world.source.keyring)
    suites = ("bookworm", "bookworm-security")
    lines = "".join(f"deb [signed-by={folder}/key.gpg] {world.source.uri} {suite} main\n" for suite in suites)
    config = private_apt(folder / "apt", lines, status_of(installed), "", "", archs=archs)
    environment = {"APT_CONFIG": config, "LC_ALL": "C"}
    subprocess.run([get, "-q", "update"], env=environment, check=True, capture_output=True)
    said = subprocess.run([get, "-s", "upgrade"], env=environment, check=True, capture_output=True).stdout.decode()
    return dict(re.findall(r"^Inst (\S+) \[\S+\] \((\S+)", said, re.MULTILINE))


async def upgraded(world: World, proxy: Proxy, name: str, installed: Sequence[Deb], platform: str) -> ResolveResponse:
    """Resolve an image with these packages."""
    world.upstream.add_image(name, "1", [make_layer(files_of(installed))], platform=platform)
    return await ask(proxy, f"{world.upstream.host}/{name}:1", platforms=(platform,))


def moved(answer: ResolveResponse) -> dict[str, str]:
    return {item.package: item.to_version for item in answer.upgrades}


@pytest.mark.parametrize("arch", ARCHS)
async def test_an_image_of_any_architecture_gets_what_apt_would_give_it(
    world: World, proxy: Proxy, tmp_path: Path, arch: str
) -> None:
    installed = [item for item in offered()[0] if item.arch in {arch, "all"}]
    platform = platform_of(arch)
    config = f"{platform.os}/{platform.architecture}"
    answer = await upgraded(world, proxy, f"team/{arch}", installed, config)
    wanted = await asyncio.to_thread(judge, tmp_path, world, installed, (arch,))
    assert moved(answer) == wanted, answer.skipped
    assert {"base", "text", "tool", "twin"} <= wanted.keys()
    assert all(item.source.startswith(world.source.uri.partition("://")[2]) for item in answer.upgrades)


@pytest.mark.parametrize(
    ("native", "foreign"),
    [
        (("base", "twin", "tool", "text"), ("twin",)),
        (("base", "lagging"), ("lagging", "tool", "twin")),
        (("base", "text"), ("only",)),
        (("base", "twin"), ("base", "twin", "lagging", "only", "tool")),
    ],
)
async def test_packages_of_a_second_architecture_move_as_apt_moves_them(
    world: World, proxy: Proxy, tmp_path: Path, native: Sequence[str], foreign: Sequence[str]
) -> None:
    release = offered()[0]
    installed = [item for item in release if item.arch in {"amd64", "all"} and item.name in native]
    installed += [item for item in release if item.arch == "i386" and item.name in foreign and item.name != "base"]
    name = f"team/{'-'.join(native)}-and-{'-'.join(foreign)}"
    answer = await upgraded(world, proxy, name, installed, "linux/amd64")
    wanted = await asyncio.to_thread(judge, tmp_path, world, installed, ("amd64", "i386"))
    assert moved(answer) == wanted, answer.skipped
    assert any(package.endswith(":i386") for package in wanted) or "lagging" in native
    kept = {item.package for item in answer.skipped}
    assert ("lagging" in native) == ("lagging" in kept)


async def test_a_source_without_the_architecture_is_named_and_the_others_serve(world: World, proxy: Proxy) -> None:
    installed = [deb("base", "1", "amd64"), deb("twin", "1", "amd64", **SAME), deb("twin", "1", "sparc64", **SAME)]
    answer = await upgraded(world, proxy, "team/sparc", installed, "linux/amd64")
    assert moved(answer) == {"base": "2"}
    reasons = " ".join(item.reason for item in answer.skipped)
    assert "the release offers no packages of main for sparc64" in reasons
    assert "must have the version of twin:sparc64" in reasons


async def test_an_image_of_an_architecture_that_no_source_has_is_unsupported(world: World, proxy: Proxy) -> None:
    answer = await upgraded(world, proxy, "team/alpha", [deb("base", "1", "alpha")], "linux/alpha")
    assert answer.outcome is Outcome.UNSUPPORTED
    assert "the release offers no packages of main for alpha" in " ".join(item.reason for item in answer.skipped)


async def test_an_image_whose_packages_are_for_every_architecture_is_patched(world: World, proxy: Proxy) -> None:
    answer = await upgraded(world, proxy, "team/texts", [deb("text", "1", "all")], "linux/arm64")
    assert moved(answer) == {"text": "2"}
