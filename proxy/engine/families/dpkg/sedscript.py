"""Scripts of sed(1), read into commands.

Owns the grammar: addresses (lines, ``$``, expressions, ranges, ``!``), blocks, labels and the commands
``s y d D p P q Q n N h H g G x = a i c b t :``. Refuses every other one, and every flag that would write a file or run
a command, with `NotReproduced`. What they do is told by `sed`.
Specification: POSIX.1-2017 Utilities, sed; GNU sed manual
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from proxy.engine.families.dpkg.findings import NotReproduced
from proxy.engine.families.dpkg.posixregex import translate

_BRACKET = re.compile(r"\^?\]?(?:\[:[a-z]+:\]|[^\]])*\]")


@dataclass(frozen=True, slots=True)
class Address:
    """A line's number, the last line (0), or an expression."""

    line: int = -1
    regex: re.Pattern[str] | None = None

    def matches(self, space: str, line: int, *, last: bool) -> bool:
        """Say whether a line is meant: what it holds, its number, whether it is the last."""
        if self.regex is not None:
            return self.regex.search(space) is not None
        return last if self.line == 0 else line == self.line


@dataclass(slots=True)
class SedCommand:
    """A command, where it applies, and what it is told; `inside` is for ranges: whether one is open."""

    name: str
    addresses: Sequence[Address] = ()
    negated: bool = False
    text: str = ""
    regex: re.Pattern[str] | None = None
    flags: str = ""
    end: int = 0  # where its block ends, or where it jumps to
    inside: bool = False


