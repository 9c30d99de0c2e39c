"""Debconf's frontend as maintainer scripts meet it: `. /usr/share/debconf/confmodule`, then `db_get` and its like.

Owns which templates are loaded and that the package's config script runs first. The frontend runs the script that asks
for it again from its start; so does whoever walks the script.
Specification: debconf-devel(7), confmodule(3)
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from proxy.engine.families.dpkg.debconf import Debconf
from proxy.engine.families.dpkg.findings import NotReproduced
from proxy.engine.stage import Stage

CONFMODULE = "/usr/share/debconf/confmodule"
_COMMANDS = frozenset({
    "capb", "set", "reset", "title", "input", "beginblock", "endblock", "go", "get", "register", "unregister", "subst",
    "fset", "fget", "purge", "metaget", "version", "clear", "settitle", "info", "progress", "stop",
})  # fmt: skip
_READING = frozenset({"capb", "title", "beginblock", "endblock", "get", "fget", "metaget", "version", "stop", "info"})


@dataclass(slots=True)
class Frontend:
    """The frontend for the scripts of one package: its templates and config script, if it has any."""

    stage: Stage
    owner: str
    templates: bytes | None = None
    config: bytes | None = None
    _debconf: Debconf | None = field(default=None, init=False)

    def begin(self) -> Debconf:
        """Begin with one script; raises NotReproduced where the databases cannot be read."""
        if self._debconf is None:
            self._debconf = Debconf(self.stage)
        self._debconf.begin(self.owner, self.templates)
        return self._debconf


def is_question(name: str) -> bool:
    """Say whether `name` is a command that confmodule defines."""
    return name.startswith("db_") and name[3:] in _COMMANDS


def ask(
    debconf: Debconf, name: str, arguments: Sequence[str | None], *, certain: bool
) -> tuple[bool | None, str | None]:
    """Carry out a command of confmodule: did it succeed, and what is in RET then; None where that is not known.

    `certain` says that it is surely reached. What else would change is in doubt from then on.
    """
    known = [argument for argument in arguments if argument is not None]
    command = name.removeprefix("db_")
    if command == "stop":
        return True, ""
    if len(known) == len(arguments) and (certain or command in _READING):
        code, text = debconf.ask([command.upper(), *known])
        return code == 0, text
    question = arguments[-1 if command in {"input", "register"} else 0] if arguments else None
    doubtful = {"set", "reset", "fset", "subst", "input", "go", "register", "unregister"}
    if command not in doubtful or (question is None and command != "go"):
        raise NotReproduced("a question to debconf that is not known")
    debconf.doubt(question)
    return (command == "go") or None, None
