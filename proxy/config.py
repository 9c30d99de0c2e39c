"""The proxy's configuration: one YAML or JSON file, one frozen model, unknown keys refused.

Owns the model; `certs.settings` reads the file. Durations are in seconds, sizes in bytes.
"""

from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from certs import settings
from certs.logs import LogConfig
from certs.settings import Bytes, Port, Seconds, Section
from certs.tracing import TracingConfig
from proxy.audit import AuditConfig


class ListenConfig(settings.ListenConfig):
    """Where the proxy listens; without `tls` it speaks plain HTTP."""

    port: Port = 8443


_ACCOUNT = r"system:serviceaccount:[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?:[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?"
ServiceAccountName = Annotated[str, Field(pattern=rf"^{_ACCOUNT}$")]
NamespacePattern = Annotated[str, Field(pattern=r"^[-a-z0-9*?\[\]!]{1,63}$")]


class TokenReviewConfig(Section):
    """Service accounts whose tokens are enough, checked by the cluster's API server (needs `cluster`).

    A token must be meant for one of `audiences`, so that one made for the API server itself cannot be replayed here;
    `allow` lists who may ask, as `system:serviceaccount:NAMESPACE:NAME`.
    """

    audiences: Annotated[tuple[str, ...], Field(min_length=1, max_length=8)]
    allow: Annotated[tuple[ServiceAccountName, ...], Field(min_length=1)]


class AuthConfig(Section):
    """Who may ask: /v1, pushes and deletions need a client certificate, the token, the password or a service account.

    Pulls are as `pull` says: by anybody, by who brings credentials (`basic`), or with short-lived tokens that those
    credentials are exchanged for (`token`, at `realm`, by default /v2/token of the host that was asked). `token_file`
    holds a bearer token, `password_file` one line `user:password`. `client_names` lists the common names of client
    certificates that count; empty: all that `listen.tls.client_ca_file` vouches for.
    """

    client_certificates: bool = True
    client_names: tuple[str, ...] = ()
    token_file: Path | None = None
    password_file: Path | None = None
    token_review: TokenReviewConfig | None = None
    pull: Literal["anonymous", "token", "basic"] = "anonymous"
    realm: str = ""
    token_seconds: Annotated[int, Field(ge=60, le=3600)] = 300


class GrantsConfig(Section):
    """Pull secrets for the embedded mirror, so that nodes can pull private images from it (needs `cluster`).

    The proxy keeps a Secret `admend-mirror` in each namespace that needs one (`cluster.pull_secrets.namespaces`). It
    opens the repositories that the namespace's own credentials opened upstream within the last `seconds`. `key_file`
    holds what the passwords are made from (by default a file in the mirror's folder); another `epoch` makes all anew.
    """

    enabled: bool = False
    seconds: Annotated[Seconds, Field(ge=3600)] = 30 * 86400.0
    epoch: Annotated[int, Field(ge=0)] = 0
    key_file: Path | None = None


class MirrorConfig(Section):
    """Where patched images live.

    `reference` is the host (and port) that nodes pull from, as it is written into pods. `registry` names an external
    registry `host[:port][/prefix]`; without it the mirror is embedded, an OCI image layout in `path`. `private` says
    what happens to images that their registry does not give to everybody: pods keep them (`keep`), or they are patched
    and rewritten like others (`rewrite`: nodes have credentials for the mirror). By default they are rewritten only
    with `grants`.
    """

    reference: str
    registry: str | None = None
    path: Path = Path("/var/lib/admend/mirror")
    naming: Literal["nested", "flat"] = "nested"
    max_bytes: Bytes = 50 << 30
    retain: Seconds = 30 * 86400  # how long a superseded image is kept
    retain_every: Annotated[Seconds, Field(ge=1)] = 3600.0  # how often mirror and cache are cleaned up
    pull_wait: Annotated[Seconds, Field(le=55)] = 45.0  # that a pull waits for the first patch of its image
    private: Literal["keep", "rewrite"] | None = None
    grants: GrantsConfig = GrantsConfig()


class UpstreamConfig(Section):
    """Which registries may be asked, and how.

    `allow` lists hosts (`host[:port]`, `*.suffix`); null allows every public one. `private` lists hosts that may
    resolve to private or loopback addresses, `plain_http` those that are spoken to without TLS, and
    `plain_http_credentials` those of them that credentials are sent to all the same. `token_realms` lists, by registry,
    other hosts that its credentials may be exchanged at.

    The logins of `docker_config` serve the command line, requests without a namespace, and pods of the namespaces that
    match `credential_namespaces` (shell patterns). With `credentials_open` what they open counts as public: whoever may
    pull from the mirror gets it.
    """

    allow: tuple[str, ...] | None = None
    private: tuple[str, ...] = ()
    plain_http: tuple[str, ...] = ()
    plain_http_credentials: tuple[str, ...] = ()
    token_realms: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    docker_config: Path | None = None
    credential_namespaces: tuple[NamespacePattern, ...] = ()
    credentials_open: bool = False
    ca_file: Path | None = None
    timeout: Seconds = 30.0


