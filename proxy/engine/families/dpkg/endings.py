"""How the walk through a script ends, or a part of it: as the script says, or at what is not understood."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Unknown:
    """A command that is reached and may do something: its line in the script, and what it is."""

    line: int
    what: str


class Reached(Exception):
    """A command whose effect is not known is reached."""

    def __init__(self, line: int, what: str) -> None:
        super().__init__(what)
        self.unknown = Unknown(line, what[:80].replace("\n", " "))


class Leaves(Exception):
    """Something ends here."""


class Exit(Leaves):
    """The script, or the subshell."""


class Return(Leaves):
    """The function; `truth` is what it returns."""

    def __init__(self, truth: bool | None) -> None:
        super().__init__()
        self.truth = truth


class Break(Leaves):
    """The loop."""


class Continue(Leaves):
    """This round of the loop."""


def leaving(name: str, arguments: list[str | None]) -> Leaves:
    """Return what `exit`, `return`, `break` or `continue` raises."""
    if name == "return":
        known = {"0": True}.get(arguments[0] or "", False) if arguments and (arguments[0] or "").isdigit() else None
        return Return(known)
    return {"exit": Exit, "break": Break, "continue": Continue}[name]()
