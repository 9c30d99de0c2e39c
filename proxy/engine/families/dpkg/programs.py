"""Programs that make what is only a cache: bytecode of Python, class data of Java, the index of manual pages.

Owns which calls are recognised. A cache is never made here: what is stale of it is removed (Python) or stays away
(Java), and the program makes or does without it when it runs.
Specification: py3compile(1), py3clean(1), https://docs.python.org/3/library/py_compile.html, java(1)
"""

import re
from collections.abc import Iterator

from proxy.engine.families.dpkg.call import DOES, Call, Verdict, placed
from proxy.engine.families.dpkg.dpkgquery import ADMIN
from proxy.engine.families.dpkg.registers import GLIB
from proxy.engine.stage import Stage
from proxy.engine.tar import Kind

_PYTHON = re.compile(r"python[23]?(?:\.[0-9]+)?")


def run_program(call: Call) -> Verdict:
    """Carry out a call of an interpreter, if it is one of those that are recognised."""
    name = call.name.rpartition("/")[2]
    words = [word or "" for word in call.arguments]
    if _PYTHON.fullmatch(name):
        rest = [word for word in words if not re.fullmatch(r"-[EOSI]+", word)]
        compiler = re.compile(
            r"/usr/lib/python[0-9.]*/(?:py_compile|compileall)\.py|-m (?:py_compile|compileall)(?: |$)"
        )
        return True if compiler.match(" ".join(rest)) else DOES
    if name == "mandb" or (name == "setpriv" and "/usr/bin/mandb" in words):  # an index that man does without
        call.output("")
        return True
    if name in GLIB:
        return GLIB[name](call)
    if name == "java" and "-Xshare:dump" in words:
        call.output("")
        return False  # what calls it goes on without the archive
    asked = (name, words) in (("perl", ["-e", ""]), ("java", ["-version"]))  # that says so on the standard error
    return True if asked else DOES


def py3compile(call: Call) -> Verdict:
    """py3compile and its like would write bytecode, and nothing else."""
    return True if call.known() is not None else None


def py3clean(call: Call) -> Verdict:
    """`py3clean -p PACKAGE`, or of files and folders: bytecode of modules goes, and folders that it leaves empty."""
    words = call.known()
    if words is None:
        return DOES
    paths: list[str] = []
    while words:
        word = words.pop(0)
        if word in {"-p", "--package"} and words:
            paths += _modules(call.stage, words.pop(0), call.scene.arch)
        elif match := re.fullmatch(r"(?:-p|--package=)(\S+)", word):
            paths += _modules(call.stage, match[1], call.scene.arch)
        elif word in {"-q", "--quiet", "-v", "--verbose"}:
            continue
        elif placed(word):
            there = call.stage.get(word)
            inside = call.stage.walk(word) if there is not None and there.kind is Kind.DIR else ()
            paths += [word, *(f"/{entry.path}" for entry in inside)]
        else:
            return DOES
    for path in [path for path in paths if path.endswith(".py")]:
        _clean(call.stage, path)
    return True


def _modules(stage: Stage, package: str, arch: str) -> Iterator[str]:
    plain = package.partition(":")[0]
    for stem in (package, plain, f"{plain}:{arch}"):
        data = stage.read(f"{ADMIN}/info/{stem}.list")
        if data is not None:
            yield from data.decode("utf-8", "surrogateescape").split("\n")
            return


def _clean(stage: Stage, module: str) -> None:
    folder, _, name = module.rpartition("/")
    cache, stem = f"{folder}/__pycache__", name.removesuffix(".py")
    names = stage.listdir(cache) if stage.get(cache) is not None else ()
    for found in names:
        if re.fullmatch(rf"{re.escape(stem)}\.[^.]+(?:\.opt-[12])?\.py[co]", found):
            stage.remove(f"{cache}/{found}")
    for old in (f"{module}c", f"{module}o"):
        if stage.get(old) is not None:
            stage.remove(old)
    if names and not stage.listdir(cache):
        stage.remove_dir(cache)