def _plain_address(uri: str) -> str:
    """Refuse an address with a user or password: those have files and a setting of their own."""
    parts = urlsplit(uri)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("not an http or https address")
    if "@" in parts.netloc:
        raise ValueError("an address must not hold a user or password; give them in sources.credentials")
    return uri


Address = Annotated[str, AfterValidator(_plain_address)]


class ExtraSource(Section):
    """A further package source, for images of the distribution that `keyring` names (debian, ubuntu).

    `architectures` (Debian's names; all if empty) are those that it serves. With `fallback` it serves only images whose
    own lists leave no source. `check_valid_until` says whether a release that has expired is refused.
    """

    uri: Address
    suite: str
    components: tuple[str, ...] = ("main",)
    keyring: str
    family: str = "dpkg"
    security: bool = False
    architectures: tuple[str, ...] = ()
    fallback: bool = False
    check_valid_until: bool = True


class SourceCredentials(Section):
    """What is sent to package sources under `prefix` (https), and nowhere else.

    Either `user` with the first line of `password_file`, or the first line of `token_file` as a bearer token.
    """

    prefix: Address
    user: str = ""
    password_file: Path | None = None
    token_file: Path | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.prefix.startswith("https://"):
            raise ValueError("credentials go over TLS only: the prefix must be an https address")
        if bool(self.user and self.password_file) == bool(self.token_file):
            raise ValueError("give user and password_file, or token_file")
        return self


class SourcesConfig(Section):
    """Package sources.

    `machine` is the machine's own apt configuration (the default for Debian images). `mirrors` maps URI prefixes of
    images' sources to others, `allow` lists further URI prefixes that images may name, `private` hosts of sources
    that may resolve to private addresses. `keyrings` adds files per keyring name (debian, ubuntu, or a host).
    `archives` maps releases at the end of their life (debian/stretch, ubuntu/16.04) to the host that keeps them.
    """

    machine: Path | None = Path("/etc/apt")
    mirrors: dict[str, str] = Field(default_factory=dict)
    allow: tuple[str, ...] = ()
    private: tuple[str, ...] = ()
    extra: tuple[ExtraSource, ...] = ()
    keyrings: dict[str, tuple[Path, ...]] = Field(default_factory=dict)
    archives: dict[str, Address] = Field(default_factory=dict)
    credentials: tuple[SourceCredentials, ...] = ()
    ca_file: Path | None = None  # authorities that package sources may use besides the system's
    http_proxy: str | None = None
    refresh_seconds: Seconds = 900.0
    max_index_age: Seconds = 86400.0


class PolicyConfig(Section):
    """What a patch does; its hash is part of every result's name and signature.

    `unknown_scripts` says what happens to packages whose maintainer scripts are not understood: they stay (`skip`), or
    only their files and database move, with a note that names what is left out (`apply`). `allow_transitions: new`
    lets upgrades bring packages along that they newly need, as `apt-get upgrade --with-new-pkgs` does; `full` lets them
    also remove packages that they must not be with, as `apt-get dist-upgrade` does.
    """

    scope: Literal["all", "security"] = "all"
    exclude: tuple[str, ...] = ()  # package names that never move
    unknown_scripts: Literal["skip", "apply"] = "skip"
    allow_transitions: Literal["none", "new", "full"] = "none"
    compression: Literal["auto", "gzip", "zstd"] = "auto"


class WorkersConfig(Section):
    """The engine's worker processes and their limits."""

    count: Annotated[int, Field(ge=1, le=64)] = 2
    memory: Bytes = 1 << 30
    cpu_seconds: Annotated[int, Field(ge=1)] = 120
    wall_seconds: Seconds = 300.0


class NamespaceSelection(Section):
    """Which namespaces take part, as the webhook configuration selects them.

    `label` on a namespace says how (enabled, permissive, enforce, audit, disabled). With `opt_in` those without it are
    left out, else they take part; `exclude` never do. `default_mode` is what `enabled` stands for.
    """

    label: str = "admend.dev/admission"
    opt_in: bool = True
    default_mode: Literal["permissive", "enforce", "audit"] = "permissive"
    exclude: tuple[str, ...] = ("kube-system",)


class PullSecretsConfig(Section):
    """Whether the proxy reads the pull secrets that pods name, in the namespaces that match `namespaces` (patterns)."""

    enabled: bool = False
    namespaces: tuple[NamespacePattern, ...] = ()


