"""Commands that look at the tree and print: readlink, cmp, ls, stat, find; and at the machine: uname, pidof...

What a command prints is known only if its form is one of those below; every other is left to `readers`. No program
runs in a root file system that is upgraded as data, no service is started, and none is stopped.
Specification: POSIX.1-2017 Utilities, GNU coreutils and findutils manuals, Debian Policy 9.3
"""

import re
from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatchcase

from proxy.engine.families.dpkg.call import Call, Command, Verdict, placed
from proxy.engine.families.dpkg.findings import NotReproduced
from proxy.engine.stage import Stage
from proxy.engine.tar import Entry, Kind

_LETTERS = {Kind.FILE: "f", Kind.HARDLINK: "f", Kind.DIR: "d", Kind.SYMLINK: "l"}
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64", "ppc64el": "ppc64le", "s390x": "s390x", "riscv64": "riscv64"}
Test = Callable[[Stage, Entry], bool]


def _unclear(call: Call) -> NotReproduced:
    return NotReproduced(f"{call.name} " + " ".join(word or "?" for word in call.arguments))


def _readlink(call: Call) -> Verdict:
    split = call.options("fnemsqz")
    if split is None or len(split[1]) != 1 or not placed(split[1][0]):
        raise _unclear(call)
    letters, (path,) = split
    end = "" if "n" in letters else "\n"
    if set("fem") & set(letters) or call.name == "realpath":
        if call.name == "realpath" and "s" in letters and "m" in letters:
            call.output(_normal(path) + end)
            return True
        real = call.stage.resolve(path)
        gone = real and call.stage.get(real) is None
        if gone and ("m" not in letters) and ("e" in letters or not call.stage.is_dir(real.rpartition("/")[0])):
            return False
        call.output(f"/{real}{end}")
        return True
    there = call.stage.get(path)
    if there is None or there.kind is not Kind.SYMLINK:
        return False
    call.output(there.target + end)
    return True


def _normal(path: str) -> str:
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            parts[-1:] = []
        elif part not in {"", "."}:
            parts.append(part)
    return "/" + "/".join(parts)


def _compare(call: Call) -> Verdict:
    """`cmp` and `diff -q`: the same content or not."""
    words = [word for word in call.known() or () if word not in {"-s", "-q", "--quiet", "--silent", "--brief", "--"}]
    if len(words) != 2 or not all(placed(path) for path in words):  # noqa: PLR2004
        raise _unclear(call)
    one, other = (call.stage.read(path) for path in words)
    call.output("" if one == other and one is not None else None)
    return one == other and one is not None


def _ls(call: Call) -> Verdict:
    split = call.options("1AdL")
    if split is None or not all(placed(path) for path in split[1]) or not split[1]:
        raise _unclear(call)
    here = [path for path in split[1] if call.stage.get(path) is not None]
    if len(here) < len(split[1]) or ("L" in split[0] and any(call.stage.follow(path) is None for path in here)):
        call.output("".join(f"{path}\n" for path in sorted(here)) if not any(map(call.stage.is_dir, here)) else None)
        return False
    folders = [path for path in here if call.stage.is_dir(path)] if "d" not in split[0] else []
    if folders and len(here) > 1:
        raise _unclear(call)
    names = sorted(here)
    if folders:
        names = [name for name in call.stage.listdir(here[0]) if "A" in split[0] or not name.startswith(".")]
    call.output("".join(f"{name}\n" for name in names))
    return True


_STAT: Mapping[str, Callable[[Entry], str]] = {
    "a": lambda entry: f"{entry.mode & 0o7777:o}",
    "u": lambda entry: str(entry.uid),
    "g": lambda entry: str(entry.gid),
    "s": lambda entry: str(entry.size),
}


def _stat(call: Call) -> Verdict:
    words = call.known()
    text = " ".join(words or ())
    match = re.fullmatch(r"(-L )?(?:-c ?|--format=|--printf=)(\S+) (-L )?(/\S*)", text)
    if match is None or not placed(match[4]) or "--printf" in text:
        raise _unclear(call)
    there = call.stage.follow(match[4]) if match[1] or match[3] else call.stage.get(match[4])
    there = Entry("", Kind.DIR, 0o755) if not call.stage.resolve(match[4]) else there
    if there is None:
        return False
    if there.kind is Kind.HARDLINK:
        there = call.stage.get(there.target) or there

    def one(directive: re.Match[str]) -> str:
        if directive[1] in {"U", "G"}:
            return _name(call.stage, directive[1], there.uid if directive[1] == "U" else there.gid)
        if directive[1] not in _STAT:
            raise _unclear(call)
        return _STAT[directive[1]](there)

    call.output(re.sub("%(.)", one, match[2]) + "\n")
    return True


