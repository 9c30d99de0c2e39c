"""Cuts a shell script into tokens: words as written (quotes kept), operators, redirections with here-documents.

Owns where a word ends: quotes, `$(...)`, `$((...))`, `${...}` and backquotes nest. What stands in them is kept as text;
`words` looks into it. Refuses what it cannot end with certainty by raising `NotUnderstood` with the line.
Specification: POSIX.1-2017 Shell Command Language, 2.2, 2.3 and 2.7
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

MAX_NESTING = 60

_META = frozenset(" \t\n;&|<>()")
_OPERATOR = re.compile(r"&&|\|\||;;|[;&|()]")
_REDIRECT = re.compile(r"([0-9]?)(<<-|<<(?!<)|>>|>&|<&|>\||<>|<(?!<)|>)[ \t]*")


class NotUnderstood(Exception):
    """The script uses shell that is not read here; `line` is where."""

    def __init__(self, line: int, what: str) -> None:
        super().__init__(what)
        self.line, self.what = line, what


@dataclass(frozen=True, slots=True)
class Redirection:
    """A redirection: the descriptor's digit or nothing, the operator, the word, and for `<<` the document.

    `expands` says that expansions in the document are carried out.
    """

    descriptor: str
    operator: str
    word: str
    document: str = ""
    expands: bool = False

    def __str__(self) -> str:
        return f"{self.descriptor}{self.operator}{self.word}"


@dataclass(frozen=True, slots=True)
class Token:
    """A word, an operator, a newline or a redirection, with its line."""

    kind: str
    text: str
    line: int
    redirection: Redirection | None = None


def cut_tokens(text: str, first_line: int = 1) -> Iterator[Token]:
    """Yield the tokens of a script or of the inside of a substitution."""
    yield from _Cutter(text, first_line).tokens()


class _Cutter:
    def __init__(self, text: str, line: int) -> None:
        self._text, self._line, self._at = text, line, 0
        self._waiting: list[tuple[int, Redirection]] = []  # here-documents that begin after this line
        self._tokens: list[Token] = []

    def tokens(self) -> list[Token]:
        text = self._text
        while self._at < len(text):
            character = text[self._at]
            if character in " \t":
                self._at += 1
            elif text.startswith("\\\n", self._at):
                self._at += 2
                self._line += 1
            elif character == "#":
                end = text.find("\n", self._at)
                self._at = len(text) if end < 0 else end
            elif character == "\n":
                self._add("newline", self._at + 1)
                self._documents()
            else:
                self._visible()
        if self._waiting:
            raise NotUnderstood(self._line, "a here-document without an end")
        return self._tokens

    def _visible(self) -> None:
        redirect = _REDIRECT.match(self._text, self._at)
        if redirect is not None:
            self._redirect(redirect)
            return
        operator = _OPERATOR.match(self._text, self._at)
        if operator is not None:
            self._add("operator", operator.end())
            return
        end = end_of_word(self._text, self._at, self._line)
        if end == self._at:
            raise NotUnderstood(self._line, self._text[self._at :].partition("\n")[0][:80])
        self._add("word", end)

    def _add(self, kind: str, end: int, redirection: Redirection | None = None) -> None:
        found = self._text[self._at : end]
        self._tokens.append(Token(kind, found, self._line, redirection))
        self._line += found.count("\n")
        self._at = end

    def _redirect(self, match: re.Match[str]) -> None:
        end = end_of_word(self._text, match.end(), self._line)
        word = self._text[match.end() : end]
        if not word:
            raise NotUnderstood(self._line, self._text[self._at :].partition("\n")[0][:80])
        if match[2] in {"<<", "<<-"}:
            self._waiting.append((len(self._tokens), Redirection(match[1], match[2], word)))
        self._add("redirect", end, Redirection(match[1], match[2], word))

    def _documents(self) -> None:
        """Read the here-documents that the line before this one announced."""
        for place, redirection in self._waiting:
            if re.search(r"[$`]", redirection.word):
                raise NotUnderstood(self._line, str(redirection))
            end = re.sub(r"[\\'\"]", "", redirection.word)
            lines: list[str] = []
            while True:
                if self._at >= len(self._text):
                    raise NotUnderstood(self._line, f"a here-document without its {end}")
                line, newline, _ = self._text[self._at :].partition("\n")
                self._at += len(line) + len(newline)
                self._line += 1
                line = line.lstrip("\t") if redirection.operator == "<<-" else line
                if line == end:
                    break
                lines.append(line + "\n")
            whole = Redirection(
                redirection.descriptor, redirection.operator, redirection.word, "".join(lines), end == redirection.word
            )
            token = self._tokens[place]
            self._tokens[place] = Token(token.kind, token.text, token.line, whole)
        self._waiting = []


def end_of_word(text: str, at: int, line: int) -> int:
    """Return where the word that begins at `at` ends."""
    while at < len(text) and text[at] not in _META:
        at = end_of_piece(text, at, line)
    return at


def end_of_piece(text: str, at: int, line: int, depth: int = 0) -> int:
    """Return where one piece of a word ends: a quoted part, an expansion, or one plain character."""
    if depth > MAX_NESTING:
        raise NotUnderstood(line, "nested too deeply")
    character, end = text[at], at + 1
    if character == "\\":
        end = at + 2
    elif character == "'":
        end = text.find("'", at + 1) + 1
    elif character == '"':
        end = _end_of_quotes(text, at + 1, line, depth)
    elif character == "`":
        match = re.compile(r"(?:[^`\\]|\\.)*`", re.DOTALL).match(text, at + 1)
        end = match.end() if match else 0
    elif text.startswith("$((", at):
        end = _end_of_arithmetic(text, at + 3, line, depth)
    elif text.startswith("$(", at):
        end = _end_of_substitution(text, at + 2, line, depth)
    elif text.startswith("${", at):
        end = _end_of_braces(text, at + 2, line, depth)
    if end <= at or end > len(text):
        raise NotUnderstood(line, text[at:].partition("\n")[0][:80])
    return end


def _end_of_quotes(text: str, at: int, line: int, depth: int) -> int:
    while at < len(text) and text[at] != '"':
        at = at + 1 if text[at] == "'" else end_of_piece(text, at, line, depth + 1)
    return at + 1


def _end_of_braces(text: str, at: int, line: int, depth: int) -> int:
    while at < len(text) and text[at] != "}":
        at = end_of_piece(text, at, line, depth + 1)
    return at + 1


def _end_of_arithmetic(text: str, at: int, line: int, depth: int) -> int:
    opened = 0
    while at < len(text):
        if text[at] in "'\"#":
            return 0
        if text.startswith("))", at) and not opened:
            return at + 2
        opened += (text[at] == "(") - (text[at] == ")")
        if opened < 0:
            return 0
        at = end_of_piece(text, at, line, depth + 1)
    return 0


def _end_of_substitution(text: str, at: int, line: int, depth: int) -> int:
    """Return where `$(` ends. A case in it has parentheses that open nowhere: refused, as is a here-document."""
    opened, fresh = 0, True
    while at < len(text):
        character = text[at]
        if fresh and (character == "#" or re.compile(r"case\b").match(text, at)):
            if character != "#":
                return 0
            end = text.find("\n", at)
            if end < 0:
                return 0
            at = end
            continue
        if text.startswith("<<", at):
            return 0
        if character == ")" and not opened:
            return at + 1
        opened += (character == "(") - (character == ")")
        fresh = character in _META
        at = at + 1 if fresh else end_of_piece(text, at, line, depth + 1)
    return 0
