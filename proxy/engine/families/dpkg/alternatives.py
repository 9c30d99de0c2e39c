"""What `update-alternatives` leaves behind: link groups, their administrative files and their links.

Owns doing to a stage what the program does when a maintainer script calls it. The log is not
written. Where the program would end with an error nothing is changed, and the result is False. Refuses other folders
than the usual ones, and questions to a person.
Specification: update-alternatives(1)

1. the group is read; choices whose file is gone are dropped
2. a link that somebody changed makes the group manual, a lost or dangling one automatic
3. the action changes the group and says which choice is wanted now
4. links are made again for a new choice, or for the present one if something about them is broken
5. the file is written if anything changed: slaves and choices sorted, slaves that no choice has left out
"""

from collections.abc import Sequence

from proxy.engine.families.dpkg.findings import NotReproduced
from proxy.engine.families.dpkg.linkgroups import ADMIN, Choice, Group, parse_group, render_group
from proxy.engine.stage import Misplaced, Stage
from proxy.engine.tar import Kind
from proxy.errors import MalformedInput

LINKS = "/etc/alternatives"

_ACTIONS = {"--install": 4, "--remove": 2, "--set": 2, "--auto": 1, "--remove-all": 1, "--list": 1, "--query": 1}
_READS = frozenset({"--list", "--query", "--display", "--get-selections"})
_IGNORED = frozenset({"--quiet", "--verbose", "--skip-auto"})


class _Fails(Exception):
    """The program would end with an error before it changes anything."""


def run_update_alternatives(stage: Stage, arguments: Sequence[str]) -> bool:
    """Do to `stage` what update-alternatives would do; False where it would fail.

    Raises:
        NotReproduced: an action or option that is not known here.
    """
    action, words, slaves, force = _parse(arguments)
    if action in _READS:
        return action == "--get-selections" or _load(stage, words[0])[0] is not None
    try:
        return _Run(stage, force=force).run(action, words, slaves)
    except (_Fails, MalformedInput):
        return False
    except Misplaced as error:
        raise NotReproduced(f"update-alternatives {action} ends half-way ({error})") from error


def list_alternatives(stage: Stage, name: str) -> str:
    """Return what `--list` prints."""
    group, _ = _load(stage, name)
    return "".join(f"{choice.path}\n" for choice in group.choices) if group is not None else ""


def query_alternatives(stage: Stage, name: str) -> str:
    """Return what `--query` prints."""
    group, _ = _load(stage, name)
    if group is None:
        return ""
    there = stage.get(f"{LINKS}/{name}")
    current = there.target if there is not None and there.kind is Kind.SYMLINK else None
    best = group.best(current)
    lines = [f"Name: {name}", f"Link: {group.link}"]
    if group.slaves:
        lines += ["Slaves:", *(f" {slave} {link}" for slave, link in group.slaves.items())]
    lines += [f"Status: {'auto' if group.automatic else 'manual'}"]
    lines += [f"Best: {best.path}"] if best is not None else []
    lines += [f"Value: {current or 'none'}"]
    for choice in group.choices:
        lines += ["", f"Alternative: {choice.path}", f"Priority: {choice.priority}"]
        if group.slaves:
            lines += [
                "Slaves:",
                *(f" {slave} {choice.slaves[slave]}" for slave in group.slaves if slave in choice.slaves),
            ]
    return "".join(f"{line}\n" for line in lines)


def _parse(arguments: Sequence[str]) -> tuple[str, list[str], list[tuple[str, str, str]], bool]:
    words = list(arguments)
    action, operands = "", list[str]()
    slaves: list[tuple[str, str, str]] = []
    force = False
    while words:
        word = words.pop(0)
        if word in _IGNORED:
            continue
        if word == "--force":
            force = True
        elif word == "--slave" and action == "--install" and len(words) > 2:  # noqa: PLR2004 - link, name, path
            slaves.append((words.pop(0), words.pop(0), words.pop(0)))
        elif word in _ACTIONS and not action and len(words) >= _ACTIONS[word]:
            action = word
            operands, words = words[: _ACTIONS[word]], words[_ACTIONS[word] :]
        elif word == "--display" and not action and words:
            action, operands = word, [words.pop(0)]
        elif word == "--get-selections" and not action:
            action = word
        elif word == "--log" and words:
            words.pop(0)
        else:
            raise NotReproduced(f"update-alternatives {word}")
    if not action:
        raise NotReproduced("update-alternatives without an action")
    return action, operands, slaves, force


