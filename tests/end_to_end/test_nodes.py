"""containerd, and skopeo for CRI-O, pull through the proxy as nodes do, with no webhook; all images are simulated."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from proxy.api import ResolveRequest
from proxy.canary import CANARY, CanaryKeeper
from proxy.config import ListenConfig, MirrorConfig
from proxy.oci.digest import Digest
from proxy.oci.reference import ImageRef
from proxy.serve import Proxy
from tests.end_to_end.tools import ToolFailed, free_port, run
from tests.simulators.world import FIXED, RELEASED, World
from tests.support import require_root, require_tool, until

pytestmark = [pytest.mark.interop, pytest.mark.asyncio(loop_scope="module")]

OFF = ("io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt", "io.containerd.internal.v1.tracing")


@dataclass(frozen=True)
class Site:
    """A world, a proxy in it, and a containerd that finds the way by a folder of hosts.toml files."""

    world: World
    proxy: Proxy
    folder: Path

    async def ctr(self, *words: str | Path) -> str:
        return await run("ctr", "--address", self.folder / "containerd.sock", "--namespace", "test", *words)

    def write_hosts(self, *hosts: str, upstream: str = "") -> Path:
        """Write the hosts.toml of the upstream: these are asked in turn, and at last itself."""
        upstream = upstream or self.world.upstream.host
        folder = self.folder / "hosts" / "-".join(each.rpartition(":")[2] for each in hosts) / upstream
        folder.mkdir(parents=True, exist_ok=True)
        tables = [f'[host."http://{host}"]\n  capabilities = ["pull", "resolve"]\n' for host in hosts]
        (folder / "hosts.toml").write_text(f'server = "http://{upstream}"\n\n{"".join(tables)}')
        return folder.parent

    async def pull(self, image: str, hosts: Path) -> str:
        """Pull an image and return the digest that containerd has under its name."""
        await self.ctr("images", "pull", "--hosts-dir", hosts, "--snapshotter", "native", image)
        listed = await self.ctr("images", "list", f"name=={image}")
        return next(word for word in listed.split() if word.startswith("sha256:"))

    async def read(self, image: str, path: str) -> bytes:
        """Return a file of an image that was pulled, as containerd unpacked it."""
        target = self.folder / "mounted"
        target.mkdir(exist_ok=True)
        await self.ctr("images", "mount", "--snapshotter", "native", image, target)
        try:
            return (target / path).read_bytes()
        finally:
            await self.ctr("images", "unmount", "--rm", "--snapshotter", "native", target)

    async def patched(self, image: str) -> str:
        answer = await self.proxy.resolve.resolve(ResolveRequest(image=image, wait_seconds=60))
        return answer.patched.rpartition("@")[2]

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.proxy.port}"


@asynccontextmanager
async def containerd(folder: Path) -> AsyncIterator[None]:
    """Run containerd with everything of its own under a folder."""
    config = {
        "root": str(folder / "root"),
        "state": str(folder / "state"),
        "temp": str(folder / "temp"),
        "disabled_plugins": list(OFF),
    }
    lines = ["version = 2", *(f"{key} = {json.dumps(value)}" for key, value in config.items())]
    lines += ["[grpc]", f"address = {json.dumps(str(folder / 'containerd.sock'))}"]
    (folder / "config.toml").write_text("\n".join(lines))
    log = (folder / "containerd.log").open("wb")
    program = require_tool("containerd")
    env = {**os.environ, "PATH": f"{Path(program).parent}:{os.environ['PATH']}"}
    process = await asyncio.create_subprocess_exec(
        program, "--config", folder / "config.toml", stdout=log, stderr=log, env=env
    )
    try:
        for _ in range(200):
            if (folder / "containerd.sock").exists() or process.returncode is not None:
                break
            await asyncio.sleep(0.05)
        assert process.returncode is None, (folder / "containerd.log").read_text()
        yield
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await process.wait()
        log.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    require_root()
    require_tool("ctr")
    folder = tmp_path_factory.mktemp("c")  # short: a socket's path has 107 characters at the most
    async with World(folder / "world") as world, containerd(folder):
        port = free_port()
        mirror = MirrorConfig(reference=f"127.0.0.1:{port}", path=folder / "mirror")
        async with Proxy(world.config(listen=ListenConfig(port=port), mirror=mirror)) as proxy:
            yield Site(world, proxy, folder)


async def test_a_tag_gives_the_patched_image_unpacked_as_containerd_does(site: Site) -> None:
    image = site.world.add_image()
    digest = await site.pull(image, site.write_hosts(site.address))
    assert digest == await site.patched(image)
    assert await site.read(image, "usr/bin/demo") == f"demo {FIXED} for amd64\n".encode()


async def test_a_digest_gives_exactly_that_original(site: Site) -> None:
    image = site.world.add_image()
    name, _, tag = image.partition("/")[2].rpartition(":")
    original = site.world.upstream.tags[name][tag]
    asked = f"{image}@{original}"
    assert await site.pull(asked, site.write_hosts(site.address)) == str(original)
    assert await site.read(asked, "usr/bin/demo") == f"demo {RELEASED} for amd64\n".encode()


async def test_an_image_of_several_platforms_is_pulled_for_this_one(site: Site) -> None:
    site.world.push_index("team/multi", "1")
    image = f"{site.world.upstream.host}/team/multi:1"
    assert await site.pull(image, site.write_hosts(site.address)) == await site.patched(image)
    assert await site.read(image, "usr/bin/demo") == f"demo {FIXED} for amd64\n".encode()


async def test_a_proxy_that_is_away_costs_the_patch_and_not_the_pod(site: Site) -> None:
    image = site.world.add_image()
    name, _, tag = image.partition("/")[2].rpartition(":")
    digest = await site.pull(image, site.write_hosts(f"127.0.0.1:{free_port()}"))
    assert digest == str(site.world.upstream.tags[name][tag])


async def test_a_patch_that_takes_too_long_costs_the_patch_and_not_the_pod(site: Site) -> None:
    image = site.world.add_image()
    name, _, tag = image.partition("/")[2].rpartition(":")
    port = free_port()
    mirror = MirrorConfig(reference=f"127.0.0.1:{port}", path=site.folder / "hasty", pull_wait=0.0)
    config = site.world.config("hasty", listen=ListenConfig(port=port), mirror=mirror)
    async with Proxy(config):
        digest = await site.pull(image, site.write_hosts(f"127.0.0.1:{port}"))
    assert digest == str(site.world.upstream.tags[name][tag])


async def test_an_image_that_is_nowhere_is_told_by_containerd(site: Site) -> None:
    image = f"{site.world.upstream.host}/no/such:image"
    with pytest.raises(ToolFailed, match="not found"):
        await site.pull(image, site.write_hosts(site.address))


async def test_the_canary_is_pulled_and_unpacked(site: Site) -> None:
    async with CanaryKeeper(site.proxy.mirror, site.proxy.engine.store) as keeper:
        await until(lambda: not keeper.problem)
        image = str(site.proxy.mirror.name_for(CANARY))
        await site.ctr("images", "pull", "--plain-http", "--snapshotter", "native", image)
        assert (await site.read(image, "wait"))[:4] == b"\x7fELF"


async def test_cri_o_finds_the_way_by_registries_conf(site: Site, tmp_path: Path) -> None:
    """CRI-O and podman pull with the library that skopeo pulls with."""
    image = site.world.add_image()
    place = site.proxy.mirror.name_for(ImageRef.parse(image)).name.rpartition("/team/")[0]
    conf = tmp_path / "registries.conf"
    conf.write_text(
        f'[[registry]]\nlocation = "{site.world.upstream.host}"\ninsecure = true\n'
        f'[[registry.mirror]]\nlocation = "{place}"\ninsecure = true\n'
    )
    pull = ("skopeo", "--registries-conf", conf, "copy", "--preserve-digests")
    await run(*pull, f"docker://{image}", f"dir:{tmp_path / 'patched'}")
    pulled = Digest.of((tmp_path / "patched" / "manifest.json").read_bytes())
    assert str(pulled) == await site.patched(image)
    name, _, tag = image.partition("/")[2].rpartition(":")
    original = site.world.upstream.tags[name][tag]
    await run(*pull, f"docker://{image.rpartition(':')[0]}@{original}", f"dir:{tmp_path / 'original'}")
    assert Digest.of((tmp_path / "original" / "manifest.json").read_bytes()) == original
