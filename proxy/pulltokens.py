"""Short-lived tokens that pulls from the embedded mirror are made with, and the passwords of namespaces.

Owns both forms. Nothing is kept: a token says who asked, what for and until when, and a password is a function of the
namespace; an HMAC with a key of the proxy's own makes them good on every replica and after a restart. Refuses what is
expired, longer than it should be, or not made with that key.
Flow: https://distribution.github.io/distribution/spec/auth/token/
"""

import base64
import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from proxy.errors import MalformedInput
from proxy.files import writing

PULL_KEY = "pull.key"  # in the embedded mirror's folder, unless the settings name a file
KEY_SIZE = 32  # bytes
MAX_TOKEN = 8192  # characters
MAX_NAMESPACE = 63  # characters (RFC 1123 label)


@dataclass(frozen=True, slots=True)
class Grant:
    """What a token says: whose it is, how they proved it, and which actions on which repositories it is for."""

    who: str
    how: str
    scope: Mapping[str, frozenset[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PullTokens:
    """Makes and reads tokens.

    Args:
        key: of at least 32 bytes.
        service: the mirror's host; a token is good for one mirror only.
        seconds: how long a token is good.
    """

    key: bytes = field(repr=False)
    service: str
    seconds: int = 300

    def issue(self, grant: Grant, now: float) -> str:
        """Return a token that says what `grant` says."""
        document = {
            "who": grant.who,
            "how": grant.how,
            "scope": {name: sorted(actions) for name, actions in sorted(grant.scope.items())},
            "service": self.service,
            "until": int(now) + self.seconds,
        }
        payload = _encode(json.dumps(document, separators=(",", ":")).encode())
        return f"{payload}.{_encode(self._seal(payload))}"

    def read(self, token: str, now: float) -> Grant | None:
        """Return what a token says, or None when it is not one of these, or no longer good."""
        payload, dot, seal = token.partition(".")
        if not dot or len(token) > MAX_TOKEN or not token.isascii():
            return None
        if not hmac.compare_digest(_encode(self._seal(payload)), seal):
            return None
        document = json.loads(_decode(payload))
        if document["service"] != self.service or document["until"] <= now:
            return None
        scope = {name: frozenset(actions) for name, actions in document["scope"].items()}
        return Grant(document["who"], document["how"], scope)

    def _seal(self, payload: str) -> bytes:
        return hmac.digest(self.key, f"admend pull token\n{payload}".encode(), hashlib.sha256)


@dataclass(frozen=True, slots=True)
class NamespacePasswords:
    """The password of each namespace; another `epoch` makes all of them different ones."""

    key: bytes = field(repr=False)
    epoch: int = 0

    def password(self, namespace: str) -> str:
        """Return the password of a namespace."""
        text = f"admend namespace password\n{self.epoch}\n{namespace}"
        return _encode(hmac.digest(self.key, text.encode(), hashlib.sha256))

    def holds(self, namespace: str, password: str) -> bool:
        """Say whether this is the password of the namespace."""
        if not 0 < len(namespace) <= MAX_NAMESPACE:
            return False
        return hmac.compare_digest(self.password(namespace).encode(), password.encode())


def load_or_make_pull_key(path: Path) -> bytes:
    """Return the key in `path`, what all of these are made from; the first start makes one."""
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with writing(path, durable=True, mode=0o600) as out:
                out.write(secrets.token_hex(KEY_SIZE).encode())
        raw = path.read_bytes().strip()
    except OSError as error:
        raise MalformedInput(f"the key of pull secrets cannot be read or made: {error}", file=str(path)) from error
    if not KEY_SIZE <= len(raw) <= 1 << 16:
        raise MalformedInput(f"the key of pull secrets needs {KEY_SIZE} bytes or more, at random", file=str(path))
    return hashlib.sha256(b"admend pull key\n" + raw).digest()


def parse_scopes(texts: list[str]) -> dict[str, frozenset[str]]:
    """Return the actions by repository that a client asks for; what is not `repository:NAME:ACTIONS` is passed over."""
    found: dict[str, frozenset[str]] = {}
    for text in " ".join(texts).split()[:16]:
        kind, _, rest = text.partition(":")
        name, _, actions = rest.rpartition(":")
        if kind == "repository" and 0 < len(name) <= 255:  # noqa: PLR2004 - as long as a name may be
            found[name] = found.get(name, frozenset()) | frozenset(actions.split(",")) & {"pull", "push", "delete"}
    return found


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
