"""Wire models of the proxy's /v1 API.

Owns the forms of requests, answers and errors. Untrusted JSON enters through these. Fields that this version does not
know are passed over: during a rolling upgrade the other side may be a version ahead. What it does know is checked.
"""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

MIRROR_SECRET = "admend-mirror"  # noqa: S105 - the name of the Secret that the proxy keeps in namespaces for pulls from the mirror
MAX_IMAGE = 512  # characters: a reference has 255 + 1 + 128 + 1 + 71 at the most


class Outcome(StrEnum):
    """What a resolve came to; only `failed` is an error."""

    PATCHED = "patched"
    CLEAN = "clean"
    BLOCKED = "blocked"
    PENDING = "pending"
    UNSUPPORTED = "unsupported"
    FAILED = "failed"


def make_printable(text: str) -> str:
    """Return `text`, parts of which an image may have written, without what a terminal or a log would act upon."""
    return "".join(letter if letter.isprintable() else " " if letter.isspace() else "?" for letter in text)


class Wire(BaseModel):
    """Base of all wire models: frozen, unknown fields passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore")


MOVED = "upgraded; "


class UpgradeInfo(Wire):
    """One package that moved: `from` and `to` are versions as the package manager writes them.

    `from` is empty for a package that was added because another one newly needs it, `to` for one that was removed
    because an upgrade must not be with it.
    `effect` says what its maintainer scripts came to: ``none``, ``reproduced`` or (they were left out because policy
    says so) ``unknown``; empty where that was not judged. `reason` says why one was removed.
    """

    package: str
    from_version: str = Field(alias="from")
    to_version: str = Field(alias="to")
    source: str = ""
    effect: str = ""
    reason: Annotated[str, AfterValidator(make_printable)] = ""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True, serialize_by_alias=True)


class SkipInfo(Wire):
    """One package that has a newer version and did not move, or a source that was not used, with the reason.

    A reason that begins with `MOVED` is a note: the package did move, but not all of it (a conffile was kept).
    """

    package: str
    installed: str = ""
    available: str = ""
    reason: Annotated[str, AfterValidator(make_printable)]

    @property
    def moved(self) -> bool:
        """Whether this is a note on a package that did move."""
        return self.reason.startswith(MOVED)


class SignatureInfo(Wire):
    """A signature over the patched digest: the exact signed bytes and the signature, both base64."""

    key_id: str
    payload: str
    signature: str


class SourceDate(Wire):
    """A package source and the date of the index that was used (RFC 3339, UTC)."""

    source: str
    date: str


class ResolveRequest(Wire):
    """Body of POST /v1/resolve."""

    image: Annotated[str, Field(min_length=1, max_length=MAX_IMAGE)]
    platforms: tuple[Annotated[str, Field(max_length=64)], ...] = ()
    wait_seconds: float = Field(default=0.0, ge=0.0, le=600.0)
    dry_run: bool = False
    always: bool = False  # imagePullPolicy: Always - ask the upstream what the tag points at now
    namespace: str = Field(default="", max_length=253)
    pull_secrets: tuple[Annotated[str, Field(max_length=253)], ...] = ()
    service_account: str = Field(default="", max_length=253)  # of the pod
    audit: bool = False  # the pod will be left as it is: patch, but make no pull secret in its namespace


class ResolveResponse(Wire):
    """Answer of POST /v1/resolve."""

    outcome: Outcome
    image: str  # the reference as it was understood, in full form
    source: str = ""  # upstream reference with the digest that the outcome is about
    patched: str = ""  # mirror reference with digest
    upgrades: tuple[UpgradeInfo, ...] = ()
    fixed: tuple[str, ...] = ()  # CVE ids, where a report or the source named them
    skipped: tuple[SkipInfo, ...] = ()
    reason: str = ""
    platforms: dict[str, Outcome] = Field(default_factory=dict)  # what each platform of the image came to
    stale: bool = False
    as_of: tuple[SourceDate, ...] = ()
    published: datetime | None = None  # when the newest fix in the patched image was published, by its source's index
    made: datetime | None = None  # when the patched image was first there
    signature: SignatureInfo | None = None
    hold: str = ""  # why nodes are not known to reach the mirror; nothing is to be rewritten then
    pull_secret: str = ""  # the Secret in the pod's namespace that pulls of the patched image need
    milliseconds: float = 0.0
    phases: dict[str, float] = Field(default_factory=dict)  # milliseconds by phase, of the patch that made the result


class ErrorBody(Wire):
    """Body of every /v1 answer that is not 200."""

    code: str
    message: str
