"""Commands that can only read and print, whatever they are given.

Owns the list, and for those that could write by an option or a program of their own (sed, awk, find, sort), which
options and programs are known not to. What is not recognized is taken to write.
Specification: POSIX.1-2017 Utilities, GNU coreutils
"""

import re
from collections.abc import Sequence

TALKS = frozenset({"echo", "printf"})
READS = frozenset({
    "grep", "egrep", "fgrep", "cmp", "diff", "cat", "id", "uname", "stat", "readlink", "dirname", "basename", "getent",
    "which", "type", "dpkg-query", "head", "tail", "cut", "wc", "ischroot", "md5sum", "sha256sum", "sha1sum", "cksum",
    "realpath", "tr", "ls", "seq", "expr", "pwd", "pidof", "ps", "pgrep", "od", "comm", "nproc", "whoami", "getconf",
    "ss", "netstat",
})  # fmt: skip

_ADDRESS = r"(?:/(?:\\.|[^/\\\n])*/|\$|[0-9]+)"
_PART = r"(?:\\.|(?!(?P=d))[^\\\n])*(?P=d)"
_SUBSTITUTE = rf"s(?P<d>[^\w\s\\]){_PART}{_PART}[gpiIM0-9]*"
_SED = re.compile(rf"[ \t]*(?:{_ADDRESS}(?:,{_ADDRESS})?[ \t]*!?[ \t]*)?(?:{_SUBSTITUTE}|[dDpPqQhHgGxNn=])?[ \t]*")
_FIND_WRITES = ("-exec", "-ok", "-delete", "-fprint", "-fls")


def only_reads(name: str, words: Sequence[str | None], raw: Sequence[str]) -> bool:
    """Say whether a command can only read and print.

    Args:
        name: the command.
        words: its arguments as far as they are known.
        raw: its arguments as written, to judge by where a value is not known.
    """
    texts = [word if word is not None else _unquoted(text) for word, text in zip(words, raw, strict=False)]
    if name == "date" and len(words) == len(raw) and "-d" in texts[:-1]:  # whatever the date is that it is to print
        at = texts.index("-d")
        words, raw, texts = [*words[:at], *words[at + 2 :]], [*raw[:at], *raw[at + 2 :]], texts[:at] + texts[at + 2 :]
    if name in {"sed", "awk", "gawk", "mawk", "find", "sort", "uniq", "date", "command"}:
        if len(words) != len(raw) or any(text[:1] in {"$", "`"} for text in texts if text):
            return False
        return {"sed": _sed, "find": _find, "sort": _sort, "uniq": _uniq, "date": _date, "command": _command}.get(
            name, _awk
        )(texts)
    return name in READS or name in TALKS


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] in "'\"" and text[-1] == text[0] else text


def _sed(texts: Sequence[str]) -> bool:
    scripts: list[str] = []
    rest = list(texts)
    explicit = False
    while rest and rest[0].startswith("-") and rest[0] != "-":
        option = rest.pop(0)
        if re.fullmatch(r"-[nrEsu]*e?|--quiet|--silent|--regexp-extended", option) is None:
            return False
        if option.endswith("e") and not option.startswith("--"):
            explicit = True
            if not rest:
                return False
            scripts.append(rest.pop(0))
    if not explicit:
        if not rest:
            return False
        scripts.append(rest.pop(0))
    return all(_sed_script(script) for script in scripts) and not any(text.startswith("-") for text in rest)


def _sed_script(script: str) -> bool:
    at = 0
    while at < len(script):
        match = _SED.match(script, at)
        if match is None or (match.end() < len(script) and script[match.end()] not in ";\n"):
            return False
        at = match.end() + 1
    return True


def _awk(texts: Sequence[str]) -> bool:
    rest = list(texts)
    while rest and rest[0].startswith("-"):
        option = rest.pop(0)
        if option in {"-F", "-v"}:
            rest[:1] = []
        elif re.match(r"-[Fv].", option) is None:
            return False
    return bool(rest) and re.search(r"system|getline|[|>@]", rest[0]) is None


def _find(texts: Sequence[str]) -> bool:
    return not any(text.startswith(_FIND_WRITES) for text in texts)


def _sort(texts: Sequence[str]) -> bool:
    return not any(re.match(r"-[a-zA-Z]*o|--o|--c|--T|-T", text) for text in texts)


def _uniq(texts: Sequence[str]) -> bool:
    return all(text.startswith("-") for text in texts)


def _date(texts: Sequence[str]) -> bool:
    return all(text.startswith(("+", "-u", "-d", "--date")) for text in texts)


def _command(texts: Sequence[str]) -> bool:
    return bool(texts) and texts[0] in {"-v", "-V"}


def said(name: str, arguments: Sequence[str | None]) -> str | None:
    """Return what `echo` or `printf` prints, if that is certain."""
    words = [word for word in arguments if word is not None]
    if len(words) != len(arguments) or any("\\" in word for word in words[1 if name == "printf" else 0 :]):
        return None
    if name == "echo":
        ends = words[:1] != ["-n"]
        return " ".join(words if ends else words[1:]) + ("\n" if ends else "")
    if not words:
        return None
    text = words[0].replace("\\n", "\n").replace("\\t", "\t")
    if "\\" in text or text.count("%") != text.count("%s") or text.count("%s") != len(words) - 1:
        return None
    for word in words[1:]:
        text = text.replace("%s", word.replace("%", "\0"), 1)
    return text.replace("\0", "%")
