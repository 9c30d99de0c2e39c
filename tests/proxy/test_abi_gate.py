"""The ABI gate through a whole proxy: a library that lost a symbol stays, the rest of the image is patched."""

from dataclasses import replace
from pathlib import Path

from proxy.api import Outcome
from proxy.serve import Proxy
from tests.proxy.asking import ask, own_world
from tests.proxy.engine.elves import Sym, make_elf
from tests.simulators.debian_source import Deb, DebFile, Suite
from tests.simulators.registry import make_layer
from tests.simulators.world import FIXED, RELEASE_DATE, RELEASED, World, make_packages, make_rootfs

PATH = "usr/lib/x86_64-linux-gnu/libx.so.1"
PLUGIN = make_elf("", needed=["libx.so.1"], symbols=[Sym("run", "X_1", "libx.so.1")])


def libx(version: str, *symbols: str) -> Deb:
    data = make_elf("libx.so.1", symbols=[Sym(name, "@X_1") for name in symbols])
    return Deb("libx1", version, "amd64", files=(DebFile(PATH, data),))


def publish(world: World, new: Deb) -> None:
    """Offer the world's packages and `new` in the security suite."""
    release = Suite("bookworm", (*make_packages(RELEASED), libx(RELEASED, "run", "stop")), date=RELEASE_DATE)
    fixes = Suite("bookworm-security", (*make_packages(FIXED)[1:], new), name="stable-security")
    world.source.publish((release, replace(fixes, date=RELEASE_DATE.replace(month=2))))


def push(world: World, plugin: bytes) -> str:
    files = make_rootfs((*make_packages(RELEASED), libx(RELEASED, "run", "stop")), {"opt/app/plugin": plugin})
    world.upstream.add_image("team/abi", "1", [make_layer(files)], platform="linux/amd64")
    return f"{world.upstream.host}/team/abi:1"


async def test_a_library_without_a_symbol_that_the_image_imports_stays(tmp_path: Path) -> None:
    async with own_world(tmp_path) as world:
        publish(world, libx(FIXED, "stop"))
        image = push(world, PLUGIN)
        async with Proxy(world.config()) as proxy:
            answer = await ask(proxy, image, platforms=("linux/amd64",))
    assert answer.outcome is Outcome.PATCHED
    assert {item.package for item in answer.upgrades} == {"libdemo1", "demo"}
    (skip,) = answer.skipped
    assert skip.package == "libx1"
    assert "/opt/app/plugin needs run@X_1 of libx.so.1" in skip.reason


async def test_a_library_that_lost_what_nobody_imports_moves(tmp_path: Path) -> None:
    async with own_world(tmp_path) as world:
        publish(world, libx(FIXED, "run"))
        image = push(world, PLUGIN)
        async with Proxy(world.config()) as proxy:
            answer = await ask(proxy, image, platforms=("linux/amd64",))
    assert answer.outcome is Outcome.PATCHED
    assert {item.package for item in answer.upgrades} == {"libdemo1", "demo", "libx1"}
    assert answer.skipped == ()
