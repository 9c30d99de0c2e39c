"""What a simulated registry does wrong on demand, and what it saw."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass
class Faults:
    """What the registry does wrong, or insists on; change it while the server runs.

    Counts (`throttle`, `errors`, `cuts`) are of requests that are still to fail; -1 fails for ever.
    """

    auth: str = ""  # "bearer", "basic" or "" (none)
    username: str = "user"
    password: str = "secret"
    anonymous: bool = True  # with bearer: pull tokens are given without credentials
    realm: str = ""  # instead of the registry's own token endpoint
    token_seconds: int = 300
    throttle: int = 0  # answered 429
    retry_after: str = "0"
    errors: int = 0  # answered `error_status`
    error_status: int = 503
    refuse: int = 0  # every request is answered with this status
    cuts: int = 0  # blob answers that end in the middle
    ignore_range: bool = False
    wrong_blob: bool = False
    short_blob: bool = False  # complete by its own Content-Length, and shorter than announced in the manifest
    wrong_manifest: bool = False
    header_digest: str = ""  # Docker-Content-Digest that is sent instead of the true one
    no_head_digest: bool = False
    no_head: bool = False  # HEAD of manifests is answered 405
    redirect: str = ""  # blobs are at this base address (`http://host:port`), same path
    redirect_loop: bool = False
    no_referrers: bool = False
    no_mount: bool = False
    relative_location: bool = False
    only_chunks: bool = False  # an upload in one piece is answered 413
    max_chunk: int = 0  # bytes of a PATCH that are taken; more is answered 413
    no_delete: bool = False
    huge_manifest: bool = False  # a manifest body without an end
    delay: float = 0.0  # seconds before every answer
    headers: Mapping[str, str] = field(default_factory=dict)  # sent with every answer


@dataclass
class Seen:
    """One request that arrived."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]

    def __str__(self) -> str:
        return f"{self.method} {self.path}"
