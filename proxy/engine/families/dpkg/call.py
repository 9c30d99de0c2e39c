"""What a command of a maintainer script is called with, and how it answers.

A command is a function of a `Call`. It answers True or False where its result is known, None where it is not, and
`DOES` where it would do something that is not understood. What it changes, it changes in the stage of the call.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from proxy.engine.families.dpkg.confmodule import Frontend
from proxy.engine.families.dpkg.flow import Source
from proxy.engine.stage import Stage

UNSEEN = ("/proc/", "/sys/", "/dev/")  # what a script would find there is not in the image


class Does:
    """The command does something, or nobody knows."""


DOES = Does()
Verdict = bool | Does | None


@dataclass(frozen=True, slots=True)
class Scene:
    """Where a script runs: the tree as it is then, which script of which package, with what.

    `unit_same` says that systemd's helper would find nothing to change for a unit; `arch` is the native architecture;
    `frontend` is debconf's; `activate` takes the names of triggers.
    """

    stage: Stage
    script: str
    arguments: tuple[str, ...]
    package: str
    old_version: str
    unit_same: Callable[[str, str], bool]
    arch: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)
    frontend: Frontend | None = None
    activate: Callable[[str], None] | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """One command: its name, its arguments as far as they are known, what it reads, and where its output goes.

    `folder` is where the script changed to, if that is known.
    """

    scene: Scene
    name: str
    arguments: list[str | None]
    source: Source
    output: Callable[[str | None], None]
    folder: str = ""

    @property
    def stage(self) -> Stage:
        """The tree as it is now."""
        return self.scene.stage

    def known(self) -> list[str] | None:
        """Return the arguments if all are known."""
        found = [argument for argument in self.arguments if argument is not None]
        return found if len(found) == len(self.arguments) else None

    def options(self, plain: str) -> tuple[str, list[str]] | None:
        """Split known arguments into the letters of their options and the operands; None for any other option.

        `plain` holds the letters that may be given, none of which takes a value.
        """
        words = self.known()
        if words is None:
            return None
        letters = ""
        while words and words[0].startswith("-") and words[0] != "-":
            word = words.pop(0)
            if word == "--":
                break
            word = LONG.get(word, word)
            if word.startswith("--") or not set(word[1:]) <= set(plain):
                return None
            letters += word[1:]
        return letters, words


Command = Callable[[Call], Verdict]

LONG: Mapping[str, str] = {
    "--force": "-f", "--recursive": "-r", "--parents": "-p", "--symbolic": "-s", "--no-dereference": "-n",
    "--verbose": "-v", "--archive": "-a", "--quiet": "-q", "--canonicalize": "-f", "--no-target-directory": "-T",
    "--reference": "--", "--ignore-fail-on-non-empty": "-i", "--silent": "-s", "--preserve": "-p",
}  # fmt: skip


def placed(path: str, unseen: Sequence[str] = ("/proc/", "/sys/", "/dev/", "/run/")) -> bool:
    """Say whether a path of a script is an absolute one inside the image."""
    return path.startswith("/") and not f"{path}/".startswith(tuple(unseen))
