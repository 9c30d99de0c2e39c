"""What Debian calls the platforms of images.

Owns the two vocabularies' dictionary. An image's own database says what it is made of and is believed over its
platform; this serves where there is no database yet: composing images, and choosing what to fetch for a machine.
Names: https://github.com/opencontainers/image-spec/blob/v1.1.1/image-index.md#platform-variants, dpkg-architecture(1).
"""

from proxy.errors import Unsupported
from proxy.oci.manifest import Platform

_NAMES = {
    ("386", ""): "i386",
    ("amd64", ""): "amd64",
    ("arm", "v5"): "armel",
    ("arm", "v6"): "armel",  # Debian's armhf needs an ARMv7
    ("arm", "v7"): "armhf",
    ("arm64", ""): "arm64",
    ("loong64", ""): "loong64",
    ("mips64le", ""): "mips64el",
    ("mipsle", ""): "mipsel",
    ("ppc64le", ""): "ppc64el",
    ("riscv64", ""): "riscv64",
    ("s390x", ""): "s390x",
}
_PLATFORMS = {name: pair for pair, name in _NAMES.items() if pair != ("arm", "v6")}


def architecture_of(platform: Platform) -> str:
    """Return Debian's name; any variant of a 64-bit architecture is that architecture. Raises Unsupported."""
    known = platform.normalized()
    variant = known.variant if known.architecture == "arm" else ""
    if known.os != "linux" or (known.architecture, variant) not in _NAMES:
        raise Unsupported(f"{platform}: Debian has no name for this platform")
    return _NAMES[known.architecture, variant]


def platform_of(arch: str) -> Platform:
    """Return the platform whose images are made of packages of `arch`; raises Unsupported."""
    if arch not in _PLATFORMS:
        raise Unsupported(f"{arch}: no platform of images is known for this architecture")
    architecture, variant = _PLATFORMS[arch]
    return Platform("linux", architecture, variant)
