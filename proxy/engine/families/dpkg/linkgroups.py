"""The administrative files of `update-alternatives`: one link group each.

Owns the nouns of a link group, and reading and writing `/var/lib/dpkg/alternatives/NAME`.
Format: update-alternatives(1) FILES: status and master link; names and links of slaves, then an empty line; for each
choice its path, its priority and one line per slave, then an empty line
"""

from dataclasses import dataclass, field

from proxy.errors import MalformedInput

ADMIN = "/var/lib/dpkg/alternatives"


@dataclass(slots=True)
class Choice:
    """One file that may provide the group: its priority and the files of its slaves, by slave name."""

    path: str
    priority: int
    slaves: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Group:
    """A link group: the master's name and link, slaves' links by name, choices in their order."""

    name: str
    link: str
    automatic: bool = True
    slaves: dict[str, str] = field(default_factory=dict)
    choices: list[Choice] = field(default_factory=list)

    def choice(self, path: str | None) -> Choice | None:
        """Return the choice of that path."""
        return next((choice for choice in self.choices if choice.path == path), None)

    def best(self, current: str | None) -> Choice | None:
        """Return the choice with the highest priority; of several the current one, else the first."""
        first = self.choice(current)
        choices = self.choices if first is None else [first, *self.choices]
        return max(choices, key=lambda choice: choice.priority, default=None)


def parse_group(data: bytes, name: str) -> Group:
    """Parse an administrative file; raises MalformedInput as the program would call it corrupt."""
    lines = data.decode("utf-8", "surrogateescape").split("\n")[:-1]
    lines.reverse()

    def line(what: str) -> str:
        if not lines:
            raise MalformedInput(f"it ends where {what} should be", file=f"{ADMIN}/{name}")
        return lines.pop()

    status = line("the status")
    if status not in {"auto", "manual"}:
        raise MalformedInput("its status is neither auto nor manual", file=f"{ADMIN}/{name}", text=status)
    group = Group(name, line("the link"), status == "auto")
    while slave := line("a slave's name"):
        link = line("a slave's link")
        if slave in group.slaves or link in {group.link, *group.slaves.values()}:
            raise MalformedInput("a slave that is there twice", file=f"{ADMIN}/{name}", text=slave)
        group.slaves[slave] = link
    while path := line("a path"):
        priority = line("a priority").strip()
        if group.choice(path) is not None or not priority.lstrip("+-").isdigit():
            raise MalformedInput("a path that is there twice, or no priority", file=f"{ADMIN}/{name}", text=path)
        files = {slave: file for slave in group.slaves if (file := line("a slave's file"))}
        group.choices.append(Choice(path, int(priority), files))
    return group


def render_group(group: Group) -> bytes:
    """Write an administrative file; sorts the group and drops slaves that no choice has, as the program does (5)."""
    used = {name for choice in group.choices for name in choice.slaves}
    group.slaves = {name: group.slaves[name] for name in sorted(group.slaves, key=_bytes) if name in used}
    group.choices.sort(key=lambda choice: _bytes(choice.path))
    lines = ["auto" if group.automatic else "manual", group.link]
    for name, link in group.slaves.items():
        lines += (name, link)
    lines.append("")
    for choice in group.choices:
        lines += (choice.path, str(choice.priority), *(choice.slaves.get(name, "") for name in group.slaves))
    lines.append("")
    return _bytes("".join(f"{line}\n" for line in lines))


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
