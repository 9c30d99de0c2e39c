"""The folders in which ldconfig looks for libraries.

Owns the order: those of /etc/ld.so.conf and what it includes, then the built-in ones, as Debian builds them; each only
once however it is named, the folders below its glibc-hwcaps after it.
Specification: ldconfig(8), /etc/ld.so.conf in ldconfig(8) FILES
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from proxy.engine.families.dpkg.findings import NotReproduced
from proxy.engine.rootfs import RootFS
from proxy.engine.stage import Stage
from proxy.engine.tar import Kind

CONFIGURATION = "etc/ld.so.conf"
MAX_INCLUDES = 1000

_TRIPLETS: Mapping[str, str] = {
    "amd64": "x86_64-linux-gnu",
    "i386": "i386-linux-gnu",
    "x32": "x86_64-linux-gnux32",
    "arm64": "aarch64-linux-gnu",
    "armhf": "arm-linux-gnueabihf",
    "armel": "arm-linux-gnueabi",
    "ppc64el": "powerpc64le-linux-gnu",
    "s390x": "s390x-linux-gnu",
    "riscv64": "riscv64-linux-gnu",
}


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder: its path as it is written in the cache, its real one; `hwcaps` names one below glibc-hwcaps."""

    path: str
    real: str
    hwcaps: str = ""


def library_folders(tree: RootFS | Stage, arch: str) -> Iterator[Folder]:
    """Yield the folders in the order in which ldconfig looks at them (1)."""
    triplet = _TRIPLETS.get(arch)
    if triplet is None:
        raise NotReproduced(f"the folders of libraries of the architecture {arch}")
    built_in = (f"/lib/{triplet}", f"/usr/lib/{triplet}", "/lib", "/usr/lib")
    seen: set[str] = set()
    for path in (*_configured(tree, CONFIGURATION, [0]), *built_in):
        real = tree.resolve(path.strip("/"))
        there = tree.get(real) if real else None
        if there is None or there.kind is not Kind.DIR or real in seen:
            continue
        seen.add(real)
        yield Folder(path, real)
        for name in tree.listdir(f"{real}/glibc-hwcaps"):
            below = tree.resolve(f"{real}/glibc-hwcaps/{name}")
            entry = tree.get(below)
            if name.startswith(".") or ":" in name or entry is None or entry.kind is not Kind.DIR or below in seen:
                continue
            seen.add(below)
            yield Folder(f"{path}/glibc-hwcaps/{name}", below, name)


def _configured(tree: RootFS | Stage, file: str, count: list[int]) -> Iterator[str]:
    """Yield the folders that a configuration file names; `count` bounds how many files are read."""
    count[0] += 1
    if count[0] > MAX_INCLUDES:
        raise NotReproduced(f"/{CONFIGURATION} includes more than {MAX_INCLUDES} files")
    for line in (tree.read(file) or b"").decode("utf-8", "surrogateescape").split("\n"):
        text = line.partition("#")[0].lstrip()
        if re.match(r"include[ \t]", text):
            for pattern in text[8:].split():
                for name in _matching(tree, pattern, file):
                    yield from _configured(tree, name, count)
        elif text and not re.match(r"(?i)hwcap[ \t]", text):
            path = text.partition("=")[0].rstrip().rstrip("/")
            if path:
                yield path


def _matching(tree: RootFS | Stage, pattern: str, file: str) -> Iterator[str]:
    folder, _, name = (pattern if pattern.startswith("/") else f"/{file.rpartition('/')[0]}/{pattern}").rpartition("/")
    if set(folder) & set("*?["):
        raise NotReproduced(f"/{file} includes files of folders that it does not name")
    for found in sorted(tree.listdir(folder.strip("/"))):
        if fnmatchcase(found, name) and (found[0] != "." or name[0] == "."):
            yield f"{folder.strip('/')}/{found}"
