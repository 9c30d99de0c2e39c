"""Commands of scripts that take text and give text: grep, cut, tr, head, tail, sort, uniq, wc, cat, basename...

Owns one function per command: arguments in, output and exit status out. Only forms whose output is certain are done;
any other option is refused with `NotReproduced`. They run in the C locale, as maintainer scripts are run by apt.
Specification: POSIX.1-2017 Utilities, GNU coreutils and grep manuals
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from hashlib import md5, sha1, sha256

from proxy.engine.families.dpkg.awk import run_awk
from proxy.engine.families.dpkg.call import Call, Verdict, placed
from proxy.engine.families.dpkg.findings import NotReproduced
from proxy.engine.families.dpkg.grep import run_grep
from proxy.engine.families.dpkg.posixregex import translate
from proxy.engine.families.dpkg.reply import Read, Reply, joined, lines_of, options_of, text_of
from proxy.engine.families.dpkg.sed import MissingFile, run_sed
from proxy.engine.tar import Kind


def _cut(words: Sequence[str], read: Read) -> Reply:
    options, operands = options_of("cut", words, "s", "dfcb")
    text = text_of("cut", operands, read)
    kept = options.get("f") or options.get("c") or options.get("b")
    if not kept or len(set("fcb") & set(options)) != 1:
        raise NotReproduced("cut without a list")
    ranges = list(_ranges(kept[-1]))
    delimiter = options.get("d", ["\t"])[-1]
    lines: list[str] = []
    for line in lines_of(text):
        if "f" in options and delimiter not in line:
            lines += [] if "s" in options else [line]
            continue
        parts = line.split(delimiter) if "f" in options else list(line)
        chosen = [part for at, part in enumerate(parts, 1) if any(low <= at <= high for low, high in ranges)]
        lines.append((delimiter if "f" in options else "").join(chosen))
    return Reply(joined(lines))


def _ranges(text: str) -> Iterator[tuple[int, int]]:
    for part in text.split(","):
        match = re.fullmatch(r"([0-9]*)(-?)([0-9]*)", part)
        if match is None or not (match[1] or match[3]):
            raise NotReproduced(f"cut of {text}")
        low = int(match[1] or 1)
        yield low, (int(match[3]) if match[3] else 1 << 30) if match[2] else low


_TR_CLASSES = {
    "upper": "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "lower": "abcdefghijklmnopqrstuvwxyz", "digit": "0123456789",
    "space": "\t\n\v\f\r ", "blank": "\t ", "punct": "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~",
}  # fmt: skip


def _tr_set(text: str) -> str:
    out, at = "", 0
    while at < len(text):
        match = re.compile(r"\[:(\w+):\]").match(text, at)
        if match is not None and match[1] in _TR_CLASSES:
            out += _TR_CLASSES[match[1]]
            at = match.end()
            continue
        character, at = text[at], at + 1
        if character == "[" and text[at : at + 1] in {":", "=", "."}:
            raise NotReproduced(f"tr {text}")
        if character == "\\" and at < len(text):
            octal = re.compile(r"[0-7]{1,3}").match(text, at)
            character = chr(int(octal[0], 8)) if octal else _TR_ESCAPES.get(text[at], text[at])
            at = octal.end() if octal else at + 1
        if text.startswith("-", at) and at + 1 < len(text) and text[at + 1] not in "\\[":
            out += "".join(map(chr, range(ord(character), ord(text[at + 1]) + 1)))
            at += 2
            continue
        out += character
    return out


_TR_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "v": "\v", "a": "\a", "b": "\b"}


def _tr(words: Sequence[str], read: Read) -> Reply:
    options, operands = options_of("tr", words, "dsc")
    text = text_of("tr", [], read)
    sets = [_tr_set(operand) for operand in operands]
    if "d" in options and len(sets) == 1 and "s" not in options:
        return Reply("".join(c for c in text if (c in sets[0]) is ("c" in options)))
    if "d" in options or not sets or len(sets) > 2 or "c" in options:  # noqa: PLR2004 - two sets at most
        raise NotReproduced("tr " + " ".join(words))
    if len(sets) == 2:  # noqa: PLR2004
        if not sets[1]:
            raise NotReproduced("tr " + " ".join(words))
        target = sets[1] + sets[1][-1] * (len(sets[0]) - len(sets[1]))
        text = text.translate({ord(a): b for a, b in reversed(list(zip(sets[0], target, strict=False)))})
    if "s" in options:
        text = re.sub(f"([{re.escape(sets[-1])}])\\1+", r"\1", text)
    return Reply(text)


def _head(words: Sequence[str], read: Read, *, tail: bool = False) -> Reply:
    name = "tail" if tail else "head"
    told = [f"-n{word[1:]}" if re.fullmatch(r"-[0-9]+", word) else word for word in words]
    told = [re.sub(r"^--lines=", "-n", word) for word in told]
    options, operands = options_of(name, told, "q", "n")
    count = options.get("n", ["10"])[-1]
    if len(operands) > 1 or re.fullmatch(r"\+?[0-9]{1,9}" if tail else "-?[0-9]{1,9}", count) is None:
        raise NotReproduced(f"{name} " + " ".join(words))
    lines = text_of(name, operands, read).splitlines(keepends=True)
    if not tail:
        return Reply("".join(lines[: int(count)]))
    if count.startswith("+"):
        return Reply("".join(lines[max(int(count) - 1, 0) :]))
    return Reply("".join(lines[-int(count) :] if int(count) else []))


def _sort(words: Sequence[str], read: Read) -> Reply:
    options, operands = options_of("sort", words, "urnb")
    lines = lines_of(text_of("sort", operands, read))
    if "n" in options or "b" in options:
        if not all(re.fullmatch(r"[0-9]{1,15}", line) for line in lines):
            raise NotReproduced("sort -n of what is not whole numbers")
        lines.sort(key=lambda line: (int(line), line), reverse="r" in options)
    else:
        lines.sort(key=lambda line: line.encode("utf-8", "surrogateescape"), reverse="r" in options)
    return Reply(joined(list(dict.fromkeys(lines)) if "u" in options else lines))


def _uniq(words: Sequence[str], read: Read) -> Reply:
    options, operands = options_of("uniq", words, "cdu")
    runs: list[tuple[str, int]] = []
    for line in lines_of(text_of("uniq", operands[:1], read)):
        if runs and runs[-1][0] == line:
            runs[-1] = (line, runs[-1][1] + 1)
        else:
            runs.append((line, 1))
    if len(operands) > 1:
        raise NotReproduced("uniq of two files")
    kept = [(line, n) for line, n in runs if not (("d" in options and n < 2) or ("u" in options and n > 1))]  # noqa: PLR2004
    return Reply(joined([f"{n:7d} {line}" if "c" in options else line for line, n in kept]))


def _wc(words: Sequence[str], read: Read) -> Reply:
    options, operands = options_of("wc", words, "lwc")
    if len(operands) > 1 or len(options) != 1:
        raise NotReproduced("wc " + " ".join(words))
    text = text_of("wc", operands, read)
    size = len(text.encode("utf-8", "surrogateescape"))
    count = {"l": text.count("\n"), "w": len(text.split()), "c": size}[next(iter(options))]
    return Reply(f"{count} {operands[0]}\n" if operands else f"{count}\n")


def _cat(words: Sequence[str], read: Read) -> Reply:
    _, operands = options_of("cat", words, "")
    texts = [read(path) for path in operands or ["-"]]
    return Reply("".join(text or "" for text in texts), 1 if None in texts else 0)


def _basename(words: Sequence[str], _read: Read) -> Reply:
    _, operands = options_of("basename", words, "")
    if not operands or len(operands) > 2:  # noqa: PLR2004 - a name and a suffix
        raise NotReproduced("basename " + " ".join(words))
    name = operands[0].rstrip("/").rpartition("/")[2] or ("/" if operands[0] else "")
    suffix = operands[1] if len(operands) > 1 else ""
    return Reply((name.removesuffix(suffix) if name != suffix else name) + "\n")


def _dirname(words: Sequence[str], _read: Read) -> Reply:
    _, operands = options_of("dirname", words, "")
    if not operands:
        raise NotReproduced("dirname")
    folders: list[str] = []
    for path in operands:
        folder, slash, _ = path.rstrip("/").rpartition("/")
        folders.append(folder.rstrip("/") or ("/" if slash or path.startswith("/") else "."))
    return Reply(joined(folders))


def _digest(hasher: Callable[[bytes], str]) -> Callable[[Sequence[str], Read], Reply]:
    def command(words: Sequence[str], read: Read) -> Reply:
        _, operands = options_of("md5sum", words, "")
        lines: list[str] = []
        status = 0
        for path in operands or ["-"]:
            text = read(path)
            if text is None:
                status = 1
            elif re.search(r"[\\\n]", path):
                raise NotReproduced(f"a digest of {path}")
            else:
                lines.append(f"{hasher(text.encode('utf-8', 'surrogateescape'))}  {path}")
        return Reply(joined(lines), status)

    return command


def _expr(words: Sequence[str], _read: Read) -> Reply:
    """Whole numbers, comparisons, and `STRING : EXPRESSION`."""
    match list(words):
        case [left, ":", right]:
            regex = translate(right, extended=False)
            found = regex.pattern.match(left)
            groups = regex.pattern.groups
            if regex.alternates:
                raise NotReproduced("expr " + " ".join(words))
            text = (found[1] or "" if groups else str(len(found[0]))) if found else ("" if groups else "0")
            return Reply(f"{text}\n", 1 if text in {"", "0"} else 0)
        case [left, ("+" | "-" | "*") as sign, right] if all(re.fullmatch("-?[0-9]{1,9}", w) for w in (left, right)):
            a, b = int(left), int(right)
            value = {"+": a + b, "-": a - b, "*": a * b}[sign]
            return Reply(f"{value}\n", 0 if value else 1)
        case [left, ("=" | "!=") as sign, right]:
            truth = (left == right) is (sign == "=")
            return Reply(f"{int(truth)}\n", 0 if truth else 1)
    raise NotReproduced("expr " + " ".join(words))


def _seq(words: Sequence[str], _read: Read) -> Reply:
    if not words or len(words) > 2 or not all(re.fullmatch("[0-9]{1,4}", word) for word in words):  # noqa: PLR2004
        raise NotReproduced("seq " + " ".join(words))
    return Reply(joined([str(number) for number in range(int(words[0]) if words[1:] else 1, int(words[-1]) + 1)]))


def _awk(words: Sequence[str], read: Read) -> Reply:
    text, status = run_awk(words, lambda files: text_of("awk", files, read))
    return Reply(text, status)


TEXT_COMMANDS: Mapping[str, Callable[[Sequence[str], Read], Reply]] = {
    "grep": run_grep,
    "egrep": lambda words, read: run_grep(words, read, kind="E"),
    "fgrep": lambda words, read: run_grep(words, read, kind="F"),
    "cut": _cut,
    "tr": _tr,
    "head": _head,
    "tail": lambda words, read: _head(words, read, tail=True),
    "sort": _sort,
    "uniq": _uniq,
    "wc": _wc,
    "cat": _cat,
    "basename": _basename,
    "dirname": _dirname,
    "md5sum": _digest(lambda data: md5(data, usedforsecurity=False).hexdigest()),
    "sha1sum": _digest(lambda data: sha1(data, usedforsecurity=False).hexdigest()),
    "sha256sum": _digest(lambda data: sha256(data).hexdigest()),
    "expr": _expr,
    "seq": _seq,
    "awk": _awk,
    "mawk": _awk,
    "gawk": _awk,
}


def read_and_print(call: Call) -> Verdict | str:
    """Carry out one of the commands here, or sed; ``""`` if it is none of them, or what it prints is not certain."""
    words = call.known()
    if words is None or (call.name != "sed" and call.name not in TEXT_COMMANDS):
        return ""
    source = call.source
    try:
        given = None if source.text is None else source.text[source.at :]
        reply, taken = _pure(call.name, tuple(words), given)
        if taken:
            source.rest()
    except (_ReadsFiles, NotReproduced):
        return _with_files(call, words)
    call.output(reply.text)
    return reply.status == 0


class _ReadsFiles(Exception):
    """The command reads more than its input."""


@lru_cache(maxsize=512)
def _pure(name: str, words: tuple[str, ...], text: str | None) -> tuple[Reply, bool]:
    """Carry out a command on its input alone, once for all the times that scripts do the same; says if it was read."""
    taken = False

    def read(path: str) -> str:
        nonlocal taken
        if path != "-" or text is None:
            raise _ReadsFiles
        taken = True
        return text

    if name != "sed":
        return TEXT_COMMANDS[name](words, read), taken
    found, edited = run_sed(words, read)
    if edited:
        raise _ReadsFiles
    return Reply(found), taken


def _with_files(call: Call, words: Sequence[str]) -> Verdict | str:
    def read(path: str) -> str | None:
        if path == "-":
            text = call.source.rest()
            if text is None:
                raise NotReproduced("an input that is not known")
            return text
        if path == "/dev/null":
            return ""
        if not placed(path):
            raise NotReproduced(path)
        data = call.stage.read(path)
        return None if data is None else data.decode("utf-8", "surrogateescape")

    try:
        if call.name == "sed":
            return _sed(call, words, read)
        reply = TEXT_COMMANDS[call.name](words, read)
    except MissingFile:
        return False
    except NotReproduced:
        return ""
    call.output(reply.text)
    return reply.status == 0


def _sed(call: Call, words: Sequence[str], read: Read) -> bool:
    text, edited = run_sed(words, read)
    for path, new in edited.items():
        there = call.stage.get(path)
        if there is None or there.kind is not Kind.FILE:
            raise NotReproduced(f"sed -i {path}")
        call.stage.write(path, new.encode("utf-8", "surrogateescape"))
    call.output(text)
    return True
