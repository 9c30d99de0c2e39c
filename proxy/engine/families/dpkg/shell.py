"""Reads the part of POSIX sh that maintainer scripts are written in, as a tree.

Owns the grammar: lists, pipes, if, case, loops, functions, groups, subshells, simple commands with redirections.
Refuses what it does not understand (background commands, bash's own forms...) by raising `NotUnderstood` with the
line: a script that was half understood would be worse than one that was not.
Specification: POSIX.1-2017 Shell Command Language 2.9 and 2.10, Debian Policy 6.5
"""

import re

from proxy.engine.families.dpkg.shelltokens import NotUnderstood, Redirection, Token, cut_tokens
from proxy.engine.families.dpkg.shelltree import (
    Background,
    Case,
    Chain,
    Command,
    For,
    Function,
    Group,
    If,
    Node,
    Pipe,
    Redirected,
    While,
)

__all__ = ["NotUnderstood", "parse_commands", "parse_script"]

MAX_SCRIPT = 256 << 10  # bytes
MAX_DEPTH = 40


_RESERVED = {"then", "elif", "else", "fi", "esac", "done", "do", "}"}
_NOT_READ = {"select", "[[", "function", "time", "coproc", "in"}


def parse_script(script: bytes) -> tuple[Node, ...]:
    """Parse a whole script; raises NotUnderstood."""
    if len(script) > MAX_SCRIPT:
        raise NotUnderstood(1, "too long")
    if not re.match(rb"#! ?/bin/(?:sh|bash|dash)(?: -[eu]+)?\s*\n", script):
        first = script[:60].partition(b"\n")[0].decode("utf-8", "replace")
        raise NotUnderstood(1, f"not a shell script: {first if first.isprintable() else 'a program'}")
    return parse_commands(script.decode("utf-8", "surrogateescape"))


def parse_commands(text: str, line: int = 1) -> tuple[Node, ...]:
    """Parse commands, as a script has them or a substitution; raises NotUnderstood."""
    parser = _Parser(list(cut_tokens(text, line)))
    body = parser.body(frozenset(), 0)
    parser.end()
    return body


class _Parser:
    def __init__(self, tokens: list[Token]) -> None:
        self._tokens, self._at = tokens, 0

    def _peek(self, ahead: int = 0) -> Token:
        if self._at + ahead < len(self._tokens):
            return self._tokens[self._at + ahead]
        return Token("end", "", self._tokens[-1].line if self._tokens else 1)

    def _take(self, text: str = "") -> Token:
        token = self._peek()
        if token.kind == "end" or (text and token.text != text):
            raise NotUnderstood(token.line, f"{token.text or 'the end'} where {text or 'more'} was expected")
        self._at += 1
        return token

    def _word(self) -> Token:
        token = self._take()
        if token.kind != "word":
            raise NotUnderstood(token.line, f"{token.text.strip()} where a word was expected")
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
        first = self._pipe(depth)
        rest: list[tuple[str, Node]] = []
        while self._peek().text in {"&&", "||"}:
            operator = self._take().text
            self._skip_newlines()
            rest.append((operator, self._pipe(depth)))
        if self._peek().text == "(":
            raise NotUnderstood(self._peek().line, "a ( in a command")
        chain: Node = Chain(first.line, first, tuple(rest)) if rest else first
        if self._peek().text == "&":
            self._at += 1
            return Background(chain.line, chain)
        return chain

    def _pipe(self, depth: int) -> Node:
        line = self._peek().line
        negated = self._peek().text == "!"
        if negated:
            self._at += 1
        nodes = [self._command(depth)]
        while self._peek().text == "|":
            self._at += 1
            self._skip_newlines()
            nodes.append(self._command(depth))
        return Pipe(line, tuple(nodes), negated) if negated or len(nodes) > 1 else nodes[0]

    def _command(self, depth: int) -> Node:
        token = self._peek()
        compound = {
            "if": self._if, "case": self._case, "{": self._group, "(": self._subshell,
            "for": self._for, "while": self._while, "until": self._while,
        }.get(token.text)  # fmt: skip
        if compound is not None:
            return self._redirected(compound(depth))
        if token.kind == "word" and self._peek(1).text == "(" and self._peek(2).text == ")":
            return self._function(depth)
        if token.text in _NOT_READ or token.text in _RESERVED or token.kind not in {"word", "redirect"}:
            raise NotUnderstood(token.line, token.text or "an unexpected end")
        words: list[str] = []
        redirections: list[Redirection] = []
        while self._peek().kind in {"word", "redirect"}:
            found = self._take()
            if found.redirection is not None:
                redirections.append(found.redirection)
            else:
                words.append(found.text)
        return Command(token.line, tuple(words), tuple(redirections))

    def _redirected(self, node: Node) -> Node:
        redirections: list[Redirection] = []
        while (redirection := self._peek().redirection) is not None:
            redirections.append(redirection)
            self._at += 1
        if self._peek().kind == "word" and self._peek().text not in _RESERVED:
            raise NotUnderstood(self._peek().line, self._peek().text)
        return Redirected(node.line, node, tuple(redirections)) if redirections else node

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
                return If(line, tuple(branches))

    def _case(self, depth: int) -> Node:
        line = self._take("case").line
        word = self._word().text
        self._skip_newlines()
        self._take("in")
        branches: list[tuple[tuple[str, ...], tuple[Node, ...]]] = []
        while True:
            self._skip_newlines()
            if self._peek().text == "esac":
                self._at += 1
                return Case(line, word, tuple(branches))
            if self._peek().text == "(":
                self._at += 1
            patterns = [self._word().text]
            while self._peek().text == "|":
                self._at += 1
                patterns.append(self._word().text)
            self._take(")")
            branches.append((tuple(patterns), self.body(frozenset({";;", "esac"}), depth + 1)))
            if self._peek().text == ";;":
                self._at += 1

    def _for(self, depth: int) -> Node:
        line = self._take("for").line
        name = self._word().text
        if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) is None:
            raise NotUnderstood(line, f"for {name}")
        self._skip_newlines()
        words = ['"$@"']
        if self._peek().text == "in":
            self._at += 1
            words = []
            while self._peek().kind == "word":
                words.append(self._take().text)
        if self._peek().text == ";":
            self._at += 1
        self._skip_newlines()
        return For(line, name, tuple(words), self._do(depth))

    def _while(self, depth: int) -> Node:
        token = self._take()
        condition = self.body(frozenset({"do"}), depth + 1)
        return While(token.line, condition, self._do(depth), token.text == "until")

    def _do(self, depth: int) -> tuple[Node, ...]:
        self._take("do")
        body = self.body(frozenset({"done"}), depth + 1)
        self._take("done")
        return body

    def _function(self, depth: int) -> Node:
        token = self._take()
        self._at += 2
        self._skip_newlines()
        body = self._command(depth + 1)
        if not isinstance(body, Group):
            raise NotUnderstood(token.line, f"{token.text}() without braces")
        return Function(token.line, token.text, (body,) if body.alone else body.body)

    def _group(self, depth: int) -> Node:
        line = self._take("{").line
        body = self.body(frozenset({"}"}), depth + 1)
        self._take("}")
        return Group(line, body)

    def _subshell(self, depth: int) -> Node:
        line = self._take("(").line
        body = self.body(frozenset({")"}), depth + 1)
        self._take(")")
        return Group(line, body, alone=True)
