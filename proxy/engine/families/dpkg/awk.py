"""awk(1) on text, as maintainer scripts use it.

Owns options, fields and values; `awkscript` reads the programs and refuses what is not known. Nothing is read or
written here: texts come in and go out.
Specification: POSIX.1-2017 Utilities, awk
"""

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from proxy.engine.families.dpkg.awkscript import Tree, parse_awk
from proxy.engine.families.dpkg.findings import NotReproduced
from proxy.engine.families.dpkg.posixregex import translate

Value = str | float
_NUMBER = re.compile(r"\s*[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")


class _Exit(Exception):
    """The program ends."""


class _Next(Exception):
    """The next line, please."""


def run_awk(arguments: Sequence[str], read: Callable[[Sequence[str]], str]) -> tuple[str, int]:
    """Run awk; returns what it prints and its exit status.

    Args:
        arguments: options, program and files.
        read: gives the texts of the files one after another, or of the standard input if there is none.

    Raises:
        NotReproduced: a form that is not known here.
    """
    words = list(arguments)
    variables: dict[str, Value] = {}
    while words and words[0].startswith("-") and words[0] != "-":
        option = words.pop(0)
        if option == "--":
            break
        letter, value = option[1:2], option[2:] or (words.pop(0) if words else "")
        name, sign, text = value.partition("=")
        if letter == "F":
            variables["FS"] = value
        elif letter == "v" and sign and "\\" not in text:
            variables[name] = text
        else:
            raise NotReproduced(f"awk {option}")
    if not words or any("=" in word for word in words[1:]):
        raise NotReproduced("awk " + " ".join(words)[:60])
    return _Run(words[0], variables).run(lambda: read(words[1:]))


