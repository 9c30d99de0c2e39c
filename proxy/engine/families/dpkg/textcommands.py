"""Commands that read and print, with what they print where that is certain: cat, grep, sed, cut, head, sort...

What a command may print is known only if all that it reads is known, and the form of the command is one of those
below. Everything else that can only read (see `readers`) prints what is not known.
Specification: POSIX.1-2017 Utilities
"""

import re
from collections.abc import Mapping

from proxy.engine.families.dpkg.call import Call, Command, Verdict, placed
from proxy.engine.tar import Kind


class Unclear(Exception):
    """What the command prints is not known."""


def _text(call: Call, files: list[str]) -> str:
    """Return what the files hold, or the standard input if there is none; a file that is missing is an error."""
    if not files or files == ["-"]:
        found = call.source.rest()
        if found is None:
            raise Unclear
        return found
    texts = []
    for path in files:
        if not placed(path):
            raise Unclear
        data = call.stage.read(path)
        if data is None:
            raise Missing
        texts.append(data.decode("utf-8", "surrogateescape"))
    return "".join(texts)


class Missing(Exception):
    """A file is not there."""


def _lines(text: str) -> list[str]:
    return text.removesuffix("\n").split("\n") if text else []


def _say(call: Call, lines: list[str]) -> None:
    call.output("".join(f"{line}\n" for line in lines))


def _cat(call: Call) -> Verdict:
    split = call.options("")
    if split is None:
        raise Unclear
    call.output(_text(call, split[1]))
    return True


def _grep(call: Call) -> Verdict:
    letters, words = _grep_options(call)
    if not words:
        raise Unclear
    pattern = _regex(words[0], extended="E" in letters, fixed="F" in letters)
    if "x" in letters:
        pattern = f"(?:{pattern})\\Z"
    if "w" in letters:
        pattern = rf"(?<!\w)(?:{pattern})(?!\w)"
    flags = re.IGNORECASE if "i" in letters else 0
    find = re.compile(pattern, flags)
    try:
        lines = _lines(_text(call, words[1:]))
    except Missing:
        return False
    hits = [
        line for line in lines if bool((find.match if "x" in letters else find.search)(line)) is not ("v" in letters)
    ]
    if "q" not in letters:
        if len(words) > 2:  # noqa: PLR2004 - it would print the file's name before the line
            raise Unclear
        _say(call, [str(len(hits))] if "c" in letters else hits)
    return bool(hits)


def _grep_options(call: Call) -> tuple[str, list[str]]:
    words = call.known()
    if words is None:
        raise Unclear
    letters = {"egrep": "E", "fgrep": "F"}.get(call.name, "")
    rest: list[str] = []
    while words:
        word = words.pop(0)
        if word == "--":
            return letters, rest + words
        if word in {"--quiet", "--silent"}:
            letters += "q"
        elif re.fullmatch(r"-[qsEFixvwc]*e?", word) and word != "-":
            letters += word[1:].removesuffix("e")
            if word.endswith("e"):
                rest[:0] = words[:1]
                return letters, rest + [other for other in words[1:] if not other.startswith("-")]
        elif word.startswith("-") and word != "-":
            raise Unclear
        else:
            rest.append(word)
    return letters, rest


def _regex(text: str, *, extended: bool, fixed: bool) -> str:
    """Return a POSIX regular expression as Python writes it; raises Unclear for what may differ."""
    if fixed:
        return re.escape(text)
    out, at = "", 0
    while at < len(text):
        two, one = text[at : at + 2], text[at]
        if one == "[":
            match = re.match(r"\[\^?\]?[^\]\[]*(?:\[:\w+:\][^\]\[]*)*\]", text[at:])
            if match is None:
                raise Unclear
            out += _bracket(match[0])
            at += match.end()
            continue
        if one == "\\":
            if len(two) < 2 or two[1] in "<>bBwWsS'`123456789{}":  # noqa: PLR2004
                raise Unclear
            special = two[1] in "()|+?"
            out += two[1] if special and not extended else re.escape(two[1])
            at += 2
            continue
        if (
            (one in "()|+?{}" and not extended)
            or (one == "*" and (not out or out.endswith(("(", "|")) or out == "^"))
            or (one == "^" and out and not out.endswith(("(", "|")))
            or (one == "$" and at + 1 < len(text) and text[at + 1] not in ")|\\")
        ):
            out += re.escape(one)
        else:
            out += "\\Z" if one == "$" else one
        at += 1
    return out


_CLASSES = {"space": r"\s", "digit": "0-9", "alpha": "A-Za-z", "alnum": "A-Za-z0-9", "blank": r" \t", "upper": "A-Z",
            "lower": "a-z"}  # fmt: skip


