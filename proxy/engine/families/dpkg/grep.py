"""The command grep, as text to text.

Specification: POSIX.1-2017 Utilities, GNU grep manual
"""

import re
from collections.abc import Callable, Mapping, Sequence

from proxy.engine.families.dpkg.findings import NotReproduced
from proxy.engine.families.dpkg.posixregex import translate
from proxy.engine.families.dpkg.reply import Read, Reply, joined, lines_of, options_of, text_of

_GREP_LONG = {"--quiet": "-q", "--silent": "-q", "--no-messages": "-s", "--invert-match": "-v", "--ignore-case": "-i"}
_GREP_LONG |= {"--extended-regexp": "-E", "--fixed-strings": "-F", "--count": "-c", "--line-regexp": "-x"}
_GREP_LONG |= {"--word-regexp": "-w", "--only-matching": "-o", "--no-filename": "-h", "--files-with-matches": "-l"}


def run_grep(words: Sequence[str], read: Read, *, kind: str = "") -> Reply:
    """Run grep; `kind` is E for egrep, F for fgrep. Raises NotReproduced."""
    told = [_GREP_LONG.get(word, word) for word in words]
    options, operands = options_of("grep", told, "qsvivEFGcxwohnlL", "em")
    patterns = options.get("e") or operands[:1]
    files = operands if "e" in options else operands[1:]
    if not patterns or set("onLm") & set(options):
        return _grep_more(options, patterns, files, read, kind)
    matches = _matcher(patterns, options, kind)
    count, out, named, missing = 0, [], [], False
    for path in files or ["-"]:
        text = read(path)
        if text is None:
            missing = True
            continue
        found = [line for line in lines_of(text) if matches(line) is not ("v" in options)]
        count += len(found)
        named += [path] if found else []
        label = f"{path}:" if len(files) > 1 and "h" not in options else ""
        out += [f"{label}{len(found)}"] if "c" in options else [f"{label}{line}" for line in found]
    if "q" in options:
        return Reply("", 0 if count else 2 if missing else 1)
    return Reply(joined(named if "l" in options else out), 2 if missing else 0 if count else 1)


def _grep_more(
    options: Mapping[str, Sequence[str]], patterns: Sequence[str], files: Sequence[str], read: Read, kind: str
) -> Reply:
    """Handle `grep -o` of one file and one pattern, and `grep -m`; other rare forms are refused."""
    limit = int(options["m"][0]) if "m" in options and options["m"][0].isdigit() else None
    if not patterns or len(files) > 1 or set("nLcxwlv") & set(options) or len(patterns) > 1:
        raise NotReproduced("grep " + " ".join(f"-{letter}" for letter in options))
    extended = "E" in options or kind == "E"
    source = re.escape(patterns[0]) if "F" in options or kind == "F" else None
    regex = translate(patterns[0], extended=extended, ignore_case="i" in options) if source is None else None
    if regex is not None and regex.alternates and "o" in options:
        raise NotReproduced(f"grep -o {patterns[0][:60]}")
    pattern = regex.pattern if regex is not None else re.compile(source or "")
    lines = [line for line in lines_of(text_of("grep", files, read)) if pattern.search(line)][:limit]
    out = [match[0] for line in lines for match in pattern.finditer(line) if match[0]] if "o" in options else lines
    return Reply("" if "q" in options else joined(out), 0 if lines else 1)


def _matcher(patterns: Sequence[str], options: Mapping[str, Sequence[str]], kind: str) -> Callable[[str], bool]:
    fixed, extended = "F" in options or kind == "F", "E" in options or kind == "E"
    found: list[re.Pattern[str]] = []
    for pattern in "\n".join(patterns).split("\n"):
        source = re.escape(pattern) if fixed else translate(pattern, extended=extended).pattern.pattern
        if "x" in options:
            source = rf"\A(?:{source})\Z"
        elif "w" in options:
            source = rf"(?<!\w)(?:{source})(?!\w)"
        found.append(re.compile(source, re.ASCII | (re.IGNORECASE if "i" in options else 0)))
    return lambda line: any(pattern.search(line) is not None for pattern in found)
