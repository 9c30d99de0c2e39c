"""The proxy's configuration: one YAML or JSON file, one frozen model, unknown keys refused.

Owns the model and its reading. Nothing else in the proxy reads the environment or a settings file. Durations are in
seconds, sizes in bytes.
"""

from pathlib import Path
from typing import Annotated, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from proxy.errors import MalformedInput

Seconds = Annotated[float, Field(ge=0)]
Bytes = Annotated[int, Field(gt=0)]


class Section(BaseModel):
    """Base of every section: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class TlsConfig(Section):
    """Serving certificate, and the authority whose client certificates are accepted."""

    cert_file: Path
    key_file: Path
    client_ca_file: Path | None = None


class ListenConfig(Section):
    """Where the proxy listens; without `tls` it speaks plain HTTP."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8443
    tls: TlsConfig | None = None


class AuthConfig(Section):
    """Who may ask: /v1, pushes and deletions need a client certificate, the token or the password.

    Pulls are as `pull` says. `token_file` holds a bearer token, `password_file` one line `user:password`.
    """

    client_certificates: bool = True
    token_file: Path | None = None
    password_file: Path | None = None
    pull: Literal["anonymous", "basic"] = "anonymous"


class MirrorConfig(Section):
    """Where patched images live.

    `reference` is the host (and port) that nodes pull from, as it is written into pods. `registry` names an external
    registry `host[:port][/prefix]`; without it the mirror is embedded, an OCI image layout in `path`.
    """

    reference: str
    registry: str | None = None
    path: Path = Path("/var/lib/admend/mirror")
    naming: Literal["nested", "flat"] = "nested"
    max_bytes: Bytes = 50 << 30
    retain: Seconds = 30 * 86400


class UpstreamConfig(Section):
    """Which registries may be asked, and how.

    `allow` lists hosts (`host[:port]`, `*.suffix`); null allows every public one. `private` lists hosts that may
    resolve to private or loopback addresses, `plain_http` those that are spoken to without TLS.
    """

    allow: tuple[str, ...] | None = None
    private: tuple[str, ...] = ()
    plain_http: tuple[str, ...] = ()
    docker_config: Path | None = None
    ca_file: Path | None = None
    timeout: Seconds = 30.0


class ExtraSource(Section):
    """A further package source, for images of the distribution that `keyring` names (debian, ubuntu)."""

    uri: str
    suite: str
    components: tuple[str, ...] = ("main",)
    keyring: str
    family: str = "dpkg"
    security: bool = False


class SourcesConfig(Section):
    """Package sources.

    `machine` is the machine's own apt configuration (the default for Debian images). `mirrors` maps URI prefixes of
    images' sources to others, `allow` lists further URI prefixes that images may name, `private` hosts of sources
    that may resolve to private addresses. `keyrings` adds files per keyring name (debian, ubuntu).
    """

    machine: Path | None = Path("/etc/apt")
    mirrors: dict[str, str] = Field(default_factory=dict)
    allow: tuple[str, ...] = ()
    private: tuple[str, ...] = ()
    extra: tuple[ExtraSource, ...] = ()
    keyrings: dict[str, tuple[Path, ...]] = Field(default_factory=dict)
    http_proxy: str | None = None
    refresh_seconds: Seconds = 900.0
    max_index_age: Seconds = 86400.0


class PolicyConfig(Section):
    """What a patch does; its hash is part of every result's name and signature."""

    scope: Literal["all", "security"] = "all"
    exclude: tuple[str, ...] = ()  # package names that never move
    compression: Literal["auto", "gzip", "zstd"] = "auto"


class WorkersConfig(Section):
    """The engine's worker processes and their limits."""

    count: Annotated[int, Field(ge=1, le=64)] = 2
    memory: Bytes = 1 << 30
    cpu_seconds: Annotated[int, Field(ge=1)] = 120
    wall_seconds: Seconds = 300.0


class ProxyConfig(Section):
    """The whole configuration of the proxy."""

    listen: ListenConfig = ListenConfig()
    auth: AuthConfig = AuthConfig()
    mirror: MirrorConfig = MirrorConfig(reference="localhost:8443")
    upstream: UpstreamConfig = UpstreamConfig()
    sources: SourcesConfig = SourcesConfig()
    policy: PolicyConfig = PolicyConfig()
    workers: WorkersConfig = WorkersConfig()
    signing_key: Path = Path("/var/lib/admend/keys/signing.pem")
    cache: Path = Path("/var/cache/admend")
    cache_max_bytes: Bytes = 20 << 30
    platforms: tuple[str, ...] = ()  # that patched indexes hold; by default this machine's
    tag_ttl: Seconds = 300.0
    negative_ttl: Seconds = 30.0
    mirror_ttl: Seconds = 60.0  # how long the mirror's word that it has an image is believed


Model = TypeVar("Model", bound=BaseModel)


def load_config(file: Path, model: type[Model]) -> Model:
    """Read and check a configuration file (JSON is YAML); MalformedInput names the file, the key and what is wrong."""
    try:
        document = yaml.safe_load(file.read_bytes())
    except OSError as error:
        raise MalformedInput(f"cannot be read: {error.strerror}", file=str(file)) from error
    except yaml.YAMLError as error:
        line = getattr(getattr(error, "problem_mark", None), "line", -1) + 1
        raise MalformedInput(f"is not YAML: {getattr(error, 'problem', error)}", file=str(file), line=line) from error
    try:
        return model.model_validate(document or {})
    except ValidationError as error:
        raise MalformedInput(_describe(error, model), file=str(file)) from error


def _describe(error: ValidationError, model: type[BaseModel]) -> str:
    problems = []
    for item in error.errors(include_url=False):
        key = ".".join(str(part) for part in item["loc"]) or "document"
        if item["type"] == "extra_forbidden":
            known = ", ".join(_keys_beside(model, item["loc"]))
            problems.append(f"unknown key {key} (known here: {known})")
        else:
            problems.append(f"{key}: {item['msg']}")
    return "; ".join(problems)


def _keys_beside(model: type[BaseModel], place: tuple[int | str, ...]) -> list[str]:
    """Return the keys that the model knows where the unknown one stands."""
    for part in place[:-1]:
        field = model.model_fields.get(str(part))
        inner = getattr(field, "annotation", None)
        options = [inner, *getattr(inner, "__args__", ())]
        model = next(
            (option for option in options if isinstance(option, type) and issubclass(option, BaseModel)), model
        )
    return sorted(model.model_fields)
