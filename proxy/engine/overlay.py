"""Layers laid over each other into one tree of paths.

Owns the rules by which layers become one tree. A layer is first a tree of its own, then laid over the ones below, as
overlayfs does for containerd, Docker and podman (their default on Linux):

1. Inside one layer entries apply in order: a later one replaces an earlier one of the same path, a directory over a
   directory takes the new metadata, an entry below a symlink of the same layer lies where that leads. Parents that
   the layer does not have are implied directories.
2. Whiteouts and opaque directories hide what lower layers have, wherever in the layer they stand.
3. A directory over a directory merges, and takes the upper one's metadata unless it is only implied. Anything else
   replaces: also a symlink of a lower layer below which this layer has entries. (A runtime that unpacks all layers
   into one folder would follow that symlink; builders record changes below the real directory, where both agree.)
4. A hard link is the file it names, in its own layer or a lower one, as that was when the link was made. (Runtimes
   that unpack each layer by itself refuse one to a lower layer's file.) One that names nothing, or no file, is refused:
   no runtime can unpack it.

Refuses layers that no runtime could unpack. Specification:
https://github.com/opencontainers/image-spec/blob/v1.1.1/layer.md#applying-changesets
"""

from collections.abc import Sequence

from proxy.engine.layerindex import NUMBERS, LayerIndex
from proxy.engine.tar import Kind
from proxy.errors import MalformedInput

MAX_LINKS = 40  # symlinks followed for one path, as Linux' MAXSYMLINKS
MAX_REPLACED = 1000  # directories that one layer makes and then replaces by something else; builders never do
IMPLIED = -1  # the number of a directory that no layer has an entry for
ROW_BITS = 32  # bits of a number that are the row; the layer's place is above them
DIR, SYMLINK, HARDLINK, WHITEOUT = (NUMBERS[kind] for kind in (Kind.DIR, Kind.SYMLINK, Kind.HARDLINK, Kind.WHITEOUT))

Tree = dict[str, int]
"""Canonical path to the number of its entry; every parent of a path is in it, as a directory."""


def merge_layers(layers: Sequence[LayerIndex]) -> Tree:
    """Return the tree of all layers, the lowest first; raises MalformedInput."""
    tree: Tree = {"": IMPLIED}
    for place in range(len(layers)):
        own = _OwnTree(layers, place, tree)
        tree = own.lay_over() if place else own.tree
    return tree


def kind_of(layers: Sequence[LayerIndex], number: int) -> int:
    """Return the kind (as `layerindex.NUMBERS` counts them) of the entry with that number."""
    return DIR if number == IMPLIED else layers[number >> ROW_BITS].kinds[number & (1 << ROW_BITS) - 1]


def follow(layers: Sequence[LayerIndex], tree: Tree, path: str, *, last: bool) -> str:
    """Return where `path` leads in `tree`; the last component's own symlink is followed only if `last`.

    A path never leads out of the root: absolute targets and `..` are relative to it. What is not there is kept as it
    is written. Raises MalformedInput for a loop.
    """
    todo = path.split("/")
    todo.reverse()
    here = ""
    hops = 0
    while todo:
        part = todo.pop()
        if part in {"", "."}:
            continue
        if part == "..":
            here = here.rpartition("/")[0]
            continue
        there = f"{here}/{part}" if here else part
        number = tree.get(there, IMPLIED)
        if number == IMPLIED or not (todo or last) or kind_of(layers, number) != SYMLINK:
            here = there
            continue
        hops += 1
        if hops > MAX_LINKS:
            raise MalformedInput("too many symlinks, or a loop of them", text=path)
        target = layers[number >> ROW_BITS].targets[number & (1 << ROW_BITS) - 1]
        if target[0] == "/":
            here = ""
        todo.extend(reversed(target.split("/")))
    return here


class _OwnTree:
    """Rule 1: the tree of the layer at `place` alone, and which paths it hides of `lower`."""

    __slots__ = ("_hidden", "_layers", "_lower", "_opaque", "_parents", "_replaced", "tree")

    def __init__(self, layers: Sequence[LayerIndex], place: int, lower: Tree) -> None:
        self._layers, self._lower = layers, lower
        self._parents: dict[str, str] = {"": ""}  # a name's folder, as the layer writes it, to where that lies
        self._replaced = 0
        self._hidden: set[str] = set()
        self.tree: Tree = {"": IMPLIED}
        index = layers[place]
        for row, (path, kind) in enumerate(zip(index.paths, index.kinds, strict=True)):
            folder, _, name = path.rpartition("/")
            parent = self._parents.get(folder)
            if parent is None:
                parent = self._parents[folder] = self._make_parent(folder)
            where = path if parent == folder else f"{parent}/{name}" if parent else name
            if kind == WHITEOUT:
                self._hidden.add(where)
                continue
            if where in self.tree:
                self._replace(where, kind)
            number = place << ROW_BITS | row
            self.tree[where] = self._hard_link(index.targets[row], where) if kind == HARDLINK else number
        self._opaque = {self._make_parent(folder) for folder in index.opaque}

    def _make_parent(self, path: str) -> str:
        """Return where the directory `path` lies in this tree, adding implied directories."""
        where = follow(self._layers, self.tree, path, last=True)
        here = ""
        for part in where.split("/") if where else ():
            here = f"{here}/{part}" if here else part
            if kind_of(self._layers, self.tree.setdefault(here, IMPLIED)) != DIR:
                raise MalformedInput("a layer has an entry below a path that it makes no directory", text=path)
        return where

    def _replace(self, path: str, kind: int) -> None:
        """Make way for an entry of `kind` at `path`, where this tree has one already."""
        old = kind_of(self._layers, self.tree[path])
        if old == DIR and kind == DIR:
            return
        if old in {DIR, SYMLINK}:
            self._parents = {"": ""}
        if old == DIR:
            self._replaced += 1
            if self._replaced > MAX_REPLACED:
                raise MalformedInput("a layer that replaces its own directories over and over", text=path)
            for name in [name for name in self.tree if name.startswith(f"{path}/")]:
                del self.tree[name]
        del self.tree[path]

    def _hard_link(self, target: str, path: str) -> int:
        """Apply rule 4: return the number of the file that a hard link names."""
        for tree in (self.tree, self._lower):
            number = tree.get(follow(self._layers, tree, target, last=False))
            if number is not None and kind_of(self._layers, number) != DIR:
                return number
            if number is not None:
                break
        raise MalformedInput(f"{path}: a hard link to what is no file", text=target)

    def lay_over(self) -> Tree:
        """Apply rules 2 and 3: return the lower tree with this one laid over it."""
        lower, layers = self._lower, self._layers
        gone = {path for path in self._hidden if path in lower}
        for path, number in self.tree.items():
            below = lower.get(path)
            if below is not None and (kind_of(layers, number) == DIR) != (kind_of(layers, below) == DIR):
                gone.add(path)
        if gone or self._opaque:
            _sweep(lower, gone, self._opaque)
        for path, number in self.tree.items():
            if number == IMPLIED:
                lower.setdefault(path, IMPLIED)
            else:
                lower[path] = number
        return lower


def _sweep(tree: Tree, gone: set[str], opaque: set[str]) -> None:
    """Remove the paths in `gone`, everything below them, and everything below the directories in `opaque`.

    Sorted, a parent comes before what is below it, so one pass is enough however many paths go.
    """
    for path in sorted(tree):
        parent = path.rpartition("/")[0]
        if path and (path in gone or parent in gone or parent in opaque):
            gone.add(path)
            del tree[path]
