"""The webhook's configuration: one YAML or JSON file, one frozen model, unknown keys refused.

Owns the model; `certs.settings` reads the file. Durations are in seconds, sizes in bytes.
"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from certs import settings
from certs.logs import LogConfig
from certs.settings import Port, Seconds, Section
from certs.tracing import TracingConfig
from proxy.api import Outcome
from proxy.audit import AuditConfig
from proxy.errors import MalformedInput
from proxy.oci.reference import ImageRef


class Mode(StrEnum):
    """What the webhook may do to a pod.

    `permissive` rewrites what is patched and admits the rest as it is; `enforce` also pins or denies what is not
    patched, as `enforce:` says; `audit` changes nothing and reports what `enforce` would have done.
    """

    PERMISSIVE = "permissive"
    ENFORCE = "enforce"
    AUDIT = "audit"


class ListenConfig(settings.ListenConfig):
    """Where the webhook listens. The API server speaks HTTPS only: without `tls` it cannot reach the webhook.

    With `tls.client_ca_file` only who has a client certificate of it may ask for admissions; probes need none.
    """

    port: Port = 9443


def _check_url(url: str) -> str:
    scheme, _, rest = url.partition("://")
    if scheme not in {"http", "https"} or not rest or "@" in rest or "?" in rest or "#" in rest:
        raise ValueError("a proxy is written https://host[:port], without user, query or fragment")
    return url.rstrip("/")


class ProxyClientConfig(Section):
    """How the webhook reaches the proxy; all addresses behind all URLs are replicas, of which any may be asked.

    A client certificate, a token or both say who asks; the files are read again when they change.
    """

    urls: Annotated[tuple[Annotated[str, AfterValidator(_check_url)], ...], Field(min_length=1, max_length=16)]
    ca_file: Path | None = None
    client_cert_file: Path | None = None
    client_key_file: Path | None = None
    token_file: Path | None = None

    @model_validator(mode="after")
    def _check_pair(self) -> Self:
        if (self.client_cert_file is None) != (self.client_key_file is None):
            raise ValueError("client_cert_file and client_key_file go together: give both or neither")
        if self.client_cert_file is not None and self.ca_file is None:
            raise ValueError("a client certificate is shown to the proxies of ca_file only: give that too")
        return self


def _check_mirror(text: str) -> str:
    try:
        named = ImageRef.parse(f"{text}/x/x")
    except MalformedInput as error:
        raise ValueError(f"a mirror is written host[:port][/prefix]: {error}") from error
    if not named.name.startswith(f"{text}/"):
        raise ValueError("a mirror's host needs a dot, a port or the name localhost: else it reads as a path")
    return text


class MirrorConfig(Section):
    """Where patched images live, as the proxy's own configuration says it: `host[:port][/prefix]`."""

    reference: Annotated[str, AfterValidator(_check_mirror)]
    naming: Literal["nested", "flat"] = "nested"


class TrustConfig(Section):
    """Whose signatures are believed.

    `keys` are files of public keys (PEM, one or more each), read again when they change; `max_age` says how old a
    signature may be; `policy_hash` fixes the proxy's policy.
    """

    keys: Annotated[tuple[Path, ...], Field(min_length=1)]
    max_age: Seconds = 7 * 86400.0
    policy_hash: str | None = None


class SelectionConfig(Section):
    """Which images are looked at.

    `include` and `exclude` are shell patterns (`*` spans slashes) on full references (`docker.io/library/nginx:1.25`)
    or on the name alone (`docker.io/library/nginx`); an empty `include` takes everything. `opt_out: false` makes the
    annotation `admend.dev/patch: "false"` powerless, `opt_out: permissive` honours it but for mode enforce. `owners`
    adds kinds of controllers, written `Kind` for any group or `Kind.group`. Pods of others, which may fight a rewrite,
    are never changed: `foreign_owners: audit` resolves them and tells what would have been done, `skip` does not look
    at them, `deny` is audit but in mode enforce denies what would have to change (anybody can write an owner).
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    opt_out: bool | Literal["permissive"] = True
    owners: tuple[str, ...] = ()
    foreign_owners: Literal["audit", "skip", "deny"] = "audit"


class EnforceConfig(Section):
    """What `enforce` does with an image that is not patched, by outcome.

    `held` is for patched images while nodes are not known to reach the mirror: `admit` leaves the pod as it is.
    """

    clean: Literal["pin", "leave"] = "pin"
    blocked: Literal["pin", "admit", "deny"] = "pin"
    unsupported: Literal["pin", "admit", "deny"] = "pin"
    pending: Literal["admit", "deny"] = "deny"
    failed: Literal["admit", "deny"] = "deny"
    held: Literal["admit", "deny"] = "admit"


class WebhookConfig(Section):
    """The whole configuration of the webhook.

    `mode` is that of requests to `/mutate`; `/mutate/MODE` has its own. With `pin` mode permissive gives clean images
    their digest too, and those of the outcomes in `pin_also`.
    """

    proxy: ProxyClientConfig
    mirror: MirrorConfig
    trust: TrustConfig
    listen: ListenConfig = ListenConfig()
    mode: Mode = Mode.PERMISSIVE
    pin: bool = False
    pin_also: tuple[Literal["blocked", "unsupported"], ...] = ()
    selection: SelectionConfig = SelectionConfig()
    enforce: EnforceConfig = EnforceConfig()
    margin: Seconds = 0.5  # kept back from the API server's own timeout, to answer in time
    max_body_bytes: Annotated[int, Field(ge=1024, le=64 << 20)] = 3 << 20  # the API server's own limit on a request
    audit: AuditConfig = AuditConfig()
    log: LogConfig = LogConfig()
    tracing: TracingConfig = TracingConfig()

    @model_validator(mode="after")
    def _check_pin(self) -> Self:
        if self.pin_also and not self.pin:
            raise ValueError("pin_also does nothing without pin: set pin to true")
        return self

    @property
    def pinned(self) -> tuple[Outcome, ...]:
        """The outcomes that mode permissive pins."""
        return (Outcome.CLEAN, *map(Outcome, self.pin_also)) if self.pin else ()
