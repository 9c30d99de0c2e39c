"""Skopeo and podman judge the embedded mirror, over HTTP and as an OCI layout on disk."""

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from aiohttp import web

from proxy.access import Access
from proxy.mirror import EmbeddedMirror, Naming
from proxy.oci.digest import Digest
from proxy.oci.reference import ImageRef
from proxy.pulltokens import NamespacePasswords, PullTokens
from proxy.rights import Rights
from proxy.v2 import add_v2_routes
from tests.simulators.images import build, build_index
from tests.support import require_root, require_tool

pytestmark = pytest.mark.interop

NAME = ImageRef("mirror.example", "docker.io/library/nginx")
SRC = "src-" + "ab" * 16


async def run(tool: str, *arguments: str) -> str:
    command = (require_tool(tool), *arguments)
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe)
    out, errors = await process.communicate()
    assert process.returncode == 0, f"{' '.join(command)}: {errors.decode()}"
    return out.decode()


@pytest.fixture
async def mirror(tmp_path: Path) -> AsyncIterator[EmbeddedMirror]:
    opened = EmbeddedMirror(tmp_path / "mirror", Naming("mirror.example"), 1 << 30)
    yield opened
    await opened.close()


@pytest.fixture
async def address(mirror: EmbeddedMirror) -> AsyncIterator[str]:
    app = web.Application()
    add_v2_routes(app, mirror, Access("admend", "secret"))
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    yield f"{host}:{port}"
    await runner.cleanup()


async def test_skopeo_copies_an_index_in_and_out(mirror: EmbeddedMirror, address: str, tmp_path: Path) -> None:
    built = build_index(build("one", size=3_000_000), build("two"))
    await mirror.put_image(NAME, built.top, built.children, built.files(tmp_path / "b"), tags=["1.25"])
    out = f"oci:{tmp_path}/out:x"
    source = f"docker://{address}/{NAME.repository}:1.25"
    await run("skopeo", "copy", "--all", "--src-tls-verify=false", source, out)
    await run(
        "skopeo", "copy", "--all", "--dest-tls-verify=false", "--dest-creds=admend:secret", out,
        f"docker://{address}/team/copy:new",
    )  # fmt: skip
    found = await mirror.get_manifest(ImageRef("mirror.example", "team/copy", "new"))
    assert found is not None
    assert found.raw == built.top.raw
    listed = await run("skopeo", "list-tags", "--tls-verify=false", f"docker://{address}/team/copy")
    assert json.loads(listed)["Tags"] == ["new"]
    await run("skopeo", "delete", "--tls-verify=false", "--creds=admend:secret", f"docker://{address}/team/copy:new")
    assert await mirror.tags(ImageRef("mirror.example", "team/copy")) == ()


async def test_skopeo_without_credentials_pulls_and_does_not_push(
    mirror: EmbeddedMirror, address: str, tmp_path: Path
) -> None:
    built = build("one")
    await mirror.put_image(NAME, built.top, (), built.files(tmp_path / "b"), tags=["1"])
    await run(
        "skopeo", "copy", "--src-tls-verify=false", f"docker://{address}/{NAME.repository}@{built.top.digest}",
        f"oci:{tmp_path}/out:x",
    )  # fmt: skip
    with pytest.raises(AssertionError, match="credentials"):
        await run(
            "skopeo", "copy", "--dest-tls-verify=false", f"oci:{tmp_path}/out:x", f"docker://{address}/team/copy:x"
        )


async def test_skopeo_reads_the_folder_itself(mirror: EmbeddedMirror, tmp_path: Path) -> None:
    built = build("one")
    await mirror.put_image(NAME, built.top, (), built.files(tmp_path / "b"), tags=["1.25", SRC])
    await asyncio.sleep(0.5)  # index.json may lag behind by a moment
    for tag in ("1.25", SRC, f"sha256-{built.top.digest.hex}.patched"):
        raw = await run("skopeo", "inspect", "--raw", f"oci:{tmp_path}/mirror:{NAME.repository}:{tag}")
        assert Digest.of(raw.encode()) == built.top.digest
    await run("skopeo", "copy", f"oci:{tmp_path}/mirror:{NAME.repository}:1.25", f"dir:{tmp_path}/out")


@pytest.fixture
def runroot() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="adm-") as folder:  # podman refuses one of over 50 characters
        yield folder


async def test_podman_pulls_from_the_mirror(mirror: EmbeddedMirror, address: str, tmp_path: Path, runroot: str) -> None:
    require_root()
    built = build("hello from the mirror")
    await mirror.put_image(NAME, built.top, (), built.files(tmp_path / "b"), tags=["1"])
    storage = ("--root", str(tmp_path / "root"), "--runroot", runroot, "--storage-driver", "vfs")
    name = f"{address}/{NAME.repository}@{built.top.digest}"
    await run("podman", *storage, "pull", "-q", "--tls-verify=false", name)
    folder = (await run("podman", *storage, "image", "mount", name)).strip()
    text = await asyncio.to_thread(Path(folder, "hello").read_text)
    assert text == "hello from the mirror"
    await run("podman", *storage, "image", "umount", name)


async def test_skopeo_exchanges_credentials_for_tokens_when_pulls_need_them(
    mirror: EmbeddedMirror, tmp_path: Path
) -> None:
    passwords = NamespacePasswords(b"k" * 32)
    access = Access(
        "admend", "secret", pull="token", namespaces=passwords, tokens=PullTokens(b"k" * 32, "mirror.example")
    )
    app = web.Application()
    add_v2_routes(
        app, mirror, access, rights=Rights(mirror.visibility, granted=lambda *pair: pair == ("shop", NAME.repository))
    )
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    try:
        built = build("one")
        await mirror.put_image(NAME, built.top, (), built.files(tmp_path / "b"), tags=["1"])
        await mirror.set_visibility(NAME.repository, "private")
        source, out = f"docker://{host}:{port}/{NAME.repository}:1", f"oci:{tmp_path}/out:x"
        for creds in (["--src-no-creds"], ["--src-creds=bank:" + passwords.password("bank")], ["--src-creds=shop:x"]):
            with pytest.raises(AssertionError, match=r"unauthorized|denied|authentication|may not"):
                await run("skopeo", "copy", "--src-tls-verify=false", *creds, source, out)
        for creds in ("admend:secret", "shop:" + passwords.password("shop")):
            await run("skopeo", "copy", "--src-tls-verify=false", f"--src-creds={creds}", source, out)
        await run(
            "skopeo", "copy", "--dest-tls-verify=false", "--dest-creds=admend:secret", out,
            f"docker://{host}:{port}/team/copy:new",
        )  # fmt: skip
    finally:
        await runner.cleanup()
