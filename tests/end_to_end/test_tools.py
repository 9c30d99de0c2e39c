"""Cosign, skopeo and docker-registry judge what a proxy puts into its mirror; all images and packages are simulated."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from proxy.api import Outcome, ResolveRequest, ResolveResponse
from proxy.config import ListenConfig, MirrorConfig, ProxyConfig
from proxy.oci.digest import Digest
from proxy.oci.manifest import OCI_MANIFEST
from proxy.oci.reference import ImageRef
from proxy.serve import Proxy
from proxy.trust import signature_tag
from tests.end_to_end.tools import ToolFailed, docker_registry, free_port, run
from tests.simulators.world import FIXED, LOGIN, TOKEN, World, spy_on

pytestmark = [pytest.mark.interop, pytest.mark.asyncio(loop_scope="module")]

COSIGN = ("cosign", "verify", "--insecure-ignore-tlog=true")
OCI11 = {"COSIGN_EXPERIMENTAL": "1"}


@dataclass(frozen=True)
class Site:
    """A world and a proxy in it, whose mirror tools can reach under its own name."""

    world: World
    proxy: Proxy
    public: Path

    async def patch(self, image: str) -> ResolveResponse:
        answer = await self.proxy.resolve.resolve(ResolveRequest(image=image, wait_seconds=60))
        assert answer.outcome is Outcome.PATCHED, answer.reason
        return answer

    async def put_manifest(self, repository: str, reference: str, raw: bytes) -> None:
        url = f"http://{self.proxy.config.mirror.reference}/v2/{repository}/manifests/{reference}"
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": OCI_MANIFEST}
        async with httpx.AsyncClient(trust_env=False) as client:
            answer = await client.put(url, content=raw, headers=headers)
        assert answer.status_code == 201, answer.text


def embedded(world: World, folder: str) -> ProxyConfig:
    """Return settings of a proxy whose embedded mirror has the name that it listens on."""
    port = free_port()
    mirror = MirrorConfig(reference=f"127.0.0.1:{port}", path=world.folder / folder / "mirror")
    return world.config(folder, listen=ListenConfig(port=port), mirror=mirror)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    async with World(folder) as world, Proxy(embedded(world, "proxy")) as proxy:
        public = folder / "signing.pub"
        public.write_bytes(proxy.keys.signing.public.render_pem())
        yield Site(world, proxy, public)


async def test_cosign_accepts_the_signature_tag(site: Site) -> None:
    answer = await site.patch(site.world.add_image())
    claims = json.loads(await run(*COSIGN, "--key", site.public, answer.patched))
    assert claims[0]["critical"]["image"]["docker-manifest-digest"] == answer.patched.rpartition("@")[2]
    source = ImageRef.parse(answer.source)
    assert claims[0]["optional"]["admend.dev/source-digest"] == str(source.digest)
    assert claims[0]["optional"]["admend.dev/source-repository"] == source.name


async def test_cosign_accepts_the_signature_referrer(site: Site) -> None:
    answer = await site.patch(site.world.add_image())
    patched = ImageRef.parse(answer.patched)
    assert patched.digest is not None
    await site.proxy.mirror.delete(patched.with_tag(signature_tag(patched.digest)))
    with pytest.raises(ToolFailed, match="no signatures found"):
        await run(*COSIGN, "--key", site.public, answer.patched)
    claims = json.loads(await run(*COSIGN, "--experimental-oci11", "--key", site.public, answer.patched, env=OCI11))
    assert claims[0]["critical"]["image"]["docker-manifest-digest"] == str(patched.digest)


async def test_cosign_refuses_another_key(site: Site, tmp_path: Path) -> None:
    answer = await site.patch(site.world.add_image())
    await run("cosign", "generate-key-pair", "--output-key-prefix", tmp_path / "other", env={"COSIGN_PASSWORD": ""})
    with pytest.raises(ToolFailed, match="invalid signature"):
        await run(*COSIGN, "--key", tmp_path / "other.pub", answer.patched)


async def test_cosign_refuses_the_signature_attached_to_another_image(site: Site) -> None:
    signed, original = await site.patch(site.world.add_image()), site.world.add_image()
    patched = ImageRef.parse(signed.patched)
    other = await pushed_by_hand(site, original, patched.repository)
    assert patched.digest is not None
    signature = await site.proxy.mirror.get_manifest(patched.with_tag(signature_tag(patched.digest)))
    assert signature is not None
    await site.put_manifest(patched.repository, signature_tag(other), signature.raw)
    with pytest.raises(ToolFailed, match="no matching signatures"):
        await run(*COSIGN, "--key", site.public, patched.with_digest(other))
    await run(*COSIGN, "--key", site.public, signed.patched)


async def test_cosign_refuses_the_referrer_attached_to_another_image(site: Site) -> None:
    signed, original = await site.patch(site.world.add_image()), site.world.add_image()
    patched = ImageRef.parse(signed.patched)
    other = await pushed_by_hand(site, original, patched.repository)
    (entry,) = await site.proxy.mirror.referrers(patched)
    referrer = await site.proxy.mirror.get_manifest(patched.with_digest(entry.digest))
    assert referrer is not None
    document = json.loads(referrer.raw)
    mine = await site.proxy.mirror.get_manifest(patched.with_digest(other))
    assert mine is not None
    document["subject"] = mine.descriptor.to_json()
    raw = json.dumps(document).encode()
    await site.put_manifest(patched.repository, str(Digest.of(raw)), raw)
    with pytest.raises(ToolFailed, match=r"no (matching )?signatures"):
        await run(*COSIGN, "--experimental-oci11", "--key", site.public, patched.with_digest(other), env=OCI11)


async def pushed_by_hand(site: Site, image: str, repository: str) -> Digest:
    """Push an upstream image into the mirror as it is; returns its digest."""
    to = f"docker://{site.proxy.config.mirror.reference}/{repository}:by-hand"
    credentials = ("--dest-creds", LOGIN)
    tls = ("--src-tls-verify=false", "--dest-tls-verify=false")
    await run("skopeo", "copy", "--preserve-digests", *tls, *credentials, f"docker://{image}", to)
    name = image.split("/", 1)[1].rpartition(":")[0]
    return site.world.upstream.tags[name]["1"]


async def test_skopeo_copies_a_patched_image_from_the_mirror(site: Site, tmp_path: Path) -> None:
    answer = await site.patch(site.world.add_image())
    await run("skopeo", "copy", "--src-tls-verify=false", f"docker://{answer.patched}", f"oci:{tmp_path}/copy:it")
    digest = answer.patched.rpartition("@sha256:")[2]
    assert (tmp_path / "copy" / "blobs" / "sha256" / digest).exists()


async def test_skopeo_pulls_a_tag_through_the_mirror_and_gets_the_patched_image(site: Site) -> None:
    image = site.world.add_image()
    through = ImageRef.parse(image)
    name = site.proxy.mirror.name_for(through)
    digest = await run("skopeo", "inspect", "--tls-verify=false", "--format", "{{.Digest}}", f"docker://{name}")
    assert digest.strip() == (await site.patch(image)).patched.rpartition("@")[2]


async def test_skopeo_copies_a_patched_index_with_all_its_platforms(site: Site, tmp_path: Path) -> None:
    site.world.push_index("team/multi", "1")
    request = ResolveRequest(
        image=f"{site.world.upstream.host}/team/multi:1", platforms=("linux/amd64", "linux/arm64"), wait_seconds=60
    )
    answer = await site.proxy.resolve.resolve(request)
    to = f"oci:{tmp_path}/copy:it"
    await run("skopeo", "copy", "--all", "--src-tls-verify=false", f"docker://{answer.patched}", to)
    top = json.loads((tmp_path / "copy" / "index.json").read_bytes())["manifests"][0]
    assert top["digest"] == answer.patched.rpartition("@")[2]


async def test_skopeo_reads_the_mirror_folder_on_disk(site: Site, tmp_path: Path) -> None:
    async with Proxy(embedded(site.world, "on-disk")) as proxy:
        request = ResolveRequest(image=site.world.add_image(), wait_seconds=60)
        answer = await proxy.resolve.resolve(request)
        patched = ImageRef.parse(answer.patched)
        (tag,) = [tag for tag in await proxy.mirror.tags(patched) if tag.startswith("src-") and "." not in tag]
    layout = f"oci:{site.world.folder}/on-disk/mirror:{patched.repository}:{tag}"
    raw = await run("skopeo", "inspect", "--raw", layout)
    assert Digest.of(raw.encode()) == patched.digest
    await run("skopeo", "copy", layout, f"oci:{tmp_path}/copy:it")


async def test_docker_registry_serves_as_upstream_and_as_external_mirror(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = site.world
    async with docker_registry(tmp_path / "upstream") as upstream, docker_registry(tmp_path / "mirror") as there:
        image = f"{upstream}/library/app:1"
        tls = ("--src-tls-verify=false", "--dest-tls-verify=false")
        await run("skopeo", "copy", *tls, f"docker://{world.add_image()}", f"docker://{image}")
        mirror = MirrorConfig(reference=there, registry=there)
        first = world.config("external", mirror=mirror)
        async with Proxy(first) as proxy:
            made = await proxy.resolve.resolve(ResolveRequest(image=image, wait_seconds=60))
        assert made.outcome is Outcome.PATCHED, made.reason
        assert {item.to_version for item in made.upgrades} == {FIXED}
        copy = f"oci:{tmp_path}/copy:it"
        await run("skopeo", "copy", "--src-tls-verify=false", f"docker://{made.patched}", copy)
        public = tmp_path / "signing.pub"
        public.write_bytes(proxy.keys.signing.public.render_pem())
        await run(*COSIGN, "--key", public, made.patched)
        await run(*COSIGN, "--experimental-oci11", "--key", public, made.patched, env=OCI11)
        async with Proxy(world.config("external", mirror=mirror, cache=tmp_path / "empty")) as proxy:
            patches = spy_on(proxy.engine.patcher, monkeypatch)
            again = await proxy.resolve.resolve(ResolveRequest(image=image, wait_seconds=60))
            assert (again.outcome, again.patched, again.signature) == (made.outcome, made.patched, made.signature)
            assert patches == {}
