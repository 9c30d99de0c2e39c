"""What is found when an upgrade is judged: a reason against it, a note for people, or a change that it brings about."""

from dataclasses import dataclass

from proxy.engine.tar import Entry


class NotReproduced(Exception):
    """What a script or a program would leave behind is not known here; `what` names it, in words."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a package is skipped, in words that follow its name."""

    text: str


@dataclass(frozen=True, slots=True)
class Note:
    """What a person should know of an upgrade that goes ahead."""

    text: str


@dataclass(frozen=True, slots=True)
class Change:
    """What the native tool's scripts would do beside the package's own files, as entries (whiteouts included).

    `what` names it for people. Paths are real ones; `entries` may be empty where the result is what is there already.
    """

    what: str
    entries: tuple[Entry, ...] = ()


Finding = Reason | Note | Change
