"""IMAGE and DEST of the command line, spelled as skopeo spells them.

Owns the text form: `host/name[:tag][@digest]`, `oci:DIR[:tag]`, `oci-archive:FILE[:tag]`, `docker-archive:FILE[:name]`.
A path holds no colon. Grammar: containers-transports(5)
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from proxy.errors import MalformedInput
from proxy.oci.reference import ImageRef

MAX_TAG = 255
_REF_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._:@+/-]*[A-Za-z0-9])?")
_OTHERS = frozenset({"docker-daemon", "containers-storage", "dir", "sif", "ostree", "tarball"})


class Kind(StrEnum):
    """What holds the image."""

    REGISTRY = "registry"
    OCI = "oci"
    OCI_ARCHIVE = "oci-archive"
    DOCKER_ARCHIVE = "docker-archive"


@dataclass(frozen=True, slots=True)
class Location:
    """A place of an image: `ref` in a registry, else `path` and the `tag` in it (or "")."""

    kind: Kind
    ref: ImageRef | None = None
    path: Path = Path()
    tag: str = ""

    def __str__(self) -> str:
        if self.ref is not None:
            return str(self.ref)
        return f"{self.kind}:{self.path}{':' if self.tag else ''}{self.tag}"


def parse_location(text: str) -> Location:
    """Parse an IMAGE or DEST; raises MalformedInput with what would be right."""
    word, _, rest = text.partition(":")
    if text.startswith("docker://"):
        return Location(Kind.REGISTRY, ImageRef.parse(text.removeprefix("docker://")))
    if word in _OTHERS and not rest[:1].isdigit():
        raise MalformedInput("of skopeo's transports, oci:, oci-archive: and docker-archive: are known here", text=text)
    if word not in {Kind.OCI, Kind.OCI_ARCHIVE, Kind.DOCKER_ARCHIVE} or "/" in word:
        return Location(Kind.REGISTRY, ImageRef.parse(text))
    path, _, tag = rest.partition(":")
    if not path or "\0" in path:
        raise MalformedInput(f"a path is missing: write {word}:PATH or {word}:PATH:TAG", text=text)
    if rest.endswith(":") or (tag and (len(tag) > MAX_TAG or _REF_NAME.fullmatch(tag) is None)):
        raise MalformedInput("the tag behind the path has a character that it may not have, or is empty", text=text)
    if tag and word == Kind.DOCKER_ARCHIVE:
        tag = str(ImageRef.parse(tag))
    return Location(Kind(word), None, Path(path), tag)
