"""The root file system as it is while an upgrade is recorded: the image's tree, and over it what has changed so far.

Owns looking up and changing paths as a package manager and its scripts would (symlinks followed inside the root, in the
tree of the moment), and the difference to the image as entries of a layer. It decides nothing, and writes nothing
anywhere. A path below what is no directory, or a link to what is not there, is refused with `Misplaced`.
Specification: https://github.com/opencontainers/image-spec/blob/v1.1.1/layer.md
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from proxy.engine.overlay import MAX_LINKS
from proxy.engine.rootfs import RootFS
from proxy.engine.tar import Entry, Kind, Span
from proxy.errors import MalformedInput


class Misplaced(Exception):
    """What was asked cannot be done to this tree: no such file, not a directory, a directory that is not empty."""


class Frozen(Exception):
    """Something would have changed a tree that is only to be looked at."""


class Stage:
    """A tree that can be changed, over a root file system that cannot.

    Args:
        fs: the image.
        mtime: seconds since the epoch, for what is written without a time of its own.

    Attributes:
        frozen: while it is not zero, every change raises `Frozen`.
        changes: how many changes there were; whoever does something sees by it whether that did anything.
    """

    def __init__(self, fs: RootFS, mtime: int = 0) -> None:
        self.fs = fs
        self.mtime = mtime
        self.frozen = 0
        self.changes = 0
        self._changed: dict[str, Entry | None] = {}  # by canonical path; None: removed
        self._origins: dict[str, str] = {}  # where files that were moved lie in the image, if they have no content here
        self._hidden: set[str] = set()  # paths whose own entries of the image, with all below them, no longer show
        self._children: dict[str, set[str]] = {}  # names that were added, by folder
        self._folders: dict[str, str] = {}  # where a folder lies; forgotten when links or folders change

    def get(self, path: str) -> Entry | None:
        """Return the entry at `path` (symlinked parents followed, a symlink at the end not), or None."""
        return self._at(self.locate(path))

    def follow(self, path: str) -> Entry | None:
        """Return the entry that `path` leads to, all symlinks followed, or None."""
        return self._at(self.resolve(path))

    def resolve(self, path: str) -> str:
        """Return the canonical path of `path`, every symlink followed; it need not exist."""
        return self._walk(path, last=True)

    def locate(self, path: str) -> str:
        """Return where an entry named `path` lies: parents' symlinks followed, the last component kept."""
        folder, _, name = path.strip("/").rpartition("/")
        if name in {"", ".", ".."}:
            return self._walk(path, last=False)
        if not folder:
            return name
        real = self._folders.get(folder)
        if real is None:
            real = self._folders[folder] = self._walk(folder, last=True)
        return f"{real}/{name}" if real else name

    def is_dir(self, path: str) -> bool:
        """Say whether `path` leads to a directory."""
        real = self.resolve(path)
        there = self._at(real)
        return not real or (there is not None and there.kind is Kind.DIR)

    def read(self, path: str) -> bytes | None:
        """Return the content of the regular file that `path` leads to, or None if there is none."""
        real = self.resolve(path)
        there = self._at(real)
        if there is None:
            return None
        if real not in self._changed:
            return self.fs.read(real)
        if there.kind is Kind.HARDLINK:
            return self.read(there.target)
        return self._bytes(there) if there.kind is Kind.FILE else None

    def fetch(self, paths: Iterable[str]) -> None:
        """Get the contents of many files of the image at once, so that reading each costs nothing."""
        self.fs.fetch(real for path in paths if (real := self.resolve(path)) not in self._changed)

    def listdir(self, path: str) -> Sequence[str]:
        """Return the names in the directory that `path` leads to, sorted; empty if it is none."""
        real = self.resolve(path)
        prefix = f"{real}/" if real else ""
        names = set() if self._is_hidden(real) else set(self.fs.listdir(real))
        names |= self._children.get(real, set())
        return sorted(name for name in names if self._at(f"{prefix}{name}") is not None)

    def walk(self, path: str = "") -> Iterator[Entry]:
        """Yield every entry below the directory that `path` leads to, sorted within each directory."""
        real = self.resolve(path)
        for name in self.listdir(real):
            entry = self._at(f"{real}/{name}" if real else name)
            if entry is not None:
                yield entry
                if entry.kind is Kind.DIR:
                    yield from self.walk(entry.path)

    def put(self, entry: Entry) -> None:
        """Lay an entry at its place, instead of what is there; a directory over a directory takes the new metadata.

        Raises:
            Misplaced: its parent is no directory, or it would take the place of a directory that is not empty.
        """
        real = self.locate(entry.path)
        there = self._at(real)
        above = self._at(real.rpartition("/")[0]) if "/" in real else None
        if "/" in real and (above is None or above.kind is not Kind.DIR):
            raise Misplaced(f"/{entry.path} would lie in what is no directory")
        if there is not None and there.kind is Kind.DIR and entry.kind is not Kind.DIR:
            self.remove_dir(real)
        before = there.kind if there is not None else None
        if Kind.SYMLINK in {before, entry.kind} or (before is Kind.DIR and entry.kind is not Kind.DIR):
            self._folders.clear()  # nothing else changes where a path leads
        target = self.locate(entry.target) if entry.kind is Kind.HARDLINK else entry.target
        self._set(real, replace(entry, path=real, target=target))

    def write(self, path: str, data: bytes, mode: int = 0o644, uid: int = 0, gid: int = 0) -> None:
        """Write a file where `path` leads to; one that is there keeps its mode and owner."""
        real = self.resolve(path)
        there = self._at(real)
        while there is not None and there.kind is Kind.HARDLINK:
            real = there.target
            there = self._at(real)
        if there is not None and there.kind is not Kind.FILE:
            raise Misplaced(f"/{path} is a {there.kind}")
        if there is None:
            self.put(Entry(real, Kind.FILE, mode, uid, gid, self.mtime, len(data), "", data))
        else:
            self._set(real, replace(there, size=len(data), content=data, mtime=self.mtime))

    def make_dir(self, path: str, mode: int = 0o755) -> None:
        """Make a directory with all that are missing above it; those that are there stay as they are."""
        real = self.resolve(path)
        parts = real.split("/")
        for number in range(1, len(parts) + 1):
            here = "/".join(parts[:number])
            there = self._at(here)
            if there is None:
                self.put(Entry(here, Kind.DIR, mode if here == real else 0o755, 0, 0, self.mtime))
            elif there.kind is not Kind.DIR:
                raise Misplaced(f"/{here} is a {there.kind}")

    def symlink(self, target: str, path: str) -> None:
        """Make a symlink instead of the file or link that is there."""
        self.put(Entry(self.locate(path), Kind.SYMLINK, 0o777, 0, 0, self.mtime, 0, target))

    def change(self, path: str, *, mode: int | None = None, uid: int | None = None, gid: int | None = None) -> None:
        """Change mode or owner of the entry at `path` itself."""
        there = self.get(path)
        while there is not None and there.kind is Kind.HARDLINK:
            there = self._at(there.target)
        if there is None:
            raise Misplaced(f"there is no /{path}")
        changed = replace(
            there,
            mode=there.mode if mode is None else mode,
            uid=there.uid if uid is None else uid,
            gid=there.gid if gid is None else gid,
        )
        if changed != there:
            self._set(there.path, changed)

    def remove(self, path: str) -> None:
        """Remove the file or link at `path`; nothing if there is none."""
        real = self.locate(path)
        there = self._at(real)
        if there is None:
            return
        if there.kind is Kind.DIR:
            raise Misplaced(f"/{path} is a directory")
        if there.kind is Kind.SYMLINK:
            self._folders.clear()
        heir = next(self._links(real), None)
        if heir is not None:  # another name of the same file takes over what the file is
            self._set(heir.path, replace(there, path=heir.path))
            for link in self._links(real):
                self._set(link.path, replace(link, target=heir.path))
        self._set(real, None)

    def remove_dir(self, path: str) -> None:
        """Remove the empty directory at `path`."""
        real = self.locate(path)
        if self.listdir(real):
            raise Misplaced(f"/{path} is a directory that is not empty")
        self._folders.clear()
        self._set(real, None)

    def remove_tree(self, path: str) -> None:
        """Remove what is at `path` with everything below it; nothing if there is none."""
        there = self.get(path)
        if there is None:
            return
        if there.kind is not Kind.DIR:
            self.remove(path)
            return
        for name in self.listdir(there.path):
            self.remove_tree(f"{there.path}/{name}")
        self.remove_dir(there.path)

    def rename(self, old: str, new: str) -> None:
        """Move a file, a link or a directory with all that is in it; `new` is its new name, not the folder for it."""
        there = self.get(old)
        if there is None:
            raise Misplaced(f"there is no /{old}")
        if there.kind is not Kind.DIR:
            self.remove(new)
            origin = self._origins.pop(there.path, there.path)
            moved = replace(there, path=self.locate(new))
            self.remove(there.path)
            self.put(moved)
            if moved.kind is Kind.FILE and moved.content is None:
                self._origins[moved.path] = origin
            return
        self.put(replace(there, path=self.locate(new)))
        for name in self.listdir(there.path):
            self.rename(f"{there.path}/{name}", f"{new}/{name}")
        self.remove_dir(there.path)

    def entries(self) -> tuple[Entry, ...]:
        """Return what makes the image's tree this one, sorted by path: what is new or other, and whiteouts."""
        found = [entry for path in self._changed if (entry := self._difference(path)) is not None]
        for path in self._hidden:
            there = self._changed.get(path)
            if there is not None and there.kind is Kind.DIR and not self._is_hidden(path.rpartition("/")[0]):
                found += [Entry(below, Kind.WHITEOUT) for below in self._lost(path)]
        return tuple(sorted({entry.path: entry for entry in found}.values(), key=lambda entry: entry.path))

    @property
    def changed(self) -> frozenset[str]:
        """The paths of what was changed, whatever became of it."""
        return frozenset(self._changed)

    def differs(self, other: "Stage") -> str:
        """Return a path at which another tree of the same image is not as this one, times aside, or nothing."""
        for path in sorted(self.changed | other.changed):
            here, there = self.get(path), other.get(path)
            if here == there:
                continue
            if (
                here is None
                or there is None
                or replace(here, mtime=0, content=None) != replace(there, mtime=0, content=None)
            ):
                return path
            if here.kind is Kind.FILE and here.content != there.content and self.read(path) != other.read(path):
                return path
        return ""

    def _bytes(self, entry: Entry) -> bytes:
        """Return what is in a file that was changed here."""
        if isinstance(entry.content, Span):
            return self.fs.read_span(entry.content)
        if entry.content is None and entry.path in self._origins:
            return self.fs.read(self._origins[entry.path]) or b""
        return entry.content or b""

    def _difference(self, path: str) -> Entry | None:
        now = self._changed[path]
        folder = path.rpartition("/")[0]
        covered = self._is_hidden(folder)
        before = None if covered else self.fs.get(path)
        if now is None:
            above = self._at(folder) if folder else None
            gone = folder and (above is None or above.kind is not Kind.DIR)
            return None if before is None or gone else Entry(path, Kind.WHITEOUT)
        if (
            before is not None
            and _same(before, now, self.mtime)
            and (now.kind is not Kind.DIR or path not in self._hidden)
        ):
            return None
        if now.kind is Kind.FILE and now.size and now.content is None:
            return replace(now, content=self.fs.read(self._origins.get(path, path)))
        return now

    def _lost(self, path: str) -> Iterator[str]:
        """Yield what the image has below a directory that was made anew, and that is not there any more."""
        before = self.fs.get(path)
        for name in self.fs.listdir(path) if before is not None and before.kind is Kind.DIR else ():
            below = f"{path}/{name}"
            there = self._at(below)
            if there is None:
                yield below
            elif there.kind is Kind.DIR:
                yield from self._lost(below)

    def _at(self, real: str) -> Entry | None:
        if real in self._changed:
            return self._changed[real]
        return None if self._is_hidden(real) else self.fs.get(real)

    def _is_hidden(self, real: str) -> bool:
        if not self._hidden:
            return False
        while real:
            if real in self._hidden:
                return True
            real = real.rpartition("/")[0]
        return False

    def _set(self, real: str, entry: Entry | None) -> None:
        if self.frozen:
            raise Frozen(real)
        self.changes += 1
        before = None if self._is_hidden(real) else self.fs.get(real)
        self._changed[real] = entry
        folder, _, name = real.rpartition("/")
        if entry is not None:
            self._children.setdefault(folder, set()).add(name)
        if before is None or before.kind not in {Kind.DIR, Kind.SYMLINK}:
            return
        if entry is None or (before.kind, entry.kind) != (Kind.DIR, Kind.DIR):
            self._hidden.add(real)

    def _links(self, real: str) -> Iterator[Entry]:
        for entry in list(self._changed.values()):
            if entry is not None and entry.kind is Kind.HARDLINK and entry.target == real:
                yield entry

    def _walk(self, path: str, *, last: bool) -> str:
        todo = path.split("/")
        todo.reverse()
        here, hops = "", 0
        while todo:
            part = todo.pop()
            if part in {"", "."}:
                continue
            if part == "..":
                here = here.rpartition("/")[0]
                continue
            there = f"{here}/{part}" if here else part
            entry = self._at(there)
            if entry is None or not (todo or last) or entry.kind is not Kind.SYMLINK:
                here = there
                continue
            hops += 1
            if hops > MAX_LINKS:
                raise MalformedInput("too many symlinks, or a loop of them", text=path)
            if entry.target.startswith("/"):
                here = ""
            todo.extend(reversed(entry.target.split("/")))
        return here


def _same(before: Entry, now: Entry, mtime: int) -> bool:
    """Say whether an entry is what it was, by all that counts: a directory's time does not, nor a link's mode."""
    mode = before.mode if before.kind is Kind.SYMLINK else now.mode
    return replace(before, mtime=now.mtime) == replace(now, mode=mode) and (
        now.mtime in {before.mtime, mtime} or now.kind is Kind.DIR
    )
