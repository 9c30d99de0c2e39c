"""Triggers: who is interested in what, who activates it, and which packages are to be told at the end of an upgrade.

Owns the files in `/var/lib/dpkg/triggers`: an upgrade takes a package's interests out and appends its new ones, in the
order of its control file. What a package does when it is told is in its postinst.
Specification: deb-triggers(5), /usr/share/doc/dpkg/spec/triggers.txt
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from proxy.engine.families.dpkg.database import ADMIN
from proxy.engine.stage import Stage

TRIGGERS = f"{ADMIN}/triggers"
FILES = f"{TRIGGERS}/File"


class Triggers:
    """The triggers of one upgrade, on the stage where it happens."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._pending: dict[str, dict[str, set[str]]] = {}  # by package: names, and who activated each

    @property
    def pending(self) -> Mapping[str, Mapping[str, set[str]]]:
        """Return for every package that is to be told the names, each with the packages that activated it."""
        return self._pending

    def done(self, package: str) -> None:
        """Forget what a package was to be told: it was."""
        self._pending.pop(package, None)

    def unpack(self, package: "Interested", old: bytes, new: bytes, paths: Iterable[str]) -> None:
        """Do what unpacking or removing a package does: its interests change, and its paths and directives activate.

        Args:
            package: the package.
            old: the control file `triggers` of the version before.
            new: that of the new version.
            paths: every path of both versions.
        """
        before, after = list(_directives(old)), list(_directives(new))
        for name in dict.fromkeys(name for directive, name in before if directive.startswith("interest")):
            self._change(name, package, None)
        for directive, name in after:
            if directive.startswith("interest"):
                wait = "/noawait" if directive.endswith("-noawait") else ""
                self._change(name, package, f"{package.shown}{wait}")
        others = [(path, name) for path, name in self._files() if name not in package.names]
        touched = [f"/{path}/" for path in paths] if others else []
        for path, name in others:
            if any(found.startswith(f"{path}/") for found in touched):
                self._note(name, path, package.key)
        for directive, name in dict.fromkeys(before + after):
            if directive.startswith("activate"):
                self.activate(name, package.key)

    def activate(self, name: str, by: str) -> None:
        """Activate a trigger by its name, or that of a path."""
        if name.startswith("/"):
            for path, package in self._files():
                if f"{name}/".startswith(f"{path}/"):
                    self._note(package, path, by)
            return
        data = self._stage.read(f"{TRIGGERS}/{name}") if "/" not in name else None
        for line in (data or b"").decode("utf-8", "replace").split():
            self._note(line.partition("/")[0], name, by)

    def _note(self, package: str, name: str, by: str) -> None:
        self._pending.setdefault(package, {}).setdefault(name, set()).add(by)

    def _files(self) -> Iterator[tuple[str, str]]:
        for line in (self._stage.read(FILES) or b"").decode("utf-8", "surrogateescape").split("\n"):
            path, _, package = line.rpartition(" ")
            if path:
                yield path, package.partition("/")[0]

    def _change(self, name: str, package: "Interested", line: str | None) -> None:
        """Take the interest of a package out of the trigger's file, and append the new one if there is one."""
        path = FILES if name.startswith("/") else f"{TRIGGERS}/{name}"
        start = f"{name} " if name.startswith("/") else ""
        lines = (self._stage.read(path) or b"").decode("utf-8", "surrogateescape").splitlines()
        own = {f"{start}{known}" for known in package.names}
        kept = [found for found in lines if found.removesuffix("/noawait") not in own]
        kept += [f"{start}{line}"] if line is not None else []
        if kept:
            self._stage.write(path, "".join(f"{found}\n" for found in kept).encode("utf-8", "surrogateescape"))
        elif self._stage.get(path) is not None:
            self._stage.remove(path)


@dataclass(frozen=True, slots=True)
class Interested:
    """A package: its key in the database, its architecture, and whether several of it can be installed."""

    key: str
    arch: str
    same: bool

    @property
    def shown(self) -> str:
        """Return how dpkg names it: with the architecture where the name alone could mean several."""
        return f"{self.key}:{self.arch}" if self.same and ":" not in self.key else self.key

    @property
    def names(self) -> frozenset[str]:
        """Return all names that it may have in the files."""
        return frozenset({self.key, f"{self.key.partition(':')[0]}:{self.arch}"})


def _directives(data: bytes) -> Iterator[tuple[str, str]]:
    for line in data.decode("utf-8", "replace").split("\n"):
        words = line.partition("#")[0].split()
        if len(words) == 2:  # noqa: PLR2004 - directive and name
            yield words[0], words[1]
