"""What a text command is given and answers: its options and operands, the text that it reads, its output and status."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from proxy.engine.families.dpkg.findings import NotReproduced

Read = Callable[[str], str | None]
MAX_TEXT = 8 << 20  # characters a single command may take


@dataclass(frozen=True, slots=True)
class Reply:
    """What a command prints, and its exit status."""

    text: str = ""
    status: int = 0


def options_of(name: str, words: Sequence[str], plain: str, valued: str = "") -> tuple[dict[str, list[str]], list[str]]:
    """Split words into options (letter to values) and operands; options may follow operands, as in GNU's tools."""
    found: dict[str, list[str]] = {}
    operands: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "--":
            operands += rest
            break
        if not word.startswith("-") or word == "-":
            operands.append(word)
            continue
        if word.startswith("--"):
            raise NotReproduced(f"{name} {word}")
        letters = word[1:]
        while letters:
            letter, letters = letters[0], letters[1:]
            if letter in valued:
                if not letters and not rest:
                    raise NotReproduced(f"{name} {word}")
                found.setdefault(letter, []).append(letters or rest.pop(0))
                letters = ""
            elif letter in plain:
                found.setdefault(letter, [])
            else:
                raise NotReproduced(f"{name} {word}")
    return found, operands


def text_of(name: str, operands: Sequence[str], read: Read) -> str:
    """Return the files one after another, or the standard input."""
    texts: list[str] = []
    for path in operands or ["-"]:
        found = read(path)
        if found is None:
            raise NotReproduced(f"{name} {path}, which is not there")
        texts.append(found)
    text = "".join(texts)
    if len(text) > MAX_TEXT:
        raise NotReproduced(f"{name} of more than {MAX_TEXT >> 20} MiB")
    return text


def lines_of(text: str) -> list[str]:
    """Return the lines of a text without their ends."""
    lines = text.split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def joined(lines: Sequence[str]) -> str:
    """Return lines as a text."""
    return "".join(f"{line}\n" for line in lines)
