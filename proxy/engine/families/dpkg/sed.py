"""sed(1) on text, as maintainer scripts use it.

Owns options and the cycle over the lines; `sedscript` reads the scripts and refuses what is not known. Nothing is read
or written here: texts come in and go out.
Specification: POSIX.1-2017 Utilities, sed; GNU sed manual
"""

import re
from collections.abc import Callable, Mapping, Sequence

from proxy.engine.families.dpkg.findings import NotReproduced
from proxy.engine.families.dpkg.sedscript import SedCommand, parse_sed

MAX_STEPS = 500_000

_PRINTS: Mapping[str, Callable[[str, int, str], str]] = {
    "p": lambda space, _line, _text: f"{space}\n",
    "P": lambda space, _line, _text: space.partition("\n")[0] + "\n",
    "=": lambda _space, line, _text: f"{line}\n",
    "i": lambda _space, _line, text: text,
}
_MOVES: Mapping[str, Callable[[str, str], tuple[str, str]]] = {
    "h": lambda space, _hold: (space, space),
    "H": lambda space, hold: (space, f"{hold}\n{space}"),
    "g": lambda _space, hold: (hold, hold),
    "G": lambda space, hold: (f"{space}\n{hold}", hold),
    "x": lambda space, hold: (hold, space),
}


class MissingFile(Exception):
    """The only file that sed was given is not there: it fails and does nothing."""


def run_sed(arguments: Sequence[str], read: Callable[[str], str | None]) -> tuple[str, dict[str, str]]:
    """Run sed; returns its output, and with ``-i`` the new texts of its files.

    Args:
        arguments: options, script and files.
        read: gives the text of a file, and of the standard input for ``-``; None if it is not there.

    Raises:
        NotReproduced: a form that is not known here.
        MissingFile: see there.
    """
    scripts, files, letters = _split(list(arguments))
    edit = _Editing("\n".join(scripts), quiet="n" in letters, extended=bool(set("rE") & set(letters)))
    texts = []
    for name in files or ["-"]:
        text = read(name)
        if text is None and len(files) == 1:
            raise MissingFile
        if text is None:
            raise NotReproduced(f"sed of {name}, which is not there")
        texts.append((name, text))
    if "i" in letters:
        if not files:
            raise NotReproduced("sed -i without a file")
        return "", {name: edit.run(text) for name, text in texts}
    if any(text and not text.endswith("\n") for _, text in texts[:-1]):
        raise NotReproduced("sed of files without a last newline")
    return edit.run("".join(text for _, text in texts)), {}


def _split(words: list[str]) -> tuple[list[str], list[str], str]:
    scripts: list[str] = []
    files: list[str] = []
    letters = ""
    while words:
        word = words.pop(0)
        name, sign, value = word.partition("=")
        if name == "--expression":
            scripts.append(value if sign else words.pop(0) if words else "")
        elif word in {"--quiet", "--silent", "--regexp-extended", "--in-place", "--unbuffered", "--posix"}:
            letters += {"--regexp-extended": "E", "--in-place": "i"}.get(word, "n" if word[2] in "qs" else "")
        elif match := re.fullmatch(r"-([nrEius]*)(?:(e)(.*))?", word, re.DOTALL):
            letters += match[1]
            if match[2]:
                scripts.append(match[3] or (words.pop(0) if words else ""))
            if "i" in match[1] and not match[1].endswith("i"):
                raise NotReproduced(f"sed {word}")
        elif word.startswith("-") and word != "-":
            raise NotReproduced(f"sed {word}")
        else:
            files.append(word)
    if not scripts:
        if not files:
            raise NotReproduced("sed without a script")
        scripts.append(files.pop(0))
    return scripts, files, letters


