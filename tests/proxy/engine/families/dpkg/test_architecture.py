"""Debian's architectures and the platforms of images."""

import re
from pathlib import Path

import pytest

from proxy.engine.families.dpkg.architecture import architecture_of, platform_of
from proxy.errors import Unsupported
from proxy.oci.manifest import Platform

OFFICIAL = {  # as Debian's own images are published
    "linux/386": "i386",
    "linux/amd64": "amd64",
    "linux/arm/v5": "armel",
    "linux/arm/v7": "armhf",
    "linux/arm64": "arm64",
    "linux/mips64le": "mips64el",
    "linux/ppc64le": "ppc64el",
    "linux/riscv64": "riscv64",
    "linux/s390x": "s390x",
}
CPUS = Path("/usr/share/dpkg/cputable")


@pytest.mark.parametrize(("platform", "arch"), OFFICIAL.items())
def test_a_platform_is_the_architecture_of_debians_own_images_for_it(platform: str, arch: str) -> None:
    assert architecture_of(Platform.parse(platform)) == arch
    assert str(platform_of(arch)) == platform


@pytest.mark.parametrize(
    ("platform", "arch"),
    [
        ("linux/arm", "armhf"),
        ("linux/arm/v6", "armel"),
        ("linux/arm64/v8", "arm64"),
        ("linux/amd64/v3", "amd64"),
        ("linux/x86_64", "amd64"),
        ("linux/aarch64", "arm64"),
    ],
)
def test_other_spellings_and_variants_are_understood(platform: str, arch: str) -> None:
    assert architecture_of(Platform.parse(platform)) == arch


@pytest.mark.parametrize("platform", ["windows/amd64", "linux/sparc", "linux/arm/v9"])
def test_a_platform_that_debian_does_not_have_is_unsupported(platform: str) -> None:
    with pytest.raises(Unsupported, match=platform):
        architecture_of(Platform.parse(platform))


@pytest.mark.interop
@pytest.mark.skipif(not CPUS.exists(), reason="this machine has no dpkg")
def test_dpkg_knows_the_processor_of_every_architecture() -> None:
    known = set(re.findall(r"^([a-z0-9]+)\s", CPUS.read_text(), re.MULTILINE))
    arms = {"armel": "arm", "armhf": "arm"}
    assert {arms.get(arch, arch) for arch in OFFICIAL.values()} <= known
