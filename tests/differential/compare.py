"""Two trees, path for path: type, mode, owner, content, target, extended attributes, and which paths are one file.

Of files that a package owns the time of the last change is compared too: bytecode is tied to it.
Owns what counts as a difference. Nothing is left out here; `allowed` says which differences are explained.
"""

import difflib
import hashlib
import os
import stat
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

KINDS = {stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFLNK: "symlink", stat.S_IFIFO: "fifo"}
MERGED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
SHOWN = 16  # lines of a text difference
MAX_TEXT = 4 << 20


@dataclass(frozen=True, slots=True)
class Facts:
    """All that is compared of one path."""

    type: str
    mode: str
    owner: str
    content: str
    target: str
    xattrs: tuple[tuple[str, bytes], ...]
    time: int = 0
    linked: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Difference:
    """One path that differs: `ours` is the patched image's, `theirs` apt's; None where it is absent."""

    path: str
    ours: Facts | None
    theirs: Facts | None
    owner: str = ""
    text: str = ""

    @property
    def what(self) -> str:
        if self.ours is None:
            return "only in apt's tree"
        if self.theirs is None:
            return "only in the patched image"
        names = [name for name in Facts.__slots__ if getattr(self.ours, name) != getattr(self.theirs, name)]
        short = [name for name in names if name not in {"content", "linked"}]
        values = [f"{name} {getattr(self.ours, name)} instead of {getattr(self.theirs, name)}" for name in short]
        return ", ".join([*values, *(name for name in names if name not in short)])


def read_tree(tree: Path) -> dict[str, Facts]:
    """Return the facts of every path below `tree` but the tree's own."""
    found: dict[str, Facts] = {}
    links: dict[tuple[int, int], list[str]] = defaultdict(list)
    stack = [""]
    while stack:
        folder = stack.pop()
        with os.scandir(tree / folder) as entries:
            for entry in entries:
                path = f"{folder}/{entry.name}".removeprefix("/")
                status = entry.stat(follow_symlinks=False)
                found[path] = _facts(entry.path, status)
                if stat.S_ISDIR(status.st_mode):
                    stack.append(path)
                elif status.st_nlink > 1:
                    links[status.st_dev, status.st_ino].append(path)
    for paths in links.values():
        group = tuple(sorted(paths))
        found |= {path: replace(found[path], linked=group) for path in group}
    return found


def _facts(path: str, status: os.stat_result) -> Facts:
    kind = stat.S_IFMT(status.st_mode)
    content = target = ""
    if stat.S_ISREG(kind):
        with Path(path).open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
    elif stat.S_ISLNK(kind):
        target = str(Path(path).readlink())
    names = sorted(os.listxattr(path, follow_symlinks=False))
    xattrs = tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in names)
    mode = f"{stat.S_IMODE(status.st_mode):04o}"
    owner, when = f"{status.st_uid}:{status.st_gid}", int(status.st_mtime) if stat.S_ISREG(kind) else 0
    return Facts(KINDS.get(kind, oct(kind)), mode, owner, content, target, xattrs, when)


def owners_of(tree: Path) -> dict[str, str]:
    """Return the package of every path in dpkg's lists and conffiles, by the path as it lies in the tree."""
    owners: dict[str, str] = {}
    moved = {name: f"usr/{name}" for name in MERGED if (tree / name).is_symlink()}
    info = tree / "var/lib/dpkg/info"
    for listed in sorted([*info.glob("*.list"), *info.glob("*.conffiles")]):
        for line in listed.read_text(errors="surrogateescape").splitlines():
            path = line[line.find("/") + 1 :]  # conffiles may say remove-on-upgrade first
            first, _, rest = path.partition("/")
            if first in moved:
                path = f"{moved[first]}/{rest}".rstrip("/")
            owners.setdefault(path, listed.name.rpartition(".")[0])
    return owners


@dataclass(frozen=True, slots=True)
class Comparison:
    """How many paths were compared, those that differ, and the package of each path that has one and is no folder."""

    paths: int
    differences: tuple[Difference, ...]
    owned: Mapping[str, str]


def compare(ours: Path, theirs: Path) -> Comparison:
    """Compare the patched tree with apt's."""
    left, right = read_tree(ours), read_tree(theirs)
    owners = {**owners_of(theirs), **owners_of(ours)}
    differences = []
    for path in sorted(left.keys() | right.keys()):
        pair = [facts.get(path) for facts in (left, right)]
        if path not in owners:  # what tools write is of the hour in which they do
            pair = [replace(facts, time=0) if facts else None for facts in pair]
        if pair[0] != pair[1]:
            text = _text(ours / path, theirs / path)
            differences.append(Difference(path, *pair, owners.get(path, ""), text))
    owned = {
        path: name
        for path, name in owners.items()
        if any(path in facts and facts[path].type != "folder" for facts in (left, right))
    }
    return Comparison(len(left.keys() | right.keys()), tuple(differences), owned)


def _text(ours: Path, theirs: Path) -> str:
    """Return the first lines of a unified difference of two text files."""
    texts = [_lines(theirs), _lines(ours)]
    if texts[0] is None and texts[1] is None:
        return ""
    lines = difflib.unified_diff(texts[0] or [], texts[1] or [], "apt", "patched", lineterm="", n=1)
    return "\n".join(_first(lines, SHOWN))


def _lines(path: Path) -> list[str] | None:
    if path.is_symlink() or not path.is_file() or path.stat().st_size > MAX_TEXT:
        return None
    try:
        return path.read_text().splitlines()
    except UnicodeDecodeError:
        return None


def _first(lines: Iterable[str], count: int) -> list[str]:
    found = list(lines)
    return found if len(found) <= count else [*found[:count], f"... and {len(found) - count} more lines"]
