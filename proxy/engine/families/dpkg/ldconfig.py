"""What `ldconfig` leaves behind: the linker's cache and the links from sonames to files.

Owns which files it looks at, which library wins a soname, and the order of the cache. What a library is
(soname, kind) must be read from its content, and contents of an image's libraries are not kept. So the cache of the
image tells it for every library that did not change, and only what an upgrade brings is read.

1. folders: see `libraryfolders`
2. names: `lib*.so*` and the linker itself; stale links named `*.so.*` go
3. one library per soname and folder: a file before a link, then the highest version
4. a link from the soname to a file that won under another name
5. the cache by soname and kind, both descending, hwcaps first, else in the order of the folders

Refuses (NotReproduced) an image without a cache, or with libraries the cache does not know, unless they can be read.
`/var/cache/ldconfig/aux-cache` holds inode numbers and is not made.
Specification: ldconfig(8)
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from proxy.engine.families.dpkg.findings import NotReproduced
from proxy.engine.families.dpkg.ldcache import CACHE, Cached, LinkerCache, parse_linker_cache, render_linker_cache
from proxy.engine.families.dpkg.libraries import Library, read_library
from proxy.engine.families.dpkg.libraryfolders import Folder, library_folders
from proxy.engine.rootfs import RootFS
from proxy.engine.stage import Stage
from proxy.engine.tar import Kind
from proxy.errors import AdmendError

_SHORTEST = 1024  # bytes; no linker writes a shared library as small, while scripts for ld(1) are

_NAME = re.compile(r"(?:lib|ld-|ld\.so\.|ld64\.so\.).*", re.DOTALL)
_PROGRAMS = ("sbin/ldconfig.real", "sbin/ldconfig")  # Ubuntu's is a script in front of the real one
_GENERATOR = re.compile(rb"ldconfig \([^()\0]{1,200}\) [a-z]{1,20} release version [0-9.]{1,20}")
_FILES = frozenset({Kind.FILE, Kind.HARDLINK})
_PARTS = re.compile(r"([0-9]+)|(.)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Links:
    """The cache's bytes, and the links that change: path to target, None where a stale one goes."""

    cache: bytes
    links: Mapping[str, str | None]


@dataclass(frozen=True, slots=True)
class _Candidate:
    name: str
    is_link: bool
    cached: Cached


def run_ldconfig(stage: Stage, arguments: Sequence[str], arch: str) -> bool:
    """Do to `stage` what `ldconfig` (with or without ``-X``) would do; `arch` is the native architecture.

    Raises:
        NotReproduced: other arguments, or what is needed cannot be known.
    """
    if set(arguments) - {"-X", "-n", "-v"} or "-n" in arguments:
        raise NotReproduced(f"ldconfig {' '.join(arguments)}")

    _renew(stage, arch, _new_generator(stage), links="-X" not in arguments)
    return True


def renew_cache(stage: Stage, arch: str) -> None:
    """Make the cache again where nothing runs, but whoever built the image ran ldconfig; nothing where there is none.

    Raises:
        NotReproduced: what is needed cannot be known.
    """
    if stage.fs.read(CACHE) is not None:
        _renew(stage, arch, None)


def _renew(stage: Stage, arch: str, generator: str | None, *, links: bool = True) -> None:
    def library(path: str) -> Library | None:
        try:
            return read_library(stage.read(path) or b"", path, arch)
        except AdmendError as error:
            raise NotReproduced(f"what kind of library /{path} is ({error})") from error

    found = run_over(stage.fs, stage, arch, generator, library)
    stage.write(CACHE, found.cache)
    for path, target in found.links.items() if links else ():
        if target is None:
            stage.remove(path)
        else:
            stage.symlink(target, path)


def _new_generator(stage: Stage) -> str | None:
    """Return what ldconfig says it is if its program changed, else None."""
    path = next((path for path in map(stage.resolve, _PROGRAMS) if stage.get(path) is not None), None)
    if path is None:
        raise NotReproduced("there is no ldconfig")
    if stage.get(path) == stage.fs.get(path):
        return None
    match = _GENERATOR.search(stage.read(path) or b"")
    return match[0].decode("ascii", "replace") if match else ""


def run_over(
    before: RootFS, after: RootFS | Stage, arch: str, generator: str | None, library: Callable[[str], Library | None]
) -> Links:
    """Return what ldconfig would make of `after`.

    Args:
        before: the image, whose cache tells what its libraries are.
        after: the image as it is when ldconfig runs.
        arch: the native architecture as dpkg names it.
        generator: what ldconfig says it is if its program changes (perhaps nothing); None if it does not.
        library: reads a library of `after` by its real path; None for what is no library; raises NotReproduced for
            what cannot be read.
    """
    data = before.read(CACHE)
    if data is None:
        raise NotReproduced(f"there is no /{CACHE} yet")
    old = parse_linker_cache(data)
    if any(entry.hwcap for entry in old.entries):
        raise NotReproduced(f"/{CACHE} names libraries for hardware capabilities of the older kind")
    scan = _Scan(before, after, old, library)
    entries: list[Cached] = []
    folders = tuple(library_folders(after, arch))
    for folder in folders:
        entries += scan.look(folder)
    if generator is not None and (generator == "") != (old.generator is None):
        raise NotReproduced("ldconfig begins to write another format")
    entries.sort(key=lambda entry: (entry.folder == "", entry.folder.encode("utf-8", "surrogateescape")))
    entries.sort(key=lambda entry: (entry.flags, entry.kernel if old.generator is None else 0), reverse=True)
    entries.sort(key=lambda entry: version_key(entry.soname), reverse=True)
    names = frozenset(folder.hwcaps for folder in folders if folder.hwcaps)
    new = LinkerCache(tuple(entries), generator or old.generator, names, old.order, old.endian)
    return Links(render_linker_cache(new), scan.links)


