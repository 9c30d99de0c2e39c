"""Control flow of a shell script that is walked, not run: lists, pipes, conditions, loops, subshells, functions.

Owns what is known at each point. What cannot be told counts both ways: a branch that may be taken is walked, what it
sets is not known afterwards, and an end in it is not believed. What a command does is told by whoever derives from
`Walk`.
Specification: POSIX.1-2017 Shell Command Language 2.9
"""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase

from proxy.engine.families.dpkg.shell import parse_commands
from proxy.engine.families.dpkg.shelltokens import Redirection
from proxy.engine.families.dpkg.shelltree import (
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
from proxy.engine.families.dpkg.words import Words

MAX_STEPS = 20_000
MAX_DEPTH = 40  # substitutions and functions within each other

_NULL = frozenset({"/dev/null", "/dev/stdout", "/dev/stderr", "/dev/tty"})


@dataclass(frozen=True, slots=True)
class Unknown:
    """A command that is reached and may do something: its line in the script, and what it is."""

    line: int
    what: str


class Reached(Exception):
    """A command whose effect is not known is reached."""

    def __init__(self, line: int, what: str) -> None:
        super().__init__(what)
        self.unknown = Unknown(line, what[:80].replace("\n", " "))


class Leaves(Exception):
    """Something ends here."""


class Exit(Leaves):
    """The script, or the subshell."""


class Return(Leaves):
    """The function; `truth` is what it returns."""

    def __init__(self, truth: bool | None) -> None:
        super().__init__()
        self.truth = truth


class Break(Leaves):
    """The loop."""


class Continue(Leaves):
    """This round of the loop."""


class Walk:
    """A walk through one script; `variables` are known at its start."""

    def __init__(self, arguments: Sequence[str | None], variables: Mapping[str, str | None]) -> None:
        self._arguments = tuple(arguments)
        self._variables = dict(variables)
        self._functions: dict[str, Function | None] = {}  # None: defined in a way that is not known
        self._steps = self._depth = self._unsure = 0
        self._half_returned = False  # a return that may have been taken was passed

    def _command(self, command: Command) -> bool | None:
        """Walk a simple command."""
        raise NotImplementedError

    def run(self, nodes: Sequence[Node]) -> bool | None:
        """Walk commands in order; return the truth of the last one, None if not known."""
        result: bool | None = True
        for node in nodes:
            result = self._node(node)
        return result

    def _node(self, node: Node) -> bool | None:  # noqa: C901, PLR0911 - one return per kind of node
        self._steps += 1
        if self._steps > MAX_STEPS:
            raise Reached(node.line, "too many steps")
        match node:
            case Command():
                return self._command(node)
            case Chain():
                return self._chain(node)
            case Pipe():
                return self._pipe(node)
            case If():
                return self._if(node)
            case Case():
                return self._case(node)
            case Group():
                return self._alone(node.body) if node.alone else self.run(node.body)
            case Function():
                self._functions[node.name] = node
                return True
            case For():
                return self._for(node)
            case While():
                self._rounds((*node.condition, *node.body))
                return None
            case Redirected():
                self._redirect(node.redirections, node.line)
                return self._node(node.node)

    def _chain(self, chain: Chain) -> bool | None:
        result = self._node(chain.first)
        for operator, node in chain.rest:
            if result is None:
                found = self._maybe((node,))
                result = found if found == (operator == "||") else None
            elif result == (operator == "&&"):
                result = self._node(node)
        return result

    def _pipe(self, pipe: Pipe) -> bool | None:
        if len(pipe.nodes) == 1:
            result = self._node(pipe.nodes[0])
            return None if result is None else not result
        for node in pipe.nodes:
            self._alone((node,))
        return None

    def _alone(self, nodes: Sequence[Node]) -> bool | None:
        """Walk a subshell: what it sets is forgotten, what ends in it is only itself."""
        variables, functions, arguments = dict(self._variables), dict(self._functions), self._arguments
        try:
            with suppress(Leaves):
                self.run(nodes)
        finally:
            self._variables, self._functions, self._arguments = variables, functions, arguments
        return None

    def _maybe(self, nodes: Sequence[Node]) -> bool | None:
        """Walk what may or may not run: an exit in it is not believed, what is set in it is not known after."""
        before, functions, truth = dict(self._variables), dict(self._functions), None
        self._unsure += 1
        try:
            truth = self.run(nodes)
        except Return:
            self._half_returned = True
        except Leaves:
            pass
        finally:
            self._unsure -= 1
        for name, value in self._variables.items():
            if name not in before or before[name] != value:
                before[name] = None
        for name, function in self._functions.items():
            if functions.get(name) is not function:
                functions[name] = None
        self._variables, self._functions = before, functions
        return truth

    def _if(self, node: If) -> bool | None:
        unsure = False
        for condition, body in node.branches:
            truth = (self._maybe(condition) if unsure else self.run(condition)) if condition else True
            if truth is False:
                continue
            if truth is True and not unsure:
                return self.run(body)
            self._maybe(body)
            if truth is True:
                return None
            unsure = True
        return None if unsure else True

    def _case(self, node: Case) -> bool | None:
        words = self._words(node.line)
        value, unsure = words.value(node.word), False
        for patterns, body in node.branches:
            plain = [words.pattern(pattern) for pattern in patterns]
            if value is None or None in plain:
                unsure = True
                self._maybe(body)
            elif any(fnmatchcase(value, pattern or "") for pattern in plain):
                return self._maybe(body) if unsure else self.run(body)
        return None if unsure else True

    def _for(self, node: For) -> bool | None:
        words = self._words(node.line)
        values = [value for word in node.words for value in words.fields(word)]
        if None in values:
            self._variables[node.name] = None
            self._rounds(node.body)
            return None
        try:
            for value in values:
                self._variables[node.name] = value
                with suppress(Continue):
                    self.run(node.body)
        except Break:
            pass
        return None

    def _rounds(self, body: Sequence[Node]) -> None:
        """Walk the body of a loop until another round would know no less than the last one."""
        while True:
            before = dict(self._variables)
            self._maybe(body)
            if self._variables == before:
                return

    def _function(self, command: Command, function: Function | None, arguments: list[str | None]) -> bool | None:
        if function is None:
            raise Reached(command.line, f"{command_text(command)} (not known which)")
        if None in arguments:  # it may stand for several
            arguments[arguments.index(None) :] = [None] * (len(arguments) - arguments.index(None))
        outer, outer_half = self._arguments, self._half_returned
        self._arguments, self._half_returned = tuple(arguments), False
        self._deeper(command.line, function.name)
        try:
            truth = self.run(function.body)
        except Return as returned:
            truth = returned.truth
        finally:
            half = self._half_returned
            self._depth -= 1
            self._arguments, self._half_returned = outer, outer_half
        return None if half else truth

    def _deeper(self, line: int, what: str) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise Reached(line, f"{what} within itself")

    def _words(self, line: int) -> Words:
        return Words(self._variables, self._arguments, lambda text: self._substitute(text, line))

    def _substitute(self, text: str, line: int) -> str | None:
        """Walk a command substitution; its output is not known."""
        self._deeper(line, text)
        self._unsure += 1
        try:
            self._alone(parse_commands(text, line))
        finally:
            self._depth -= 1
            self._unsure -= 1
        return None

    def _redirect(self, redirections: Sequence[Redirection], line: int) -> None:
        for redirection in redirections:
            words = self._words(line)
            value = words.value(redirection.word)
            match redirection.operator:
                case "<":
                    continue
                case "<<" | "<<-":
                    if redirection.expands:
                        words.document(redirection.document)
                case ">&" | "<&":
                    if re.fullmatch(r"[0-9]|-", value or "") is None:
                        raise Reached(line, str(redirection))
                case _:
                    if redirection.operator == "<>" or value not in _NULL:
                        raise Reached(line, str(redirection))


def command_text(command: Command) -> str:
    """Return a command for people."""
    return " ".join((*command.words, *map(str, command.redirections)))[:80].replace("\n", " ")
