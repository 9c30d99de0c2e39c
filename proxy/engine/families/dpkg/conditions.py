"""The conditions of `test` and `[`, as far as they can be told.

Specification: POSIX.1-2017 Utilities, test
"""

import re
from collections.abc import Callable, Mapping, Sequence

from proxy.engine.families.dpkg.call import UNSEEN
from proxy.engine.stage import Stage
from proxy.engine.tar import Kind

Exists = Callable[[str, str], bool | None]
_NUMBERS: Mapping[str, Callable[[int, int], bool]] = {
    "-eq": lambda a, b: a == b,
    "-ne": lambda a, b: a != b,
    "-lt": lambda a, b: a < b,
    "-le": lambda a, b: a <= b,
    "-gt": lambda a, b: a > b,
    "-ge": lambda a, b: a >= b,
}


def evaluate(words: Sequence[str | None], exists: Exists) -> bool | None:  # noqa: PLR0911, PLR0912, C901 - a table of forms
    """Return what a test says, or None if that is not known; `exists` answers tests of absolute paths."""
    if words and words[0] == "!":
        truth = evaluate(words[1:], exists)
        return None if truth is None else not truth
    for operator in ("-o", "-a"):
        if operator in words[1:-1]:
            at = words.index(operator, 1)
            left, right = evaluate(words[:at], exists), evaluate(words[at + 1 :], exists)
            return _either(left, right) if operator == "-o" else _both(left, right)
    if "(" in words or ")" in words:
        return None
    match words:
        case []:
            return False
        case [str(single)]:
            return single != ""
        case ["-n", str(text)]:
            return text != ""
        case ["-z", str(text)]:
            return text == ""
        case ["-S", str()]:
            return False  # a socket: nothing runs in an image
        case [str(question), str(path)] if re.fullmatch("-[edfLhxsrw]", question):
            return exists(path.lstrip("/"), question) if path.startswith("/") else None if path else False
        case [str(one), "=" | "==", str(other)]:
            return one == other
        case [str(one), "!=", str(other)]:
            return one != other
        case [str(one), str(operator), str(other)] if operator in _NUMBERS:
            numbers = [int(text) for text in (one, other) if re.fullmatch(r"-?[0-9]{1,9}", text)]
            return _NUMBERS[operator](*numbers) if len(numbers) == 2 else None  # noqa: PLR2004
    return None


def _either(left: bool | None, right: bool | None) -> bool | None:
    if left or right:
        return True
    return None if left is None or right is None else False


def _both(left: bool | None, right: bool | None) -> bool | None:
    if left is False or right is False:
        return False
    return None if left is None or right is None else True


def answer_test(stage: Stage, path: str, test: str) -> bool | None:
    """Answer a test of a path in the tree (``-e``, ``-d``, ``-L``...), None if it is not known."""
    if f"/{path}/".startswith(UNSEEN):
        return None
    there = stage.get(path) if test in {"-L", "-h"} else stage.follow(path)
    if there is not None and there.kind is Kind.HARDLINK:
        there = stage.get(there.target)
    if not stage.resolve(path):
        return test in {"-e", "-d", "-r", "-x", "-w"}
    if there is None:
        return False
    answers: dict[str, bool | None] = {
        "-e": True,
        "-r": True,
        "-w": True,
        "-f": there.kind is Kind.FILE,
        "-d": there.kind is Kind.DIR,
        "-x": bool(there.mode & 0o111),
        "-s": there.size > 0 if there.kind is Kind.FILE else None,
        "-L": there.kind is Kind.SYMLINK,
        "-h": there.kind is Kind.SYMLINK,
    }
    return answers.get(test)
