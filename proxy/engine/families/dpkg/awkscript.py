"""Programs of awk(1), read into a tree of tuples.

Owns the grammar of the part that maintainer scripts use: patterns (BEGIN, END, expressions), print, printf, if, exit,
next, assignments; no loops, no functions of one's own, no arrays, no redirections. Everything else is refused with
`NotReproduced`. What a program does is told by `awk`.
Specification: POSIX.1-2017 Utilities, awk
"""

import re
from collections.abc import Sequence
from typing import Any

from proxy.engine.families.dpkg.findings import NotReproduced

FUNCTIONS = frozenset({"substr", "length", "sprintf", "int", "index", "tolower", "toupper"})
Tree = tuple[Any, ...]

_TOKEN = re.compile(
    r"""(?P<blank>(?:[ \t]|\#[^\n]*|\\\n)+)
    |(?P<newline>\n|;)
    |(?P<number>[0-9]+(?:\.[0-9]+)?)
    |(?P<string>"(?:\\.|[^"\\\n])*")
    |(?P<name>[A-Za-z_][A-Za-z_0-9]*)
    |(?P<operator>\+\+|--|[-+*/%]=|==|!=|<=|>=|!~|&&|\|\||[-{}()\[\],+*/%<>!~$=?:|])""",
    re.VERBOSE,
)
_REGEX = re.compile(r"/((?:\\.|\[\^?\]?[^\]\n]*\]|[^/\\\[\n])*)/")
_COMPARISONS = frozenset({"==", "!=", "<", "<=", ">", ">=", "~", "!~"})
_ENDS = frozenset({"", "\n", ";", "}", ")", ",", "{", "?", ":", "&&", "||"})