class _Run:
    def __init__(self, program: str, variables: Mapping[str, Value]) -> None:
        self._program = program
        self._rules = parse_awk(program)
        self._variables: dict[str, Value] = {"FS": " ", "OFS": " ", "ORS": "\n", "NR": 0.0, **variables}
        self._fields: list[str] = []
        self._line = ""
        self._out: list[str] = []
        self._status = 0

    def run(self, text: Callable[[], str]) -> tuple[str, int]:
        with suppress(_Exit):
            self._do("BEGIN")
            if any(pattern != ("BEGIN",) for pattern, _ in self._rules):
                self._all_lines(text())
        with suppress(_Exit):
            self._do("END")
        return "".join(self._out), self._status

    def _all_lines(self, text: str) -> None:
        for number, line in enumerate(text.removesuffix("\n").split("\n") if text else [], 1):
            self._variables["NR"] = float(number)
            self._take(line)
            try:
                for pattern, body in self._rules:
                    if pattern not in {("BEGIN",), ("END",)} and (pattern is None or self._true(self._value(pattern))):
                        self._statements(body)
            except _Next:
                continue

    def _do(self, name: str) -> None:
        for pattern, body in self._rules:
            if pattern == (name,):
                self._statements(body)

    def _take(self, line: str) -> None:
        self._line = line
        separator = _text(self._variables["FS"])
        if separator == " ":
            self._fields = line.split()
        elif len(separator) == 1:
            self._fields = line.split(separator) if line else []
        else:
            self._fields = translate(separator, extended=True).pattern.split(line) if line else []

    def _statements(self, statements: Sequence[Tree]) -> None:
        for statement in statements:
            self._statement(statement)

    def _statement(self, statement: Tree) -> None:  # noqa: C901 - one case per form
        match statement:
            case ("print", []):
                self._out.append(self._line + _text(self._variables["ORS"]))
            case ("print", items):
                values = [_text(self._value(item)) for item in items]
                self._out.append(_text(self._variables["OFS"]).join(values) + _text(self._variables["ORS"]))
            case ("printf", items):
                self._out.append(self._format([self._value(item) for item in items]))
            case ("if", condition, then, other):
                if self._true(self._value(condition)):
                    self._statement(then)
                elif other is not None:
                    self._statement(other)
            case ("block", body):
                self._statements(body)
            case ("exit", status):
                self._status = int(_number(self._value(status))) if status is not None else self._status
                raise _Exit
            case ("next", _):
                raise _Next
            case (_, expression):
                self._value(expression)

    def _value(self, tree: Tree) -> Value:  # noqa: C901, PLR0911, PLR0912 - one case per form
        match tree:
            case ("number" | "string", found):
                return found  # type: ignore[no-any-return]  # the parser puts a float or a string there
            case ("group", inside):
                return self._value(inside)
            case ("regex", source):
                return float(self._matches(source, self._line))
            case ("$", place):
                return self._field(int(_number(self._value(place))))
            case ("name", "NF"):
                return float(len(self._fields))
            case ("name", name):
                return self._variables.get(name, "")
            case ("assign", target, expression):
                return self._assign(target, self._value(expression))
            case ("after", target, step):
                before = _number(self._value(target))
                self._assign(target, before + step)
                return before
            case ("!", inside):
                return float(not self._true(self._value(inside)))
            case ("&&", left, right):
                return float(self._true(self._value(left)) and self._true(self._value(right)))
            case ("||", left, right):
                return float(self._true(self._value(left)) or self._true(self._value(right)))
            case ("?", condition, then, other):
                return self._value(then if self._true(self._value(condition)) else other)
            case ("join", left, right):
                return _text(self._value(left)) + _text(self._value(right))
            case (("~" | "!~") as sign, left, right):
                source = right[1] if right[0] == "regex" else _text(self._value(right))
                return float(self._matches(source, _text(self._value(left))) is (sign == "~"))
            case ("call", name, items):
                return self._call(name, [self._value(item) for item in items])
            case (sign, left, right):
                return self._calculate(sign, left, right)
        raise NotReproduced(f"awk {self._program[:60]}")

    def _calculate(self, sign: str, left: Tree, right: Tree) -> Value:
        a, b = self._value(left), self._value(right)
        if sign in {"==", "!=", "<", "<=", ">", ">="}:
            numeric = all(isinstance(value, float) or _looks_numeric(value) for value in (a, b))
            constant = any(tree[0] == "string" for tree in (left, right))
            order = _order(_number(a), _number(b)) if numeric and not constant else _order(_text(a), _text(b))
            return float({"==": not order, "!=": bool(order), "<": order < 0, "<=": order <= 0, ">": order > 0}.get(
                sign, order >= 0
            ))  # fmt: skip
        x, y = _number(a), _number(b)
        if sign in {"/", "%"} and not y:
            raise NotReproduced(f"awk {self._program[:60]}")
        return {"+": x + y, "-": x - y, "*": x * y}[sign] if sign in "+-*" else x / y if sign == "/" else x % y

    def _assign(self, target: Tree, value: Value) -> Value:
        if target[0] == "name" and target[1] not in {"NF", "NR", "RS", "SUBSEP", "FILENAME"}:
            self._variables[target[1]] = value
            return value
        if target == ("name", "NF") and 0 <= _number(value) <= len(self._fields):
            self._fields = self._fields[: int(_number(value))]
            self._line = _text(self._variables["OFS"]).join(self._fields)
            return value
        place = int(_number(self._value(target[1]))) if target[0] == "$" else 0
        if not 0 < place <= len(self._fields):
            raise NotReproduced(f"awk {self._program[:60]}")
        self._fields[place - 1] = _text(value)
        self._line = _text(self._variables["OFS"]).join(self._fields)
        return value

    def _field(self, place: int) -> str:
        if place < 0:
            raise NotReproduced(f"awk {self._program[:60]}")
        return self._line if not place else self._fields[place - 1] if place <= len(self._fields) else ""

    def _matches(self, source: str, text: str) -> bool:
        return translate(source, extended=True, sed=True).pattern.search(text) is not None

    def _true(self, value: Value) -> bool:
        return bool(value) if isinstance(value, float) else value != ""

    def _call(self, name: str, values: list[Value]) -> Value:  # noqa: PLR0911 - one case per function
        match name, values:
            case "length", []:
                return float(len(self._line))
            case "length", [text]:
                return float(len(_text(text)))
            case "substr", [text, start, *rest]:
                first = round(_number(start))
                end = first + round(_number(rest[0])) if rest else len(_text(text)) + 1
                return _text(text)[max(first, 1) - 1 : max(end - 1, 0)]
            case "int", [number]:
                return float(int(_number(number)))
            case "index", [text, part]:
                return float(_text(text).find(_text(part)) + 1)
            case "tolower", [text]:
                return _text(text).lower()
            case "toupper", [text]:
                return _text(text).upper()
            case "sprintf", [_, *_]:
                return self._format(values)
        raise NotReproduced(f"awk {name}")

    def _format(self, values: list[Value]) -> str:
        form, *rest = values
        waiting = list(rest)

        def one(match: re.Match[str]) -> str:
            if match[0] == "%%":
                return "%"
            if match[1] is None or not waiting:
                raise NotReproduced(f"awk {self._program[:60]}")
            value = waiting.pop(0)
            return _text(value) if match[1] == "s" else str(int(_number(value)))

        return re.sub(r"%(?:([sd])|%|.?)", one, _text(form))


def _text(value: Value) -> str:
    if isinstance(value, str):
        return value
    return str(int(value)) if value == int(value) else f"{value:.6g}"


def _number(value: Value) -> float:
    if isinstance(value, float):
        return value
    match = _NUMBER.match(value)
    return float(match[0]) if match else 0.0


def _looks_numeric(text: str) -> bool:
    return _NUMBER.fullmatch(text.strip()) is not None


def _order(a: Value, b: Value) -> int:
    return (a > b) - (a < b)  # type: ignore[operator]  # both are numbers, or both are strings