def _bracket(text: str) -> str:
    inner = text[1:-1]
    negated = inner.startswith("^")
    inner = inner.removeprefix("^")
    parts = []
    for part in re.split(r"(\[:\w+:\])", inner):
        if part.startswith("[:"):
            if part[2:-2] not in _CLASSES:
                raise Unclear
            parts.append(_CLASSES[part[2:-2]])
        else:
            parts.append(re.sub(r"[\\\]\[&|~^]", r"\\\g<0>", part))
    return f"[{'^' if negated else ''}{''.join(parts)}]"


_SUBSTITUTE = re.compile(
    r"s(?P<d>[^\w\s\\])(?P<old>(?:\\.|(?!(?P=d))[^\\\n])*)(?P=d)(?P<new>(?:\\.|(?!(?P=d))[^\\\n])*)(?P=d)(?P<flags>[gpI]*)"
)
_ADDRESSED = re.compile(r"\s*(?:/(?P<re>(?:\\.|[^/\\\n])*)/|(?P<line>[0-9]+|\$))?\s*(?P<not>!?)\s*")


def _sed(call: Call) -> Verdict:  # noqa: C901 - its options, one by one
    """`sed` with substitutions, deletions and prints, on files or on its input; `-i` writes the file."""
    words = call.known()
    if words is None:
        raise Unclear
    letters, scripts, files = "", [], []
    while words:
        word = words.pop(0)
        if word in {"-e", "-ne", "-re", "-Ee"} and words:
            letters += word[1:-1]
            scripts.append(words.pop(0))
        elif re.fullmatch(r"-[nrEi]+", word):
            letters += word[1:]
        elif word.startswith("-") and word != "-":
            raise Unclear
        else:
            files.append(word)
    if not scripts:
        scripts.append(files.pop(0) if files else "")
    steps = [step for script in scripts for step in _parse_sed(script, extended=bool(set("rE") & set(letters)))]
    if "i" in letters:
        for path in files:
            text = _text(call, [path])
            edited = _run_sed(text, steps, quiet="n" in letters)
            there = call.stage.get(path)
            if there is None or there.kind is not Kind.FILE:
                raise Unclear
            if edited != text:
                call.stage.write(path, edited.encode("utf-8", "surrogateescape"))
        return True
    call.output(_run_sed(_text(call, files), steps, quiet="n" in letters))
    return True


_Step = tuple[str, "re.Pattern[str] | None", str, bool, str, "re.Pattern[str] | None", str]


def _parse_sed(script: str, *, extended: bool) -> list[_Step]:
    steps: list[_Step] = []
    at = 0
    while at < len(script):
        if script[at] in "; \n\t":
            at += 1
            continue
        match = _ADDRESSED.match(script, at)
        if match is None:
            raise Unclear
        at = match.end()
        address = (
            None
            if match["re"] is None
            else re.compile(_regex(match["re"].replace("\\/", "/"), extended=extended, fixed=False))
        )
        sub = _SUBSTITUTE.match(script, at)
        if sub is not None:
            d = sub["d"]
            if "\n" in sub["old"] or re.search(r"\\[nt]", sub["old"] + sub["new"]):
                raise Unclear
            flags = re.IGNORECASE if "I" in sub["flags"] else 0
            old = re.compile(_regex(sub["old"].replace(f"\\{d}", d), extended=extended, fixed=False), flags)
            steps.append(
                (
                    "s",
                    address,
                    match["line"] or "",
                    bool(match["not"]),
                    sub["flags"],
                    old,
                    sub["new"].replace(f"\\{d}", d),
                )
            )
            at = sub.end()
        elif script[at : at + 1] in {"d", "p", "q"}:
            steps.append((script[at], address, match["line"] or "", bool(match["not"]), "", None, ""))
            at += 1
        else:
            raise Unclear
        if at < len(script) and script[at] not in "; \n\t":
            raise Unclear
    return steps


def _run_sed(text: str, steps: list[_Step], *, quiet: bool) -> str:  # noqa: C901 - a table of commands
    out: list[str] = []
    lines = _lines(text)
    for number, original in enumerate(lines, 1):
        line, deleted, ends = original, False, False
        for kind, address, where, negated, flags, old, new in steps:
            selected = True
            if address is not None:
                selected = address.search(line) is not None
            elif where:
                selected = number == (len(lines) if where == "$" else int(where))
            if selected is negated:
                continue
            if kind == "s" and old is not None:
                line, count = old.subn(lambda m, new=new: _fill(new, m), line, 0 if "g" in flags else 1)
                if count and "p" in flags:
                    out.append(line)
            elif kind == "p":
                out.append(line)
            elif kind == "q":
                ends = True
                break
            else:
                deleted = True
                break
        if not deleted and not quiet:
            out.append(line)
        if ends:
            break
    whole = "\n".join(out)
    return whole + "\n" if out and (text.endswith("\n") or len(out) < len(lines)) else whole


def _fill(new: str, match: "re.Match[str]") -> str:
    def one(part: "re.Match[str]") -> str:
        text = part[0]
        if text == "&":
            return match[0]
        if text[1].isdigit():
            return match[int(text[1])] or ""
        return text[1]

    return re.sub(r"\\.|&", one, new)


