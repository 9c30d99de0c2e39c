"""Reads the part of POSIX sh that maintainer scripts are written in, as a tree.

Owns tokens and grammar: lists, if, case, functions, simple commands with redirections. Refuses what it does not
understand (here documents, loops over computed lists, subshells...) by raising `NotUnderstood` with the line: a
script that was half understood would be worse than one that was not.
Specification: POSIX.1-2017 Shell Command Language, Debian Policy 6.5
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

MAX_SCRIPT = 256 << 10  # bytes
MAX_DEPTH = 40


class NotUnderstood(Exception):
    """The script uses shell that is not read here; `line` is where."""

    def __init__(self, line: int, what: str) -> None:
        super().__init__(what)
        self.line, self.what = line, what


@dataclass(frozen=True, slots=True)
class Command:
    """A simple command: words as written (quotes kept), and its redirections."""

    line: int
    words: tuple[str, ...]
    redirections: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Chain:
    """Commands joined by ``&&``, ``||``, ``|``: each later one with its operator; `negated` says ``!`` came first."""

    line: int
    first: "Node"
    rest: tuple[tuple[str, "Node"], ...] = ()
    negated: bool = False


@dataclass(frozen=True, slots=True)
class If:
    """Branches in order, each a condition and a body; an else branch has the condition ``()``."""

    line: int
    branches: tuple[tuple[tuple["Node", ...], tuple["Node", ...]], ...]


@dataclass(frozen=True, slots=True)
class Case:
    """A word and its branches: patterns and body."""

    line: int
    word: str
    branches: tuple[tuple[tuple[str, ...], tuple["Node", ...]], ...]


@dataclass(frozen=True, slots=True)
class Function:
    """A function that was defined."""

    line: int
    name: str
    body: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Group:
    """Commands between braces."""

    line: int
    body: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Loop:
    """A for or while loop: its head as written and its body."""

    line: int
    head: tuple[str, ...]
    body: tuple["Node", ...]


Node = Command | Chain | If | Case | Function | Group | Loop

_SUBSTITUTED = r"\$\((?:[^()'\"`\\]|\"[^\"`\\]*\"|'[^']*')*\)|`[^`\\]*`"
_QUOTED = rf"\"(?:[^\"\\`$]|\\.|\$(?!\()|{_SUBSTITUTED})*\"|'[^']*'"
_WORD = rf"(?:[^\s;&|<>()'\"`$\\]|\\.|{_QUOTED}|{_SUBSTITUTED}|\$\{{[^}}\n]*\}}|\$(?!\())+"
_TOKEN = re.compile(
    r"(?P<blank>(?:[ \t]|\\\n)+)|(?P<comment>#[^\n]*)|(?P<newline>\n)"
    rf"|(?P<redirect>[0-9]?(?:>>|>&|<&|>\||>|<(?!<))[ \t]*{_WORD})"
    rf"|(?P<operator>&&|\|\||;;|[;&|()])|(?P<word>{_WORD})"
)
_RESERVED = {"then", "elif", "else", "fi", "esac", "done", "do", "}"}
_NOT_READ = {"until", "select", "[[", "function"}


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    line: int


def parse_script(script: bytes) -> tuple[Node, ...]:
    """Parse a whole script; raises NotUnderstood."""
    if len(script) > MAX_SCRIPT:
        raise NotUnderstood(1, "too long")
    if not re.match(rb"#! ?/bin/(?:sh|bash|dash)(?: -[eu]+)?\s*\n", script):
        raise NotUnderstood(1, "not a shell script: " + script[:60].partition(b"\n")[0].decode("utf-8", "replace"))
    parser = _Parser(list(_tokens(script.decode("utf-8", "surrogateescape"))))
    body = parser.body(frozenset(), 0)
    parser.end()
    return body


def _tokens(text: str) -> Iterator[_Token]:
    at, line, fresh = 0, 1, True
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None or (match.lastgroup == "comment" and not fresh):
            raise NotUnderstood(line, text[at:].partition("\n")[0][:80])
        kind, found = match.lastgroup or "", match[0]
        if kind not in {"blank", "comment"}:
            yield _Token(kind, found, line)
        fresh = kind != "word"
        line += found.count("\n")
        at = match.end()


class _Parser:
    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens, self._at = tokens, 0

    def _peek(self, ahead: int = 0) -> _Token:
        if self._at + ahead < len(self._tokens):
            return self._tokens[self._at + ahead]
        return _Token("end", "", self._tokens[-1].line if self._tokens else 1)

    def _take(self, text: str = "") -> _Token:
        token = self._peek()
        if text and token.text != text:
            raise NotUnderstood(token.line, f"{token.text or 'the end'} where {text} was expected")
        self._at += 1
        return token

    def _skip_newlines(self) -> None:
        while self._peek().kind == "newline":
            self._at += 1

    def end(self) -> None:
        """Check that all was read."""
        if self._peek().kind != "end":
            raise NotUnderstood(self._peek().line, self._peek().text)

    def body(self, until: frozenset[str], depth: int) -> tuple[Node, ...]:
        """Read commands up to one of the words `until` (not taken) or the end."""
        if depth > MAX_DEPTH:
            raise NotUnderstood(self._peek().line, "nested too deeply")
        nodes: list[Node] = []
        while True:
            token = self._peek()
            if token.kind == "newline" or token.text == ";":
                self._at += 1
            elif token.kind == "end" or token.text in until:
                return tuple(nodes)
            elif token.text in _RESERVED:
                raise NotUnderstood(token.line, token.text)
            else:
                nodes.append(self._chain(depth))

    def _chain(self, depth: int) -> Node:
        line = self._peek().line
        negated = self._peek().text == "!"
        if negated:
            self._at += 1
        first = self._command(depth)
        rest: list[tuple[str, Node]] = []
        while self._peek().text in {"&&", "||", "|"}:
            operator = self._take().text
            self._skip_newlines()
            if self._peek().text == "!":
                self._at += 1
                rest.append((operator, Chain(self._peek().line, self._command(depth), (), negated=True)))
            else:
                rest.append((operator, self._command(depth)))
        if self._peek().text in {"&", "("}:
            raise NotUnderstood(self._peek().line, f"a {self._peek().text} in a command")
        return Chain(line, first, tuple(rest), negated) if rest or negated else first

    def _command(self, depth: int) -> Node:
        token = self._peek()
        if token.text == "if":
            return self._if(depth)
        if token.text == "case":
            return self._case(depth)
        if token.kind == "word" and self._peek(1).text == "(" and self._peek(2).text == ")":
            return self._function(depth)
        if token.text == "{":
            return self._group(depth)
        if token.text in {"for", "while"}:
            return self._loop(depth)
        if token.text in _NOT_READ or token.kind not in {"word", "redirect"}:
            raise NotUnderstood(token.line, token.text or "an unexpected end")
        words: list[str] = []
        redirections: list[str] = []
        while self._peek().kind in {"word", "redirect"}:
            found = self._take()
            (words if found.kind == "word" else redirections).append(found.text)
        return Command(token.line, tuple(words), tuple(redirections))

    def _if(self, depth: int) -> Node:
        line = self._take("if").line
        branches: list[tuple[tuple[Node, ...], tuple[Node, ...]]] = []
        while True:
            condition = self.body(frozenset({"then"}), depth + 1)
            self._take("then")
            branches.append((condition, self.body(frozenset({"elif", "else", "fi"}), depth + 1)))
            word = self._take().text
            if word == "else":
                branches.append(((), self.body(frozenset({"fi"}), depth + 1)))
                self._take("fi")
            if word in {"else", "fi"}:
                return self._plain(If(line, tuple(branches)))

    def _case(self, depth: int) -> Node:
        line = self._take("case").line
        word = self._take().text
        self._skip_newlines()
        self._take("in")
        branches: list[tuple[tuple[str, ...], tuple[Node, ...]]] = []
        while True:
            self._skip_newlines()
            if self._peek().text == "esac":
                self._at += 1
                return self._plain(Case(line, word, tuple(branches)))
            if self._peek().text == "(":
                self._at += 1
            patterns = [self._take().text]
            while self._peek().text == "|":
                self._at += 1
                patterns.append(self._take().text)
            self._take(")")
            branches.append((tuple(patterns), self.body(frozenset({";;", "esac"}), depth + 1)))
            if self._peek().text == ";;":
                self._at += 1

    def _loop(self, depth: int) -> Node:
        line = self._peek().line
        head: list[str] = []
        while self._peek().text != "do":
            token = self._take()
            if token.kind == "end":
                raise NotUnderstood(line, "a loop without do")
            head.append(token.text)
        self._take("do")
        body = self.body(frozenset({"done"}), depth + 1)
        self._take("done")
        return self._plain(Loop(line, tuple(head), body))

    def _function(self, depth: int) -> Node:
        token = self._take()
        self._at += 2
        self._skip_newlines()
        group = self._group(depth)
        return Function(token.line, token.text, group.body)

    def _group(self, depth: int) -> Group:
        line = self._take("{").line
        body = self.body(frozenset({"}"}), depth + 1)
        self._take("}")
        return Group(line, body)

    def _plain(self, node: Node) -> Node:
        """Refuse redirections of a whole compound command."""
        if self._peek().kind == "redirect":
            raise NotUnderstood(self._peek().line, self._peek().text)
        return node
