"""Registry credentials from a docker config.json.

Owns reading the file, again when it changes, and finding the login of an image name. Credential helpers
(`credHelpers`, `credsStore`) are programs: they are never run, and named where a login is missing because of one.
Secrets stay out of repr, str and every message. Format:
https://github.com/docker/cli/blob/v27.0.0/cli/config/configfile/file.go, with the repository paths as keys of
containers-auth.json(5).
"""

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from certs.following import Followed
from proxy.errors import MalformedInput

DOCKER_HUB = "docker.io"
MAX_CONFIG = 1 << 20  # bytes
MAX_KEY = 100  # characters of a key that are shown
OWN = "the docker config (upstream.docker_config)"
_DOCKER_HUB_NAMES = frozenset({DOCKER_HUB, "index.docker.io", "registry-1.docker.io"})


@dataclass(frozen=True, slots=True)
class Login:
    """User and password of one registry, or an identity token that is exchanged for access tokens."""

    username: str
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)

    @property
    def basic(self) -> str:
        """The value of an Authorization header."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


class _WireLogin(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)

    auth: str = ""
    username: str = ""
    password: str = ""
    identitytoken: str = ""


class _WireConfig(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)

    auths: dict[str, _WireLogin] = Field(default_factory=dict)
    credential_helpers: dict[str, str] = Field(default_factory=dict, alias="credHelpers")
    credential_store: str = Field(default="", alias="credsStore")


class Credentials:
    """Logins by registry host or by host and path; without arguments there are none.

    Args:
        logins: by `host[:port]` or `host[:port]/path`.
        helpers: names of credential helpers by host; "" for the default one.
        where: what holds them, in words for error messages.
    """

    def __init__(
        self,
        logins: Mapping[str, Login] | None = None,
        helpers: Mapping[str, str] | None = None,
        *,
        where: str = OWN,
    ) -> None:
        self.where = where
        self._logins = {normalize_key(key): login for key, login in (logins or {}).items()}
        self._helpers = {normalize_key(key): helper for key, helper in (helpers or {}).items()}

    def __repr__(self) -> str:
        return f"Credentials({', '.join(sorted(self._logins))})"

    def __bool__(self) -> bool:
        return bool(self._logins)

    @classmethod
    def read(cls, path: Path) -> "Credentials":
        """Read a docker config.json; raises MalformedInput, which never shows its content."""
        try:
            with path.open("rb") as stream:
                raw = stream.read(MAX_CONFIG + 1)
        except OSError as error:
            raise MalformedInput(f"cannot be read: {error.strerror}", file=str(path)) from error
        found = cls.parse(raw, str(path))
        found.where = OWN
        return found

    @classmethod
    def parse(cls, raw: bytes, where: str = "docker config", *, legacy: bool = False) -> "Credentials":
        """Parse the content of a docker config.json; raises MalformedInput, which never shows it.

        A `legacy` one (.dockercfg) is the map of logins alone.
        """
        if len(raw) > MAX_CONFIG:
            raise MalformedInput(f"a docker config has {MAX_CONFIG} bytes at the most", file=where)
        try:
            document = json.loads(raw)
            config = _WireConfig.model_validate({"auths": document} if legacy else document)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(show_key(str(part)) for part in first["loc"]) or "document"
            raise MalformedInput(f"not a docker config: {place}: {first['msg']}", file=where) from None
        except (ValueError, RecursionError):
            raise MalformedInput("not a docker config: no JSON", file=where) from None
        logins = {key: _login(key, entry, where) for key, entry in config.auths.items()}
        helpers = {**config.credential_helpers}
        if config.credential_store:
            helpers[""] = config.credential_store
        return cls({key: login for key, login in logins.items() if login is not None}, helpers, where=where)

    def find(self, name: str) -> Login | None:
        """Return the login of an image name `host/repository`: that of the longest path, at last the host's.

        In a key's host `*` stands for part of one label, as the kubelet reads it; exact hosts come first.
        """
        wanted = normalize_key(name)
        key = wanted
        while key:
            if key in self._logins:
                return self._logins[key]
            key = key.rpartition("/")[0]
        patterns = sorted((key for key in self._logins if "*" in key), key=lambda key: (-key.count("/"), key))
        return next((self._logins[key] for key in patterns if _fits(key, wanted)), None)

    def helper(self, host: str) -> str:
        """Return the credential helper that the file names for a host and that is not run, or ``""``."""
        return self._helpers.get(normalize_key(host), self._helpers.get("", ""))


class CredentialsFile(Credentials):
    """The logins of a docker config that is read again when it changes; raises MalformedInput if it cannot be read."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        Credentials.read(path)  # says what is wrong in its own words
        self._file = Followed("registry credentials", (path,), lambda: Credentials.read(path), (MalformedInput,))

    def __repr__(self) -> str:
        return repr(self._file.current)

    def __bool__(self) -> bool:
        return bool(self._file.current)

    def find(self, name: str) -> Login | None:
        """Return the login of an image name that the file holds now."""
        return self._file.current.find(name)

    def helper(self, host: str) -> str:
        """Return the credential helper that the file names now."""
        return self._file.current.helper(host)


def normalize_key(key: str) -> str:
    """Return a key of `auths` as `host[:port][/path]`: without scheme, API version and Docker Hub's other names."""
    _, _, key = key.rpartition("://")
    host, _, path = key.strip("/").partition("/")
    host = host.lower()
    path = "" if path in {"v1", "v2"} else path
    host = DOCKER_HUB if host in _DOCKER_HUB_NAMES else host
    return f"{host}/{path}" if path else host


def show_key(key: str) -> str:
    """Return a key as messages may show it: short, on one line, and without the login that an address may hold."""
    shown = key.rpartition("@")[2][:MAX_KEY]
    return "".join(letter if letter.isprintable() else "?" for letter in shown)


def _fits(pattern: str, name: str) -> bool:
    """Say whether a key with `*` in its host is for an image name: label by label, the path as a whole."""
    (wanted_host, _, wanted_path), (host, _, path) = pattern.partition("/"), name.partition("/")
    wanted, labels = wanted_host.split("."), host.split(".")
    if len(wanted) != len(labels) or not f"{path}/".startswith(f"{wanted_path}/" if wanted_path else ""):
        return False
    return all(fnmatchcase(label, part) for part, label in zip(wanted, labels, strict=True))


def _login(key: str, entry: _WireLogin, where: str) -> Login | None:
    username, password = entry.username, entry.password
    if entry.auth:
        try:
            text = base64.b64decode(entry.auth, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            raise MalformedInput(f"auths.{show_key(key)}.auth is not base64 of user:password", file=where) from None
        username, colon, password = text.partition(":")
        if not colon:
            raise MalformedInput(f"auths.{show_key(key)}.auth is not base64 of user:password", file=where)
        password = password.rstrip("\0")  # docker pads what it wrote in its first years
    if not (username and password) and not entry.identitytoken:
        return None  # docker leaves empty entries where a helper holds the secret
    return Login(username, password, entry.identitytoken)
