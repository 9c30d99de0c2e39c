"""dpkg's path filters: what slim images leave out of every package (`path-exclude`, `path-include`).

Owns reading them from dpkg's configuration and the decision per path. Refuses patterns with a backslash, which C's
fnmatch and Python's take differently.
Format: dpkg(1), `--path-exclude` and dpkg.cfg(5)
"""

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase

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
        return re.split(r"[*?\[]", self.pattern, maxsplit=1)[0].rstrip("/")


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
            if fnmatchcase(name, rule.pattern):
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
            if "\\" in pattern or len(found) >= MAX_FILTERS:
                raise MalformedInput("a path filter with a backslash, or too many", file=name, line=number, text=line)
            found.append(Filter(pattern, match[1] == "path-include"))
    return Filters(tuple(found))
