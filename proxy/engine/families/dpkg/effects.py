"""What a maintainer script would do in one given upgrade, found by walking it with what is known.

Owns the values and conditions: arguments, versions and the image's files are known, so most branches can be told
apart without running anything. A condition that cannot be told makes both branches count. `find_effect` returns the
first command reached whose effect is not known to be none; commands are known one by one, in a table that grows.
Specification: Debian Policy 6.5 and 6.6, dpkg-maintscript-helper(1), POSIX.1-2017 Shell Command Language
"""

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

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
from proxy.engine.families.dpkg.version import compare_versions

MAX_STEPS = 20_000


@dataclass(frozen=True, slots=True)
class Effect:
    """A command that is reached and may do something: its line in the script, and what it is."""

    line: int
    what: str


@dataclass(frozen=True, slots=True)
class Scene:
    """What is known where a script would run.

    `exists(path, test)` answers a file test (``-e``, ``-d``, ``-L``...) with True, False or None for not known;
    `read` gives a file's bytes or None; `unit_same` says that systemd's helper would find nothing to change for a unit.
    """

    script: str
    arguments: tuple[str, ...]
    package: str
    old_version: str
    exists: Callable[[str, str], bool | None]
    read: Callable[[str], bytes | None]
    unit_same: Callable[[str], bool]
    variables: Mapping[str, str] = field(default_factory=dict)


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
_TALKS = frozenset({"echo", "printf"})
_READS = frozenset({
    "grep", "egrep", "cmp", "diff", "cat", "id", "uname", "stat", "readlink", "dirname", "basename", "getent",
    "which", "type", "dpkg-query", "head", "tail", "cut", "wc", "ischroot", "md5sum", "sha256sum",
    "realpath", "tr",
})  # fmt: skip
_VARIABLE = re.compile(r"\$(?:\{([A-Za-z0-9_@#]+)(?::?-([^${}`]*))?\}|([A-Za-z_][A-Za-z0-9_]*|[0-9@#*?!$-]))")
_ASSIGNED = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)
_HARMLESS_REDIRECTION = re.compile(r"[0-9]?>>?\s*/dev/null|[0-9]?>&\s*[0-9-]|[0-9]?<.*", re.DOTALL)
_SUBSTITUTION = re.compile(r"\$\(([^()`]*)\)|`([^`()$]*)`")
_COMPARISONS: Mapping[str, Callable[[int], bool]] = {
    "lt": lambda c: c < 0,
    "le": lambda c: c <= 0,
    "eq": lambda c: c == 0,
    "ne": lambda c: c != 0,
    "ge": lambda c: c >= 0,
    "gt": lambda c: c > 0,
}


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
            if not _only_reads(node.words):
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
        if name in _TALKS or name == "false":
            return name != "false"
        if name in _SILENT:
            self._assign(command)
            return True
        if name in {"[", "test"}:
            return self._test(arguments[:-1] if name == "[" else arguments)
        known = _COMMANDS.get(name or "")
        if known is not None:
            verdict = known(self, arguments)
            if not isinstance(verdict, _Does):
                return verdict
        elif _only_reads((name or "", *command.words[1:])):
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
        """Expand a word; None if its value is not known. What is substituted must only read."""
        if re.fullmatch(r"'[^']*'", word):
            return word[1:-1]
        rest = word
        for found in _SUBSTITUTION.finditer(word):
            if not _only_reads_all(found[1] or found[2]):
                raise _Reached(line, found[0])
            rest = rest.replace(found[0], "")
        if "$(" in rest or "`" in rest:
            raise _Reached(line, word)
        if rest != word:
            return None
        out: list[str] = []
        for piece in re.findall(r"'[^']*'|\"(?:[^\"\\]|\\.)*\"|\\.|[^'\"\\]+|.", word, re.DOTALL):
            if piece[0] == "'":
                out.append(piece[1:-1])
                continue
            if piece[0] == "\\":
                out.append(piece[1:])
                continue
            text = self._expand(piece[1:-1] if piece[0] == '"' else piece)
            if text is None:
                return None
            out.append(text)
        return "".join(out)

    def _expand(self, text: str) -> str | None:
        unknown = False

        def value(match: re.Match[str]) -> str:
            nonlocal unknown
            name = match[1] or match[3]
            found = self._variable(name)
            if not found and match[2] is not None:
                found = match[2] if found == "" or name not in self._variables else None
            unknown = unknown or found is None
            return found or ""

        out = _VARIABLE.sub(value, text)
        return None if unknown or "$" in _VARIABLE.sub("", text) else re.sub(r"\\([\"$`\\])", r"\1", out)

    def _variable(self, name: str) -> str | None:
        if name.isdigit() and name != "0":
            return self._arguments[int(name) - 1] if int(name) <= len(self._arguments) else ""
        if name == "#":
            return str(len(self._arguments))
        return self._variables.get(name)

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
                return self.exists(path, question)
            case [str(one), "=" | "==", str(other)]:
                return one == other
            case [str(one), "!=", str(other)]:
                return one != other
        return None

    def exists(self, path: str, test: str) -> bool | None:
        """Answer a file test."""
        return self._scene.exists(path.lstrip("/"), test) if path.startswith("/") else None

    # Commands of the table below: True, False, None (nothing happens, truth not known) or _DOES.

    def dpkg(self, words: list[str | None]) -> "bool | _Does | None":
        """`dpkg --compare-versions`; other questions only read."""
        if words[:1] == ["--compare-versions"]:
            rest = [word for word in words[1:] if word != "--"]
            if len(rest) != 3 or None in rest:  # noqa: PLR2004 - version, operator, version
                return None
            return self._compare(rest[0] or "", rest[1] or "", rest[2] or "")
        return None if words[:1] in (["--print-architecture"], ["-s"], ["-l"], ["-L"]) else _DOES

    def _compare(self, left: str, operator: str, right: str) -> bool | None:
        """Compare as dpkg does: an empty version is older than any, or newer with an operator in ``-nl``."""
        name = operator.removesuffix("-nl")
        if name not in _COMPARISONS:
            return None
        if not left or not right:
            order = (left != "") - (right != "")
            return _COMPARISONS[name](-order if operator.endswith("-nl") else order)
        return _COMPARISONS[name](compare_versions(left, right))

    def maintscript_helper(self, words: list[str | None]) -> "bool | _Does | None":
        """dpkg-maintscript-helper acts before unpacking and on configuring, from versions up to the one it is told."""
        if None in words or "--" not in words:
            return _DOES
        told = [word or "" for word in words[: words.index("--")]]
        takes = {"rm_conffile": 1, "mv_conffile": 2, "symlink_to_dir": 2, "dir_to_symlink": 2}.get(told[0])
        if takes is None:
            return True if told[0] == "supports" else _DOES
        if self._scene.script in {"prerm", "postrm"}:
            return True  # they act on purge and on aborted upgrades only
        prior = told[1 + takes] if len(told) > 1 + takes else ""
        if prior and self._compare(self._scene.old_version, "le-nl", prior) is False:
            return True
        return _DOES

    def systemd_helper(self, words: list[str | None]) -> "bool | _Does | None":
        """deb-systemd-helper finds every link already made, or already refused, if the unit did not change."""
        told = [word for word in words if word is None or not word.startswith("--")]
        if None in told or len(told) < 2 or "--user" in words:  # noqa: PLR2004 - action and unit
            return _DOES
        if told[0] in {"was-enabled", "is-enabled", "debian-installed"}:
            return None
        if told[0] in {"unmask", "enable", "update-state"} and all(self._scene.unit_same(str(u)) for u in told[1:]):
            return None
        return _DOES

    def getent(self, words: list[str | None]) -> "bool | _Does | None":
        """`getent passwd NAME` and `getent group NAME`, from the image's files."""
        if len(words) != 2 or words[0] not in {"passwd", "group"} or not words[1]:  # noqa: PLR2004
            return None
        data = self._scene.read(f"etc/{words[0]}")
        if data is None:
            return None
        return any(line.startswith(words[1].encode() + b":") for line in data.split(b"\n")) or None

    def alternatives(self, words: list[str | None]) -> "bool | _Does | None":
        """`update-alternatives --remove` of a group that is not there."""
        if len(words) == 3 and words[0] == "--remove" and words[1]:  # noqa: PLR2004
            gone = self._scene.exists(f"var/lib/dpkg/alternatives/{words[1]}", "-e")
            return None if gone is False else _DOES
        return _DOES

    def remove(self, words: list[str | None]) -> "bool | _Does | None":
        """`rm -f` of files that are not there."""
        paths = [word for word in words if word is None or not word.startswith("-")]
        plain = all(path and path.startswith("/") and not set("*?[") & set(path) for path in paths)
        return True if plain and all(self.exists(path or "", "-L") is False for path in paths) else _DOES


