"""A process that pushes in a loop is killed at random moments; whatever is visible afterwards is whole."""

import random
import subprocess
import sys
import time
from pathlib import Path

from proxy.mirror import EmbeddedMirror, Naming
from proxy.oci.digest import Digest
from proxy.oci.manifest import Index, Manifest
from proxy.oci.reference import ImageRef
from tests.simulators.images import build, build_index

ROOT = Path(__file__).parents[3]
KILLS = 20
NAME = ImageRef("mirror.example", "docker.io/library/nginx")

PUSHER = """
import asyncio, os, sys
from pathlib import Path
from proxy.mirror import EmbeddedMirror, Naming, patched_tag
from tests.proxy.mirror.test_killed import NAME
from tests.simulators.images import build, build_index

async def main(root, round):
    mirror = EmbeddedMirror(root / "mirror", Naming("mirror.example"), 1 << 30, grace=0.0)
    number = 0
    while True:
        number += 1
        text = f"{round}-{number}"
        built = build_index(build(text + "a", size=300_000), build(text + "b"))
        files = built.files(root / "work")
        await mirror.put_image(NAME, built.top, built.children, files, tags=[f"t{number % 7}", "src-" + "ab" * 16])
        signature = build(text + "s", subject=built.top, artifact_type="application/sig")
        await mirror.put_artifact(NAME.with_digest(signature.top.digest), signature.top, signature.data)
        if number == 1:
            print("ready", flush=True)
        await mirror.delete(NAME.with_tag(patched_tag(built.top.digest)))
        if number % 3 == 0:
            await mirror.retain(0, set())

asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
"""


async def check_whole(mirror: EmbeddedMirror) -> int:
    """Check every visible manifest and every blob that one references; returns how many tags there are."""
    for repository in mirror.layout.repositories():
        for digest in mirror.layout.manifests(repository):
            manifest = await mirror.get_manifest(ImageRef("mirror.example", repository, None, digest))
            assert manifest is not None
            assert mirror.missing(repository, manifest) == ()
            if isinstance(manifest, Manifest):
                for item in (manifest.config, *manifest.layers):
                    assert Digest.of(mirror.blobs.path(item.digest).read_bytes()) == item.digest
    tags = await mirror.tags(NAME)
    for tag in tags:
        index = await mirror.get_manifest(NAME.with_tag(tag))
        assert isinstance(index, Index)
    return len(tags)


async def test_a_process_killed_at_any_moment_leaves_every_visible_image_whole(tmp_path: Path) -> None:
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    for kill in range(KILLS):
        push_until_killed(tmp_path, str(kill), chance.uniform(0.0, 0.1))
        mirror = EmbeddedMirror(tmp_path / "mirror", Naming("mirror.example"), 1 << 30, grace=0.0)
        assert await check_whole(mirror) > 0, f"seed {seed}"
        if kill == KILLS - 1:
            built = build_index(build("after"), build("wards"))
            await mirror.put_image(NAME, built.top, built.children, built.files(tmp_path / "work"))
            await mirror.retain(0, set())
            await check_whole(mirror)
        await mirror.close()
    assert list((tmp_path / "mirror").rglob(".tmp-*")) == []


def push_until_killed(root: Path, name: str, seconds: float) -> None:
    with subprocess.Popen([sys.executable, "-c", PUSHER, str(root), name], stdout=subprocess.PIPE, cwd=ROOT) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        time.sleep(seconds)
        child.kill()
