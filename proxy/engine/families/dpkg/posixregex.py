"""POSIX regular expressions, basic and extended, with GNU's additions, as patterns of this language's own engine.

Owns the translation. What means something else there, or depends on the longest of several alternatives where only the
first is found, is told by `Regex.alternates`, so that who needs the extent of a match can refuse. Anything that is not
recognised is refused with `NotReproduced`.
Specification: POSIX.1-2017 Base Definitions 9, GNU grep and sed manuals
"""

import re
from dataclasses import dataclass
from functools import lru_cache

from proxy.engine.families.dpkg.findings import NotReproduced

MAX_PATTERN = 4096

_CLASSES = {
    "alpha": "A-Za-z", "digit": "0-9", "alnum": "A-Za-z0-9", "upper": "A-Z", "lower": "a-z", "space": r" \t\n\r\f\v",
    "blank": r" \t", "punct": r"!-/:-@\[-`{-~", "xdigit": "0-9A-Fa-f", "word": "A-Za-z0-9_",
}  # fmt: skip
_ESCAPES = {"w": r"\w", "W": r"\W", "s": r"\s", "S": r"\S", "b": r"\b", "B": r"\B", "<": r"\b(?=\w)", ">": r"\b(?<=\w)"}
_ESCAPES |= {"`": r"\A", "'": r"\Z", "n": r"\n", "t": r"\t"}


@dataclass(frozen=True, slots=True)
class Regex:
    """A translated pattern; `alternates` says that it holds alternatives."""

    pattern: re.Pattern[str]
    alternates: bool


@lru_cache(maxsize=256)
def translate(text: str, *, extended: bool, ignore_case: bool = False, sed: bool = False) -> Regex:
    """Translate a POSIX regular expression; raises NotReproduced for what is not recognised.

    Args:
        text: the expression.
        extended: whether it is an extended one.
        ignore_case: whether case does not matter.
        sed: whether sed reads it, where an escaped n or t is a newline or a tab.
    """
    if len(text) > MAX_PATTERN:
        raise NotReproduced("a regular expression that is too long")
    translation = _Translation(text, extended=extended, sed=sed)
    try:
        pattern = re.compile(translation.run(), re.ASCII | (re.IGNORECASE if ignore_case else 0))
    except (re.error, RecursionError, OverflowError) as error:
        raise NotReproduced(f"the regular expression {text[:60]}") from error
    return Regex(pattern, translation.alternates)


class _Translation:
    def __init__(self, text: str, *, extended: bool, sed: bool) -> None:
        self._text, self._extended, self._sed, self._at = text, extended, sed, 0
        self._out: list[str] = []
        self.alternates = False
        self._fresh = True  # nothing before this that could be repeated

    def run(self) -> str:
        while self._at < len(self._text):
            self._next()
        return "".join(self._out)

    def _next(self) -> None:
        character = self._text[self._at]
        self._at += 1
        if character == "\\":
            self._escaped()
        elif character == "[":
            self._add(self._bracket())
        elif character == ".":
            self._add(r"(?s:.)")
        elif character == "*":
            self._repeat("*")
        elif character == "^":
            self._caret()
        elif character == "$":
            self._dollar()
        elif self._extended and character in "+?{":
            self._repeat(character)
        elif self._extended and character in "()|":
            self._operator(character)
        else:
            self._add(re.escape(character))

    def _escaped(self) -> None:
        if self._at >= len(self._text):
            raise NotReproduced(f"the regular expression {self._text[:60]}")
        character = self._text[self._at]
        self._at += 1
        if not self._extended and character in "()|":
            self._operator(character)
        elif not self._extended and character in "+?{":
            self._repeat(character)
        elif character.isdigit():
            self._add(f"(?:\\{character})")
        elif character in _ESCAPES and (self._sed or character not in "nt"):
            self._add(_ESCAPES[character])
        elif character.isalpha():
            raise NotReproduced(f"the regular expression {self._text[:60]}")
        else:
            self._add(re.escape(character))

    def _operator(self, character: str) -> None:
        self._out.append(character)
        self.alternates = self.alternates or character == "|"
        self._fresh = character != ")"

    def _repeat(self, character: str) -> None:
        if self._fresh:
            if character != "*":
                raise NotReproduced(f"the regular expression {self._text[:60]}")
            self._add(r"\*")
            return
        if character == "{":
            match = re.compile(r"(\d*(?:,\d*)?)(\\?)\}").match(self._text, self._at)
            if match is None or not match[1] or bool(match[2]) == self._extended:
                raise NotReproduced(f"the regular expression {self._text[:60]}")
            self._at = match.end()
            character = f"{{{'0' if match[1].startswith(',') else ''}{match[1]}}}"
        if self._out and self._out[-1][-1] in "*+?}" and self._out[-1] in {"*", "+", "?"}:
            raise NotReproduced(f"the regular expression {self._text[:60]}")
        self._out.append(character)

    def _caret(self) -> None:
        begins = self._extended or not self._out or self._out[-1] in {"(", "|"}
        self._out.append("^" if begins else r"\^")
        self._fresh = begins

    def _dollar(self) -> None:
        rest = self._text[self._at :]
        ends = self._extended or not rest or rest.startswith((r"\)", r"\|"))
        self._out.append(r"\Z" if ends else r"\$")
        self._fresh = False

    def _add(self, piece: str) -> None:
        self._out.append(piece)
        self._fresh = False

    def _bracket(self) -> str:
        text, at = self._text, self._at
        negated = text.startswith("^", at)
        at += negated
        parts: list[str] = []
        first = True
        while first or not text.startswith("]", at):
            first = False
            if at >= len(text):
                raise NotReproduced(f"the regular expression {text[:60]}")
            match = re.compile(r"\[:([a-z]+):\]").match(text, at)
            if match is not None and match[1] in _CLASSES:
                parts.append(_CLASSES[match[1]])
                at = match.end()
            elif text.startswith(("[:", "[.", "[="), at):
                raise NotReproduced(f"the regular expression {text[:60]}")
            else:
                span = re.compile(r"([^\n])-([^\]\[])").match(text, at)
                if span is not None:
                    parts.append(f"{re.escape(span[1])}-{re.escape(span[2])}")
                    at = span.end()
                elif self._sed and text.startswith(("\\n", "\\t"), at):
                    parts.append(text[at : at + 2])
                    at += 2
                else:
                    parts.append(re.escape(text[at]))
                    at += 1
        self._at = at + 1
        return f"[{'^' if negated else ''}{''.join(parts)}]"
