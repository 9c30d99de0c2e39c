"""Which file of an image the dynamic linker takes for a library's name, and what a file has loaded with it.

Owns the linker's search as far as an image tells: the run path of the file that asks, the linker's own folders, then
any folder that has the name (what a program's environment or its own run path may say is not known here).
Format: ld.so(8), ldconfig(8)
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from proxy.engine.elf import Elf, open_elf
from proxy.engine.elfsymbols import Need, Symbols, read_symbols
from proxy.engine.outline import RPATH, RUNPATH, is_library_name
from proxy.engine.tar import Entry
from proxy.errors import MalformedInput

CONFIGURED = "etc/ld.so.conf.d"
BASES = ("lib", "usr/lib", "lib64", "usr/lib64", "usr/local/lib", "lib32", "usr/lib32", "libx32", "usr/libx32")
MAX_CLOSURE = 2000  # libraries that one program loads; browsers load some 200


@dataclass(frozen=True, slots=True)
class Machine:
    """What a library must share with the program that loads it."""

    bits: int
    order: str
    machine: int


class Tree(Protocol):
    """A root file system, as it is or as it will be."""

    def resolve(self, path: str) -> str:
        """Follow all symlinks."""

    def listdir(self, path: str) -> Sequence[str]:
        """Return the names in a directory."""

    def read(self, path: str) -> bytes | None:
        """Return a file's content."""

    def walk(self, path: str = "") -> Iterator[Entry]:
        """Yield what is below a directory."""


def ident_of(elf: Elf) -> Machine:
    """Return what kind of machine a file is for."""
    return Machine(elf.bits, elf.order, elf.machine)


class Libraries:
    """The ELF files of a tree, given as outlines by canonical path."""

    def __init__(self, tree: Tree, outlines: Mapping[str, bytes]) -> None:
        self._tree, self._outlines = tree, outlines
        self._read: dict[str, tuple[Elf, Symbols] | None] = {}
        self._named: dict[str, list[str]] | None = None
        self._folders: tuple[str, ...] | None = None
        self._closures: dict[str, tuple[str, ...]] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(self._outlines)

    def read(self, path: str) -> tuple[Elf, Symbols] | None:
        """Return what a file says; None if there is no such ELF file, or it is damaged: nothing can load it."""
        if path not in self._read:
            self._read[path] = None
            if path in self._outlines:
                try:
                    elf = open_elf(self._outlines[path], path)
                    self._read[path] = elf, read_symbols(elf)
                except MalformedInput:
                    pass
        return self._read[path]

    def libraries(self) -> Iterator[str]:
        """Yield the files that are shared libraries by their names."""
        return (path for path in self._outlines if is_library_name(path))

    def has_symbol(self, path: str, need: Need) -> bool:
        """Say whether the linker would find the symbol in that file."""
        read = self.read(path)
        if read is None:
            return False
        symbols = read[1]
        return need.key in symbols.provided or (not symbols.versioned and need.name in symbols.provided)

    def has_version(self, path: str, version: str) -> bool:
        """Say whether the linker would find the version in that file; it takes one without versions as it is."""
        read = self.read(path)
        return read is not None and (not read[1].versioned or f"@{version}" in read[1].provided)

    def find(self, name: str, asking: str) -> str | None:
        """Return the file that `asking` gets for the library `name`, or None."""
        read = self.read(asking)
        if read is None:
            return None
        elf = read[0]
        if "/" in name:
            return self._fitting(name.lstrip("/"), elf)
        for folder in (*_run_path(elf, asking), *self._standard()):
            found = self._fitting(f"{folder}/{name}", elf)
            if found is not None:
                return found
        return next((path for path in self._by_name(name) if self._fitting(path, elf)), None)

    def closure(self, path: str) -> tuple[str, ...]:
        """Return the libraries that a file has loaded with it, and itself."""
        if path not in self._closures:
            todo, seen = [path], {path: None}
            while todo and len(seen) < MAX_CLOSURE:
                here = todo.pop()
                read = self.read(here)
                for name in read[0].needed if read is not None else ():
                    found = self.find(name, here)
                    if found is not None and found not in seen:
                        seen[found] = None
                        todo.append(found)
            self._closures[path] = tuple(seen)
        return self._closures[path]

    def _fitting(self, path: str, elf: Elf) -> str | None:
        real = self._tree.resolve(path)
        if real not in self._outlines:
            return None
        read = self.read(real)
        return real if read is not None and ident_of(read[0]) == ident_of(elf) else None

    def _standard(self) -> tuple[str, ...]:
        if self._folders is None:
            found = [line for line in self._configured() if line.startswith("/")]
            for base in BASES:
                found.append(base)
                found += [f"{base}/{name}" for name in self._tree.listdir(base) if "-linux-" in name]
            self._folders = tuple(dict.fromkeys(line.strip("/") for line in found))
        return self._folders

    def _configured(self) -> Iterator[str]:
        for name in self._tree.listdir(CONFIGURED):
            data = self._tree.read(f"{CONFIGURED}/{name}") if name.endswith(".conf") else None
            for line in (data or b"").decode("utf-8", "surrogateescape").split("\n"):
                yield line.partition("#")[0].strip()

    def _by_name(self, name: str) -> Sequence[str]:
        """Return the files of that name, or that say it is theirs, wherever they lie."""
        if self._named is None:
            self._named = {}
            for path in sorted(self._outlines):
                read = self.read(path)
                soname = read[0].soname if read is not None else None
                for one in {path.rpartition("/")[2], soname or ""}:
                    self._named.setdefault(one, []).append(path)
        return self._named.get(name, ())


def _run_path(elf: Elf, path: str) -> Iterator[str]:
    """Yield the folders that a file says its libraries lie in."""
    origin = path.rpartition("/")[0]
    for tag in (RPATH, RUNPATH):
        at = elf.value(tag)
        for folder in elf.name(at).split(":") if at is not None else ():
            if folder:
                yield folder.replace("${ORIGIN}", f"/{origin}").replace("$ORIGIN", f"/{origin}").strip("/")