class ProbeConfig(Section):
    """The DaemonSet (in the proxy's namespace) whose pods run the canary from the mirror, one on each node.

    Until all of them have pulled it, pods are not rewritten. It is looked at every `every` seconds; `grace` is how long
    nodes that join may take before the proof is lost.
    """

    daemonset: Annotated[str, Field(min_length=1, max_length=253)]
    grace: Seconds = 300.0
    every: Annotated[Seconds, Field(ge=0.05)] = 15.0


class PrewarmConfig(Section):
    """Whether images of running pods are patched before they are asked for.

    `concurrency` images at a time, `per_minute` of one upstream host. `include` and `exclude` are patterns of image
    names in full (`docker.io/library/*`); what they leave out is not reported on either.
    """

    enabled: bool = True
    concurrency: Annotated[int, Field(ge=1, le=16)] = 1
    per_minute: Annotated[float, Field(ge=0.1, le=6000)] = 30.0
    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()


class EventsConfig(Section):
    """Whether an Event on a pod's owner tells of a newer patched image; said again every `repeat` seconds."""

    enabled: bool = True
    repeat: Annotated[Seconds, Field(ge=60.0)] = 21600.0


class RestartConfig(Section):
    """Whether pods that run without a patch that is there are evicted, in the namespaces that match (patterns).

    `per_minute` evictions at the most; after one of a workload's pods the next waits `cooldown` seconds. With
    `single_pods` off, a workload's only pod is left running. With `dry_run` the API server only says what it would do.
    """

    enabled: bool = False
    namespaces: tuple[NamespacePattern, ...] = ("*",)
    per_minute: Annotated[float, Field(ge=0.1, le=600)] = 6.0
    cooldown: Seconds = 60.0
    single_pods: bool = False
    dry_run: bool = False


class FleetConfig(Section):
    """What is done about the images of running pods, in a round every `every` seconds."""

    every: Annotated[Seconds, Field(ge=0.05)] = 300.0
    prewarm: PrewarmConfig = PrewarmConfig()
    events: EventsConfig = EventsConfig()
    restart: RestartConfig = RestartConfig()


class ClusterConfig(Section):
    """The Kubernetes cluster that the proxy serves; without this section it asks no API server for anything.

    `namespace` is the proxy's own. `kubeconfig` is for a proxy outside of the cluster; inside, the service account is
    used. `lease` names the Lease by which one of several proxies does what only one should.
    """

    namespace: str
    kubeconfig: Path | None = None
    lease: str = "admend-proxy"
    namespaces: NamespaceSelection = NamespaceSelection()
    pull_secrets: PullSecretsConfig = PullSecretsConfig()
    probe: ProbeConfig | None = None  # null: nodes are taken to reach the mirror
    fleet: FleetConfig | None = None  # null: running pods are not looked at


class ProxyConfig(Section):
    """The whole configuration of the proxy."""

    listen: ListenConfig = ListenConfig()
    auth: AuthConfig = AuthConfig()
    mirror: MirrorConfig = MirrorConfig(reference="localhost:8443")
    upstream: UpstreamConfig = UpstreamConfig()
    sources: SourcesConfig = SourcesConfig()
    policy: PolicyConfig = PolicyConfig()
    workers: WorkersConfig = WorkersConfig()
    cluster: ClusterConfig | None = None
    signing_key: Path = Path("/var/lib/admend/keys/signing.pem")  # read again when it changes, like trusted_keys
    trusted_keys: tuple[Path, ...] = ()  # public keys that signed before: what they signed stays in force
    cache: Path = Path("/var/cache/admend")
    cache_max_bytes: Bytes = 20 << 30  # blobs: pulled layers and packages
    derived_max_bytes: Bytes = 4 << 30  # what is made from them: scans, unpacked packages, source indexes
    derived_max_age: Seconds = 14 * 86400.0  # without use
    platforms: tuple[str, ...] = ()  # that patched indexes hold; by default this machine's
    tag_ttl: Seconds = 300.0
    negative_ttl: Seconds = 30.0
    mirror_ttl: Seconds = 60.0  # how long the mirror's word that it has an image is believed
    audit: AuditConfig = AuditConfig()  # where evictions are told
    log: LogConfig = LogConfig()
    tracing: TracingConfig = TracingConfig()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.auth.token_review is not None and self.cluster is None:
            raise ValueError("auth.token_review asks the cluster's API server: give the section cluster too")
        if self.mirror.grants.enabled and (self.cluster is None or self.mirror.registry is not None):
            raise ValueError("mirror.grants is for an embedded mirror in a cluster: give cluster, not mirror.registry")
        return self