class _Does:
    """The command does something, or nobody knows."""


_DOES = _Does()
_COMMANDS: Mapping[str, Callable[[_Walk, list[str | None]], bool | _Does | None]] = {
    "dpkg": _Walk.dpkg,
    "dpkg-maintscript-helper": _Walk.maintscript_helper,
    "deb-systemd-helper": _Walk.systemd_helper,
    "getent": _Walk.getent,
    "update-alternatives": _Walk.alternatives,
    "rm": _Walk.remove,
}


def _either(left: bool | None, right: bool | None) -> bool | None:
    if left or right:
        return True
    return None if left is None or right is None else False


def _both(left: bool | None, right: bool | None) -> bool | None:
    if left is False or right is False:
        return False
    return None if left is None or right is None else True


def _only_reads(words: Sequence[str]) -> bool:
    """Say whether a command, as written, can only read and print."""
    match words:
        case ["command", option, *_]:
            return option in {"-v", "-V"}
        case ["sed", *options]:
            return not any(re.match(r"-[a-z]*i|--in|-[a-z]*f|.*\bw\b", option, re.DOTALL) for option in options)
        case ["sort", *options]:
            return not any(option.startswith(("-o", "--o")) for option in options)
        case [name, *_]:
            return name in _READS or name in _TALKS
    return False


def _only_reads_all(text: str) -> bool:
    """Say whether what stands in a command substitution can only read: a pipe of plain commands."""
    plain = re.sub(r"[0-9]?>\s*/dev/null|[0-9]>&[0-9]", "", text)
    if re.search(r"[<>;&\n]|\|\|", plain):
        return False
    return all(_only_reads(part.split()) for part in plain.split("|"))


def _text(command: Command) -> str:
    return " ".join((*command.words, *command.redirections))[:80].replace("\n", " ")