class _Editing:
    """One run over one text."""

    def __init__(self, script: str, *, quiet: bool, extended: bool) -> None:
        self._script, self._quiet = script, quiet
        self._commands = parse_sed(script, extended=extended)
        self._steps = 0

    def run(self, text: str) -> str:
        for command in self._commands:
            command.inside = False
        self._lines = text.split("\n")
        self._ended = self._lines[-1] == ""
        if self._ended:
            self._lines.pop()
        self._at, self._space, self._hold = 0, "", ""
        self._out: list[str] = []
        self._appended: list[str] = []
        going = True
        while going and self._take():
            going = self._cycle()
        text = "".join(self._out)
        return text if self._ended or not text.endswith("\n") or not self._lines else text[:-1]

    def _take(self, *, join: bool = False) -> bool:
        self._flush()
        if self._at >= len(self._lines):
            return False
        line = self._lines[self._at]
        self._space = f"{self._space}\n{line}" if join else line
        self._at += 1
        return True

    def _flush(self) -> None:
        self._out += self._appended
        self._appended = []

    def _print(self) -> None:
        if not self._quiet:
            self._out.append(f"{self._space}\n")

    def _cycle(self) -> bool:
        """Carry out all commands on the pattern space; returns whether there is another line to come."""
        at, changed = 0, False
        while at < len(self._commands):
            self._steps += 1
            if self._steps > MAX_STEPS:
                raise NotReproduced(f"sed {self._script[:60]} (too long)")
            command = self._commands[at]
            at += 1
            if not self._applies(command):
                at = command.end if command.name == "{" else at
                continue
            if command.name == "b" or (command.name == "t" and changed):
                at, changed = command.end, changed and command.name == "b"
            elif command.name == "s":
                changed = self._substitute(command) or changed
            elif command.name in {"d", "q", "Q", "D", "c"}:
                return self._end(command)
            elif command.name in {"n", "N"}:
                if not self._more(command):
                    return False
            else:
                self._plain(command)
        self._print()
        self._flush()
        return True

    def _more(self, command: SedCommand) -> bool:
        if self._at >= len(self._lines):
            self._print()
            self._flush()
            return False
        if command.name == "n":
            self._print()
        return self._take(join=command.name == "N")

    def _end(self, command: SedCommand) -> bool:
        if command.name == "q":
            self._print()
        if command.name == "c" and (len(command.addresses) < 2 or not command.inside or command.negated):  # noqa: PLR2004
            self._out.append(command.text)
        if command.name == "D" and "\n" in self._space:
            raise NotReproduced(f"sed {self._script[:60]}")
        self._flush()
        return command.name not in {"q", "Q"}

    def _plain(self, command: SedCommand) -> None:
        if command.name in _PRINTS:
            self._out.append(_PRINTS[command.name](self._space, self._at, command.text))
        elif command.name == "a":
            self._appended.append(command.text)
        elif command.name == "y":
            self._space = self._space.translate(str.maketrans(command.text, command.flags))
        elif command.name in _MOVES:
            self._space, self._hold = _MOVES[command.name](self._space, self._hold)

    def _applies(self, command: SedCommand) -> bool:
        last = self._at >= len(self._lines)
        if len(command.addresses) < 2:  # noqa: PLR2004 - no range
            found = all(item.matches(self._space, self._at, last=last) for item in command.addresses)
            return found is not command.negated
        first, second = command.addresses
        if command.inside:
            number = second.line if second.regex is None else -1
            if number > 0:
                command.inside = self._at < number
                found = self._at <= number
            else:
                command.inside = not second.matches(self._space, self._at, last=last)
                found = True
        else:
            found = first.matches(self._space, self._at, last=last)
            if found:
                command.inside = second.regex is not None or second.line > self._at or (second.line == 0 and not last)
        return found is not command.negated

    def _substitute(self, command: SedCommand) -> bool:
        if command.regex is None:
            return False
        number = int("".join(re.findall("[0-9]+", command.flags)) or 1)
        count, end = 0, -1

        def put(match: re.Match[str]) -> str:
            nonlocal count, end
            if not match[0] and match.end() == end:
                return ""
            count, end = count + 1, match.end()
            if count < number or (count > number and "g" not in command.flags):
                return match[0]
            return _replacement(command.text, match)

        self._space = command.regex.sub(put, self._space)
        if count < number:
            return False
        if "p" in command.flags:
            self._out.append(f"{self._space}\n")
        return True


def _replacement(text: str, match: re.Match[str]) -> str:
    def one(piece: re.Match[str]) -> str:
        found = piece[0]
        if found == "&":
            return match[0]
        if found[1].isdigit():
            return (match[int(found[1])] or "") if int(found[1]) <= match.re.groups else ""
        return {"n": "\n", "t": "\t"}.get(found[1], found[1])

    return re.sub(r"\\.|&", one, text, flags=re.DOTALL)