class _Parser:
    """Reads a script into a flat list of commands."""

    def __init__(self, script: str, *, extended: bool) -> None:
        self._text, self._extended, self._at = script, extended, 0
        self._last_regex: re.Pattern[str] | None = None
        self.commands: list[SedCommand] = []

    def run(self) -> list[SedCommand]:
        blocks: list[int] = []
        while True:
            self._skip(" \t\n;")
            if self._at >= len(self._text):
                break
            if self._text[self._at] == "#":
                self._at = (self._text.find("\n", self._at) + 1) or len(self._text)
                continue
            command = self._command()
            if command.name == "{":
                blocks.append(len(self.commands))
            if command.name != "}":
                self.commands.append(command)
            elif blocks:
                self.commands[blocks.pop()].end = len(self.commands)
            else:
                raise self._refusal()
        if blocks:
            raise self._refusal()
        self._jump()
        return self.commands

    def _jump(self) -> None:
        labels = {command.text: at for at, command in enumerate(self.commands) if command.name == ":"}
        for command in self.commands:
            if command.name in {"b", "t"}:
                if command.text and command.text not in labels:
                    raise self._refusal()
                command.end = labels.get(command.text, len(self.commands))

    def _refusal(self) -> NotReproduced:
        return NotReproduced(f"sed {self._text[:60]}")

    def _skip(self, characters: str) -> None:
        while self._at < len(self._text) and self._text[self._at] in characters:
            self._at += 1

    def _command(self) -> SedCommand:
        addresses = self._addresses()
        self._skip(" \t")
        negated = self._text.startswith("!", self._at)
        self._at += negated
        self._skip(" \t!")
        name = self._text[self._at : self._at + 1]
        self._at += 1
        command = SedCommand(name, addresses, negated)
        if name == "s":
            self._substitution(command)
        elif name == "y":
            self._letters(command)
        elif name in {"a", "i", "c"}:
            self._lines(command)
        elif name in {":", "b", "t"}:
            self._label(command)
        elif name not in set("{}dDpPqQnNhHgGx=") or not name:
            raise self._refusal()
        self._skip(" \t")
        if name not in {"{", "}"} and self._at < len(self._text) and self._text[self._at] not in "\n;}#":
            raise self._refusal()
        return command

    def _addresses(self) -> list[Address]:
        first = self._address()
        if first is None:
            return []
        if not self._text.startswith(",", self._at):
            return [first]
        self._at += 1
        self._skip(" \t")
        second = self._address()
        if second is None:
            raise self._refusal()
        return [first, second]

    def _address(self) -> Address | None:
        match = re.compile(r"[0-9]+").match(self._text, self._at)
        if match is not None:
            self._at = match.end()
            if int(match[0]) == 0:
                raise self._refusal()
            return Address(int(match[0][:9]))
        if self._text.startswith("$", self._at):
            self._at += 1
            return Address(0)
        if self._text.startswith("/", self._at) or self._text.startswith("\\", self._at):
            self._at += self._text[self._at] == "\\"
            source = self._piece(self._text[self._at : self._at + 1], brackets=True)
            self._at += 1
            ignore = self._text.startswith("I", self._at)
            self._at += ignore
            return Address(regex=self._regex(source, ignore=ignore, extent=False))
        return None

    def _piece(self, delimiter: str, *, brackets: bool = False) -> str:
        """Take what stands between this delimiter and the next one, which is left; it may stand in `brackets`."""
        if not delimiter or delimiter in "\n\\":
            raise self._refusal()
        self._at += 1
        piece = ""
        while True:
            character = self._text[self._at : self._at + 1]
            if not character:
                raise self._refusal()
            self._at += 1
            if brackets and character == "[":
                match = _BRACKET.match(self._text, self._at)
                if match is None:
                    raise self._refusal()
                piece += f"[{match[0]}"
                self._at = match.end()
            elif character == "\\":
                following = self._text[self._at : self._at + 1]
                self._at += 1
                special = following == delimiter and delimiter not in ".*[]^$+?(){}|"
                piece += following if special else f"\\{following}"
            elif character == delimiter:
                self._at -= 1
                return piece
            else:
                piece += character

    def _regex(self, source: str, *, ignore: bool, extent: bool) -> re.Pattern[str]:
        if not source:
            if self._last_regex is None:
                raise self._refusal()
            return self._last_regex
        found = translate(source, extended=self._extended, ignore_case=ignore, sed=True)
        if extent and found.alternates:
            raise self._refusal()
        self._last_regex = found.pattern
        return found.pattern

    def _substitution(self, command: SedCommand) -> None:
        delimiter = self._text[self._at : self._at + 1]
        source, command.text = self._piece(delimiter, brackets=True), self._piece(delimiter)
        self._at += 1
        match = re.compile(r"[gpiI0-9]*").match(self._text, self._at)
        command.flags = match[0] if match else ""
        self._at += len(command.flags)
        if len(re.findall(r"[0-9]+", command.flags)) > 1 or re.search(r"(?<![0-9])0", command.flags):
            raise self._refusal()
        command.regex = self._regex(source, ignore=bool(set("iI") & set(command.flags)), extent=True)
        if re.search(r"\\[A-MO-Za-mo-su-z]", command.text):
            raise self._refusal()

    def _label(self, command: SedCommand) -> None:
        match = re.compile(r"[ \t]*([\w.-]*)[ \t]*(?=[;\n}]|\Z)").match(self._text, self._at)
        if match is None:
            raise self._refusal()
        command.text, self._at = match[1], match.end()

    def _letters(self, command: SedCommand) -> None:
        delimiter = self._text[self._at : self._at + 1]
        command.text, command.flags = self._piece(delimiter), self._piece(delimiter)
        self._at += 1
        if len(command.text) != len(command.flags) or "\\" in command.text + command.flags:
            raise self._refusal()

    def _lines(self, command: SedCommand) -> None:
        match = re.compile(r"[ \t]*(?:\\[ \t]*\n?)?").match(self._text, self._at)
        self._at = match.end() if match else self._at
        lines: list[str] = []
        while True:
            end = self._text.find("\n", self._at)
            line = self._text[self._at :] if end < 0 else self._text[self._at : end]
            self._at = len(self._text) if end < 0 else end + 1
            if not line.endswith("\\") or end < 0:
                lines.append(line)
                break
            lines.append(line[:-1])
        if any("\\" in line for line in lines):
            raise self._refusal()
        command.text = "\n".join(lines) + "\n"
        self._at = self._at - 1 if self._text.startswith("\n", self._at - 1) else self._at


def parse_sed(script: str, *, extended: bool) -> list[SedCommand]:
    """Parse a script; blocks are flat, and know where they end.

    Raises:
        NotReproduced: a form that is not known here.
    """
    return _Parser(script, extended=extended).run()