def _name(stage: Stage, which: str, number: int) -> str:
    path = "etc/passwd" if which == "U" else "etc/group"
    for line in (stage.read(path) or b"").decode("utf-8", "surrogateescape").split("\n"):
        fields = line.split(":")
        if len(fields) > 2 and fields[2] == str(number):  # noqa: PLR2004
            return fields[0]
    return "UNKNOWN"


def _find(call: Call) -> Verdict:
    """`find` with the tests name, path, type, empty and depth, and the actions print and prune."""
    words = call.known()
    if words is None:
        raise _unclear(call)
    roots: list[str] = []
    while words and not re.match(r"[-(!]", words[0]):
        roots.append(words.pop(0))
    deep, low, high, kept = "-depth" in words, 0, 1000, list[str]()
    while words:
        word = words.pop(0)
        if word in {"-mindepth", "-maxdepth"} and words and words[0].isdigit():
            number = int(words.pop(0))
            low, high = (number, high) if word == "-mindepth" else (low, number)
        elif word != "-depth":
            kept.append(word)
    base = f"{call.folder}/" if call.folder else ""
    if not roots or not all(placed(path if path.startswith("/") else f"{base}{path}") for path in roots):
        raise _unclear(call)
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
    call.output("".join(f"{path}\n" for path in found))
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
            raise _unclear(call)

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
                raise _unclear(self._call)
            self._at += 1
            return inside
        if word in {"-print", "-prune", "-empty", "-true"}:
            return (word[1:],)
        if word in {"-name", "-path", "-type", "-iname"} and self._word():
            self._at += 1
            return (word[1:], self._words[self._at - 1])
        raise _unclear(self._call)

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


def _uname(call: Call) -> Verdict:
    machine = _MACHINES.get(call.scene.arch)
    known = {"": "Linux", "-s": "Linux", "-o": "GNU/Linux", "-m": machine}.get(" ".join(call.known() or ["?"]))
    call.output(None if known is None else f"{known}\n")
    return True


def _id(call: Call) -> Verdict:
    words = call.known()
    call.output({"-u": "0\n", "-g": "0\n", "-un": "root\n"}.get(" ".join(words or ())) if words else None)
    return True if words in (["-u"], ["-g"], ["-un"]) else _user(call)


def _user(call: Call) -> Verdict:
    name = (call.known() or ["-"])[-1]
    lines = (call.stage.read("etc/passwd") or b"").decode("utf-8", "surrogateescape").split("\n")
    return True if any(line.startswith(f"{name}:") for line in lines) else None


def _nobody(call: Call) -> Verdict:
    """Nothing runs, nobody is logged in."""
    call.output("")
    return False


def _initctl(call: Call) -> Verdict:
    """`initctl` as images have it: it does nothing."""
    nothing = call.stage.read("sbin/initctl") == b"#!/bin/sh\nexit 0\n"
    if not nothing and call.stage.resolve("sbin/initctl").rpartition("/")[2] != "true":
        raise _unclear(call)
    call.output("")
    return True


def _mountpoint(call: Call) -> Verdict:
    """`/proc` is mounted wherever packages are configured."""
    return True if (call.known() or [""])[-1] in {"/proc", "/proc/"} else None


def _nothing(call: Call) -> Verdict:
    call.output("")
    return True


def _service(call: Call) -> Verdict:
    """No service runs, and none is started."""
    call.output("")
    return "status" not in call.arguments


LOOKS: Mapping[str, Command] = {
    "readlink": _readlink, "realpath": _readlink, "cmp": _compare, "diff": _compare, "ls": _ls, "stat": _stat,
    "find": _find, "uname": _uname, "id": _id, "pidof": _nobody, "pgrep": _nobody, "who": _nothing,
    "runlevel": _nobody, "mountpoint": _mountpoint, "initctl": _initctl, "sleep": _nothing, "sync": _nothing,
    "logger": _nothing, "invoke-rc.d": _service, "service": _service,
}  # fmt: skip


def look(call: Call) -> Verdict | str:
    """Carry out one of the commands here; ``""`` if it is none of them, or what it prints is not certain."""
    command = LOOKS.get(call.name)
    if command is None:
        return ""
    try:
        return command(call)
    except NotReproduced:
        return ""
