"""Control flow of a shell script that is walked, not run: lists, pipes, conditions, loops, subshells, functions.

Owns what is known at each point, and where text goes (pipes, redirections, substitutions). What cannot be told counts
both ways: a branch that may be taken is walked with the tree frozen, what it sets is not known afterwards, and an end
in it is not believed. What a command does is told by whoever derives from `Walk`.
Specification: POSIX.1-2017 Shell Command Language 2.9
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from functools import lru_cache

from proxy.engine.families.dpkg.call import UNSEEN
from proxy.engine.families.dpkg.endings import Break, Continue, Leaves, Reached, Return
from proxy.engine.families.dpkg.flow import Sink, Source
from proxy.engine.families.dpkg.shell import parse_commands
from proxy.engine.families.dpkg.shelltokens import Redirection
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
from proxy.engine.families.dpkg.words import Words
from proxy.engine.stage import Frozen, Misplaced, Stage

MAX_STEPS = 20_000
MAX_DEPTH = 40  # substitutions and functions within each other
MAX_ROUNDS = 2_000
NULL = frozenset({"/dev/null", "/dev/stdout", "/dev/stderr", "/dev/tty"})


class Walk(ABC):
    """A walk through one script in the tree of `stage`; `variables` are known at its start."""

    def __init__(self, arguments: Sequence[str | None], variables: Mapping[str, str | None], stage: Stage) -> None:
        self._stage = stage
        self._sink: Sink | None = None  # None: nobody listens
        self._source = Source(None)
        self._arguments = tuple(arguments)
        self._variables = dict(variables)
        self._functions: dict[str, Function | None] = {}  # None: defined in a way that is not known
        self._steps = self._depth = self._unsure = 0
        self._half_returned = False  # a return that may have been taken was passed

    @abstractmethod
    def _simple(self, command: Command) -> bool | None:
        """Walk a simple command, its redirections done."""

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
                with self._redirected(node.redirections, node.line):
                    return self._simple(node)
            case Chain():
                return self._chain(node)
            case Background():
                raise Reached(node.line, "a command in the background")
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
                return self._while(node)
            case Redirected():
                with self._redirected(node.redirections, node.line):
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
        outer_sink, outer_source, truth = self._sink, self._source, None
        try:
            for node in pipe.nodes:
                last = node is pipe.nodes[-1]
                self._sink = outer_sink if last else Sink(self._unsure)
                truth = self._alone((node,))
                if self._sink is not None and not last:
                    self._source = Source(self._sink.text)
        finally:
            self._sink, self._source = outer_sink, outer_source
        return truth if truth is None or not pipe.negated else not truth

    def _alone(self, nodes: Sequence[Node]) -> bool | None:
        """Walk a subshell: what it sets is forgotten, what ends in it is only itself."""
        variables, functions, arguments = self._variables, self._functions, self._arguments
        self._variables, self._functions = dict(variables), dict(functions)
        try:
            return self.run(nodes)
        except Leaves:
            return None
        finally:
            self._variables, self._functions, self._arguments = variables, functions, arguments

    def _maybe(self, nodes: Sequence[Node]) -> bool | None:
        """Walk what may or may not run: an exit in it is not believed, what is set in it is not known after."""
        before, functions, truth = dict(self._variables), dict(self._functions), None
        self._unsure += 1
        self._stage.frozen += 1
        try:
            truth = self.run(nodes)
        except Return:
            self._half_returned = True
        except Leaves:
            pass
        finally:
            self._unsure -= 1
            self._stage.frozen -= 1
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

    def _while(self, node: While) -> bool | None:
        """Walk round after round while the condition is known, and all that are left at once when it is not."""
        with suppress(Break):
            for _ in range(MAX_ROUNDS):
                truth = self.run(node.condition)
                if truth is None:
                    break
                if truth is node.until:
                    return True
                with suppress(Continue):
                    self.run(node.body)
            self._rounds((*node.condition, *node.body))
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
        return Words(self._variables, self._arguments, lambda text: self._substitute(text, line), self._glob)

    def _substitute(self, text: str, line: int) -> str | None:
        """Walk a command substitution and return its output, if that is known."""
        self._deeper(line, text)
        outer, self._sink = self._sink, Sink(self._unsure)
        try:
            self._alone(_commands(text, line))
            found = self._sink.text if self._sink is not None else None
        finally:
            self._depth -= 1
            self._sink = outer
        return None if found is None else found.rstrip("\n")

    def _glob(self, pattern: str) -> list[str] | None:
        """Return what a pattern of absolute paths stands for, None if that is not known."""
        if not pattern.startswith("/") or f"{pattern}/".startswith(UNSEEN):
            return None
        found = [""]
        for part in pattern.strip("/").split("/"):
            below: list[str] = []
            for folder in found:
                if not re.search(r"[*?\[]", part):
                    below += [f"{folder}/{part}"] if self._stage.get(f"{folder}/{part}") is not None else []
                    continue
                names = self._stage.listdir(folder)
                hidden = part.startswith(".")
                below += [f"{folder}/{n}" for n in names if fnmatchcase(n, part) and n.startswith(".") <= hidden]
            found = below
        return found

    def emit(self, text: str | None) -> None:
        """Write text to where the output of commands goes now; None for text that is not known."""
        if self._sink is not None:
            self._sink.parts.append(text if self._unsure == self._sink.level else None)

    @contextmanager
    def _redirected(self, redirections: Sequence[Redirection], line: int) -> Iterator[None]:
        """Carry out redirections around what runs within; what was written to a file is there at the end."""
        if not redirections:
            yield
            return
        sink, source = self._sink, self._source
        target: tuple[Redirection, str] | None = None
        leaves: Leaves | None = None
        written: Sink | None = None
        try:
            for redirection in redirections:
                path = self._redirect(redirection, line)
                if path is not None:
                    target, self._sink = (redirection, path), Sink(self._unsure)
            written = self._sink
            yield
        except Leaves as error:
            leaves = error
        finally:
            self._sink, self._source = sink, source
        if target is not None and written is not None:
            self._save(*target, written.text, line)
        if leaves is not None:
            raise leaves

    def _redirect(self, redirection: Redirection, line: int) -> str | None:  # noqa: C901 - a table of operators
        """Carry out one redirection; returns the path of a file that the output goes to."""
        words = self._words(line)
        operator, out = redirection.operator, redirection.descriptor in {"", "1"}
        if operator in {"<<", "<<-"}:
            self._source = Source(words.document(redirection.document) if redirection.expands else redirection.document)
            return None
        value = words.value(redirection.word)
        if operator == "<":
            self._source = Source(self.text_of(value))
        elif operator in {">&", "<&"}:
            if re.fullmatch(r"[0-9]|-", value or "") is None:
                raise Reached(line, str(redirection))
            if operator == ">&" and out:
                self._sink = None
            elif operator == ">&" and value == "1":
                self.emit(None)
        elif operator == "<>" or value is None or (value not in NULL and not (out and value.startswith("/"))):
            raise Reached(line, str(redirection))
        elif value in NULL:
            if out and value != "/dev/stdout":
                self._sink = None
        elif f"{value}/".startswith(UNSEEN):
            raise Reached(line, str(redirection))
        else:
            return value
        return None

    def text_of(self, path: str | None) -> str | None:
        """Return the text of a file, or None if it is not known or not there."""
        if path is None or not path.startswith("/") or f"{path}/".startswith(UNSEEN):
            return None
        data = self._stage.read(path)
        return None if data is None else data.decode("utf-8", "surrogateescape")

    def _save(self, redirection: Redirection, path: str, text: str | None, line: int) -> None:
        if text is None or self._unsure:
            raise Reached(line, str(redirection))
        data = text.encode("utf-8", "surrogateescape")
        before = self._stage.read(path) if redirection.operator == ">>" else b""
        try:
            self._stage.write(path, (before or b"") + data)
        except (Frozen, Misplaced) as error:
            raise Reached(line, f"{redirection} ({error})") from error


@lru_cache(maxsize=512)
def _commands(text: str, line: int) -> tuple[Node, ...]:
    return parse_commands(text, line)


def command_text(command: Command) -> str:
    """Return a command for people."""
    return " ".join((*command.words, *map(str, command.redirections)))[:80].replace("\n", " ")