def parse_awk(program: str) -> list[tuple[Tree | None, list[Tree]]]:
    """Parse a program into pairs of a pattern (None for every line) and an action; raises NotReproduced."""
    return _Parser(program).run()


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = list(self._cut(text))
        self._at = 0
        self._depth = 0

    def _cut(self, text: str) -> Sequence[tuple[str, str]]:
        tokens: list[tuple[str, str]] = []
        at = 0
        while at < len(text):
            last = tokens[-1] if tokens else ("", "")
            operand = last[0] in {"number", "string", "regex"} or last[1] in {")", "]", "$"}
            regex = _REGEX.match(text, at)
            if regex is not None and not operand and (last[0] != "name" or last[1] in {"print", "printf"}):
                tokens.append(("regex", regex[1].replace(r"\/", "/")))
                at = regex.end()
                continue
            match = _TOKEN.match(text, at)
            if match is None or match.lastgroup is None:
                raise self._refusal()
            if match.lastgroup != "blank":
                tokens.append((match.lastgroup, match[0]))
            at = match.end()
        return tokens

    def _refusal(self) -> NotReproduced:
        return NotReproduced(f"awk {self._text[:60]}")

    def _peek(self) -> tuple[str, str]:
        return self._tokens[self._at] if self._at < len(self._tokens) else ("", "")

    def _takes(self, text: str) -> bool:
        kind, found = self._peek()
        if found == text and kind in {"operator", "name", "newline"}:
            self._at += 1
            return True
        return False

    def _must(self, text: str) -> None:
        if not self._takes(text):
            raise self._refusal()

    def _blank(self) -> None:
        while self._peek()[0] == "newline":
            self._at += 1

    def run(self) -> list[tuple[Tree | None, list[Tree]]]:
        rules: list[tuple[Tree | None, list[Tree]]] = []
        while True:
            self._blank()
            kind, text = self._peek()
            if not kind:
                return rules
            pattern: Tree | None = None
            if text in {"BEGIN", "END"} and kind == "name":
                self._at += 1
                pattern = (text,)
            elif text != "{":
                pattern = self._expression()
            rules.append((pattern, self._block() if self._peek()[1] == "{" else [("print", [])]))

    def _block(self) -> list[Tree]:
        self._must("{")
        statements: list[Tree] = []
        while True:
            self._blank()
            if self._takes("}"):
                return statements
            statements.append(self._statement())

    def _statement(self) -> Tree:
        self._depth += 1
        if self._depth > 50:  # noqa: PLR2004 - statements and expressions within each other
            raise self._refusal()
        try:
            return self._one_statement()
        finally:
            self._depth -= 1

    def _one_statement(self) -> Tree:
        if self._peek()[1] == "{":
            return ("block", self._block())
        if self._takes("if"):
            self._must("(")
            condition = self._expression()
            self._must(")")
            self._blank()
            then = self._statement()
            before = self._at
            self._blank()
            if self._takes("else"):
                self._blank()
                return ("if", condition, then, self._statement())
            self._at = before
            return ("if", condition, then, None)
        for name in ("print", "printf"):
            if self._takes(name):
                return (name, self._list())
        for name in ("exit", "next"):
            if self._takes(name):
                return (name, None if self._peek()[1] in _ENDS else self._expression())
        return ("do", self._expression())

    def _list(self) -> list[Tree]:
        if self._peek()[1] in {"", "\n", ";", "}"}:
            return []
        items = [self._expression()]
        while self._takes(","):
            items.append(self._expression())
        if self._peek()[1] in {">", "|"}:
            raise self._refusal()
        return items

    def _expression(self) -> Tree:
        self._depth += 1
        if self._depth > 50:  # noqa: PLR2004
            raise self._refusal()
        left = self._either()
        for sign in ("=", "+=", "-=", "*=", "/=", "%="):
            if self._takes(sign):
                if left[0] not in {"name", "$"}:
                    raise self._refusal()
                right = self._expression()
                left = ("assign", left, right if sign == "=" else (sign[0], left, right))
        if self._takes("?"):
            then = self._expression()
            self._must(":")
            left = ("?", left, then, self._expression())
        self._depth -= 1
        return left

    def _either(self) -> Tree:
        left = self._both()
        while self._takes("||"):
            self._blank()
            left = ("||", left, self._both())
        return left

    def _both(self) -> Tree:
        left = self._comparison()
        while self._takes("&&"):
            self._blank()
            left = ("&&", left, self._comparison())
        return left

    def _comparison(self) -> Tree:
        left = self._joined()
        while self._peek()[0] == "operator" and self._peek()[1] in _COMPARISONS:
            sign = self._peek()[1]
            self._at += 1
            left = (sign, left, self._joined())
        return left

    def _joined(self) -> Tree:
        left = self._sum()
        while self._peek()[0] in {"number", "string", "name"} or (self._peek()[1] in {"$", "(", "!"}):
            if self._peek()[1] == "in":
                raise self._refusal()
            left = ("join", left, self._sum())
        return left

    def _sum(self) -> Tree:
        left = self._product()
        while self._peek()[1] in {"+", "-"}:
            sign = self._peek()[1]
            self._at += 1
            left = (sign, left, self._product())
        return left

    def _product(self) -> Tree:
        left = self._unary()
        while self._peek()[1] in {"*", "/", "%"}:
            sign = self._peek()[1]
            self._at += 1
            left = (sign, left, self._unary())
        return left

    def _unary(self) -> Tree:
        if self._takes("!"):
            return ("!", self._unary())
        if self._takes("-"):
            return ("-", ("number", 0.0), self._unary())
        left = self._primary()
        for sign in ("++", "--"):
            if self._takes(sign):
                return ("after", left, 1.0 if sign == "++" else -1.0)
        return left

    def _primary(self) -> Tree:  # noqa: PLR0911 - one return per form
        kind, text = self._peek()
        self._at += 1
        if kind == "number":
            return ("number", float(text))
        if kind == "string":
            return ("string", _unescaped(text[1:-1]))
        if kind == "regex":
            return ("regex", text)
        if text == "(":
            inside = self._expression()
            self._must(")")
            return ("group", inside)
        if text == "$":
            return ("$", self._primary())
        if kind == "name" and text in FUNCTIONS:
            items: list[Tree] = []
            if self._takes("("):
                items = [] if self._peek()[1] == ")" else self._list()
                self._must(")")
            return ("call", text, items)
        if kind != "name" or text in {"getline", "system", "while", "for", "do", "function", "delete", "in"}:
            raise self._refusal()
        if self._peek()[1] in {"[", "("}:
            raise self._refusal()
        return ("name", text)


def _unescaped(text: str) -> str:
    known = {"n": "\n", "t": "\t", "\\": "\\", '"': '"', "/": "/"}

    def one(match: re.Match[str]) -> str:
        if match[1] not in known:
            raise NotReproduced(f"awk {match[0]}")
        return known[match[1]]

    return re.sub(r"\\(.)", one, text, flags=re.DOTALL)
