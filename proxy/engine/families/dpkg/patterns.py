"""Patterns of apt's pins: shell patterns, and POSIX extended regular expressions between slashes.

Owns matching them without backtracking: an image wrote the pattern, and one that takes for ever must not exist. Refuses
what has no plain meaning (back references, GNU's letters after a backslash, collating elements) rather than guess.
Specifications: apt_preferences(5), fnmatch(3), regex(7), glob(7)

Algorithm (numbers in the code): 1. a pattern becomes a program of steps: take a character, go on at two places, be at
the start or the end; 2. a text is read once while all places that the program may be at are kept.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from proxy.errors import MalformedInput

MAX_PATTERN = 256  # characters
MAX_STEPS = 4096  # of a program; repetition counts multiply
MAX_COUNT = 255  # POSIX's RE_DUP_MAX

Takes = Callable[[str], bool]

_CLASSES: dict[str, Takes] = {
    "alpha": str.isalpha,
    "digit": str.isdigit,
    "alnum": str.isalnum,
    "upper": str.isupper,
    "lower": str.islower,
    "space": str.isspace,
    "blank": lambda c: c in " \t",
    "punct": lambda c: c.isascii() and c.isprintable() and not c.isalnum() and c != " ",
    "xdigit": lambda c: c in "0123456789abcdefABCDEF",
}


@dataclass(frozen=True, slots=True)
class _Step:
    """Takes a character and goes on, or (without `takes`) goes on at `to`; `anchor` is ``^`` or ``$``."""

    takes: Takes | None = None
    to: tuple[int, ...] = ()
    anchor: str = ""


def matches(pattern: str, text: str) -> bool:
    """Say whether `text` matches a pattern as apt reads it; raises MalformedInput for one that is not followed."""
    if is_regex(pattern):
        return _run(_regex(pattern[1:-1].lower()), text.lower(), anywhere=True)
    return _run(_glob(pattern), text, anywhere=False)


def is_regex(pattern: str) -> bool:
    """Say whether a pattern is a regular expression: it stands between slashes."""
    return len(pattern) > 1 and pattern[0] == pattern[-1] == "/"


def is_pattern(name: str) -> bool:
    """Say whether a package's name in a pin is a pattern."""
    return is_regex(name) or any(letter in name for letter in "*[?")


def _run(program: tuple[_Step, ...], text: str, *, anywhere: bool) -> bool:
    """(2) `anywhere`: the pattern may match a part of the text; else all of it."""
    end = len(program)
    places: set[int] = set()
    for at in range(len(text) + 1):
        if at == 0 or anywhere:
            _enter(program, 0, places, at, len(text))
        if end in places and (anywhere or at == len(text)):
            return True
        if at == len(text):
            return False
        after: set[int] = set()
        for place in places:
            takes = program[place].takes if place < end else None
            if takes is not None and takes(text[at]):
                _enter(program, place + 1, after, at + 1, len(text))
        places = after
    return False


def _enter(program: tuple[_Step, ...], place: int, places: set[int], at: int, length: int) -> None:
    waiting = [place]
    while waiting:
        place = waiting.pop()
        if place in places:
            continue
        places.add(place)
        step = program[place] if place < len(program) else None
        if step is None or step.takes is not None:
            continue
        if not step.anchor or at == (0 if step.anchor == "^" else length):
            waiting += step.to


@lru_cache(maxsize=1024)
def _glob(pattern: str) -> tuple[_Step, ...]:
    """(1) Return the program of a shell pattern."""
    _check(pattern)
    program: list[_Step] = []
    at = 0
    while at < len(pattern):
        letter = pattern[at]
        at += 1
        if letter == "*":
            here = len(program)
            program += [_Step(to=(here + 1, here + 3)), _Step(takes=lambda _: True), _Step(to=(here,))]
        elif letter == "?":
            program.append(_Step(takes=lambda _: True))
        elif letter == "[" and (found := _bracket(pattern, at, "!^", escapes=True)) is not None:
            takes, at = found
            program.append(_Step(takes=takes))
        else:
            if letter == "\\" and at < len(pattern):
                letter = pattern[at]
                at += 1
            program.append(_Step(takes=letter.__eq__))
    return tuple(program)


def _check(pattern: str) -> None:
    if len(pattern) > MAX_PATTERN:
        raise MalformedInput(f"a pattern of more than {MAX_PATTERN} characters", text=pattern)


def _bracket(pattern: str, at: int, negations: str, *, escapes: bool = False) -> tuple[Takes, int] | None:
    """Return what the bracket expression takes whose ``[`` ends at `at`, and where it ends; None if it does not."""
    negated = at < len(pattern) and pattern[at] in negations
    first = at = at + negated
    singles: set[str] = set()
    tests: list[Takes] = []
    while at < len(pattern) and (pattern[at] != "]" or at == first):
        if pattern[at] == "[" and pattern[at + 1 : at + 2] in {".", "="}:
            raise MalformedInput("collating elements in patterns are not followed", text=pattern)
        if pattern.startswith("[:", at) and (close := pattern.find(":]", at)) > 0:
            name = pattern[at + 2 : close]
            if name not in _CLASSES:
                raise MalformedInput("no such class of characters in a pattern", text=pattern)
            tests.append(_CLASSES[name])
            at = close + 2
            continue
        low, at = _letter(pattern, at, escapes=escapes)
        if pattern[at : at + 1] == "-" and pattern[at + 1 : at + 2] not in {"", "]"}:
            high, at = _letter(pattern, at + 1, escapes=escapes)
            tests.append(lambda c, low=low, high=high: low <= c <= high)  # type: ignore[misc]  # defaults keep the pair
        else:
            singles.add(low)
    if at >= len(pattern):
        return None
    return (lambda c: (c in singles or any(test(c) for test in tests)) != negated), at + 1


