"""The webhook's configuration: one YAML or JSON file, one frozen model, unknown keys refused.

Owns the model and its reading. Nothing else in the webhook reads the environment or a settings file. Durations are in
seconds, sizes in bytes.
"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from proxy.errors import MalformedInput
from proxy.oci.reference import ImageRef

MAX_FILE = 1 << 20  # bytes

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Mode(StrEnum):
    """What the webhook may do to a pod.

    `permissive` rewrites what is patched and admits the rest as it is; `enforce` also pins or denies what is not
    patched, as `enforce:` says; `audit` changes nothing and reports what `enforce` would have done.
    """

    PERMISSIVE = "permissive"
    ENFORCE = "enforce"
    AUDIT = "audit"


class Section(BaseModel):
    """Base of every section: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class TlsConfig(Section):
    """Serving certificate, read again when the files change.

    With `client_ca_file` only who has a client certificate of it may ask for admissions; probes need none.
    """

    cert_file: Path
    key_file: Path
    client_ca_file: Path | None = None


class ListenConfig(Section):
    """Where the webhook listens. The API server speaks HTTPS only: without `tls` it cannot reach the webhook."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 9443
    tls: TlsConfig | None = None


def _check_url(url: str) -> str:
    scheme, _, rest = url.partition("://")
    if scheme not in {"http", "https"} or not rest or "@" in rest or "?" in rest or "#" in rest:
        raise ValueError("a proxy is written https://host[:port], without user, query or fragment")
    return url.rstrip("/")


class ProxyClientConfig(Section):
    """How the webhook reaches the proxy; several URLs are tried in turn.

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
    """Whose signatures are believed: public keys (PEM), the oldest signature, and the proxy's policy hash if fixed."""

    keys: Annotated[tuple[Path, ...], Field(min_length=1)]
    max_age: Seconds = 7 * 86400.0
    policy_hash: str | None = None


class SelectionConfig(Section):
    """Which images are looked at.

    `include` and `exclude` are shell patterns (`*` spans slashes) on full references (`docker.io/library/nginx:1.25`)
    or on the name alone (`docker.io/library/nginx`); an empty `include` takes everything. `opt_out: false` makes the
    annotation `admend.dev/patch: "false"` powerless. `owners` adds kinds of controllers, written `Kind` for any group
    or `Kind.group`.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    opt_out: bool = True
    owners: tuple[str, ...] = ()


class EnforceConfig(Section):
    """What `enforce` does with an image that is not patched, by outcome."""

    clean: Literal["pin", "leave"] = "pin"
    blocked: Literal["pin", "admit", "deny"] = "pin"
    unsupported: Literal["pin", "admit", "deny"] = "pin"
    pending: Literal["admit", "deny"] = "deny"
    failed: Literal["admit", "deny"] = "deny"


class WebhookConfig(Section):
    """The whole configuration of the webhook."""

    proxy: ProxyClientConfig
    mirror: MirrorConfig
    trust: TrustConfig
    listen: ListenConfig = ListenConfig()
    mode: Mode = Mode.PERMISSIVE
    selection: SelectionConfig = SelectionConfig()
    enforce: EnforceConfig = EnforceConfig()
    margin: Seconds = 0.5  # kept back from the API server's own timeout, to answer in time
    max_body_bytes: Annotated[int, Field(ge=1024, le=64 << 20)] = 3 << 20  # the API server's own limit on a request


def load_config(file: Path) -> WebhookConfig:
    """Read and check a configuration file (JSON is YAML); MalformedInput names the file, the key and what is wrong."""
    try:
        with file.open("rb") as stream:
            text = stream.read(MAX_FILE + 1)
    except OSError as error:
        raise MalformedInput(f"cannot be read: {error.strerror}", file=str(file)) from error
    if len(text) > MAX_FILE:
        raise MalformedInput(f"a configuration file has {MAX_FILE} bytes at the most", file=str(file))
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        line = getattr(getattr(error, "problem_mark", None), "line", -1) + 1
        raise MalformedInput(f"is not YAML: {getattr(error, 'problem', error)}", file=str(file), line=line) from error
    try:
        return WebhookConfig.model_validate(document if document is not None else {})
    except ValidationError as error:
        raise MalformedInput(_describe(error), file=str(file)) from error


def _describe(error: ValidationError) -> str:
    problems = []
    for item in error.errors(include_url=False, include_input=False):
        key = ".".join(str(part) for part in item["loc"]) or "document"
        if item["type"] == "extra_forbidden":
            problems.append(f"unknown key {key} (known here: {', '.join(_keys_beside(item['loc']))})")
        else:
            problems.append(f"{key}: {item['msg']}")
    return "; ".join(problems)


def _keys_beside(place: tuple[int | str, ...]) -> list[str]:
    """Return the keys that the model knows where the unknown one stands."""
    model: type[BaseModel] = WebhookConfig
    for part in place[:-1]:
        inner = getattr(model.model_fields.get(str(part)), "annotation", None)
        options = (inner, *getattr(inner, "__args__", ()))
        model = next((it for it in options if isinstance(it, type) and issubclass(it, BaseModel)), model)
    return sorted(model.model_fields)