def _load(stage: Stage, name: str) -> tuple[Group | None, bool]:
    """Return a group with the choices that are still there, and whether others were dropped (1)."""
    data = stage.read(f"{ADMIN}/{name}")
    if not data:
        return None, False
    group = parse_group(data, name)
    there = [choice for choice in group.choices if _exists(stage, choice.path)]
    dropped = len(there) != len(group.choices)
    group.choices = there
    return group, dropped


class _Run:
    def __init__(self, stage: Stage, *, force: bool) -> None:
        self._stage, self._force = stage, force
        self._modified = False

    def run(self, action: str, words: list[str], slaves: list[tuple[str, str, str]]) -> bool:
        """Carry out one action."""
        name = words[1] if action == "--install" else words[0]
        if set(name) & set("/ \t"):
            raise _Fails
        new, choice = self._wanted(words, slaves) if action == "--install" else (None, None)
        if new is not None and choice is not None:
            self._check(new, choice)
        group, self._modified = _load(self._stage, name)
        if group is None and action != "--install":
            return action == "--remove"
        current = self._target(f"{LINKS}/{name}")
        if group is not None:
            self._select_mode(group, current)
        if group is not None and new is not None and choice is not None:
            self._evolve(group, new, current, choice)
        group = group or new
        if group is None:
            raise _Fails
        wanted = self._act(action, group, words, choice, current)
        self._update(group, current, wanted)
        return True

    def _wanted(self, words: list[str], slaves: list[tuple[str, str, str]]) -> tuple[Group, Choice]:
        link, name, path, priority = words
        if not priority.strip().lstrip("+-").isdigit() or link == path:
            raise _Fails
        group, choice = Group(name, link), Choice(path, int(priority))
        for slave_link, slave, file in slaves:
            taken = {link, *group.slaves.values()}
            if slave_link == file or slave in {name, *group.slaves} or slave_link in taken:
                raise _Fails
            group.slaves[slave] = slave_link
            if file:
                choice.slaves[slave] = file
        return group, choice

    def _check(self, new: Group, choice: Choice) -> None:
        """Refuse what mixes links or names of groups."""
        paths = (new.link, choice.path, *new.slaves.values(), *choice.slaves.values())
        names = (new.name, *new.slaves)
        absolute = all(path.startswith("/") for path in paths) and set(choice.slaves) == set(new.slaves)
        if not absolute or any(set(name) & set("/ \t") for name in names) or not _exists(self._stage, choice.path):
            raise _Fails
        for name in self._stage.listdir(ADMIN):
            if name.endswith(".dpkg-tmp"):
                continue
            try:
                other, _ = _load(self._stage, name)
            except MalformedInput:
                continue
            if other is None:
                continue
            links = {other.name: other.link, **other.slaves}
            if other.name == new.name:
                owned = {link: slave for slave, link in other.slaves.items()}
                if new.name in other.slaves or any(owned.get(link, n) != n for n, link in new.slaves.items()):
                    raise _Fails
            elif set(links) & set(names) or set(links.values()) & {new.link, *new.slaves.values()}:
                raise _Fails

    def _select_mode(self, group: Group, current: str | None) -> None:
        """Apply step 2."""
        if current is None:
            self._set_mode(group, automatic=True)
        elif group.choice(current) is None:
            self._set_mode(group, automatic=not _exists(self._stage, current))

    def _set_mode(self, group: Group, *, automatic: bool) -> None:
        self._modified |= group.automatic != automatic
        group.automatic = automatic

    def _act(
        self, action: str, group: Group, words: list[str], choice: Choice | None, current: str | None
    ) -> str | None:
        """Apply step 3: return the choice that is wanted, if any."""
        best = group.best(current)
        match action:
            case "--set":
                if group.choice(words[1]) is None:
                    raise _Fails
                self._set_mode(group, automatic=False)
                return words[1]
            case "--auto":
                self._set_mode(group, automatic=True)
            case "--remove-all":
                self._modified |= bool(group.choices)
                group.choices = []
                return None
            case "--remove":
                self._modified |= group.choice(words[1]) is not None
                group.choices = [other for other in group.choices if other.path != words[1]]
                if current != words[1]:
                    return None
                self._set_mode(group, automatic=True)
                best = group.best(current)
            case _:
                if choice is None:
                    raise _Fails
                paths = [other.path for other in group.choices]
                at = paths.index(choice.path) if choice.path in paths else len(paths)
                group.choices[at : at + 1] = [choice]
                self._modified = True
                if not group.automatic:
                    return None
                best = group.best(current)
        return best.path if best is not None else None

    def _evolve(self, group: Group, new: Group, current: str | None, choice: Choice) -> None:
        """Take over the links that a new installation names otherwise."""
        if group.link != new.link:
            if self._is_link(group.link):
                self._stage.rename(group.link, new.link)
            group.link, self._modified = new.link, True
        for name, link in new.slaves.items():
            old = group.slaves.get(name)
            if old is not None and old != link and self._is_link(old):
                file = choice.slaves.get(name) if current == choice.path else self._target(f"{LINKS}/{name}")
                if file is not None and _exists(self._stage, file):
                    self._stage.rename(old, link)
                else:
                    self._stage.remove(old)
            group.slaves[name] = link

    def _update(self, group: Group, current: str | None, wanted: str | None) -> None:
        """Apply steps 4 and 5."""
        if not group.choices:
            for name, link in ((group.name, group.link), *group.slaves.items()):
                if self._force or not self._is_other(link):
                    self._stage.remove(link)
                self._stage.remove(f"{LINKS}/{name}")
            self._stage.remove(f"{ADMIN}/{group.name}")
            return
        links: list[tuple[str, str]] = []
        if wanted is not None and wanted != current:
            links = self._links(group, wanted)
        elif self._is_broken(group, current):
            if current is not None and group.choice(current) is None and (best := group.best(current)) is not None:
                current = best.path
                self._set_mode(group, automatic=True)
            links = self._links(group, current) if current is not None else []
        if self._modified:
            self._stage.make_dir(ADMIN)
            self._stage.write(f"{ADMIN}/{group.name}", render_group(group))
        for path, target in links:
            if target:
                self._stage.symlink(target, path)
            else:
                self._stage.remove(path)

    def _links(self, group: Group, path: str) -> list[tuple[str, str]]:
        """Return the links of a choice in order, each with its target, or an empty one where it goes."""
        choice = group.choice(path)
        if choice is None:
            raise _Fails
        links: list[tuple[str, str]] = []
        files = {group.name: path, **{name: self._file(choice, name) for name in group.slaves}}
        for name, link in ((group.name, group.link), *group.slaves.items()):
            target = f"{LINKS}/{name}" if files[name] else ""
            if files[name]:
                links.append((f"{LINKS}/{name}", files[name]))
            if (self._force or not self._is_other(link)) and target != self._target(link):
                links.append((link, target))
            if not files[name]:
                links.append((f"{LINKS}/{name}", ""))
        return links

    def _is_broken(self, group: Group, current: str | None) -> bool:
        if self._target(group.link) != f"{LINKS}/{group.name}" or current is None:
            return True
        choice = group.choice(current)
        for name, link in group.slaves.items() if choice is not None else ():
            file = self._file(choice, name) if choice is not None else ""
            if file:
                if self._target(link) != f"{LINKS}/{name}" or self._target(f"{LINKS}/{name}") != file:
                    return True
            elif any(self._stage.get(path) is not None for path in (link, f"{LINKS}/{name}")):
                return True
        return False

    def _file(self, choice: Choice, name: str) -> str:
        """Return the file of a slave, or an empty text if it cannot be installed."""
        file = choice.slaves.get(name, "")
        return file if file and _exists(self._stage, file) else ""

    def _target(self, path: str) -> str | None:
        there = self._stage.get(path)
        return there.target if there is not None and there.kind is Kind.SYMLINK else None

    def _is_link(self, path: str) -> bool:
        return self._target(path) is not None

    def _is_other(self, path: str) -> bool:
        return self._stage.get(path) is not None and not self._is_link(path)


def _exists(stage: Stage, path: str) -> bool:
    return stage.follow(path) is not None
