"""A registry client that asks the mirror for upstream names, through a whole proxy over HTTP."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx
import pytest
import pytest_asyncio

from proxy.api import ResolveRequest
from proxy.oci.digest import Digest
from proxy.oci.manifest import Index, Manifest, parse_manifest
from proxy.oci.reference import ImageRef
from proxy.serve import Proxy
from tests.simulators.world import FIXED, MIRROR, World

pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass(frozen=True)
class Site:
    world: World
    proxy: Proxy
    client: httpx.AsyncClient

    def path(self, image: str, reference: str = "") -> str:
        """Return the /v2 path of an upstream image, by its own tag or by `reference`."""
        ref = self.proxy.mirror.name_for(ImageRef.parse(image))
        return f"/v2/{ref.repository}/manifests/{reference or ref.selector}"

    async def patched(self, image: str) -> str:
        answer = await self.proxy.resolve.resolve(ResolveRequest(image=image, wait_seconds=30))
        return answer.patched.rpartition("@")[2]

    def original(self, image: str) -> Digest:
        name, _, tag = image.split("/", 1)[1].rpartition(":")
        return self.world.upstream.tags[name][tag]

    async def pull_blobs(self, answer: httpx.Response) -> int:
        """Pull all blobs of a manifest and check them; returns how many there are."""
        manifest = parse_manifest(answer.content, answer.headers["content-type"])
        assert isinstance(manifest, Manifest)
        base = str(answer.request.url).split("/manifests/", maxsplit=1)[0]
        for item in (manifest.config, *manifest.layers):
            blob = await self.client.get(f"{base}/blobs/{item.digest}")
            assert blob.status_code == 200, blob.text
            assert (Digest.of(blob.content), len(blob.content)) == (item.digest, item.size)
        return 1 + len(manifest.layers)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    async with World(tmp_path_factory.mktemp("world")) as world, Proxy(world.config(negative_ttl=0.2)) as proxy:
        base = f"http://127.0.0.1:{proxy.port}"
        async with httpx.AsyncClient(base_url=base, trust_env=False, timeout=30) as client:
            yield Site(world, proxy, client)


async def test_a_tag_gives_the_patched_image_with_its_blobs(site: Site) -> None:
    image = site.world.add_image()
    answer = await site.client.get(site.path(image))
    assert answer.status_code == 200
    assert answer.headers["docker-content-digest"] == str(Digest.of(answer.content)) == await site.patched(image)
    assert await site.pull_blobs(answer) == 3  # config, the original's layer, the patch layer


async def test_a_digest_gives_the_original_with_its_blobs(site: Site) -> None:
    image = site.world.add_image()
    answer = await site.client.get(site.path(image, str(site.original(image))))
    assert answer.headers["docker-content-digest"] == str(site.original(image))
    assert await site.pull_blobs(answer) == 2


async def test_a_clean_image_is_the_original_with_its_blobs(site: Site) -> None:
    image = site.world.add_image(FIXED)
    answer = await site.client.get(site.path(image))
    assert answer.headers["docker-content-digest"] == str(site.original(image))
    assert await site.pull_blobs(answer) == 2


async def test_an_image_that_cannot_be_patched_is_the_original(site: Site) -> None:
    site.world.upstream.add_image("team/scratch", "1", [])
    image = f"{site.world.upstream.host}/team/scratch:1"
    answer = await site.client.get(site.path(image))
    assert answer.headers["docker-content-digest"] == str(site.original(image))


async def test_an_index_by_tag_is_patched_and_by_digest_the_original(site: Site) -> None:
    original = site.world.push_index("team/multi", "1")
    image = f"{site.world.upstream.host}/team/multi:1"
    patched = await site.client.get(site.path(image))
    index = parse_manifest(patched.content, patched.headers["content-type"])
    assert isinstance(index, Index)
    assert index.digest != original.digest
    assert [str(item.platform) for item in index.manifests] == ["linux/amd64"]
    child = await site.client.get(site.path(image, str(index.manifests[0].digest)))
    assert await site.pull_blobs(child) == 3
    kept = await site.client.get(site.path(image, str(original.digest)))
    assert kept.content == original.raw
    for item in original.manifests:
        assert await site.pull_blobs(await site.client.get(site.path(image, str(item.digest)))) == 2


async def test_containerd_asks_with_the_namespace_beside_the_path(site: Site) -> None:
    image = site.world.add_image()
    name, _, tag = image.split("/", 1)[1].rpartition(":")
    answer = await site.client.get(f"/v2/{name}/manifests/{tag}", params={"ns": site.world.upstream.host})
    assert answer.headers["docker-content-digest"] == await site.patched(image)


async def test_a_head_request_tells_the_patched_digest(site: Site) -> None:
    image = site.world.add_image()
    answer = await site.client.head(site.path(image))
    assert answer.headers["docker-content-digest"] == await site.patched(image)


async def test_a_missing_signature_is_not_looked_for_upstream(site: Site) -> None:
    image = site.world.add_image(tag="latest")
    tag = f"sha256-{site.original(image).hex}.sig"
    asked = len(site.world.upstream.requests)
    answer = await site.client.get(site.path(image, tag))
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (404, "MANIFEST_UNKNOWN")
    assert len(site.world.upstream.requests) == asked


async def test_a_missing_image_is_named_and_may_be_tried_again(site: Site) -> None:
    answer = await site.client.get(site.path(f"{site.world.upstream.host}/no/such:image"))
    assert answer.status_code in {404, 503}
    assert "no/such:image" in answer.json()["errors"][0]["message"]


@pytest.mark.parametrize(
    "path", ["/v2/library/nginx/manifests/1", f"/v2/{MIRROR}/library/nginx/blobs/sha256:{'0' * 64}"]
)
async def test_what_is_neither_here_nor_an_upstreams_is_unknown(site: Site, path: str) -> None:
    answer = await site.client.get(path)
    assert answer.status_code == 404
