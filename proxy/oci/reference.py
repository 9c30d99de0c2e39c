"""Image references as Docker and containerd parse them.

Owns the value `ImageRef` and its text form, short names included (`nginx` is `docker.io/library/nginx`).
Refuses upper-case repositories, over-long names and anything else that the grammar does not have.
Grammar: https://github.com/distribution/reference/blob/v0.6.0/reference.go
"""

import re
from dataclasses import dataclass, replace
from typing import Self

from proxy.errors import MalformedInput
from proxy.oci.digest import Digest

DEFAULT_HOST = "docker.io"
MAX_NAME = 255  # characters of a repository, the grammar's own limit; and of a host, which DNS keeps below

_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_HOST = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]{{1,5}})?")
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_HEX64 = re.compile(r"[a-f0-9]{64}")


@dataclass(frozen=True, slots=True)
class ImageRef:
    """A reference: `host` (with port), `repository`, and a `tag`, a `digest` or both."""

    host: str
    repository: str
    tag: str | None = None
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse what a pod or a person writes; a reference with neither tag nor digest means `latest`.

        Raises MalformedInput with the offending text.
        """
        if not text:
            raise MalformedInput("an image reference is empty; write host/name:tag, for instance")
        name, at, digest_text = text.partition("@")
        digest = Digest.parse(digest_text) if at else None
        tag: str | None = None
        slash, colon = name.rfind("/"), name.rfind(":")
        if colon > slash:
            name, tag = name[:colon], name[colon + 1 :]
            if _TAG.fullmatch(tag) is None:
                raise MalformedInput("the tag of an image reference has a character it may not have", text=text)
        host, repository = _split_host(name)
        if _HOST.fullmatch(host) is None:
            raise MalformedInput("the registry host of an image reference is not a host", text=text)
        if _PATH.fullmatch(repository) is None:
            hint = "; it must be lower case" if repository.lower() != repository else ""
            raise MalformedInput(f"the repository of an image reference is not a valid name{hint}", text=text)
        if _HEX64.fullmatch(text):
            raise MalformedInput("64 hex digits are an image id, not a reference: write name@sha256:...", text=text)
        if len(repository) > MAX_NAME or len(host) > MAX_NAME:
            raise MalformedInput(f"a repository has {MAX_NAME} characters at the most, and so has a host", text=text)
        if tag is None and digest is None:
            tag = "latest"
        return cls(host, repository, tag, digest)

    @property
    def name(self) -> str:
        """Host and repository, without tag and digest."""
        return f"{self.host}/{self.repository}"

    @property
    def selector(self) -> str:
        """What a registry is asked for: the digest when there is one, else the tag."""
        return str(self.digest) if self.digest else self.tag or "latest"

    def with_digest(self, digest: Digest) -> "ImageRef":
        """Return `name@digest`, without a tag."""
        return replace(self, tag=None, digest=digest)

    def with_tag(self, tag: str) -> "ImageRef":
        """Return `name:tag`, without a digest."""
        return replace(self, tag=tag, digest=None)

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.name}{tag}{digest}"


def _split_host(name: str) -> tuple[str, str]:
    """Return host and repository of `name`, which has no tag and no digest (splitDockerDomain of the grammar)."""
    first, slash, rest = name.partition("/")
    if not slash or not ("." in first or ":" in first or first == "localhost" or first.lower() != first):
        host, repository = DEFAULT_HOST, name
    else:
        host, repository = first, rest
    if host == "index.docker.io":
        host = DEFAULT_HOST
    if host == DEFAULT_HOST and "/" not in repository:
        repository = f"library/{repository}"
    return host, repository
