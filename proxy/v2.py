"""The /v2/ routes: the OCI distribution API over the embedded mirror.

Owns which route is which; `v2_pull` and `v2_push` answer them.
Specification: https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#endpoints
"""

from aiohttp import web

from proxy.access import TOKEN_PATH, Access
from proxy.mirror import EmbeddedMirror
from proxy.rights import Rights
from proxy.uploads import Uploads
from proxy.v2_guard import Guard
from proxy.v2_pull import Hooks, Reader
from proxy.v2_push import Writer

__all__ = ["Hooks", "add_v2_routes"]


def add_v2_routes(
    app: web.Application,
    mirror: EmbeddedMirror,
    access: Access,
    hooks: Hooks | None = None,
    rights: Rights | None = None,
) -> None:
    """Serve a mirror under /v2/ of `app`."""
    guard = Guard(mirror, access, rights or Rights(mirror.visibility))
    reader = Reader(mirror, guard, hooks or Hooks())
    uploads = Uploads(mirror.blobs)
    writer = Writer(guard, mirror, uploads)
    read, write = guard.read, guard.write
    router = app.router
    router.add_get(TOKEN_PATH, guard.token)
    router.add_post(TOKEN_PATH, guard.token)
    router.add_get("/v2/", read(reader.base))
    router.add_get("/v2", read(reader.base))
    router.add_get("/v2/_catalog", read(reader.catalog))
    router.add_get("/v2/{name:.+}/tags/list", read(reader.tags))
    router.add_get("/v2/{name:.+}/referrers/{reference}", read(reader.referrers))
    router.add_get("/v2/{name:.+}/manifests/{reference}", read(reader.manifest))
    router.add_put("/v2/{name:.+}/manifests/{reference}", write(writer.put_manifest))
    router.add_delete("/v2/{name:.+}/manifests/{reference}", write(reader.delete_manifest))
    router.add_post("/v2/{name:.+}/blobs/uploads/", write(writer.start))
    router.add_post("/v2/{name:.+}/blobs/uploads", write(writer.start))
    router.add_get("/v2/{name:.+}/blobs/uploads/{session}", write(writer.status))
    router.add_patch("/v2/{name:.+}/blobs/uploads/{session}", write(writer.append))
    router.add_put("/v2/{name:.+}/blobs/uploads/{session}", write(writer.finish))
    router.add_delete("/v2/{name:.+}/blobs/uploads/{session}", write(writer.cancel))
    router.add_get("/v2/{name:.+}/blobs/{reference}", read(reader.blob))
    router.add_delete("/v2/{name:.+}/blobs/{reference}", write(reader.delete_blob))

    async def end_uploads(_: web.Application) -> None:
        uploads.close()

    app.on_response_prepare.append(_tag_with_digest)
    app.on_cleanup.append(end_uploads)


async def _tag_with_digest(_: web.Request, response: web.StreamResponse) -> None:
    """Give a blob its digest as ETag: a file response makes one of the file's time."""
    digest = response.headers.get("Docker-Content-Digest")
    if digest is not None and isinstance(response, web.FileResponse):
        response.headers["ETag"] = f'"{digest}"'
