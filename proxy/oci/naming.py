"""Where an upstream image lives in the mirror, and back; which tags only the mirror gives.

Owns the two namings, both injective and both readable:

- `nested`: `<mirror>/<upstream-host>/<repository>`. The host becomes lower case, as hosts do; a port's colon becomes
  `_`, which no host name has. An IPv6 address becomes `ipv6__` and its eight groups joined by `-`.
- `flat`, for registries that forbid nesting: the same path in one component. `/` becomes `--`, and a run of two or more
  `-` in the path grows by one, so that `--` alone is a slash. Nothing else changes: `docker.io--library--nginx`.

Refuses a name that gets longer than the grammar allows.
"""

import ipaddress
import re
from dataclasses import dataclass
from typing import Literal

from proxy.errors import MalformedInput
from proxy.oci.reference import MAX_NAME, ImageRef

INTERNAL_HOST = "admend.internal"  # no upstream's name: what the mirror holds under it is admend's own

_INTERNAL = re.compile(r"src-[0-9a-f]{16,64}(\..+)?|(sha256|sha512)-[0-9a-f]{64,128}(\..+)?")
_DASHES = re.compile(r"-{2,}")
_IPV6 = "ipv6__"


@dataclass(frozen=True, slots=True)
class Naming:
    """Maps names between upstream and mirror; `host` is as nodes write it, `prefix` a path in it or empty."""

    host: str
    prefix: str = ""
    style: Literal["nested", "flat"] = "nested"

    @classmethod
    def parse(cls, text: str, style: Literal["nested", "flat"] = "nested") -> "Naming":
        """Parse `host[:port][/prefix]`."""
        host, _, prefix = text.partition("/")
        ImageRef.parse(f"{host}/{prefix or 'x'}/x")
        return cls(host, prefix, style)

    def name_for(self, upstream: ImageRef) -> ImageRef:
        """Return the mirror's name of an upstream image, with the same tag and digest.

        Raises MalformedInput when that name would be too long.
        """
        path = f"{_render_host(upstream.host)}/{upstream.repository}"
        if self.style == "flat":
            path = _DASHES.sub(lambda run: run[0] + "-", path).replace("/", "--")
        repository = f"{self.prefix}/{path}" if self.prefix else path
        if len(self.host) + 1 + len(repository) > MAX_NAME:
            message = f"in the mirror this name would be longer than the {MAX_NAME} characters that a name may have"
            raise MalformedInput(message, text=str(upstream))
        return ImageRef(self.host, repository, upstream.tag, upstream.digest)

    def original_of(self, ref: ImageRef) -> ImageRef | None:
        """Return the upstream name of a reference into the mirror; None when it is not one.

        The digest stays what it is, a digest of the mirror; tags that only the mirror has are dropped.
        """
        start = f"{self.prefix}/" if self.prefix else ""
        if ref.host != self.host or not ref.repository.startswith(start):
            return None
        path = ref.repository.removeprefix(start)
        if self.style == "flat":
            path = _DASHES.sub(lambda run: "/" if run[0] == "--" else run[0][1:], path)
        first, _, repository = path.partition("/")
        host = _parse_host(first)
        if host is None:
            return None
        tag = None if ref.tag is None or is_internal(ref.tag) else ref.tag
        try:
            original = ImageRef.parse(f"{host}/{repository}")
        except MalformedInput:
            return None
        if self.name_for(original).repository != ref.repository:
            return None  # a name that this naming never gives
        return ImageRef(original.host, original.repository, tag, ref.digest)


def is_internal(tag: str) -> bool:
    """Return whether only the mirror gives such tags."""
    return _INTERNAL.fullmatch(tag) is not None


def _render_host(host: str) -> str:
    if host.startswith("["):
        address, _, port = host[1:].partition("]")
        exploded = ipaddress.IPv6Address(address).exploded.replace(":", "-")
        return _IPV6 + exploded + port.replace(":", "_")
    return host.lower().replace(":", "_")


def _parse_host(text: str) -> str | None:
    if text.startswith(_IPV6):
        groups, _, port = text.removeprefix(_IPV6).partition("_")
        try:
            address = ipaddress.IPv6Address(groups.replace("-", ":"))
        except ValueError:
            return None
        return f"[{address}]:{port}" if port else f"[{address}]"
    host, _, port = text.partition("_")
    if "." not in host and not port and host != "localhost":
        return None  # not a host as references write them
    return f"{host}:{port}" if port else host
