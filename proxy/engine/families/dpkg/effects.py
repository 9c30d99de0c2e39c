"""What a maintainer script does in one given upgrade: done to the stage, or not understood.

Owns the shell's built-in commands and what is said of all others. Arguments, versions and the tree of the moment are
known, so most branches can be told apart (see `walk`). Commands are known one by one, in a table that grows (see
`commands`), or because they only read (see `readers`, `textcommands`).
Specification: Debian Policy 6.5 and 6.6, POSIX.1-2017 Shell Command Language
"""

import re
from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache, partial

from proxy.engine.families.dpkg.call import DOES, Call, Does, Scene, Verdict
from proxy.engine.families.dpkg.commands import COMMANDS
from proxy.engine.families.dpkg.conditions import answer_test, evaluate
from proxy.engine.families.dpkg.confmodule import CONFMODULE, ask, is_question
from proxy.engine.families.dpkg.debconf import Debconf
from proxy.engine.families.dpkg.endings import Leaves, Reached, Unknown, leaving
from proxy.engine.families.dpkg.findings import NotReproduced
from proxy.engine.families.dpkg.lookcommands import look
from proxy.engine.families.dpkg.programs import run_program
from proxy.engine.families.dpkg.readers import TALKS, only_reads, said
from proxy.engine.families.dpkg.shell import NotUnderstood, parse_commands, parse_script
from proxy.engine.families.dpkg.shelltree import Command, Node
from proxy.engine.families.dpkg.textcommands import read_and_print
from proxy.engine.families.dpkg.walk import Walk, command_text
from proxy.engine.families.dpkg.words import Runs
from proxy.engine.stage import Frozen, Misplaced
from proxy.engine.tar import Kind

_SILENT = frozenset({"set", ":", "true", "umask", "unset", "export", "readonly", "local", "wait", "hash"})
_ASSIGNED = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)
_UNSET = (
    "DEBCONF_RECONFIGURE",
    "DEBCONF_USE_CDEBCONF",
    "DEBIAN_HAS_FRONTEND",
    "DEBUG",
    "LD_LIBRARY_PATH",
    "TZ",
    "DEBIAN_SCRIPT_TRACE",
    "DEBIAN_SCRIPT_DEBUG",
)
_OUTER = re.compile(r"PATH|HOME|PWD|SHELL|TERM|TZ|IFS|USER|LOGNAME|TMPDIR|EDITOR|LANG|LC_|LD_|DPKG_|DEB|APT_|RET$")
_USUAL_PATH = re.compile(
    r'PATH="?\$\{?PATH\}?(?::/(?:usr/(?:local/)?)?s?bin)+"?'
)  # nothing that is not searched anyway
_GUARDED = frozenset({"PATH", "IFS", "LD_PRELOAD", "LD_LIBRARY_PATH"})


def run_script(script: bytes, scene: Scene) -> Unknown | None:
    """Do to the scene's stage what `script` does; returns the first command that is not understood, if there is one.

    The stage is then as it was when that command was reached: whoever goes on without it must drop it.
    """
    try:
        return _walk(_Walk(scene), script)
    except _Frontend as wanted:
        return _walk_under_frontend(script, scene, wanted)


def _walk_under_frontend(script: bytes, scene: Scene, wanted: "_Frontend") -> Unknown | None:
    """Begin again as debconf's frontend does: the package's config script first, then the script from its start."""
    frontend = scene.frontend
    try:
        debconf = frontend.begin() if frontend is not None else None
    except NotReproduced as error:
        return Unknown(wanted.line, error.what)
    if frontend is None or debconf is None:
        return Unknown(wanted.line, f". {CONFMODULE}")
    if frontend.config is not None and scene.arguments[:1] == ("configure",):
        arguments = ("configure", scene.old_version)
        unknown = _walk(_Walk(replace(scene, script="config", arguments=arguments), debconf), frontend.config)
        if unknown is not None:
            return Unknown(unknown.line, f"in its config: {unknown.what}")
    return _walk(_Walk(scene, debconf), script)


