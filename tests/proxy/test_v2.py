import asyncio
import hashlib
import io
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proxy.access import Caller
from proxy.errors import UpstreamRefused, UpstreamUnavailable
from proxy.oci.digest import Digest
from proxy.oci.manifest import MAX_MANIFEST, OCI_INDEX, OCI_MANIFEST, Index, Manifest
from proxy.v2 import Hooks
from tests.proxy.served import AUTH, REPO, Serve, code
from tests.simulators.images import build, build_index


async def test_a_pushed_index_is_pulled_back_byte_for_byte(serve: Serve) -> None:
    served = await serve()
    built = build_index(build("one"), build("two"))
    await served.push(built, "1.25", "1")
    for reference in ("1.25", "1", str(built.top.digest)):
        got = await served("GET", f"/v2/{REPO}/manifests/{reference}")
        assert (got.status, await got.read()) == (200, built.top.raw)
        assert got.headers["Content-Type"] == OCI_INDEX
        assert got.headers["Docker-Content-Digest"] == str(built.top.digest)
        head = await served("HEAD", f"/v2/{REPO}/manifests/{reference}")
        assert head.headers["Content-Length"] == str(len(built.top.raw))
        assert head.headers["Docker-Content-Digest"] == str(built.top.digest)
    for digest, data in built.data.items():
        got = await served("GET", f"/v2/{REPO}/blobs/{digest}")
        assert (await got.read(), got.headers["ETag"]) == (data, f'"{digest}"')


@pytest.mark.parametrize(
    ("value", "status", "body"),
    [("bytes=2-5", 206, b"2345"), ("bytes=-3", 206, b"789"), ("bytes=7-", 206, b"789"), ("bytes=20-", 416, None)],
)
async def test_a_range_of_a_blob_is_served(serve: Serve, value: str, status: int, body: bytes | None) -> None:
    served = await serve()
    digest = await served.mirror.blobs.put_bytes(b"0123456789")
    got = await served("GET", f"/v2/{REPO}/blobs/{digest}", headers={"Range": value}, auth=AUTH)
    assert got.status == status
    if body is not None:
        assert await got.read() == body
        assert got.headers["Content-Range"].endswith("/10")


async def test_what_a_client_has_is_not_sent_again(serve: Serve) -> None:
    served = await serve()
    built = build("one")
    await served.push(built, "1")
    for path in (f"manifests/{built.top.digest}", f"blobs/{next(iter(built.data))}"):
        etag = (await served("GET", f"/v2/{REPO}/{path}")).headers["ETag"]
        assert (await served("GET", f"/v2/{REPO}/{path}", headers={"If-None-Match": etag})).status == 304


async def test_a_blob_is_uploaded_in_pieces_that_must_follow_each_other(serve: Serve) -> None:
    served = await serve()
    begun = await served("POST", f"/v2/{REPO}/blobs/uploads/")
    assert begun.status == 202
    place = begun.headers["Location"]
    first = await served("PATCH", place, data=b"hello ", headers={"Content-Range": "0-5"})
    assert (first.status, first.headers["Range"]) == (202, "0-5")
    for wrong in ("0-4", "7-11", "6-7"):
        refused = await served("PATCH", place, data=b"world", headers={"Content-Range": wrong})
        assert (refused.status, refused.headers["Range"]) == (416, "0-5")
    status = await served("GET", place, auth=AUTH)
    assert (status.status, status.headers["Range"]) == (204, "0-5")
    digest = Digest.of(b"hello world")
    done = await served("PUT", f"{place}?digest={digest}", data=b"world", headers={"Content-Range": "6-10"})
    assert (done.status, done.headers["Location"]) == (201, f"/v2/{REPO}/blobs/{digest}")
    assert await (await served("GET", done.headers["Location"], auth=AUTH)).read() == b"hello world"
    assert (await served("GET", place, auth=AUTH)).status == 404


async def test_an_upload_with_a_wrong_digest_or_a_cancelled_one_leaves_nothing(serve: Serve, tmp_path: Path) -> None:
    served = await serve()
    whole = await served("POST", f"/v2/{REPO}/blobs/uploads/?digest={Digest.of(b'x')}", data=b"y")
    assert (whole.status, code(await whole.text())) == (400, "DIGEST_INVALID")
    place = (await served("POST", f"/v2/{REPO}/blobs/uploads/")).headers["Location"]
    await served("PATCH", place, data=b"y")
    assert (await served("DELETE", place)).status == 204
    assert (await served("PATCH", place, data=b"y")).status == 404
    place = (await served("POST", f"/v2/{REPO}/blobs/uploads/")).headers["Location"]
    assert (await served("PUT", f"{place}?digest=", data=b"y")).status == 400
    assert [path for path in (tmp_path / "mirror" / "blobs").rglob("*") if path.is_file()] == []