def _head(call: Call) -> Verdict:
    words = call.known()
    if words is None:
        raise Unclear
    count = 10
    if words and (match := re.fullmatch(r"-n?([0-9]+)", words[0])):
        count, words = int(match[1]), words[1:]
    elif len(words) > 1 and words[0] == "-n" and words[1].isdigit():
        count, words = int(words[1]), words[2:]
    elif words and words[0].startswith("-"):
        raise Unclear
    lines = _lines(_text(call, words))
    _say(call, lines[:count] if call.name == "head" else lines[-count:])
    return True


def _cut(call: Call) -> Verdict:
    text = " ".join(word if word is not None else "\0" for word in call.arguments)
    match = re.fullmatch(
        r"(?:-d ?(?P<d>\S| ) )?-f ?(?P<f>[0-9]+(?:-[0-9]*)?)(?: -d ?(?P<e>\S))?(?P<files>(?: /\S+)*)", text
    )
    if match is None:
        raise Unclear
    sign = match["d"] or match["e"] or "\t"
    first, dash, last = match["f"].partition("-")
    out = []
    for line in _lines(_text(call, match["files"].split())):
        fields = line.split(sign)
        end = int(last) if last else len(fields) if dash else int(first)
        out.append(line if len(fields) == 1 else sign.join(fields[int(first) - 1 : end]))
    _say(call, out)
    return True


def _sort(call: Call) -> Verdict:
    split = call.options("u")
    if split is None:
        raise Unclear
    lines = sorted(_lines(_text(call, split[1])), key=lambda line: line.encode("utf-8", "surrogateescape"))
    _say(call, list(dict.fromkeys(lines)) if split[0] else lines)
    return True


def _basename(call: Call) -> Verdict:
    words = call.known()
    if not words or words[0].startswith("-") or len(words) > 2:  # noqa: PLR2004
        raise Unclear
    path = words[0].rstrip("/") or "/"
    if call.name == "dirname":
        call.output((path.rpartition("/")[0] or ("/" if path.startswith("/") else ".")) + "\n")
        return True
    name = path.rpartition("/")[2] or "/"
    if len(words) > 1 and name != words[1]:
        name = name.removesuffix(words[1])
    call.output(name + "\n")
    return True


def _readlink(call: Call) -> Verdict:
    split = call.options("fnemsq")
    if split is None or len(split[1]) != 1 or not placed(split[1][0]):
        raise Unclear
    letters, (path,) = split
    if set("fem") & set(letters):
        real = call.stage.resolve(path)
        above = real.rpartition("/")[0]
        if ("e" in letters and real and call.stage.get(real) is None) or (
            "f" in letters and not call.stage.is_dir(above)
        ):
            return False
        call.output(f"/{real}" + ("" if "n" in letters else "\n"))
        return True
    there = call.stage.get(path)
    if there is None or there.kind is not Kind.SYMLINK:
        return False
    call.output(there.target + ("" if "n" in letters else "\n"))
    return True


def _compare(call: Call) -> Verdict:
    """`cmp` and `diff -q`: the same content or not."""
    words = [word for word in call.known() or () if word not in {"-s", "-q", "--quiet", "--silent", "--brief", "--"}]
    if len(words) != 2 or not all(placed(path) for path in words):  # noqa: PLR2004
        raise Unclear
    one, other = (call.stage.read(path) for path in words)
    call.output("" if one == other and one is not None else None)
    return one == other and one is not None


def _wc(call: Call) -> Verdict:
    split = call.options("l")
    if split is None or split[0] != "l" or split[1]:
        raise Unclear
    call.output(f"{_text(call, []).count(chr(10))}\n")
    return True


def _ls(call: Call) -> Verdict:
    split = call.options("1Ad")
    if split is None or not all(placed(path) for path in split[1]) or not split[1]:
        raise Unclear
    if any(call.stage.follow(path) is None for path in split[1]):
        call.output(None)
        return False
    if "d" in split[0]:
        _say(call, sorted(split[1]))
        return True
    if len(split[1]) > 1:
        raise Unclear
    names = call.stage.listdir(split[1][0]) if call.stage.is_dir(split[1][0]) else split[1]
    _say(call, [name for name in names if "A" in split[0] or not name.startswith(".")])
    return True


_TEXT: Mapping[str, Command] = {
    "cat": _cat, "grep": _grep, "egrep": _grep, "fgrep": _grep, "sed": _sed, "head": _head, "tail": _head, "cut": _cut,
    "sort": _sort, "basename": _basename, "dirname": _basename, "readlink": _readlink, "cmp": _compare,
    "diff": _compare, "wc": _wc, "ls": _ls,
}  # fmt: skip


def read_and_print(call: Call) -> Verdict | str:
    """Carry out one of the commands here; returns ``""`` if it is none of them, or its output is not known."""
    command = _TEXT.get(call.name)
    if command is None:
        return ""
    try:
        return command(call)
    except Missing:
        return False
    except (Unclear, re.error):
        return ""
