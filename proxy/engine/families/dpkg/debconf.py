"""What debconf answers to a maintainer script when nobody is there to be asked (the noninteractive frontend).

Owns reading debconf's databases and a package's templates, and the commands of its protocol. What scripts set is known
to the scripts after them in the same upgrade; the databases in `/var/cache/debconf` are a cache and not written again.
Refuses (NotReproduced) databases that lie elsewhere, and commands that no script of an upgrade uses.
Specification: debconf-devel(7), debconf.conf(5), https://www.debian.org/doc/packaging-manuals/debconf_specification.html
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from proxy.engine.families.dpkg.findings import NotReproduced
from proxy.engine.stage import Stage

CONFIGURATION = "etc/debconf.conf"
QUESTIONS, TEMPLATES = "var/cache/debconf/config.dat", "var/cache/debconf/templates.dat"
MAX_STANZAS = 100_000

OK, BAD, NO_SUCH, SKIPPED = 0, 20, 10, 30
_PRIORITIES = frozenset({"low", "medium", "high", "critical"})
_VARIABLE = re.compile(r"(\\)?\$\{([^{}]+)\}")
_SEPARATOR = re.compile(r"(\\[, ]|,\s+)")

Answer = tuple[int, str]


@dataclass(slots=True)
class Question:
    """A question: its template's name, its value (None: the template's default), variables and flags."""

    template: str
    value: str | None = None
    variables: dict[str, str] = field(default_factory=dict)
    flags: set[str] = field(default_factory=set)
    owners: set[str] = field(default_factory=set)


class Debconf:
    """The questions and templates of an image, as the scripts of one upgrade see them."""

    def __init__(self, stage: Stage) -> None:
        self._check(stage)
        self._templates: dict[str, Mapping[str, str]] = {}
        self._questions: dict[str, Question] = {}
        for stanza in _stanzas(stage.read(TEMPLATES) or b""):
            self._templates[stanza.get("name", "")] = stanza
        for stanza in _stanzas(stage.read(QUESTIONS) or b""):
            question = Question(stanza.get("template", ""), stanza.get("value"))
            question.flags = set(stanza.get("flags", "").split(", ")) - {""}
            question.owners = set(stanza.get("owners", "").split(", ")) - {""}
            for line in stanza.get("variables", "").split("\n"):
                name, sign, value = line.strip().partition("=")
                if sign:
                    question.variables[name.strip()] = value.lstrip()
            self._questions[stanza.get("name", "")] = question
        self._asked: list[str] = []
        self._doubted: set[str] = set()
        self._escapes = False
        self.owner = ""

    def begin(self, owner: str, templates: bytes | None) -> None:
        """Begin with a script of the package `owner`, whose templates are loaded as the frontend does."""
        self.owner, self._asked, self._escapes = owner, [], False
        for stanza in _templates(templates or b""):
            name = stanza.get("template", "")
            self._templates[name] = stanza
            self._questions.setdefault(name, Question(name)).owners.add(owner)

    def ask(self, words: Sequence[str]) -> Answer:
        """Answer one command of the protocol: the code, and what comes into RET.

        `words` are what a script gives, joined and split again as the protocol does.
        """
        line = " ".join(words)
        name, *arguments = (_unescaped(line) if self._escapes else line.split()) or [""]
        if name.upper() in {"GET", "FGET", "METAGET", "GO"} and self._doubted & {*arguments[:1], *self._asked}:
            raise NotReproduced(f"the answer of debconf to {line}")
        command = _COMMANDS.get(name.upper())
        if command is None:
            raise NotReproduced(f"the debconf command {name}")
        return command(self, arguments)

    def doubt(self, question: str | None) -> None:
        """Note that a question may have been changed, or all that were asked."""
        self._doubted |= {question} if question is not None else set(self._asked)

    def _check(self, stage: Stage) -> None:
        text = (stage.read(CONFIGURATION) or b"").decode("utf-8", "replace")
        files = re.findall(r"(?m)^Filename:\s*(\S+)", text)
        own = stage.get("root/.debconfrc") is not None
        if own or (text and not {f"/{QUESTIONS}", f"/{TEMPLATES}"} <= set(files)):
            raise NotReproduced("debconf's databases lie elsewhere")

    def value(self, name: str) -> str | None:
        """Return the value of a question, or None if there is no such question."""
        question = self._questions.get(name)
        if question is None:
            return None
        return self._template(question).get("default", "") if question.value is None else question.value

    def _template(self, question: Question) -> Mapping[str, str]:
        return self._templates.get(question.template, {})

    def _get(self, arguments: Sequence[str]) -> Answer:
        if len(arguments) != 1:
            return BAD, "Incorrect number of arguments"
        value = self.value(arguments[0])
        return _absent(arguments[0]) if value is None else (OK, value)

    def _set(self, arguments: Sequence[str]) -> Answer:
        question = self._questions.get(arguments[0]) if arguments else None
        if question is None:
            return _absent(*arguments[:1])
        question.value = " ".join(arguments[1:])
        return OK, "value set"

    def _reset(self, arguments: Sequence[str]) -> Answer:
        question = self._questions.get(arguments[0]) if len(arguments) == 1 else None
        if question is None:
            return _absent(*arguments[:1])
        question.value = self._template(question).get("default", "")
        question.flags.discard("seen")
        return OK, ""

    def _fget(self, arguments: Sequence[str]) -> Answer:
        if len(arguments) != 2:  # noqa: PLR2004 - question and flag
            return BAD, "Incorrect number of arguments"
        question = self._questions.get(arguments[0])
        return _absent(arguments[0]) if question is None else (OK, _truth(arguments[1] in question.flags))

    def _fset(self, arguments: Sequence[str]) -> Answer:
        question = self._questions.get(arguments[0]) if len(arguments) > 2 else None  # noqa: PLR2004
        if question is None:
            return _absent(*arguments[:1])
        true = arguments[2] == "true"
        (question.flags.add if true else question.flags.discard)(arguments[1])
        return OK, _truth(true)

    def _subst(self, arguments: Sequence[str]) -> Answer:
        question = self._questions.get(arguments[0]) if len(arguments) > 1 else None
        if question is None:
            return _absent(*arguments[:1])
        question.variables[arguments[1]] = " ".join(arguments[2:])
        return OK, ""

    def _input(self, arguments: Sequence[str]) -> Answer:
        if len(arguments) != 2 or arguments[0] not in _PRIORITIES:  # noqa: PLR2004
            return BAD, "Incorrect number of arguments"
        if arguments[1] not in self._questions:
            return NO_SUCH, f'"{arguments[1]}" doesn\'t exist'
        self._asked.append(arguments[1])
        return SKIPPED, "question skipped"

    def _go(self, _arguments: Sequence[str]) -> Answer:
        """Give every question that was asked its present value; a choice that is not on its list becomes the first."""
        for name in self._asked:
            question, value = self._questions[name], self.value(name) or ""
            template = self._template(question)
            if template.get("type") == "select":
                choices = _split(self._expanded(question, template.get("choices", "")))
                if value not in choices:
                    value = choices[0] if choices else ""
            question.value = value
        self._asked = []
        return OK, "ok"

    def _metaget(self, arguments: Sequence[str]) -> Answer:
        question = self._questions.get(arguments[0]) if len(arguments) == 2 else None  # noqa: PLR2004
        if question is None:
            return _absent(*arguments[:1])
        what = arguments[1].lower()
        if what == "value":
            return OK, self.value(arguments[0]) or ""
        if what == "owners":
            return OK, ", ".join(sorted(question.owners))
        return OK, self._expanded(question, self._template(question).get(what, ""))

    def _register(self, arguments: Sequence[str]) -> Answer:
        source = self._questions.get(arguments[0]) if len(arguments) == 2 else None  # noqa: PLR2004
        if source is None:
            return NO_SUCH, "No such template"
        question = self._questions.setdefault(arguments[1], Question(arguments[0]))
        question.template = arguments[0]
        question.owners.add(self.owner)
        return OK, ""

    def _unregister(self, arguments: Sequence[str]) -> Answer:
        question = self._questions.get(arguments[0]) if len(arguments) == 1 else None
        if question is None:
            return _absent(*arguments[:1])
        if arguments[0] in self._asked:
            return NO_SUCH, f"{arguments[0]} is busy, cannot unregister right now"
        self._disown(arguments[0])
        return OK, ""

    def _purge(self, _arguments: Sequence[str]) -> Answer:
        for name in list(self._questions):
            self._disown(name)
        return OK, ""

    def _disown(self, name: str) -> None:
        owners = self._questions[name].owners
        if self.owner in owners:
            owners.discard(self.owner)
            if not owners:
                del self._questions[name]

    def _version(self, arguments: Sequence[str]) -> Answer:
        good = not arguments or arguments[0].split(".")[0] == "2"
        return (OK, "2.0") if good else (30, "Version too high")

    def _capabilities(self, arguments: Sequence[str]) -> Answer:
        self._escapes = "escape" in arguments
        return OK, "multiselect escape"

    def _clear(self, _arguments: Sequence[str]) -> Answer:
        self._asked = []
        return OK, ""

    def _nothing(self, _arguments: Sequence[str]) -> Answer:
        return OK, ""

    def _expanded(self, question: Question, text: str) -> str:
        return _VARIABLE.sub(lambda m: f"${{{m[2]}}}" if m[1] else question.variables.get(m[2], ""), text)


_COMMANDS: Mapping[str, Callable[[Debconf, Sequence[str]], Answer]] = {
    "GET": Debconf._get,  # noqa: SLF001 - the table belongs to the class
    "SET": Debconf._set,  # noqa: SLF001
    "RESET": Debconf._reset,  # noqa: SLF001
    "FGET": Debconf._fget,  # noqa: SLF001
    "FSET": Debconf._fset,  # noqa: SLF001
    "SUBST": Debconf._subst,  # noqa: SLF001
    "INPUT": Debconf._input,  # noqa: SLF001
    "GO": Debconf._go,  # noqa: SLF001
    "METAGET": Debconf._metaget,  # noqa: SLF001
    "REGISTER": Debconf._register,  # noqa: SLF001
    "UNREGISTER": Debconf._unregister,  # noqa: SLF001
    "PURGE": Debconf._purge,  # noqa: SLF001
    "VERSION": Debconf._version,  # noqa: SLF001
    "CAPB": Debconf._capabilities,  # noqa: SLF001
    "CLEAR": Debconf._clear,  # noqa: SLF001
    **dict.fromkeys(("TITLE", "SETTITLE", "INFO", "BEGINBLOCK", "ENDBLOCK", "PROGRESS", "STOP"), Debconf._nothing),  # noqa: SLF001
}


def _absent(name: str = "") -> Answer:
    return NO_SUCH, f"{name} doesn't exist"


def _truth(value: bool) -> str:
    return "true" if value else "false"


def _stanzas(data: bytes) -> Iterator[dict[str, str]]:
    """Yield the stanzas of a database: fields in lower case, escaped new lines undone, further lines joined."""
    blocks = data.decode("utf-8", "surrogateescape").split("\n\n")
    if len(blocks) > MAX_STANZAS:
        raise NotReproduced(f"a database of debconf with more than {MAX_STANZAS} stanzas")
    for block in blocks:
        stanza: dict[str, str] = {}
        last = ""
        for line in block.split("\n"):
            name, sign, value = line.partition(":")
            if line[:1] in {" ", "\t"} and last:
                stanza[last] += f"\n{line}"
            elif sign:
                last = name.strip().lower()
                stanza[last] = value.strip().replace("\\n", "\n")
        if stanza.get("name"):
            yield stanza


def _templates(data: bytes) -> Iterator[dict[str, str]]:
    """Yield the stanzas of a package's templates: the first line of every field, which is all that scripts ask for."""
    for block in re.split(r"\n\n+", data.decode("utf-8", "surrogateescape"))[:MAX_STANZAS]:
        stanza: dict[str, str] = {}
        for line in block.split("\n"):
            match = re.fullmatch(r"([-_@.A-Za-z0-9]*):\s?(.*)", line)
            if match is not None:
                stanza[match[1].lower()] = match[2].rstrip()
        if stanza.get("template") and stanza.get("type"):
            yield stanza


def _split(text: str) -> list[str]:
    """Split a list of choices at commas that no backslash stands before."""
    items, item = [], ""
    for chunk in _SEPARATOR.split(text):
        if len(chunk) == 2 and chunk[0] == "\\":  # noqa: PLR2004 - an escaped comma or blank
            item += chunk[1]
        elif _SEPARATOR.fullmatch(chunk):
            items.append(item)
            item = ""
        else:
            item += chunk
    return [*items, item] if item else items


def _unescaped(line: str) -> list[str]:
    """Split a line at blanks that no backslash stands before, and undo the backslashes."""
    words = re.findall(r"(?:\\.|[^\s\\])+", line)
    return [re.sub(r"\\(.)", lambda m: "\n" if m[1] == "n" else m[1], word) for word in words]