async def test_a_sha512_blob_may_be_pushed(serve: Serve) -> None:
    served = await serve()
    digest = f"sha512:{hashlib.sha512(b'x').hexdigest()}"
    assert (await served("POST", f"/v2/{REPO}/blobs/uploads/?digest={digest}", data=b"x")).status == 201
    assert await (await served("GET", f"/v2/{REPO}/blobs/{digest}", auth=AUTH)).read() == b"x"


async def test_a_blob_that_is_there_is_mounted_and_another_begins_an_upload(serve: Serve) -> None:
    served = await serve()
    digest = await served.mirror.blobs.put_bytes(b"shared")
    mounted = await served("POST", f"/v2/other/blobs/uploads/?mount={digest}&from={REPO}")
    assert (mounted.status, mounted.headers["Location"]) == (201, f"/v2/other/blobs/{digest}")
    begun = await served("POST", f"/v2/other/blobs/uploads/?mount={Digest.of(b'absent')}&from={REPO}")
    assert (begun.status, "Docker-Upload-UUID" in begun.headers) == (202, True)


async def test_a_manifest_comes_after_what_it_references(serve: Serve) -> None:
    served = await serve()
    built = build_index(build("one"))
    for manifest in (built.top, built.children[0]):
        refused = await served.put_manifest(manifest, "1")
        assert (refused.status, code(await refused.text())) == (400, "MANIFEST_BLOB_UNKNOWN")
    assert (await served("GET", f"/v2/{REPO}/manifests/1")).status == 404


async def test_a_manifest_that_is_wrong_or_too_large_is_refused(serve: Serve) -> None:
    served = await serve()
    built = build("one")
    await served.push(built)
    wrong = await served.put_manifest(built.top, str(Digest.of(b"x")))
    assert (wrong.status, code(await wrong.text())) == (400, "DIGEST_INVALID")
    path = f"/v2/{REPO}/manifests/1"
    assert (await served("PUT", path, data=b"{", headers={"Content-Type": OCI_MANIFEST})).status == 400
    assert (await served("PUT", path, data=io.BytesIO(b"x" * (MAX_MANIFEST + 1)))).status == 413

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(5):
            yield b"x" * (1 << 20)

    assert (await served("PUT", path, data=pieces())).status == 413


async def test_tags_and_repositories_are_listed_in_pages(serve: Serve) -> None:
    served = await serve()
    await served.push(build("one"), "a", "b", "c")
    await served.push(build("one"), "x", repository="another")
    first = await served("GET", f"/v2/{REPO}/tags/list?n=2")
    assert await first.json() == {"name": REPO, "tags": ["a", "b"]}
    link = first.headers["Link"].partition(">")[0].lstrip("<")
    second = await served("GET", link)
    assert (await second.json())["tags"] == ["c"]
    assert "Link" not in second.headers
    assert (await (await served("GET", f"/v2/{REPO}/tags/list?n=0")).json())["tags"] == []
    assert (await served("GET", f"/v2/{REPO}/tags/list?n=-1")).status == 400
    unknown = await served("GET", "/v2/nothing/tags/list")
    assert (unknown.status, code(await unknown.text())) == (404, "NAME_UNKNOWN")
    assert await (await served("GET", "/v2/_catalog")).json() == {"repositories": ["another", REPO]}


async def test_referrers_are_listed_and_filtered(serve: Serve) -> None:
    served = await serve()
    built = build("one")
    assert isinstance(built.top, Manifest)
    path = f"/v2/{REPO}/referrers/{built.top.digest}"
    assert (await (await served("GET", path)).json(content_type=OCI_INDEX))["manifests"] == []
    await served.push(built, "1")
    for kind in ("application/a", "application/b"):
        artifact = build(kind, subject=built.top, artifact_type=kind)
        await served.push(artifact)
        put = await served.put_manifest(artifact.top, str(artifact.top.digest))
        assert put.headers["OCI-Subject"] == str(built.top.digest)
    assert len((await (await served("GET", path)).json(content_type=OCI_INDEX))["manifests"]) == 2
    filtered = await served("GET", f"{path}?artifactType=application/b")
    (entry,) = (await filtered.json(content_type=OCI_INDEX))["manifests"]
    assert entry["artifactType"] == "application/b"
    assert filtered.headers["OCI-Filters-Applied"] == "artifactType"


