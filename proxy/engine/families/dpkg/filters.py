"""dpkg's path filters: what slim images leave out of every package (`path-exclude`, `path-include`).

Owns reading them from dpkg's configuration and the decision per path.
Format: dpkg(1), `--path-exclude` and dpkg.cfg(5); patterns are those of fnmatch(3) without flags, POSIX.1-2017 2.13
"""

import re
from dataclasses import dataclass
from functools import lru_cache

from proxy.engine.rootfs import RootFS
from proxy.engine.tar import Kind
from proxy.errors import MalformedInput

MAX_FILTERS = 1_000
_CONFIG_NAME = re.compile(r"[A-Za-z0-9_-]+")
_OPTION = re.compile(r"\s*(path-(?:exclude|include))\s*[=\s]\s*(.*?)\s*")


@dataclass(frozen=True, slots=True)
class Filter:
    """One pattern: paths that match are left out, or taken all the same (`include`)."""

    pattern: str
    include: bool

    @property
    def stem(self) -> str:
        """The pattern up to its first wildcard, without trailing slashes."""
        return re.split(r"[*?\[\\]", self.pattern, maxsplit=1)[0].rstrip("/")


@dataclass(frozen=True, slots=True)
class Filters:
    """All patterns in the order in which dpkg reads them."""

    filters: tuple[Filter, ...] = ()

    def skips(self, path: str, kind: Kind) -> bool:
        """Say whether dpkg would leave `path` (without leading slash) out: the last match decides.

        Directories and links stay where a pattern may bring back something below them.
        """
        name, skip = f"/{path}", False
        for rule in self.filters:
            if translate_pattern(rule.pattern).match(name):
                skip = not rule.include
        if skip and kind in {Kind.DIR, Kind.SYMLINK}:
            return not any(rule.include and name.startswith(rule.stem) for rule in self.filters)
        return skip


def read_filters(fs: RootFS) -> Filters:
    """Read the filters of the image's own dpkg configuration."""
    names = ["etc/dpkg/dpkg.cfg"]
    names[:0] = [f"etc/dpkg/dpkg.cfg.d/{n}" for n in fs.listdir("etc/dpkg/dpkg.cfg.d") if _CONFIG_NAME.fullmatch(n)]
    found: list[Filter] = []
    for name in names:
        for number, line in enumerate((fs.read(name) or b"").decode("utf-8", "surrogateescape").split("\n"), 1):
            match = _OPTION.fullmatch(line)
            if match is None:
                continue
            pattern = match[2].strip('"')
            if len(found) >= MAX_FILTERS:
                raise MalformedInput(f"more than {MAX_FILTERS} path filters; refused", file=name, line=number)
            found.append(Filter(pattern, match[1] == "path-include"))
    return Filters(tuple(found))


@lru_cache(maxsize=MAX_FILTERS)
def translate_pattern(pattern: str) -> re.Pattern[str]:
    """Return what a pattern of fnmatch(3) matches: wildcards match slashes too, a backslash quotes what follows."""
    parts: list[str] = []  # between wildcards for any text, each is found where it comes first, and never again
    done: list[str] = []
    at = 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if char == "*":
            done.append("".join(parts))
            parts = []
        elif char == "?":
            parts.append(".")
        elif char == "[" and (found := _bracket(pattern, at)):
            text, at = found
            parts.append(text)
        elif char == "\\":
            if at == len(pattern):
                return re.compile("(?!)")  # a quote of nothing matches nothing
            parts.append(re.escape(pattern[at]))
            at += 1
        else:
            parts.append(re.escape(char))
    if not done:
        return re.compile("".join(parts) + r"\Z", re.DOTALL)
    middle = "".join(f"(?>.*?{part})" for part in done[1:] if part)
    return re.compile(f"{done[0]}{middle}.*{''.join(parts)}\\Z", re.DOTALL)


def _bracket(pattern: str, at: int) -> tuple[str, int] | None:
    """Translate a bracket expression that begins before `at`; None if it does not end, and is a mere ``[``."""
    negated = pattern[at : at + 1] in {"!", "^"}
    at += negated
    members: list[str] = []
    first = True
    while at < len(pattern):
        if pattern[at] == "]" and not first:
            inner = "".join(members)
            return (f"[{'^' if negated else ''}{inner}]" if inner else "(?!)", at + 1)
        first = False
        named = _CLASS.match(pattern, at)
        if named is not None:
            members.append(_CLASSES[named[1]])
            at = named.end()
            continue
        low, at = _member(pattern, at)
        high = low
        if pattern[at : at + 1] == "-" and pattern[at + 1 : at + 2] not in {"]", ""}:
            high, at = _member(pattern, at + 1)
        if low <= high:
            members.append(f"{re.escape(low)}-{re.escape(high)}")
    return None


def _member(pattern: str, at: int) -> tuple[str, int]:
    quoted = pattern[at] == "\\" and at + 1 < len(pattern)
    return pattern[at + quoted], at + quoted + 1


_CLASSES = {
    "alpha": "A-Za-z", "digit": "0-9", "alnum": "A-Za-z0-9", "upper": "A-Z", "lower": "a-z", "space": r" \t\n\r\f\v",
    "blank": r" \t", "punct": r"!-/:-@\[-`{-~", "xdigit": "0-9A-Fa-f", "print": " -~", "graph": "!-~",
    "cntrl": r"\x00-\x1f\x7f",
}  # fmt: skip
_CLASS = re.compile(r"\[:(" + "|".join(_CLASSES) + r"):\]")
