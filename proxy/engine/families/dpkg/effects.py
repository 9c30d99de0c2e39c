"""What a maintainer script would do in one given upgrade, found by walking it with what is known.

Owns the values and conditions: arguments, versions and the image's files are known, so most branches can be told
apart without running anything. A condition that cannot be told makes both branches count. `find_effect` returns the
first command reached whose effect is not known to be none; commands are known one by one, in a table that grows.
Specification: Debian Policy 6.5 and 6.6, dpkg-maintscript-helper(1), POSIX.1-2017 Shell Command Language
"""

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase

from proxy.engine.families.dpkg.commands import COMMANDS, Does, Scene
from proxy.engine.families.dpkg.shell import (
    Case,
    Chain,
    Command,
    Function,
    Group,
    If,
    Loop,
    Node,
    NotUnderstood,
    parse_script,
)
from proxy.engine.families.dpkg.words import TALKS, Runs, expand_word, only_reads

MAX_STEPS = 20_000


@dataclass(frozen=True, slots=True)
class Effect:
    """A command that is reached and may do something: its line in the script, and what it is."""

    line: int
    what: str


def find_effect(script: bytes, scene: Scene) -> Effect | None:
    """Return the first thing that `script` might do, or None if it provably does nothing."""
    try:
        _Walk(scene).run(parse_script(script))
    except NotUnderstood as error:
        return Effect(error.line, error.what)
    except _Reached as reached:
        return reached.effect
    except _Exit:
        pass
    return None


class _Reached(Exception):
    def __init__(self, line: int, what: str) -> None:
        super().__init__(what)
        self.effect = Effect(line, what)


class _Exit(Exception):
    """The script ends here."""


class _Return(Exception):
    """The function ends here."""


_SILENT = frozenset({"set", ":", "true", "umask", "unset", "export", "readonly", "shift", "local"})
_ASSIGNED = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)
_HARMLESS_REDIRECTION = re.compile(r"[0-9]?>>?\s*/dev/null|[0-9]?>&\s*[0-9-]|[0-9]?<.*", re.DOTALL)