async def test_deleting_a_manifest_ends_it_and_blobs_are_not_deleted_by_hand(serve: Serve) -> None:
    served = await serve()
    built = build("one")
    await served.push(built, "1")
    assert (await served("DELETE", f"/v2/{REPO}/manifests/{built.top.digest}")).status == 202
    assert (await served("DELETE", f"/v2/{REPO}/manifests/{built.top.digest}")).status == 404
    assert (await served("GET", f"/v2/{REPO}/manifests/1")).status == 404
    assert (await served("DELETE", f"/v2/{REPO}/blobs/{next(iter(built.data))}")).status == 405


async def test_a_containerd_mirror_request_is_mapped_by_its_namespace(serve: Serve) -> None:
    served = await serve()
    built = build("one")
    await served.push(built, "1")
    assert (await served("GET", "/v2/library/nginx/manifests/1?ns=docker.io")).status == 200
    assert (await served("HEAD", f"/v2/library/nginx/blobs/{next(iter(built.data))}?ns=docker.io")).status == 200
    assert (await served("GET", f"/v2/{REPO}/manifests/1?ns=mirror.example")).status == 200
    assert (await served("GET", "/v2/library/nginx/manifests/1?ns=reg.example")).status == 404
    assert (await served("GET", "/v2/library/nginx/manifests/1?ns=../x")).status == 404


async def test_a_miss_is_given_to_the_hooks(serve: Serve, tmp_path: Path) -> None:
    built = build("pulled through")
    files = built.files(tmp_path / "files")
    asked: list[tuple[str, str]] = []

    async def manifest(name: str, reference: str, _caller: Caller) -> Manifest | Index | None:
        asked.append((name, reference))
        if reference == "down":
            raise UpstreamUnavailable("the upstream does not answer", retry_after=7)
        if reference == "private":
            raise UpstreamRefused("the upstream wants credentials", status=401)
        return built.top

    async def blob(name: str, digest: Digest, _caller: Caller) -> Path | None:
        return files.get(digest)

    served = await serve(hooks=Hooks(manifest, blob))
    got = await served("GET", "/v2/library/nginx/manifests/latest?ns=docker.io")
    assert (got.status, await got.read()) == (200, built.top.raw)
    assert asked == [(REPO, "latest")]
    for digest, data in built.data.items():
        assert await (await served("GET", f"/v2/{REPO}/blobs/{digest}")).read() == data
    assert (await served("GET", f"/v2/{REPO}/manifests/{Digest.of(b'other')}")).status == 404
    down = await served("GET", f"/v2/{REPO}/manifests/down")
    assert (down.status, down.headers["Retry-After"]) == (503, "7")
    assert (await served("GET", f"/v2/{REPO}/manifests/private")).status == 403


@pytest.mark.parametrize(
    "path", ["UPPER/manifests/1", "a//b/manifests/1", "a/manifests/.x", "a/blobs/sha256:12", "_tags/manifests/1"]
)
async def test_what_is_no_name_is_not_found(serve: Serve, path: str) -> None:
    served = await serve()
    assert (await served("GET", f"/v2/{path}")).status == 404
    assert (await served("PUT", f"/v2/{path}", data=b"{}")).status in {400, 405}


async def test_a_full_mirror_refuses_a_push_with_the_reason(serve: Serve) -> None:
    served = await serve(max_bytes=1000)
    refused = await served("POST", f"/v2/{REPO}/blobs/uploads/?digest={Digest.of(b'x' * 2000)}", data=b"x" * 2000)
    assert refused.status == 507
    assert "max_bytes" in await refused.text()
    assert served.mirror.blobs.used == 0
    assert served.mirror.blobs.room_for(1000) == 0


async def test_an_upload_that_is_cut_off_can_go_on(serve: Serve) -> None:
    served = await serve()
    place = (await served("POST", f"/v2/{REPO}/blobs/uploads/")).headers["Location"]
    host, port = served.url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    head = f"PATCH {place} HTTP/1.1\r\nHost: x\r\nAuthorization: {AUTH}\r\nContent-Length: 10\r\n\r\nhello"
    writer.write(head.encode())
    await writer.drain()
    await asyncio.sleep(0.1)
    writer.close()
    await asyncio.sleep(0.1)
    status = await served("GET", place, auth=AUTH)
    assert status.headers["Range"] == "0-4"
    done = await served("PUT", f"{place}?digest={Digest.of(b'hello world')}", data=b" world")
    assert done.status == 201
