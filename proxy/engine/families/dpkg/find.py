"""The command find over a tree: tests, operators, and what is printed or deleted.

Owns its expression. Raises NotReproduced for tests, actions and options that are not known here.
Specification: POSIX.1-2017 find, GNU findutils manual
"""

import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase

from proxy.engine.families.dpkg.call import Call, Verdict, placed
from proxy.engine.families.dpkg.findings import NotReproduced
from proxy.engine.stage import Stage
from proxy.engine.tar import Entry, Kind

_LETTERS = {Kind.FILE: "f", Kind.HARDLINK: "f", Kind.DIR: "d", Kind.SYMLINK: "l"}


def unclear(call: Call) -> NotReproduced:
    """Return what is said of a command in a form that is not known."""
    return NotReproduced(f"{call.name} " + " ".join(word or "?" for word in call.arguments))


def find(call: Call) -> Verdict:  # noqa: C901 - options, roots, expression, one after the other
    """`find` with the tests name, path, type, empty and depth, and the actions print, prune and at the end delete."""
    words = call.known()
    if words is None:
        raise unclear(call)
    roots: list[str] = []
    while words and not re.match(r"[-(!]", words[0]):
        roots.append(words.pop(0))
    deletes = words[-1:] == ["-delete"]
    words = words[: -1 if deletes else None]
    deep, low, high, kept = deletes or "-depth" in words, 0, 1000, list[str]()
    while words:
        word = words.pop(0)
        if word in {"-mindepth", "-maxdepth"} and words and words[0].isdigit():
            number = int(words.pop(0))
            low, high = (number, high) if word == "-mindepth" else (low, number)
        elif word != "-depth":
            kept.append(word)
    base = f"{call.folder}/" if call.folder else ""
    if not roots or not all(placed(path if path.startswith("/") else f"{base}{path}") for path in roots):
        raise unclear(call)
    expression = _Expression(call, kept)
    found: list[str] = []
    truth = True
    for root in roots:
        real = root if root.startswith("/") else f"{base}{root}"
        there = call.stage.get(real)
        if there is None:
            truth = False
            continue
        shown = (real.rstrip("/"), root.rstrip("/"))
        below = _descend(call.stage, shown, there, high, expression)
        found += [path for path, entry, left in below if high - left >= low and expression.prints(path, entry)]
    if deep:
        found.reverse()
    if deletes:
        return _delete(call, found) and truth
    call.output("".join(f"{path}\n" for path in found))
    return truth


def _delete(call: Call, paths: Sequence[str]) -> bool:
    """Delete what find has found, what is within a folder before it; folders that are not empty stay."""
    truth = True
    for path in paths:
        there = call.stage.get(path)
        if there is None or there.kind is not Kind.DIR:
            call.stage.remove(path)
        elif call.stage.listdir(path):
            truth = False
        else:
            call.stage.remove_dir(path)
    return truth


def _descend(
    stage: Stage, paths: tuple[str, str], entry: Entry, left: int, expression: "_Expression"
) -> Iterator[tuple[str, Entry, int]]:
    """Yield what is at a path (where it is, and how it is shown) and below it, with the levels that are left."""
    path, shown = paths
    yield shown or "/", entry, left
    if entry.kind is not Kind.DIR or not left or expression.prunes(shown or "/", entry):
        return
    for name in stage.listdir(path):
        below = f"{path}/{name}"
        there = stage.get(below)
        if there is not None:
            yield from _descend(stage, (below, f"{shown}/{name}"), there, left - 1, expression)


class _Expression:
    """The expression of a find: or, and, not, parentheses, tests and actions."""

    def __init__(self, call: Call, words: list[str]) -> None:
        self._call, self._words, self._at = call, words, 0
        self._acts = bool({"-print", "-prune"} & set(words))
        self._explicit = "-print" in words
        self._pruned = self._printed = False
        self._tree = self._either() if words else ("true",)
        if self._at != len(words):
            raise unclear(call)

    def prints(self, path: str, entry: Entry) -> bool:
        """Say whether this path is printed."""
        self._printed = False
        truth = self._true(self._tree, path, entry)
        return self._printed if self._explicit else truth

    def prunes(self, path: str, entry: Entry) -> bool:
        """Say whether what is below this path is left out."""
        self._pruned = False
        self._true(self._tree, path, entry)
        return self._pruned

    def _word(self) -> str:
        return self._words[self._at] if self._at < len(self._words) else ""

    def _either(self) -> tuple:  # type: ignore[type-arg]  # a tree of tuples
        left = self._both()
        while self._word() in {"-o", "-or"}:
            self._at += 1
            left = ("or", left, self._both())
        return left

    def _both(self) -> tuple:  # type: ignore[type-arg]
        left = self._one()
        while self._word() and self._word() not in {"-o", "-or", ")"}:
            self._at += self._word() in {"-a", "-and"}
            left = ("and", left, self._one())
        return left

    def _one(self) -> tuple:  # type: ignore[type-arg]
        word = self._word()
        self._at += 1
        if word in {"!", "-not"}:
            return ("not", self._one())
        if word == "(":
            inside = self._either()
            if self._word() != ")":
                raise unclear(self._call)
            self._at += 1
            return inside
        if word in {"-print", "-prune", "-empty", "-true"}:
            return (word[1:],)
        if word in {"-name", "-path", "-type", "-iname"} and self._word():
            self._at += 1
            return (word[1:], self._words[self._at - 1])
        raise unclear(self._call)

    def _true(self, tree: tuple, path: str, entry: Entry) -> bool:  # type: ignore[type-arg]  # noqa: C901, PLR0911
        match tree:
            case ("or", left, right):
                return self._true(left, path, entry) or self._true(right, path, entry)
            case ("and", left, right):
                return self._true(left, path, entry) and self._true(right, path, entry)
            case ("not", inside):
                return not self._true(inside, path, entry)
            case ("print",):
                self._printed = True
            case ("prune",):
                self._pruned = True
            case ("name", pattern):
                return fnmatchcase(path.rpartition("/")[2], pattern)
            case ("iname", pattern):
                return fnmatchcase(path.rpartition("/")[2].lower(), pattern.lower())
            case ("path", pattern):
                return fnmatchcase(path, str(pattern))
            case ("type", letter):
                return _LETTERS.get(entry.kind) == str(letter)
            case ("empty",):
                if entry.kind is Kind.DIR:
                    return not self._call.stage.listdir(entry.path)
                return entry.kind is Kind.FILE and not entry.size
        return True