class _Walk:
    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._arguments = scene.arguments
        self._variables: dict[str, str | None] = {"DPKG_ROOT": "", "DPKG_MAINTSCRIPT_PACKAGE": scene.package}
        self._variables.update(scene.variables)
        self._functions: dict[str, Function] = {}
        self._steps = self._depth = 0

    def run(self, nodes: Sequence[Node]) -> bool | None:
        """Walk commands in order; return the truth of the last one, None if not known."""
        result: bool | None = True
        for node in nodes:
            result = self._node(node)
        return result

    def _node(self, node: Node) -> bool | None:
        self._steps += 1
        if self._steps > MAX_STEPS:
            raise _Reached(node.line, "too many steps")
        match node:
            case Command():
                return self._command(node)
            case Chain():
                return self._chain(node)
            case If():
                return self._if(node)
            case Case():
                return self._case(node)
            case Group():
                return self.run(node.body)
            case Function():
                self._functions[node.name] = node
                return True
            case Loop():
                raise _Reached(node.line, " ".join(node.head).strip())

    def _chain(self, chain: Chain) -> bool | None:
        if any(operator == "|" for operator, _ in chain.rest):
            return self._pipe(chain)
        result = self._node(chain.first)
        if chain.negated:
            result = None if result is None else not result
        for operator, node in chain.rest:
            if result is None:
                found = self._maybe((node,))
                result = found if found == (operator == "||") else None
            elif result == (operator == "&&"):
                result = self._node(node)
        return result

    def _pipe(self, chain: Chain) -> bool | None:
        for node in (chain.first, *(node for _, node in chain.rest)):
            if not isinstance(node, Command):
                raise _Reached(node.line, "a pipe of compound commands")
            if not only_reads(node.words):
                raise _Reached(node.line, _text(node))
            for word in (*node.words, *node.redirections):
                self._value(word, node.line)
            if not all(_HARMLESS_REDIRECTION.fullmatch(redirection) for redirection in node.redirections):
                raise _Reached(node.line, _text(node))
        return None

    def _maybe(self, nodes: Sequence[Node]) -> bool | None:
        """Walk what may or may not run: an exit in it is not believed, variables set in it are not known after."""
        before, truth = dict(self._variables), None
        with suppress(_Exit, _Return):
            truth = self.run(nodes)
        for name, value in self._variables.items():
            if before.get(name, value) != value or name not in before:
                before[name] = None
        self._variables = before
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
        value, unsure = self._value(node.word, node.line), False
        for patterns, body in node.branches:
            plain = [self._value(pattern, node.line) for pattern in patterns]
            if value is None or None in plain:
                unsure = True
                self._maybe(body)
            elif any(fnmatchcase(value, pattern or "") for pattern in plain):
                return self._maybe(body) if unsure else self.run(body)
        return None if unsure else True

    def _command(self, command: Command) -> bool | None:
        words = list(command.words)
        for redirection in command.redirections:
            if _HARMLESS_REDIRECTION.fullmatch(redirection) is None:
                raise _Reached(command.line, _text(command))
            self._value(redirection, command.line)
        while words and (assigned := _ASSIGNED.fullmatch(words[0])):
            self._variables[assigned[1]] = self._value(assigned[2], command.line)
            words.pop(0)
        if not words:
            return True
        values: list[str | None] = []
        for word in words:
            if word in {'"$@"', "$@", '"${@}"'}:
                values += self._arguments
            else:
                values.append(self._value(word, command.line))
        return self._call(command, values[0] if values else None, values[1:])

    def _call(self, command: Command, name: str | None, arguments: list[str | None]) -> bool | None:
        if name in self._functions:
            return self._function(self._functions[name], arguments)
        if name in {"exit", "return"}:
            raise _Exit if name == "exit" else _Return
        if name in TALKS or name == "false":
            return name != "false"
        if name in _SILENT:
            self._assign(command)
            return True
        if name in {"[", "test"}:
            return self._test(arguments[:-1] if name == "[" else arguments)
        known = COMMANDS.get(name or "")
        if known is not None:
            verdict = known(self._scene, arguments)
            if not isinstance(verdict, Does):
                return verdict
        elif only_reads((name or "", *command.words[1:])):
            return None
        raise _Reached(command.line, _text(command))

    def _assign(self, command: Command) -> None:
        """Take the assignments of `export`, `local` and `readonly`; what `shift` and `unset` do is no longer known."""
        if command.words[0] == "shift" or (
            command.words[0] == "set" and not all(re.fullmatch(r"[+-][eux]+", word) for word in command.words[1:])
        ):
            raise _Reached(command.line, _text(command))
        for argument in command.words[1:] if command.words[0] != "set" else ():
            name, _, value = argument.partition("=")
            known = self._value(value, command.line) if "=" in argument else self._variables.get(name)
            self._variables[name] = None if command.words[0] == "unset" else known

    def _function(self, function: Function, arguments: list[str | None]) -> bool | None:
        outer, self._arguments = self._arguments, tuple(argument or "" for argument in arguments)
        if None in arguments:
            self._arguments = outer
            raise _Reached(function.line, f"a call of {function.name} with what is not known")
        self._depth += 1
        try:
            if self._depth > 20:  # noqa: PLR2004 - no script recurses
                raise _Reached(function.line, f"{function.name} calls itself")
            return self.run(function.body)
        except _Return:
            return None
        finally:
            self._depth -= 1
            self._arguments = outer

    def _value(self, word: str, line: int) -> str | None:
        try:
            return expand_word(word, self._variables, self._arguments)
        except Runs as runs:
            raise _Reached(line, str(runs)) from runs

    def _test(self, words: list[str | None]) -> bool | None:  # noqa: PLR0911 - a table of forms, one return each
        if words and words[0] == "!":
            truth = self._test(words[1:])
            return None if truth is None else not truth
        for operator in ("-o", "-a"):
            if operator in words[1:-1]:
                at = words.index(operator, 1)
                left, right = self._test(words[:at]), self._test(words[at + 1 :])
                return _either(left, right) if operator == "-o" else _both(left, right)
        match words:
            case [str(single)]:
                return single != ""
            case ["-n", str(text)]:
                return text != ""
            case ["-z", str(text)]:
                return text == ""
            case [str(question), str(path)] if re.fullmatch("-[edfLhxsr]", question):
                return self._scene.exists(path.lstrip("/"), question) if path.startswith("/") else None
            case [str(one), "=" | "==", str(other)]:
                return one == other
            case [str(one), "!=", str(other)]:
                return one != other
        return None


def _either(left: bool | None, right: bool | None) -> bool | None:
    if left or right:
        return True
    return None if left is None or right is None else False


def _both(left: bool | None, right: bool | None) -> bool | None:
    if left is False or right is False:
        return False
    return None if left is None or right is None else True


def _text(command: Command) -> str:
    return " ".join((*command.words, *command.redirections))[:80].replace("\n", " ")