def _walk(walk: "_Walk", script: bytes) -> Unknown | None:
    walk.own(_own_names(script))
    try:
        walk.run(_parsed(script))
    except NotUnderstood as error:
        return Unknown(error.line, error.what)
    except Reached as reached:
        return reached.unknown
    except Runs as runs:
        return Unknown(0, str(runs))
    except Misplaced as error:
        return Unknown(0, str(error))
    except Leaves:
        pass
    return None


def _own_names(script: bytes) -> frozenset[str]:
    """Return the variables that a script sets for itself: it never asks whether the environment had them."""
    text = script.decode("utf-8", "replace")
    asked = re.findall(r"\$\{([A-Za-z_][A-Za-z0-9_]*):?[-=?+]", text)
    given = re.findall(r"(?m)^[ \t]*(?:local[ \t]+)?([A-Za-z_][A-Za-z0-9_]*)=", text)
    return frozenset(name for name in given if _OUTER.match(name) is None) - frozenset(asked)


class _Frontend(Exception):
    """A script asks for debconf's frontend, which runs it again."""

    def __init__(self, line: int) -> None:
        super().__init__()
        self.line = line


@lru_cache(maxsize=512)
def _parsed(script: bytes) -> tuple[Node, ...]:
    return parse_script(script)


class _Walk(Walk):
    def __init__(self, scene: Scene, debconf: Debconf | None = None) -> None:
        variables = {
            "DPKG_ROOT": "",
            "DPKG_ADMINDIR": "/var/lib/dpkg",
            "DPKG_COLORS": "never",  # as apt says where there is no terminal
            "DPKG_MAINTSCRIPT_PACKAGE": scene.package,
            "DPKG_MAINTSCRIPT_NAME": scene.script,
            "DPKG_MAINTSCRIPT_ARCH": scene.arch or None,
            "DEBIAN_FRONTEND": "noninteractive",
            **dict.fromkeys(_UNSET, ""),
        }
        super().__init__(scene.arguments, {**variables, **scene.variables}, scene.stage)
        self._scene, self._debconf = scene, debconf

    def own(self, names: Iterable[str]) -> None:
        """Take names as the script's own, not set at its start."""
        for name in names:
            self._variables.setdefault(name, "")

    def _simple(self, command: Command) -> bool | None:
        words = list(command.words)
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
        if _GUARDED & set(assigned) - {"IFS"} or ("IFS" in assigned and name != "read"):
            raise Reached(command.line, command_text(command))
        if assigned and name in self._functions:
            raise Reached(command.line, command_text(command))
        try:
            return self._call(command, name, [field for field, _ in fields[1:]], [word for _, word in fields[1:]])
        except (Frozen, Misplaced) as error:
            raise Reached(command.line, command_text(command)) from error
        except NotReproduced as error:
            raise Reached(command.line, f"{command_text(command)}: {error.what}") from error

    def _call(  # noqa: C901, PLR0911, PLR0912 - a table of commands, one return each
        self, command: Command, name: str | None, arguments: list[str | None], raw: list[str]
    ) -> bool | None:
        if name in self._functions:
            return self._function(command, self._functions[name], arguments)
        if name in {"exit", "return", "break", "continue"}:
            raise leaving(name, arguments)
        if name in TALKS:
            self.emit(said(name, arguments))
            return True
        if name == "false":
            return False
        if name == "read":
            return self._read(command, arguments)
        if name == "shift" and not self._unsure and arguments in ([], ["1"]):
            self._arguments = self._arguments[1:]
            return True
        if name == "set" and arguments[:1] == ["--"] and not self._unsure:
            self._arguments = tuple(arguments[1:])
            return True
        if name in _SILENT:
            self._assign(command, name, arguments, raw)
            return None if name == "wait" else True
        if name == "exec" and not arguments and all(it.operator in {">&", "<&"} for it in command.redirections):
            return True
        if name in {".", "command", "which", "type"}:
            return self._find(command, name, arguments)
        if name in {"[", "test"}:
            return evaluate(arguments[:-1] if name == "[" else arguments, partial(answer_test, self._stage))
        if name == "cd":
            return self._change_folder(arguments)
        if self._debconf is not None and is_question(name or ""):
            truth, self._variables["RET"] = ask(self._debconf, name or "", arguments, certain=not self._unsure)
            return truth
        folder, last = self._variables.get("PWD"), arguments[-1] if arguments else None
        if name == "realpath" and folder and last and not last.startswith("/"):
            arguments = [*arguments[:-1], f"{folder}/{last}"]
        call = Call(self._scene, name or "", arguments, self._source, self.emit, folder or "")
        if name == "xargs":
            return self._xargs(command, arguments, raw)
        return self._run_program(command, call, raw)

    def _run_program(self, command: Command, call: Call, raw: list[str]) -> bool | None:
        """Carry out a program; one that the tree does not have fails, and prints nothing."""
        if call.name.startswith("/") and not self._find_program(call.name) and self._whole():
            return False
        if call.name.rpartition("/")[0] in {"/bin", "/sbin", "/usr/bin", "/usr/sbin"}:
            call = replace(call, name=call.name.rpartition("/")[2])
        known = COMMANDS.get(call.name)
        for carry_out in (known,) if known is not None else (read_and_print, look, run_program):
            verdict = carry_out(call)
            if not isinstance(verdict, Does | str):
                return verdict
        if known is None and only_reads(call.name, call.arguments, raw):
            self.emit(None)
            return None
        if call.name and "/" not in call.name and self._whole():
            path = self._find_program(call.name)
            if self._stage.resolve(path) in {"", "usr/bin/true", "bin/true"}:
                return bool(path)
        truth = self._inner_script(command, call)
        if isinstance(truth, Does):
            raise Reached(command.line, command_text(command))
        return truth

    def _inner_script(self, command: Command, call: Call) -> Verdict:
        """Walk a program of the tree that is a shell script; `DOES` if it is none."""
        words, path = call.known(), self._find_program(call.name)
        data = self._stage.read(path) if path and words is not None else None
        if data is None or words is None or re.match(rb"#! ?/bin/(?:sh|dash)\b", data) is None:
            return DOES
        self._deeper(command.line, call.name)
        inner = _Walk(replace(self._scene, arguments=tuple(words)), self._debconf)
        inner._sink, inner._source, inner._depth = self._sink, self._source, self._depth
        inner._unsure = self._unsure
        inner.own(_own_names(data))
        try:
            return inner.run(_parsed(data))
        except NotUnderstood as error:
            raise Reached(command.line, f"{call.name} (its line {error.line}: {error.what})") from error
        except Reached as reached:
            unknown = reached.unknown
            raise Reached(command.line, f"{call.name} (its line {unknown.line}: {unknown.what})") from reached
        except _Frontend as wanted:
            raise Reached(command.line, f"{call.name} (its line {wanted.line}: debconf)") from wanted
        except Leaves:
            return None
        finally:
            self._depth -= 1

    def _whole(self) -> bool:
        """Say whether the tree has a shell: then what it does not have is not there when a script runs, either."""
        return self._stage.follow("bin/sh") is not None

    def _xargs(self, command: Command, arguments: list[str | None], raw: list[str]) -> bool | None:
        """`xargs [-r] [--max-chars=N] COMMAND...`: the words of the input become further arguments."""
        words, texts = list(arguments), list(raw)
        while texts and texts[0].startswith("-"):
            if not re.match(r"-r$|--no-run-if-empty$|--max-chars=", texts[0]):
                break
            words.pop(0)
            texts.pop(0)
        if texts[:1] == ["--show-limits"]:
            self.emit(None)
            return True
        text = self._source.rest()
        if text is None or re.search(r"[\\'\"]", text) or not words or words[0] is None or len(words) != len(texts):
            raise Reached(command.line, command_text(command))
        if words[0] in self._functions or not text.split():
            if words[0] in self._functions or not {"-r", "--no-run-if-empty"} & set(raw):
                raise Reached(command.line, command_text(command))
            return True
        given = text.split()
        return self._call(command, words[0], [*words[1:], *given], [*texts[1:], *given])

    def _find(self, command: Command, name: str, arguments: list[str | None]) -> bool | None:
        """`command -v`, `which`, `type`: is there a program; `command NAME ...`; `.`: another script."""
        words = [word for word in arguments if word != "--"]
        if name == "." and words == [CONFMODULE] and self._stage.follow(CONFMODULE) is not None:
            if self._debconf is None and not self._unsure:
                raise _Frontend(command.line)
            if self._debconf is not None:
                return True
        if name == "." and len(words) == 1 and (text := self.text_of(words[0])) is not None:
            self._deeper(command.line, words[0] or "")
            try:
                return self.run(parse_commands(text))
            finally:
                self._depth -= 1
        if name == "." or (name == "command" and words[:1] not in (["-v"], ["-V"])):
            raise Reached(command.line, command_text(command))
        operands = [word for word in words if word is None or not word.startswith("-")]
        if len(operands) != 1 or operands[0] is None:
            self.emit(None)
            return None
        return self._program(operands[0])

    def _program(self, name: str) -> bool | None:
        if name in self._functions or name in COMMANDS or name in _SILENT:
            self.emit(None)
            return None if name in self._functions or name in _SILENT else self._on_path(name)
        return self._on_path(name)

    def _on_path(self, name: str) -> bool:
        path = self._find_program(name)
        self.emit(f"{path}\n" if path else "")
        return bool(path)

    def _find_program(self, name: str) -> str:
        """Return where a program is, or ``""``."""
        for folder in ("usr/local/sbin", "usr/local/bin", "usr/sbin", "usr/bin", "sbin", "bin"):
            path = name if name.startswith("/") else f"/{folder}/{name}"
            there = self._stage.follow(path)
            if there is not None and there.kind in {Kind.FILE, Kind.HARDLINK} and there.mode & 0o111:
                return path
        return ""

    def _change_folder(self, arguments: list[str | None]) -> bool | None:
        """`cd`: what is said of relative paths is never known (but to `realpath`), so only its truth counts."""
        path = arguments[0] if len(arguments) == 1 else None
        self._variables["PWD"] = path = path if path is not None and path.startswith("/") else None
        return None if path is None else self._stage.is_dir(path)

    def _read(self, command: Command, arguments: list[str | None]) -> bool | None:
        if None in arguments:
            raise Reached(command.line, command_text(command))
        names = [word for word in arguments if word and not word.startswith("-")]
        line, whole = self._source.line()
        if line is None or self._unsure:
            self._variables.update(dict.fromkeys(names))
            return None
        if "\\" in line and "-r" not in arguments:
            line = None
        parts = [] if line is None else line.split(None, len(names) - 1)
        for number, name in enumerate(names):
            self._variables[name] = None if line is None else parts[number].rstrip() if number < len(parts) else ""
        return whole

    def _assign(self, command: Command, name: str, arguments: list[str | None], raw: list[str]) -> None:
        """Take the assignments of `export`, `local` and `readonly`; what `unset` names is no longer known."""
        if name in {"export", "local", "readonly", "unset"}:
            for word in raw:
                if _USUAL_PATH.fullmatch(word):
                    continue
                variable, sign, value = word.partition("=")
                if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", variable) is None:
                    if word in {"-p", "-v"}:
                        continue
                    raise Reached(command.line, command_text(command))
                known = self._words(command.line).value(value) if sign else self._variables.get(variable)
                self._variables[variable] = "" if name == "unset" else known
                if variable in {"PATH", "IFS", "LD_PRELOAD", "LD_LIBRARY_PATH"} and sign and name != "local":
                    raise Reached(command.line, command_text(command))
        elif name == "set" and not all(re.fullmatch(r"[+-][euxfhv]+", word or "?") for word in arguments):
            raise Reached(command.line, command_text(command))
