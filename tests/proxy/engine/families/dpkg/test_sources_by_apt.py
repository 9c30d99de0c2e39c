"""Which files of package lists are asked for: the real apt says what it would fetch for the same source lists."""

import re
import subprocess
from pathlib import Path

import pytest

from proxy.engine.families.dpkg.sources import image_sources
from proxy.engine.family import Distribution, SourceSettings
from tests.simulators.private_apt import private_apt
from tests.simulators.rootfs import rootfs_of
from tests.support import require_tool

pytestmark = pytest.mark.interop

ARCHS = ("amd64", "i386", "arm64")
HOST = "http://archive.example"
A = f"{HOST}/debian"
BLOCK = "Signed-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abcd\n -----END PGP PUBLIC KEY BLOCK-----\n"
LINES = {
    "one line": f"deb {A} bookworm main\n",
    "components": f"deb {A}/ bookworm main contrib non-free/firmware\n",
    "blanks, tabs and comments": f"# no\n\n  deb\t{A}\tbookworm   main # contrib\n#deb {A} x main\n",
    "sources as well": f"deb-src {A} bookworm main\ndeb {A} bookworm-updates main\n",
    "one architecture": f"deb [arch=i386] {A} bookworm main\n",
    "two architectures": f"deb [arch=i386,amd64] {A} bookworm main\n",
    "one more": f"deb [arch=i386 arch+=arm64] {A} bookworm main\n",
    "one more than all": f"deb [arch+=s390x] {A} bookworm main\n",
    "one less": f"deb [arch-=i386] {A} bookworm main\n",
    "two less": f"deb [arch-=i386,arm64] {A} bookworm main\n",
    "none of ours": f"deb [arch=s390x] {A} bookworm main\n",
    "other options": f"deb [ lang=en target-=Translations by-hash=no pdiffs=no ] {A} bookworm main\n",
    "a flat source": f"deb {A} ./\n",
    "a flat source below": f"deb {A} sub/folder/\n",
    "a flat source of one architecture": f"deb [arch=amd64] {A} ./\n",
    "an architecture in the address": f"deb {A}/$(ARCH) ./\ndeb {A} sub/$(ARCH)/\n",
    "an old security suite": f"deb {A} buster/updates main\n",
    "the same twice": f"deb {A} bookworm main\ndeb {A} bookworm contrib\ndeb {A} bookworm main\n",
    "a port": f"deb {HOST}:8080/debian bookworm main\n",
    "tilde and plus": f"deb {HOST}/~user/a+b x~y main\n",
}
STANZA = f"Types: deb\nURIs: {A}\nSuites: bookworm\nComponents: main\n"
STANZAS = {
    "one stanza": STANZA,
    "several of all": f"Types: deb deb-src\nURIs: {A}/ {HOST}/more\nSuites: x x-security\nComponents: main contrib\n",
    "folded": f"Types: deb\nURIs: {A}\n {HOST}/more\nSuites: bookworm\n\tx\nComponents: main\n  contrib\n",
    "sources only": STANZA.replace("deb\n", "deb-src\n", 1),
    "off": f"{STANZA}Enabled: no\n\n{STANZA}Enabled: false\n",
    "on": f"{STANZA}Enabled: yes\n",
    "comments between": f"# a\n{STANZA}# b\n\n\n# c\n{STANZA.replace('bookworm', 'x')}",
    "one architecture": f"{STANZA}Architectures: i386\n",
    "architectures": f"{STANZA}Architectures: i386 amd64\n",
    "one more": f"{STANZA}Architectures: i386\nArchitectures-Add: arm64\n",
    "one less": f"{STANZA}Architectures-Remove: i386\n",
    "one less than some": f"{STANZA}Architectures: i386 arm64\nArchitectures-Remove: i386\n",
    "languages and targets": f"{STANZA}Languages: en\nTargets: Packages\nBy-Hash: force\n",
    "a flat source": f"Types: deb\nURIs: {A}\nSuites: ./ sub/\n",
    "keys in a file": f"{STANZA}Signed-By: /usr/share/keyrings/x.gpg\n",
    "keys by fingerprint": f"{STANZA}Signed-By: {'A' * 40}, {'B' * 40}!\n",
    "keys in a block": f"{STANZA}{BLOCK}",
    "small letters": STANZA.lower(),
}


def wanted(name: str, text: str) -> set[str]:
    """Return the lists that admend would ask for, of the image's architectures."""
    settings = SourceSettings(allowed=(HOST, f"{HOST}:8080"))
    fs = rootfs_of({f"etc/apt/sources.list.d/{name}": text.encode()})
    sources, _ = image_sources(fs, Distribution("debian", "12", "bookworm"), ARCHS[0], settings, ARCHS[1:])
    found = set()
    for one in sources:
        if one.suite.endswith("/"):
            found.add(f"{one.uri}/{one.suite}Packages")
        found |= {f"{one.uri}/dists/{one.suite}/{part}/binary-{one.arch}/Packages" for part in one.components}
    return {address.replace("/./", "/") for address in found}


def fetched(folder: Path, name: str, text: str) -> set[str]:
    """Return the lists that apt would fetch; not those that an image without such packages has no use for."""
    config = private_apt(folder, "", "", "", "", archs=ARCHS)
    (folder / "etc/sources.list.d").mkdir()
    (folder / "etc/sources.list.d" / name).write_text(text)
    command = [require_tool("apt-get"), "update", "--print-uris"]
    ran = subprocess.run(command, env={"APT_CONFIG": config, "LC_ALL": "C"}, capture_output=True, text=True, check=True)
    found = re.findall(r"^'(\S+/Packages)(?:\.[a-z0-9]+)?'", ran.stdout, re.MULTILINE)
    lists = {address.replace("/./", "/").replace("%7e", "~") for address in found}
    return {address for address in lists if "/binary-all/" not in address and "s390x" not in address}


@pytest.mark.parametrize("case", LINES)
def test_apt_would_fetch_the_same_for_lines(tmp_path: Path, case: str) -> None:
    assert wanted("x.list", LINES[case]) == fetched(tmp_path, "x.list", LINES[case])


@pytest.mark.parametrize("case", STANZAS)
def test_apt_would_fetch_the_same_for_stanzas(tmp_path: Path, case: str) -> None:
    assert wanted("x.sources", STANZAS[case]) == fetched(tmp_path, "x.sources", STANZAS[case])
