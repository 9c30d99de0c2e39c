"""What a maintainer script would do in one given upgrade.

Owns the shell's built-in commands and what is said of all others: `find_effects` gives the changes that are
understood, and the first command reached whose effect is not known. Arguments, versions and the image's files are
known, so most branches can be told apart (see `walk`). Commands are known one by one, in a table that grows (see
`commands`), or because they only read (see `readers`).
Specification: Debian Policy 6.5 and 6.6, POSIX.1-2017 Shell Command Language
"""

import re
from dataclasses import dataclass

from proxy.engine.families.dpkg.commands import COMMANDS, Does, Scene
from proxy.engine.families.dpkg.conditions import evaluate
from proxy.engine.families.dpkg.findings import Change
from proxy.engine.families.dpkg.readers import TALKS, only_reads
from proxy.engine.families.dpkg.shell import NotUnderstood, parse_script
from proxy.engine.families.dpkg.shelltree import Command
from proxy.engine.families.dpkg.walk import (
    Break,
    Continue,
    Exit,
    Leaves,
    Reached,
    Return,
    Unknown,
    Walk,
    command_text,
)
from proxy.engine.families.dpkg.words import Runs

_SILENT = frozenset({"set", ":", "true", "umask", "unset", "export", "readonly", "local", "cd", "wait", "hash"})
_ASSIGNED = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Effects:
    """What a script does: changes in their order, and, if not all is understood, the first unknown command."""

    changes: tuple[Change, ...] = ()
    unknown: Unknown | None = None


def find_effects(script: bytes, scene: Scene) -> Effects:
    """Return what `script` would do; it provably does nothing if both fields are empty."""
    walk = _Walk(scene)
    unknown = None
    try:
        walk.run(parse_script(script))
    except NotUnderstood as error:
        unknown = Unknown(error.line, error.what)
    except Reached as reached:
        unknown = reached.unknown
    except Runs as runs:
        unknown = Unknown(0, str(runs))
    except Leaves:
        pass
    return Effects(tuple(walk.changes), unknown)


class _Walk(Walk):
    def __init__(self, scene: Scene) -> None:
        super().__init__(
            scene.arguments, {"DPKG_ROOT": "", "DPKG_MAINTSCRIPT_PACKAGE": scene.package, **scene.variables}
        )
        self._scene = scene
        self.changes: list[Change] = []

    def _command(self, command: Command) -> bool | None:
        words = list(command.words)
        self._redirect(command.redirections, command.line)
        values = self._words(command.line)
        assigned: dict[str, str | None] = {}
        while words and (match := _ASSIGNED.fullmatch(words[0])):
            assigned[match[1]] = values.value(match[2])
            words.pop(0)
        if not words:
            self._variables.update(assigned)
            return True
        fields = [(field, word) for word in words for field in values.fields(word)]
        if not fields:
            return None
        name = fields[0][0]
        if {"PATH", "LD_PRELOAD", "LD_LIBRARY_PATH", "IFS"} & set(assigned) or (assigned and name in self._functions):
            raise Reached(command.line, command_text(command))
        return self._call(command, name, [field for field, _ in fields[1:]], [word for _, word in fields[1:]])

    def _call(  # noqa: C901, PLR0911 - a table of commands, one return each
        self, command: Command, name: str | None, arguments: list[str | None], raw: list[str]
    ) -> bool | None:
        if name in self._functions:
            return self._function(command, self._functions[name], arguments)
        if name in {"exit", "return", "break", "continue"}:
            raise _leaving(name, arguments)
        if name in TALKS or name == "false":
            return name != "false"
        if name == "read":
            self._variables.update({word: None for word in arguments if word and not word.startswith("-")})
            if None in arguments:
                raise Reached(command.line, command_text(command))
            return None
        if name == "shift" and not self._unsure and arguments in ([], ["1"]):
            self._arguments = self._arguments[1:]
            return True
        if name in _SILENT:
            self._assign(command, name, arguments, raw)
            return None if name in {"cd", "wait"} else True
        if name in {"[", "test"}:
            return evaluate(arguments[:-1] if name == "[" else arguments, self._exists)
        known = COMMANDS.get(name or "")
        if known is not None:
            verdict = known(self._scene, arguments)
            if isinstance(verdict, Change) and not self._unsure:
                self.changes.append(verdict)
                return None
            if not isinstance(verdict, Does | Change):
                return verdict
        elif only_reads(name or "", arguments, raw):
            return None
        raise Reached(command.line, command_text(command))

    def _exists(self, path: str, test: str) -> bool | None:
        if any(entry.path == path for change in self.changes for entry in change.entries):
            return None
        return self._scene.exists(path, test)

    def _assign(self, command: Command, name: str, arguments: list[str | None], raw: list[str]) -> None:
        """Take the assignments of `export`, `local` and `readonly`; what `unset` names is no longer known."""
        if name in {"export", "local", "readonly", "unset"}:
            for word in raw:
                variable, sign, value = word.partition("=")
                if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", variable) is None:
                    if word in {"-p", "-v"}:
                        continue
                    raise Reached(command.line, command_text(command))
                known = self._words(command.line).value(value) if sign else self._variables.get(variable)
                self._variables[variable] = None if name == "unset" else known
                if variable in {"PATH", "IFS", "LD_PRELOAD", "LD_LIBRARY_PATH"} and sign and name != "local":
                    raise Reached(command.line, command_text(command))
        elif name == "set" and not all(re.fullmatch(r"[+-][euxfh]+", word or "?") for word in arguments):
            raise Reached(command.line, command_text(command))


def _leaving(name: str, arguments: list[str | None]) -> Leaves:
    if name == "return":
        known = {"0": True}.get(arguments[0] or "", False) if arguments and (arguments[0] or "").isdigit() else None
        return Return(known)
    return {"exit": Exit, "break": Break, "continue": Continue}[name]()