def version_key(name: str) -> tuple[tuple[int, int], ...]:
    """Return a key that orders file names as ldconfig does: numbers by value and after letters."""
    parts = _PARTS.finditer(name)
    return tuple((1, int(part[1])) if part[1] else (0, ord(part[2])) for part in parts)


class _Scan:
    """A look at the folders of `after`; `links` collects which links change."""

    def __init__(
        self, before: RootFS, after: RootFS | Stage, old: LinkerCache, library: Callable[[str], Library | None]
    ) -> None:
        self._before, self._after, self._library = before, after, library
        self._old: dict[str, dict[str, list[Cached]]] = {}  # by folder and name
        for entry in old.entries:
            path, _, name = entry.path.rpartition("/")
            self._old.setdefault(path, {}).setdefault(name, []).append(entry)
        self._kernels = any(entry.kernel for entry in old.entries)
        self.links: dict[str, str | None] = {}

    def look(self, folder: Folder) -> Iterator[Cached]:
        """Yield the entries of one folder (2, 3, 4)."""
        best: dict[str, _Candidate] = {}
        for candidate in self._candidates(folder):
            soname = candidate.cached.soname
            other = best.get(soname)
            if other is None or (not candidate.is_link, version_key(candidate.name)) > (
                not other.is_link,
                version_key(other.name),
            ):
                best[soname] = candidate
        for soname, candidate in best.items():
            name = candidate.name if folder.hwcaps else soname
            if not folder.hwcaps and not candidate.is_link:
                self._link(folder, soname, candidate.name)
            yield replace(candidate.cached, soname=soname, path=f"{folder.path}/{name}", folder=folder.hwcaps)

    def _candidates(self, folder: Folder) -> Iterator[_Candidate]:
        known = self._known(folder)
        for name in self._after.listdir(folder.real):
            path = f"{folder.real}/{name}"
            entry = self._after.get(path) if ".so" in name and _NAME.fullmatch(name) else None
            if entry is None or entry.kind not in {*_FILES, Kind.SYMLINK}:
                continue
            is_link = entry.kind is Kind.SYMLINK
            real = self._after.resolve(path) if is_link else path
            target = self._after.get(real)
            if target is None and ".so." in name:
                self.links[path] = None
            if target is None or target.kind not in _FILES:
                continue
            cached = self._old.get(folder.path, {}).get(name, ())
            if cached and self._same(path, real):
                yield from (_Candidate(name, is_link, one) for one in cached)
            elif real in known:
                yield _Candidate(name, is_link=False, cached=known[real])
            else:
                yield from self._read(name, real, is_link)

    def _known(self, folder: Folder) -> dict[str, Cached]:
        """Return what the old cache says of the files in a folder that did not change, by their real path.

        A name that ends in ``.so`` may be the link for ld(1); then another one tells the soname.
        """
        known: dict[str, Cached] = {}
        for name, cached in self._old.get(folder.path, {}).items():
            real = self._before.resolve(f"{folder.path.strip('/')}/{name}")
            if self._same(real, real) and (real not in known or known[real].soname.endswith(".so")):
                known[real] = cached[0]
        return known

    def _read(self, name: str, real: str, is_link: bool) -> Iterator[_Candidate]:
        """Yield what the file itself says."""
        entry = self._after.get(real)
        if entry is None or (entry.kind is Kind.FILE and entry.size < _SHORTEST):
            return
        library = self._library(real)
        if library is None:
            return
        soname = library.soname or name
        developers = name.endswith(".so") and soname.startswith(name)  # the link that ld(1) follows
        is_link = is_link and (name == soname or developers)
        kernel = library.kernel if self._kernels else 0
        cached = Cached(name if is_link else soname, "", library.flags, kernel, level=library.level)
        yield _Candidate(name, is_link, cached)

    def _same(self, path: str, real: str) -> bool:
        """Say that `path` leads to the same content as it did in the image."""
        before, after = self._before, self._after
        return (
            before.get(path) == after.get(path) and before.resolve(path) == real and before.get(real) == after.get(real)
        )

    def _link(self, folder: Folder, soname: str, name: str) -> None:
        """Make the soname lead to the file that has it."""
        path = f"{folder.real}/{soname}"
        there = self._after.get(path)
        if there is not None and there.kind is not Kind.SYMLINK:
            return
        if there is None or self._after.resolve(path) != self._after.resolve(f"{folder.real}/{name}"):
            self.links[path] = name
