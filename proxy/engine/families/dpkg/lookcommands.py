"""Commands that look at the tree and print: readlink, cmp, ls, stat, find; and at the machine: uname, pidof...

What a command prints is known only if its form is one of those below; every other is left to `readers`. No program
runs in a root file system that is upgraded as data, no service is started, and none is stopped.
Specification: POSIX.1-2017 Utilities, GNU coreutils and findutils manuals, Debian Policy 9.3
"""

import re
from collections.abc import Callable, Mapping

from proxy.engine.families.dpkg.call import Call, Command, Verdict, placed
from proxy.engine.families.dpkg.find import find, unclear
from proxy.engine.families.dpkg.findings import NotReproduced
from proxy.engine.stage import Stage
from proxy.engine.tar import Entry, Kind

_MACHINES = {"amd64": "x86_64", "arm64": "aarch64", "ppc64el": "ppc64le", "s390x": "s390x", "riscv64": "riscv64"}
Test = Callable[[Stage, Entry], bool]


def _readlink(call: Call) -> Verdict:
    split = call.options("fnemsqz")
    if split is None or len(split[1]) != 1 or not placed(split[1][0]):
        raise unclear(call)
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
        raise unclear(call)
    one, other = (call.stage.read(path) for path in words)
    call.output("" if one == other and one is not None else None)
    return one == other and one is not None


def _ls(call: Call) -> Verdict:
    split = call.options("1AdL")
    if split is None or not all(placed(path) for path in split[1]) or not split[1]:
        raise unclear(call)
    here = [path for path in split[1] if call.stage.get(path) is not None]
    if len(here) < len(split[1]) or ("L" in split[0] and any(call.stage.follow(path) is None for path in here)):
        call.output("".join(f"{path}\n" for path in sorted(here)) if not any(map(call.stage.is_dir, here)) else None)
        return False
    folders = [path for path in here if call.stage.is_dir(path)] if "d" not in split[0] else []
    if folders and len(here) > 1:
        raise unclear(call)
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
        raise unclear(call)
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
            raise unclear(call)
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
        raise unclear(call)
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
    "find": find, "uname": _uname, "id": _id, "pidof": _nobody, "pgrep": _nobody, "who": _nothing,
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
