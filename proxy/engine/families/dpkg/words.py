"""Words of a shell script: their values as far as they are known, and what they run on the way.

Owns quotes, variables, parameter expansion, field splitting. A value that is not known is None. Command substitutions
are handed to whoever walks the script; what would assign on the way raises `Runs`.
Specification: POSIX.1-2017 Shell Command Language, 2.2 and 2.6
"""

import re
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from proxy.engine.families.dpkg.shelltokens import end_of_piece

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|[0-9@*#?$!-]")
_PARAMETER = re.compile(r"([A-Za-z_][A-Za-z0-9_]*|[0-9]+|[@*#?$!-])(?:(:?[-=?+]|%%?|##?)(.*))?", re.DOTALL)
_GLOB = re.compile(r"[*?]|\[.*\]", re.DOTALL)
_OWN = re.compile(r"(?!.*_proxy$)[a-z_][a-z0-9_]*")  # no environment has such names: unset until a script sets them
_PLAIN = re.compile(r"[^'\"\\$`]+")
_PLAIN_INSIDE = re.compile(r"[^\\$`]+")
_ALL = frozenset({'"$@"', "$@", '"${@}"', "${@}", "$*", '${1+"$@"}'})


class Runs(Exception):
    """An expansion that does more than read."""


@dataclass(frozen=True, slots=True)
class _Piece:
    """A part of a word: its text, whether quotes protect it, and whether it comes from an expansion."""

    text: str | None
    quoted: bool = False
    expanded: bool = False


class Words:
    """Expands words with what is known now.

    Args:
        variables: values of the shell's variables; those that are missing are not known.
        arguments: the positional parameters; None for those that are not known.
        run: walks the text of a command substitution and gives its output, or None if that is not known.
        glob: gives the paths that a pattern stands for, or None if that is not known.
    """

    def __init__(
        self,
        variables: MutableMapping[str, str | None],
        arguments: Sequence[str | None],
        run: Callable[[str], str | None],
        glob: Callable[[str], Sequence[str] | None],
    ) -> None:
        self._variables, self._arguments, self._run, self._glob = variables, arguments, run, glob

    def value(self, word: str) -> str | None:
        """Return the value of a word that is not split (an assignment, a redirection, the word of a case)."""
        return _join(list(self._pieces(word)))

    def fields(self, word: str) -> list[str | None]:
        """Return the fields that a word of a command becomes; one None where that is not known."""
        if word in _ALL:
            split = word.startswith("$")
            return [None if split and value is not None and not _plain(value) else value for value in self._arguments]
        pieces = list(self._pieces(word))
        whole = _join(pieces)
        if whole is None or re.match(r"~", word) or re.search(r"\{[^{}'\"]*(?:,|\.\.)[^{}]*\}", word):
            return [None]
        separators = self._variables.get("IFS", " \t\n")
        if separators is None or (set(separators) - set(" \t\n") and any(piece.expanded for piece in pieces)):
            return [None]
        found: list[str | None] = []
        for field in _split(pieces, separators):
            paths = self._glob(_pattern(field) or "") if _is_pattern(field) else ()
            if paths is None:
                return [None]
            found += paths or [_join(field)]
        return found

    def pattern(self, word: str) -> str | None:
        """Return a word as a pattern for fnmatch: what quotes protect stands for itself."""
        return _pattern(list(self._pieces(word)))

    def document(self, text: str) -> str | None:
        """Carry out the expansions of a here-document; returns its text as far as it is known."""
        return _join(list(self._inside(text, '"')))

    def _pieces(self, word: str) -> Iterator[_Piece]:
        at = 0
        while at < len(word):
            plain = _PLAIN.match(word, at)
            if plain is not None:
                at = plain.end()
                yield _Piece(plain[0])
                continue
            end = end_of_piece(word, at, 0)
            part = word[at:end]
            at = end
            if part[0] == "'":
                yield _Piece(part[1:-1], quoted=True)
            elif part[0] == '"':
                yield _Piece(_join(list(self._inside(part[1:-1], ""))), quoted=True)
            elif part[0] == "\\":
                yield _Piece("" if part == "\\\n" else part[1:], quoted=True)
            elif part[0] == "$" and (name := _NAME.match(word, end)) and len(part) == 1:
                at = name.end()
                yield _Piece(self._variable(name[0]), expanded=True)
            elif part[0] in "$`" and len(part) > 1:
                yield _Piece(self._expansion(part), expanded=True)
            else:
                yield _Piece(part)

    def _inside(self, text: str, literal: str) -> Iterator[_Piece]:
        """Yield the pieces of what stands between double quotes; `literal` are quotes that mean themselves."""
        at = 0
        while at < len(text):
            character = text[at]
            plain = _PLAIN_INSIDE.match(text, at)
            if plain is not None:
                at = plain.end()
                yield _Piece(plain[0])
            elif character == "\\" and at + 1 < len(text):
                protected = text[at + 1] in "$`\\\n" or (text[at + 1] == '"' and not literal)
                yield _Piece(("" if text[at + 1] == "\n" else text[at + 1]) if protected else text[at : at + 2])
                at += 2
            elif character == "$" and (name := _NAME.match(text, at + 1)):
                at = name.end()
                yield _Piece(self._variable(name[0]))
            elif character in "$`" and text[at : at + 2] not in {"$", "$'", '$"'}:
                end = end_of_piece(text, at, 0)
                yield _Piece(self._expansion(text[at:end]) if end > at + 1 else character)
                at = end
            else:
                yield _Piece(character)
                at += 1

    def _expansion(self, text: str) -> str | None:
        if text.startswith("$(("):
            inner = text[3:-2]
            if re.search(r"\+\+|--|(?<![=!<>])=(?!=)|<<=|>>=", inner):
                raise Runs(text)
            return _calculate(_join(list(self._inside(inner, ""))), self._variables)
        if text.startswith("$("):
            return self._run(text[2:-1])
        if text.startswith("`"):
            return self._run(re.sub(r"\\([$`\\])", r"\1", text[1:-1]))
        return self._parameter(text[2:-1])

    def _parameter(self, text: str) -> str | None:
        if text.startswith("#") and len(text) > 1:
            value = self._variable(text[1:]) if _NAME.fullmatch(text[1:]) else None
            return None if value is None else str(len(value))
        match = _PARAMETER.fullmatch(text)
        if match is None:
            raise Runs(f"${{{text}}}")
        name, operator, word = match.groups()
        found = self._variable(name)
        if operator is None:
            return found
        if operator[0] in "%#":
            pattern = self.pattern(word)
            return None if pattern is None or found is None else _trim(found, operator, pattern)
        return self._default(name, operator, word, found)

    def _default(self, name: str, operator: str, word: str, found: str | None) -> str | None:
        if operator in {"=", ":=", "?", ":?"}:
            if found and name.isidentifier():
                return found
            if found == "" and operator == ":=" and name.isidentifier():
                self._variables[name] = other = self.value(word)
                return other
            raise Runs(f"${{{name}{operator}{word}}}")
        if found is None:
            return None
        has = found != "" if ":" in operator or not name.isdigit() else int(name) <= len(self._arguments)
        if not has and ":" not in operator and not name.isdigit():
            return None  # whether it is set at all is not kept
        if has == ("-" in operator):
            return found if has else ""
        return self.value(word)

    def _variable(self, name: str) -> str | None:
        if name.isdigit() and name != "0":
            return self._arguments[int(name) - 1] if int(name) <= len(self._arguments) else ""
        if name == "#":
            return None if None in self._arguments else str(len(self._arguments))
        return self._variables.get(name, "" if _OWN.fullmatch(name) else None)


def _join(pieces: Sequence[_Piece]) -> str | None:
    texts = [piece.text for piece in pieces]
    return None if None in texts else "".join(text or "" for text in texts)


def _split(pieces: Sequence[_Piece], separators: str) -> list[list[_Piece]]:
    """Split what expansions gave at `separators`; a field that is nothing but an empty expansion is none."""
    fields: list[list[_Piece]] = []
    opened = False
    for piece in pieces:
        if not piece.expanded or piece.quoted:
            fields = fields if opened else [*fields, []]
            fields[-1].append(piece)
            opened = True
            continue
        parts = re.split(f"[{re.escape(separators)}]+", piece.text or "") if separators else [piece.text or ""]
        for number, part in enumerate(parts):
            if number:
                opened = False
            if part:
                fields = fields if opened else [*fields, []]
                fields[-1].append(_Piece(part, expanded=True))
                opened = True
    return fields


def _is_pattern(pieces: Sequence[_Piece]) -> bool:
    return _GLOB.search("".join("\0" if piece.quoted else piece.text or "" for piece in pieces)) is not None


def _plain(text: str) -> bool:
    return bool(text) and _GLOB.search(text) is None and re.search(r"\s", text) is None


def _pattern(pieces: Sequence[_Piece]) -> str | None:
    texts: list[str] = []
    for piece in pieces:
        if piece.text is None:
            return None
        texts.append(re.sub(r"[*?\[]", r"[\g<0>]", piece.text) if piece.quoted else piece.text)
    return "".join(texts)


def _trim(text: str, operator: str, pattern: str) -> str:
    """Take the part that matches off the end (``%``) or the beginning (``#``), the longest if doubled."""
    ends = range(len(text), -1, -1) if operator in {"%", "##"} else range(len(text) + 1)
    for at in ends:
        if fnmatchcase(text[at:] if operator[0] == "%" else text[:at], pattern):
            return text[:at] if operator[0] == "%" else text[at:]
    return text


def _calculate(text: str | None, variables: Mapping[str, str | None]) -> str | None:
    """Return the value of a plain sum, difference or product of whole numbers; None for anything else."""
    if text is None:
        return None
    match = re.fullmatch(r"\s*(\w+)\s*(?:([-+*])\s*(\w+)\s*)?", text)
    if match is None:
        return None
    numbers = [variables.get(word) if word.isidentifier() else word for word in (match[1], match[3]) if word]
    if not all(number and re.fullmatch(r"-?[0-9]{1,9}", number) for number in numbers):
        return None
    values = [int(number or "") for number in numbers]
    if match[2] is None:
        return str(values[0])
    return str({"+": values[0] + values[-1], "-": values[0] - values[-1], "*": values[0] * values[-1]}[match[2]])
