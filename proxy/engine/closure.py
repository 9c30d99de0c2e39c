"""The closure of a set of moves: the largest part of it that violates nothing that held before.

Owns what "holds" means: requirements with alternatives, versions and provided names, conflicts, packages of several
architectures in step. Knows no policy and no package format; removes nothing, and adds only what
`addable` offers. The result is safe by construction: every requirement and conflict that the final state violates was
already violated by the image.

Algorithm (numbers in the code):
1. move everything that is wanted, then look for violations that the image did not have: a moved package's requirement,
   what it recommends if its old version had all of that, a staying package's requirement, a conflict, a package of
   several architectures whose versions part;
2. a violation that another package's candidate can mend pulls that candidate in, even if nobody asked for it (as the
   native tools do for a security-only upgrade); where none does, one that is not installed is added if it may be;
3. one that nothing can mend sends the package that causes it back, with a reason that names the blocker, and the
   closure starts again without it; conflicts between two moved packages wait until nothing else is left to send back;
4. stop when no violation is left. Each round sends a package back or pulls one in, so the rounds are bounded;
5. one that was sent back for the sake of another that was sent back too is tried once more at the end, unless the
   two were in conflict: the native tools let neither move.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from proxy.engine.family import Candidate, Constraint, Installed, Package

Compare = Callable[[str, str], int]
Group = tuple[Constraint, ...]
Addable = Callable[[str], Sequence[Candidate]]

MAX_RECONSIDERED = 256  # packages; each costs one look at the whole state

_ANY_ARCH = frozenset({"", "all", "noarch"})


@dataclass(frozen=True, slots=True)
class _Violation:
    """What is newly wrong: who could mend it by moving, who causes it, and the reason to give."""

    helpers: tuple[str, ...]
    culprit: str
    reason: str
    mutual: bool = False
    lacking: bool = False


@dataclass(slots=True)
class State:
    """Packages by key, found by their names and what they provide."""

    packages: dict[str, Package]
    names: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key, package in self.packages.items():
            for name in {package.name, *(provided.name for provided in package.provides)}:
                self.names.setdefault(name, []).append(key)

    def holders(self, constraint: Constraint, owner: Package, compare: Compare) -> Iterator[str]:
        """Yield the keys of the packages that satisfy `constraint` for `owner`."""
        for key in self.names.get(constraint.name, ()):
            if satisfies(self.packages[key], constraint, owner, compare):
                yield key


def satisfies(package: Package, constraint: Constraint, owner: Package, compare: Compare) -> bool:
    """Say whether `package` is what `constraint` of `owner` names; a provided name without version has none."""
    if not _same_arch(package, constraint, owner):
        return False
    if package.name == constraint.name and _holds(package.version, constraint, compare):
        return True
    for provided in package.provides:
        if provided.name == constraint.name and (
            not constraint.op or (provided.version and _holds(provided.version, constraint, compare))
        ):
            return True
    return False


def _same_arch(package: Package, constraint: Constraint, owner: Package) -> bool:
    """Say whether a package of another architecture counts: it does where one side has none, or where it says so."""
    if constraint.arch not in {"", "any", "native"}:
        return package.arch in {constraint.arch, *_ANY_ARCH}
    if package.arch == owner.arch or package.arch in _ANY_ARCH or owner.arch in _ANY_ARCH:
        return True
    return constraint.arch == "any" or package.fields.get("Multi-Arch") == "foreign"


def _holds(version: str, constraint: Constraint, compare: Compare) -> bool:
    if not constraint.op:
        return True
    order = compare(version, constraint.version)
    return {"<": order < 0, "<=": order <= 0, "=": order == 0, ">=": order >= 0, ">": order > 0}[constraint.op]


class Closure:
    """Finds the largest set of moves that violates nothing that held before.

    Args:
        installed: every installed package.
        movable: the candidates that may move, wanted or not, by key.
        compare: the order of versions.
        stuck: why other packages with a candidate stay.
        addable: the candidates of packages that are not installed and have or provide a name, the preferred one first;
            None where nothing is added.
    """

    def __init__(
        self,
        installed: Sequence[Installed],
        movable: Mapping[str, Candidate],
        compare: Compare,
        stuck: Mapping[str, str],
        addable: Addable | None = None,
    ) -> None:
        self.start = State({item.key: item.package for item in installed})
        self.movable, self.compare, self.stuck = dict(movable), compare, stuck
        self._addable = addable
        self.reasons: dict[str, str] = {}
        self.moved: set[str] = set()
        self.removed: dict[str, str] = {}  # nothing here, see `Transition`
        self.now = self.start
        self._complete: dict[str, bool] = {}
        self._clashed: set[str] = set()
        self._lacking: set[str] = set()  # additions sent back for what they need: the next alternative may do
        self.offers: dict[str, list[str]] = {}
        for key in sorted(movable):
            package = movable[key].package
            for name in {package.name, *(provided.name for provided in package.provides)}:
                self.offers.setdefault(name, []).append(key)
        self._hit_before = {(owner, hit) for owner, hit, _ in self._hits(self.start)}

    def solve(self, wanted: set[str]) -> set[str]:
        """Return the keys that move; `reasons` then says why each of the others that were tried does not."""
        self.moved = set(wanted)
        while True:  # (4) bounded: see the module docstring
            self._set_state()
            violations = list(self._violations())
            if not violations:
                if self._addable is None:
                    self._reconsider()
                return self.moved
            hopeless = [v for v in violations if not v.helpers]
            hopeless = [v for v in hopeless if not v.mutual] or hopeless[:1]
            if hopeless:  # (3)
                for violation in hopeless:
                    self.reasons.setdefault(violation.culprit, violation.reason)
                    if violation.lacking and violation.culprit not in self.start.packages:
                        self._lacking.add(violation.culprit)
                    self._clashed |= {violation.culprit} if violation.mutual else set()
                self.moved = wanted - self.reasons.keys()
            else:  # (2)
                for violation in violations:
                    if not self.moved.intersection(violation.helpers):
                        self.moved.add(violation.helpers[0])
                        if violation.helpers[0] not in self.start.packages:
                            break  # what is added for one may do for the next

    def _reconsider(self) -> None:
        """(5) Let those move after all that were sent back for what another one's move would have done."""
        for key in sorted((self.reasons.keys() & self.start.packages.keys()) - self._clashed)[:MAX_RECONSIDERED]:
            self.moved.add(key)
            self._set_state()
            if next(self._violations(), None) is None:
                del self.reasons[key]
            else:
                self.moved.discard(key)
        self._set_state()

    def _set_state(self) -> None:
        packages = {
            key: self.movable[key].package if key in self.moved else package
            for key, package in self.start.packages.items()
        }
        packages |= {key: self.movable[key].package for key in sorted(self.moved - packages.keys())}
        self.now = State(packages)

    def _violations(self) -> Iterator[_Violation]:
        """(1) Yield what the final state violates and the image did not."""
        for key, package in self.now.packages.items():
            for group in package.requires:
                if self._met(group, package, self.now):
                    continue
                if key in self.moved and not self._was_unmet(key, group):
                    yield self._moved_lacks(key, group)
                elif key not in self.moved and self._met(group, package, self.start):
                    yield self._staying_lacks(key, group)
            for group in package.recommends if key in self.moved and self._had_all(key) else ():
                if not self._met(group, package, self.now):
                    yield self._moved_lacks(key, group, "recommends")
        for owner, hit, constraint in self._hits(self.now):
            if (owner, hit) not in self._hit_before:
                yield self._conflict(owner, hit, constraint)
        yield from self._parted()

    def _met(self, group: Group, owner: Package, state: State) -> bool:
        return any(next(state.holders(one, owner, self.compare), None) is not None for one in group)

    def _was_unmet(self, key: str, group: Group) -> bool:
        """Say whether the old version already lacked this: distroless images leave packages out on purpose."""
        if key not in self.start.packages:
            return False
        before = self.start.packages[key]
        names = {one.name for one in group}
        return any(
            names.intersection(one.name for one in old) and not self._met(old, before, self.start)
            for old in before.requires
        )

    def _had_all(self, key: str) -> bool:
        """Say whether the old version had all that it requires and recommends."""
        if key not in self.start.packages:
            return True
        if key not in self._complete:
            before = self.start.packages[key]
            groups = (*before.requires, *before.recommends)
            self._complete[key] = all(self._met(group, before, self.start) for group in groups)
        return self._complete[key]

    def _hits(self, state: State) -> Iterator[tuple[str, str, Constraint]]:
        """Yield (owner, hit, constraint) for every conflict of the state; no package conflicts with its own name."""
        for key, package in state.packages.items():
            if not package.conflicts:
                continue
            anywhere = replace(package, arch="")  # a conflict counts for every architecture
            for constraint in package.conflicts:
                for hit in state.holders(constraint, anywhere, self.compare):
                    if state.packages[hit].name != package.name:
                        yield key, hit, constraint

    def _free(self, key: str) -> bool:
        return key in self.movable and key not in self.moved and key not in self.reasons

    def _helpers(self, group: Group, owner: Package) -> tuple[str, ...]:
        """(2) Return unmoved packages whose candidate satisfies the group, in the order of its alternatives."""
        found = tuple(
            key
            for one in group
            for key in self.offers.get(one.name, ())
            if key in self.start.packages and self._free(key)
            if satisfies(self.movable[key].package, one, owner, self.compare)
        )
        if found:
            return found
        fitting = (key for one in group for key in self._additions(one, owner))
        chosen = next((key for key in fitting if key not in self._lacking), "")
        return (chosen,) if chosen and self._free(chosen) else ()

    def _additions(self, one: Constraint, owner: Package) -> Iterator[str]:
        """Yield the keys of packages that may be added and satisfy a constraint."""
        for candidate in self._addable(one.name) if self._addable is not None else ():
            key = candidate.package.name
            if key in self.start.packages or key in self.stuck or candidate.blocked:
                continue
            self.movable.setdefault(key, candidate)
            if satisfies(candidate.package, one, owner, self.compare):
                yield key

    def _moved_lacks(self, key: str, group: Group, verb: str = "needs") -> _Violation:
        package = self.now.packages[key]
        text = " | ".join(str(one) for one in group)
        reason = f"{verb} {text}: {self._why_lacking(group, package)}"
        return _Violation(self._helpers(group, package), key, reason, lacking=verb == "needs")

    def _why_lacking(self, group: Group, owner: Package) -> str:
        """Return what the image has and the sources offer of the first alternative that the image has at all."""
        for one in group:
            for key in self.start.names.get(one.name, ()):
                has = f"the image has {one.name} {self.start.packages[key].version}"
                blocker = self.reasons.get(key) or self.stuck.get(key)
                if blocker:
                    return f"{has}, which stays ({blocker})"
                offered = self.movable.get(key)
                if offered is None:
                    return f"{has} and the sources offer none newer"
                if satisfies(offered.package, one, owner, self.compare):
                    return f"{has}, which leaves it with its upgrade to {offered.package.version}"
                return f"{has} and the sources offer {offered.package.version}"
        return self._why_not_added(group, owner)

    def _why_not_added(self, group: Group, owner: Package) -> str:
        """Return why none of the alternatives, of which the image has none, can be added."""
        if self._addable is None:
            return "the image does not have it, and nothing is added"
        for one in group:
            for candidate in self._addable(one.name):
                name, version = candidate.package.name, candidate.package.version
                why = candidate.blocked or self.stuck.get(name) or self.reasons.get(name)
                if why:
                    return f"{name} {version} cannot be added ({why})"
                if not satisfies(candidate.package, one, owner, self.compare):
                    return f"the image does not have it and the sources offer {name} {version}"
        return "neither the image nor the sources have it"

    def _staying_lacks(self, key: str, group: Group) -> _Violation:
        package = self.now.packages[key]
        before = {k for one in group for k in self.start.holders(one, package, self.compare)}
        text = " | ".join(str(one) for one in group)
        reason = f"{package.name} {package.version} needs {text} and stays ({self._why_staying(key)})"
        helpers = self._helpers(group, package) + ((key,) if self._free(key) else ())
        return _Violation(helpers, min(before & self.moved), reason)

    def _why_staying(self, key: str) -> str:
        return self.reasons.get(key) or self.stuck.get(key) or "the sources offer none newer"

    def _conflict(self, owner: str, hit: str, constraint: Constraint) -> _Violation:
        first, second = self.now.packages[owner], self.now.packages[hit]
        if owner in self.moved:
            culprit, other = owner, hit
            reason = f"must not be with {constraint}: {second.name} {second.version}"
        else:
            culprit, other = hit, owner
            reason = f"{first.name} {first.version} must not be with {constraint} and"
        mutual = other in self.moved
        if mutual and self._addable is not None:  # the native tool then lets go of what is in the way first
            culprit, other = hit, owner
            reason = f"{first.name} {first.version} must not be with {constraint} and"
        reason += " moves too" if mutual else f" stays ({self._why_staying(other)})"
        return _Violation((other,) if self._free(other) else (), culprit, reason, mutual)

    def _parted(self) -> Iterator[_Violation]:
        """Yield packages of one name for several architectures that had one version and no longer do."""
        for key in sorted(self.moved):
            if key not in self.start.packages:
                continue
            mine, old = self.now.packages[key], self.start.packages[key]
            for other in self.start.names.get(mine.name, ()):
                then, now = self.start.packages[other], self.now.packages[other]
                if (
                    then.name == old.name
                    and (then.arch, then.version) != (old.arch, old.version)
                    and (then.version == old.version and now.version != mine.version)
                ):
                    reason = f"must have the version of {other}, which stays ({self._why_staying(other)})"
                    fits = self._free(other) and self.movable[other].package.version == mine.version
                    yield _Violation((other,) if fits else (), key, reason)