def _letter(pattern: str, at: int, *, escapes: bool) -> tuple[str, int]:
    if escapes and pattern[at] == "\\" and at + 1 < len(pattern):
        at += 1
    return pattern[at], at + 1


@lru_cache(maxsize=1024)
def _regex(pattern: str) -> tuple[_Step, ...]:
    """(1) Return the program of an extended regular expression, in lower case: apt ignores case."""
    _check(pattern)
    parser = _Parser(pattern)
    program = parser.alternatives(0)
    if parser.at < len(pattern):
        raise MalformedInput("a bracket that nothing opens in a regular expression", text=pattern)
    return _placed(program, 0)


def _placed(program: list[_Step], offset: int) -> tuple[_Step, ...]:
    """Return steps whose goals are counted from themselves as steps whose goals are counted from the start."""
    return tuple(
        _Step(step.takes, tuple(offset + at + to for to in step.to), step.anchor) for at, step in enumerate(program)
    )


class _Parser:
    """Reads a regular expression; goals of steps are relative, so that programs can be put together."""

    def __init__(self, pattern: str) -> None:
        self.pattern, self.at = pattern, 0

    def alternatives(self, depth: int) -> list[_Step]:
        if depth > 32:  # noqa: PLR2004 - of brackets in brackets
            raise self._wrong("too many brackets in brackets")
        found = self._sequence(depth)
        while self.pattern[self.at : self.at + 1] == "|":
            self.at += 1
            other = self._sequence(depth)
            found = [_Step(to=(1, len(found) + 2)), *found, _Step(to=(len(other) + 1,)), *other]
        return found

    def _sequence(self, depth: int) -> list[_Step]:
        found: list[_Step] = []
        while self.at < len(self.pattern) and self.pattern[self.at] not in "|)":
            found += self._repeated(self._atom(depth))
            if len(found) > MAX_STEPS:
                raise self._wrong("too much repetition")
        return found

    def _atom(self, depth: int) -> list[_Step]:
        letter = self.pattern[self.at]
        self.at += 1
        if letter == "(":
            found = self.alternatives(depth + 1)
            if self.pattern[self.at : self.at + 1] != ")":
                raise self._wrong("a bracket that nothing closes")
            self.at += 1
            return found
        if letter == "[":
            bracket = _bracket(self.pattern, self.at, "^")
            if bracket is None:
                raise self._wrong("a bracket that nothing closes")
            self.at = bracket[1]
            return [_Step(takes=bracket[0])]
        if letter in "^$":
            return [_Step(to=(1,), anchor=letter)]
        if letter == ".":
            return [_Step(takes=lambda _: True)]
        if letter in "*+?{":
            raise self._wrong("a repetition of nothing")
        if letter == "\\":
            letter = self.pattern[self.at : self.at + 1]
            self.at += 1
            if not letter or letter.isalnum() or letter in "<>`'":
                raise self._wrong("a backslash before what is no special character")
        return [_Step(takes=letter.__eq__)]

    def _repeated(self, atom: list[_Step]) -> list[_Step]:
        while self.at < len(self.pattern) and self.pattern[self.at] in "*+?{":
            low, high = self._count()
            optional = [_Step(to=(1, len(atom) + 1)), *atom]
            found = atom * low
            if high is None:
                found = [*found, _Step(to=(1, len(atom) + 2)), *atom, _Step(to=(-len(atom) - 1,))]
            else:
                found = found + optional * (high - low)
            if len(found) > MAX_STEPS:
                raise self._wrong("too much repetition")
            atom = found
        return atom

    def _count(self) -> tuple[int, int | None]:
        letter = self.pattern[self.at]
        self.at += 1
        if letter != "{":
            return {"*": (0, None), "+": (1, None), "?": (0, 1)}[letter]
        inside, closed, _ = self.pattern[self.at :].partition("}")
        low, comma, high = inside.partition(",")
        if not closed or not low.isdecimal() or not (high.isdecimal() or not high):
            raise self._wrong("not a count of repetitions")
        self.at += len(inside) + 1
        most = (int(high) if high else None) if comma else int(low)
        if int(low) > MAX_COUNT or (most is not None and not int(low) <= most <= MAX_COUNT):
            raise self._wrong("not a count of repetitions")
        return int(low), most

    def _wrong(self, message: str) -> MalformedInput:
        return MalformedInput(f"a regular expression that is not followed: {message}", text=self.pattern)
