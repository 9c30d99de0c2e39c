"""Words of a shell script: their values as far as they are known, and what they would run on the way.

Owns quotes, variables and command substitutions. A word whose value is not known is None; a word that would run
something that does more than read raises `Runs`.
Specification: POSIX.1-2017 Shell Command Language, 2.2 and 2.6
"""

import re
from collections.abc import Mapping, Sequence

TALKS = frozenset({"echo", "printf"})
READS = frozenset({
    "grep", "egrep", "cmp", "diff", "cat", "id", "uname", "stat", "readlink", "dirname", "basename", "getent",
    "which", "type", "dpkg-query", "head", "tail", "cut", "wc", "ischroot", "md5sum", "sha256sum",
    "realpath", "tr",
})  # fmt: skip
_VARIABLE = re.compile(r"\$(?:\{([A-Za-z0-9_@#]+)(?::?-([^${}`]*))?\}|([A-Za-z_][A-Za-z0-9_]*|[0-9@#*?!$-]))")
_SUBSTITUTION = re.compile(r"\$\(([^()`]*)\)|`([^`()$]*)`")


class Runs(Exception):
    """A substitution that may do more than read."""


def expand_word(word: str, variables: Mapping[str, str | None], arguments: Sequence[str]) -> str | None:
    """Expand a word; None if its value is not known. What is substituted must only read."""
    if re.fullmatch(r"'[^']*'", word):
        return word[1:-1]
    rest = word
    for found in _SUBSTITUTION.finditer(word):
        if not _substitutes_reading(found[1] or found[2]):
            raise Runs(found[0])
        rest = rest.replace(found[0], "")
    if "$(" in rest or "`" in rest:
        raise Runs(word)
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
        text = _expand(piece[1:-1] if piece[0] == '"' else piece, variables, arguments)
        if text is None:
            return None
        out.append(text)
    return "".join(out)


def _expand(text: str, variables: Mapping[str, str | None], arguments: Sequence[str]) -> str | None:
    """Expand the variables of an unquoted or double-quoted piece."""
    unknown = False

    def value(match: re.Match[str]) -> str:
        nonlocal unknown
        name = match[1] or match[3]
        found = _variable(name, variables, arguments)
        if not found and match[2] is not None:
            found = match[2] if found == "" or name not in variables else None
        unknown = unknown or found is None
        return found or ""

    out = _VARIABLE.sub(value, text)
    return None if unknown or "$" in _VARIABLE.sub("", text) else re.sub(r"\\([\"$`\\])", r"\1", out)


def _variable(name: str, variables: Mapping[str, str | None], arguments: Sequence[str]) -> str | None:
    if name.isdigit() and name != "0":
        return arguments[int(name) - 1] if int(name) <= len(arguments) else ""
    if name == "#":
        return str(len(arguments))
    return variables.get(name)


def only_reads(words: Sequence[str]) -> bool:
    """Say whether a command, as written, can only read and print."""
    match words:
        case ["command", option, *_]:
            return option in {"-v", "-V"}
        case ["sed", *options]:
            return not any(re.match(r"-[a-z]*i|--in|-[a-z]*f|.*\bw\b", option, re.DOTALL) for option in options)
        case ["sort", *options]:
            return not any(option.startswith(("-o", "--o")) for option in options)
        case [name, *_]:
            return name in READS or name in TALKS
    return False


def _substitutes_reading(text: str) -> bool:
    """Say whether what stands in a command substitution can only read: a pipe of plain commands."""
    plain = re.sub(r"[0-9]?>\s*/dev/null|[0-9]>&[0-9]", "", text)
    if re.search(r"[<>;&\n]|\|\|", plain):
        return False
    return all(only_reads(part.split()) for part in plain.split("|"))
