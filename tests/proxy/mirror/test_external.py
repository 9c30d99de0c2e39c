"""The external mirror, on the simulator, on the mirror's own /v2/ routes and on docker-registry."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from proxy.access import Access
from proxy.config import MirrorConfig
from proxy.credentials import Credentials
from proxy.egress import Egress, EgressPolicy
from proxy.errors import MalformedInput, TrustFailure, Unsupported
from proxy.mirror import EmbeddedMirror, ExternalMirror, Naming, open_mirror, patched_tag
from proxy.mirror.tags import superseded_tag
from proxy.oci.digest import Digest
from proxy.oci.manifest import Manifest
from proxy.oci.reference import ImageRef
from proxy.registry import Registry
from proxy.v2 import add_v2_routes
from tests.simulators.images import Built, build, build_index
from tests.simulators.registry import RegistrySimulator
from tests.support import require_tool

NAME = ImageRef("nodes.example", "team/docker.io/library/nginx")
SRC = "src-" + "ab" * 16
DAY = 86400.0

pytestmark = pytest.mark.parametrize(
    "kind", ["simulator", "embedded", pytest.param("docker-registry", marks=pytest.mark.interop)]
)


@asynccontextmanager
async def own_registry(folder: Path) -> AsyncIterator[str]:
    """Serve an embedded mirror that asks for credentials."""
    mirror = EmbeddedMirror(folder, Naming("own.example"), 1 << 30)
    app = web.Application()
    add_v2_routes(app, mirror, Access("user", "secret"))
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
        await mirror.close()


def configure(folder: Path) -> tuple[str, Path]:
    folder.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{probe.getsockname()[1]}"
    config = folder / "config.yml"
    config.write_text(
        f"version: 0.1\nlog: {{level: error}}\nhttp: {{addr: '{host}'}}\n"
        f"storage: {{delete: {{enabled: true}}, filesystem: {{rootdirectory: '{folder}/data'}}}}\n"
    )
    return host, config


@asynccontextmanager
async def docker_registry(folder: Path) -> AsyncIterator[str]:
    """Run a docker-registry that deletes."""
    binary = require_tool("docker-registry")
    host, config = configure(folder)
    quiet = asyncio.subprocess.DEVNULL
    server = await asyncio.create_subprocess_exec(binary, "serve", str(config), stdout=quiet, stderr=quiet)
    try:
        for _ in range(200):
            try:
                _, writer = await asyncio.open_connection(*host.split(":"))
            except ConnectionRefusedError:
                await asyncio.sleep(0.02)
            else:
                writer.close()
                break
        yield host
    finally:
        server.terminate()
        await server.wait()


@pytest.fixture
async def mirror(kind: str, tmp_path: Path) -> AsyncIterator[ExternalMirror]:
    async with AsyncExitStack() as stack:
        if kind == "simulator":
            host = (await stack.enter_async_context(RegistrySimulator())).host
        elif kind == "embedded":
            host = await stack.enter_async_context(own_registry(tmp_path / "own"))
        else:
            host = await stack.enter_async_context(docker_registry(tmp_path / "registry"))
        egress = Egress(EgressPolicy(named=frozenset({host}), plain_http=frozenset({host}), attempts=1))
        stack.push_async_callback(egress.close)
        config = tmp_path / "config.json"
        config.write_text(f'{{"auths": {{"{host}": {{"username": "user", "password": "secret"}}}}}}')
        registry = Registry(egress, Credentials.read(config))
        opened = open_mirror(MirrorConfig(reference="nodes.example", registry=f"{host}/team"), registry)
        assert isinstance(opened, ExternalMirror)
        yield opened
        await opened.close()


async def put(mirror: ExternalMirror, built: Built, folder: Path, *tags: str, name: ImageRef = NAME) -> Digest:
    await mirror.put_image(name, built.top, built.children, built.files(folder), tags=tags)
    return built.top.digest


async def test_an_image_is_found_by_digest_and_by_tag(mirror: ExternalMirror, tmp_path: Path) -> None:
    assert mirror.name_for(ImageRef.parse("nginx")) == NAME.with_tag("latest")
    assert await mirror.get_manifest(NAME.with_tag("1.25")) is None
    assert await mirror.tags(NAME) == ()
    built = build_index(build("one", size=1_000_000), build("two"))
    digest = await put(mirror, built, tmp_path / "b", "1.25")
    for ref in (NAME.with_digest(digest), NAME.with_tag("1.25"), NAME.with_tag(patched_tag(digest))):
        assert await mirror.get_manifest(ref) == built.top
    assert await mirror.tags(NAME) == ("1.25", patched_tag(digest))
    layer = built.children[1].layers[0]
    assert await mirror.read_blob(NAME, layer, limit=1 << 20) == built.data[layer.digest]
    with pytest.raises(TrustFailure, match="over the 3 bytes"):
        await mirror.read_blob(NAME, layer, limit=3)


async def test_blobs_that_are_there_need_no_file(mirror: ExternalMirror, tmp_path: Path) -> None:
    built = build("one")
    await put(mirror, built, tmp_path / "b")
    other = ImageRef(NAME.host, "team/docker.io/library/other")
    for name in (NAME, other):  # the second is mounted from the first
        await mirror.put_image(name, built.top, (), {})
    with pytest.raises(MalformedInput, match="neither given nor in the mirror"):
        await mirror.put_image(NAME, build("two").top, (), {})


async def test_a_tag_is_exchanged_only_when_it_is_where_the_writer_thinks(
    mirror: ExternalMirror, tmp_path: Path
) -> None:
    one, two = [await put(mirror, build(text), tmp_path / "b") for text in ("one", "two")]
    ref = NAME.with_tag(SRC)
    assert await mirror.exchange_tag(ref, one, None)
    assert not await mirror.exchange_tag(ref, two, None)
    assert await mirror.exchange_tag(ref, two, one)
    assert any(tag.startswith(superseded_tag(one, 0)[:-1]) for tag in await mirror.tags(NAME))
    with pytest.raises(MalformedInput, match="not there"):
        await mirror.move_tag(ref, Digest.of(b"nothing"))
    with pytest.raises(MalformedInput, match="only ever"):
        await mirror.move_tag(NAME.with_tag(patched_tag(one)), two)


async def test_an_artifact_is_listed_with_its_subject(mirror: ExternalMirror, tmp_path: Path) -> None:
    built = build("one")
    assert isinstance(built.top, Manifest)
    digest = await put(mirror, built, tmp_path / "b")
    for kind in ("application/a", "application/b"):
        artifact = build(kind, subject=built.top, artifact_type=kind)
        assert isinstance(artifact.top, Manifest)
        await mirror.put_artifact(NAME.with_digest(artifact.top.digest), artifact.top, artifact.data)
    record = build("record")
    assert isinstance(record.top, Manifest)
    await mirror.put_artifact(NAME.with_tag(f"{SRC}.result"), record.top, record.data)
    assert await mirror.get_manifest(NAME.with_tag(f"{SRC}.result")) == record.top
    assert len(await mirror.referrers(NAME.with_digest(digest))) == 2
    (only,) = await mirror.referrers(NAME.with_digest(digest), "application/b")
    assert only.artifact_type == "application/b"


async def test_a_superseded_image_goes_after_its_time_with_its_platforms(
    mirror: ExternalMirror, tmp_path: Path
) -> None:
    old, new = [build_index(build(f"{n}a"), build(f"{n}b")) for n in range(2)]
    for built in (old, new):
        await put(mirror, built, tmp_path / "b")
        await mirror.move_tag(NAME.with_tag(SRC), built.top.digest)
    assert await mirror.retain(DAY, set()) == ()
    assert await mirror.retain(0, {old.children[0].digest}) == ()
    await asyncio.sleep(1.1 - time.time() % 1)  # the mark counts whole seconds
    assert await mirror.retain(0, set()) == (old.top.digest,)
    for manifest in (old.top, *old.children):
        assert await mirror.get_manifest(NAME.with_digest(manifest.digest)) is None
    for manifest in (new.top, *new.children):
        assert await mirror.get_manifest(NAME.with_digest(manifest.digest)) is not None


async def test_what_is_not_there_is_not_deleted_and_refusals_are_named(
    mirror: ExternalMirror, tmp_path: Path, kind: str
) -> None:
    digest = await put(mirror, build("one"), tmp_path / "b", "1.25")
    if kind == "docker-registry":
        with pytest.raises(Unsupported, match="does not delete"):
            await mirror.delete(NAME.with_tag("1.25"))
    else:
        assert await mirror.delete(NAME.with_tag("1.25"))
    assert await mirror.delete(NAME.with_digest(digest))
    assert not await mirror.delete(NAME.with_digest(digest))
