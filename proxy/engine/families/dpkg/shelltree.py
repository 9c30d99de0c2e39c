"""The nouns of a parsed shell script: commands and what holds them together. Values only.

Specification: POSIX.1-2017 Shell Command Language 2.9
"""

from dataclasses import dataclass

from proxy.engine.families.dpkg.shelltokens import Redirection


@dataclass(frozen=True, slots=True)
class Command:
    """A simple command: words as written (quotes kept), and its redirections."""

    line: int
    words: tuple[str, ...]
    redirections: tuple[Redirection, ...] = ()


@dataclass(frozen=True, slots=True)
class Chain:
    """Commands joined by ``&&`` and ``||``: each later one with its operator."""

    line: int
    first: "Node"
    rest: tuple[tuple[str, "Node"], ...]


@dataclass(frozen=True, slots=True)
class Pipe:
    """Commands joined by ``|``, one of them at least; `negated` says that ``!`` stands before them."""

    line: int
    nodes: tuple["Node", ...]
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Background:
    """Commands that run beside what follows them."""

    line: int
    node: "Node"


@dataclass(frozen=True, slots=True)
class If:
    """Branches in order, each a condition and a body; an else branch has the condition ``()``."""

    line: int
    branches: tuple[tuple[tuple["Node", ...], tuple["Node", ...]], ...]


@dataclass(frozen=True, slots=True)
class Case:
    """A word and its branches: patterns and body."""

    line: int
    word: str
    branches: tuple[tuple[tuple[str, ...], tuple["Node", ...]], ...]


@dataclass(frozen=True, slots=True)
class Function:
    """A function that was defined."""

    line: int
    name: str
    body: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Group:
    """Commands between braces, or between parentheses (`alone`: what they set is forgotten after them)."""

    line: int
    body: tuple["Node", ...]
    alone: bool = False


@dataclass(frozen=True, slots=True)
class For:
    """A for loop: its variable, its words as written, its body."""

    line: int
    name: str
    words: tuple[str, ...]
    body: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class While:
    """A while loop, or one until its condition is true: condition and body."""

    line: int
    condition: tuple["Node", ...]
    body: tuple["Node", ...]
    until: bool = False


@dataclass(frozen=True, slots=True)
class Redirected:
    """A compound command with redirections of its own."""

    line: int
    node: "Node"
    redirections: tuple[Redirection, ...]


Node = Command | Chain | Background | Pipe | If | Case | Function | Group | For | While | Redirected
