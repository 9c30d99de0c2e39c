"""The closure that may also remove packages: what the native tool's full upgrade would do, as far as that is certain.

Owns who gives way where two packages cannot be together, or one cannot be without another: what is in the way of an
upgrade is removed, with those that cannot be without it, unless one of them counts for more. Never removes what is
essential, held, excluded or not removable for another reason, nor anything where the native tool's choice hangs on
the order in which it looks at packages: then the upgrade stays, with the reason. Adds no essential package that the
image does not have. As in `closure`, the final state violates nothing that the image did not.

Algorithm (numbers in the code), in rounds, each with the whole state looked at anew:
1. a violation that a move or an addition can mend is mended so; a recommendation that is new or was met brings packages
   along, and keeps nothing back;
2. an upgrade that lacks something is sent back, and the closure starts again without it; what was removed is spared if
   it lacks that, and weighs as much as what the removal was for;
3. a package that a heavier upgrade must not be with is removed (weights: see `weigh`);
4. a staying package that must not be with an upgrade, or lacks what an upgrade or a removal took away, is removed where
   it weighs no more than the other, which stays otherwise;
5. of two upgrades that cannot be together the lighter one is sent back; neither is removed, nor anything for them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from proxy.engine.closure import Closure, Compare, Group, satisfies
from proxy.engine.family import Candidate, Constraint, Installed, Market
from proxy.engine.weights import weigh

HEAVIER = "it counts for more than what it would be removed for"
UNSURE = "nothing says for certain which of the two the native tool would remove"


@dataclass(frozen=True, slots=True)
class _Clash:
    """The package `owner` must not be with what `constraint` names, which `hit` is."""

    owner: str
    hit: str
    constraint: Constraint


@dataclass(frozen=True, slots=True)
class _Lack:
    """The package `key` lacks `group`."""

    key: str
    group: Group
    wished: bool = False  # recommended, not required


class Transition(Closure):
    """Finds what moves and what goes.

    Args:
        installed: every installed package.
        movable: the candidates that may move, wanted or not, by key.
        compare: the order of versions.
        stuck: why other packages with a candidate stay.
        market: what may be added, and what the sources have.
        kept: why packages (keys) are never removed.

    Attributes:
        removed: why each package goes, by key, after `solve`.
    """

    def __init__(  # noqa: PLR0917 - what a closure has, and two more
        self,
        installed: Sequence[Installed],
        movable: Mapping[str, Candidate],
        compare: Compare,
        stuck: Mapping[str, str],
        market: Market,
        kept: Mapping[str, str],
    ) -> None:
        super().__init__(installed, movable, compare, stuck, market)
        self._market = market
        self._kept = dict(kept)
        self._unsure = False  # something has several providers
        self._weights: dict[str, int] = {}
        self._causes: dict[str, str] = {}  # for whose sake each package goes

    def solve(self, wanted: set[str]) -> set[str]:
        """Return the keys that move; `removed` and `reasons` then say why others go, or were tried and do not move."""
        self.moved = set(wanted)
        while True:  # bounded: a round mends, removes or adds; what is sent back or spared stays so
            self._set_state()
            lacks, clashes = list(self._lacks()), list(self._clashes())
            if self._mend(lacks, clashes):  # (1)
                continue
            required = [lack for lack in lacks if not lack.wished]
            back = self._outweighed(required) or self._hopeless(required)  # (2)
            if not back and (required or clashes):
                back = self._give_way(required, clashes)
            elif not back:
                return self.moved
            if back:
                self._send_back(back, wanted)

    def _set_state(self) -> None:
        super()._set_state()
        if self.removed:
            packages = {key: package for key, package in self.now.packages.items() if key not in self.removed}
            self.now = type(self.now)(packages)

    def _send_back(self, reasons: Mapping[str, str], wanted: set[str]) -> None:
        """Start again without these; those that are installed and do not move are never removed from now on."""
        for key, reason in reasons.items():
            if key in self.moved:
                self.reasons.setdefault(key, reason)
            else:
                self._kept.setdefault(key, reason)
        self.moved, self.removed = wanted - self.reasons.keys(), {}

    def _lacks(self) -> Iterator[_Lack]:
        for key, package in self.now.packages.items():
            for group in package.requires:
                if self._met(group, package, self.now):
                    continue
                before = self._met(group, package, self.start)
                if before if key not in self.moved else not self._was_unmet(key, group):
                    yield _Lack(key, group)
            for group in package.recommends if key in self.moved else ():
                if not self._met(group, package, self.now) and self._is_wished(key, group):
                    yield _Lack(key, group, wished=True)

    def _is_wished(self, key: str, group: Group) -> bool:
        """Say whether a recommendation is new, or the old version's was met."""
        before = self.start.packages.get(key)
        if before is None:
            return True
        names = {one.name for one in group}
        old = [known for known in before.recommends if names & {one.name for one in known}]
        return not old or any(self._met(known, before, self.start) for known in old)

    def _clashes(self) -> Iterator[_Clash]:
        for owner, hit, constraint in self._hits(self.now):
            if (owner, hit) not in self._hit_before:
                yield _Clash(owner, hit, constraint)

    def _mend(self, lacks: Sequence[_Lack], clashes: Sequence[_Clash]) -> bool:
        """Move or add what mends violations; say whether there was any."""
        for lack in lacks:
            package = self.now.packages[lack.key]
            helpers = self._helpers(lack.group, package)
            if lack.key not in self.moved:  # nothing is added for what stays
                helpers = (*filter(self.start.packages.get, helpers), *filter(self._may_move, (lack.key,)))
            if helpers:
                self.moved.add(helpers[0])
                return True
            names = [one.name for one in lack.group]
            self._unsure = self._unsure or (lack.key in self.moved and any(map(self._market.several, names)))
        free = [key for clash in clashes for key in (clash.hit, clash.owner) if self._mends(key, clash)]
        free += [key for item in self._parted() for key in item.helpers]
        self.moved.update(free[:1])
        return bool(free)

    def _may_move(self, key: str) -> bool:
        return key in self.start.packages and self._free(key)

    def _mends(self, key: str, clash: _Clash) -> bool:
        """Say whether one side of a clash may move, and its candidate can be with the other."""
        if not self._may_move(key):
            return False
        package = self.movable[key].package
        if key == clash.owner:
            other = self.now.packages[clash.hit]
            return not any(satisfies(other, one, package, self.compare) for one in package.conflicts)
        return not satisfies(package, clash.constraint, self.now.packages[clash.owner], self.compare)

    def _hopeless(self, lacks: Sequence[_Lack]) -> dict[str, str]:
        """Return the upgrades that lack something: first what the image does not have either, then what others took."""
        moving = [lack for lack in lacks if lack.key in self.moved]
        first = [lack for lack in moving if not self._met(lack.group, self.now.packages[lack.key], self.start)]
        back = {item.culprit: item.reason for item in self._parted()}
        for lack in first or moving[:1]:
            package = self.now.packages[lack.key]
            back.setdefault(lack.key, f"{_needs(lack)}: {self._why_lacking(lack.group, package)}")
            self._lacking |= {lack.key} - self.start.packages.keys()
        return back

    def _outweighed(self, lacks: Sequence[_Lack]) -> dict[str, str]:
        """Return what was removed too soon: an upgrade needs it that weighs as much."""
        for lack in lacks:
            package = self.now.packages[lack.key]
            gone = [key for one in lack.group for key in self.start.holders(one, package, self.compare)]
            for key in gone if lack.key in self.moved else ():
                if key in self.removed and self._weight(lack.key) >= self._weight(key):
                    return {key: f"{package.name} {package.version} moves and needs it"}
        return {}

    def _give_way(self, lacks: Sequence[_Lack], clashes: Sequence[_Clash]) -> dict[str, str]:
        """Remove what is in the way; return what must not be taken away instead, with the reasons."""
        ahead = [clash for clash in clashes if clash.owner in self.moved and self._is_in_the_way(clash)]
        if ahead:  # (3)
            return self._clear(max(ahead, key=lambda clash: self._weight(clash.owner)))
        against = next((clash for clash in clashes if clash.owner not in self.moved), None)
        if against is not None and against.hit in self.start.packages:  # (4)
            return self._weigh(against.owner, against.hit, f"must not be with {against.constraint}")
        if against is not None:
            owner = self.now.packages[against.owner]
            return {against.hit: f"{owner.name} {owner.version} must not be with {against.constraint} and stays"}
        for lack in lacks[:1]:
            package = self.now.packages[lack.key]
            taken = [key for one in lack.group for key in self.start.holders(one, package, self.compare)]
            taken = [key for key in taken if key in self.moved or key in self.removed]
            if self._helpers(lack.group, package):  # the native tool sometimes adds it, and sometimes removes
                return {taken[0]: f"{lack.key} {_needs(lack)} and stays ({UNSURE})"}
            return self._weigh(lack.key, taken[0], _needs(lack))
        return self._part(clashes[0])

    def _clear(self, clash: _Clash) -> dict[str, str]:
        """(3) Remove what is in the way of an upgrade, or say that it cannot be."""
        owner, hit = self.now.packages[clash.owner], self.now.packages[clash.hit]
        text = f"{owner.name} {owner.version} must not be with {clash.constraint}"
        why = self._why_not(clash.hit, clash.owner)
        if clash.hit in self.movable and clash.owner not in self.start.packages:  # that move itself may need the other
            why = why or UNSURE
        if not why and self._weight(clash.owner) > self._weight(clash.hit):
            self._remove(clash.hit, clash.owner, text)
            return {}
        self._clashed |= {clash.hit} if clash.hit in self.moved else set()
        return {clash.owner: f"must not be with {clash.constraint}: {hit.name} {hit.version} stays ({why or HEAVIER})"}

    def _why_not(self, key: str, cause: str) -> str:
        """Return why a package must not be removed for another one's sake, or nothing."""
        unsure = self._unsure or bool(self._clashed & {key, cause}) or self._is_lent(key)
        return self._kept.get(key) or (UNSURE if unsure else "")

    def _is_lent(self, key: str) -> bool:
        """Say whether packages that are added give a package weight: how much they weigh themselves is not known."""
        package = self.start.packages[key]
        return any(
            satisfies(package, one, added, self.compare)
            for name, added in self.now.packages.items()
            if name not in self.start.packages
            for group in (*added.requires, *added.recommends)
            for one in group
        )

    def _remove(self, key: str, cause: str, reason: str) -> None:
        self.removed[key], self._causes[key] = reason, cause
        self.moved.discard(key)

    def _free(self, key: str) -> bool:
        return super()._free(key) and key not in self.removed

    def _weigh(self, key: str, other: str, reason: str) -> dict[str, str]:
        """Remove a staying package, or say that the other one must stay."""
        why = self._why_not(key, other)
        weight, own = self._weight(key), self._weights.get(other, 0)
        if not why and weight == self._weight(other) != own:
            why = UNSURE  # of equal ones that pull at a third, the one that is looked at first gets its way
        if not why and weight <= self._weight(other):
            package = self.now.packages.get(other) or self.start.packages[other]
            does = "moves" if other in self.moved else "is removed"
            self._remove(key, other, f"{reason}: {package.name} {package.version} {does}")
            return {}
        return {other: f"{key} {reason} and stays ({why or HEAVIER})"}

    def _is_in_the_way(self, clash: _Clash) -> bool:
        """Say whether the installed version is what an upgrade must not be with, whatever its candidate would do."""
        if clash.hit not in self.start.packages:
            return False
        old, owner = self.start.packages[clash.hit], self.now.packages[clash.owner]
        return clash.hit not in self.moved or satisfies(old, clash.constraint, replace(owner, arch=""), self.compare)

    def _part(self, clash: _Clash) -> dict[str, str]:
        """(5) Choose which of two that move is sent back."""
        lighter = clash.owner if self._weight(clash.owner) <= self._weight(clash.hit) else clash.hit
        other = clash.hit if lighter == clash.owner else clash.owner
        owner, package = self.now.packages[clash.owner], self.now.packages[other]
        self._clashed |= {clash.owner, clash.hit}
        return {lighter: f"{owner.name} {owner.version} must not be with {clash.constraint}: {package.name} moves too"}

    def _weight(self, key: str) -> int:
        """Return what a package weighs; one that goes, at least what that weighs which it goes for."""
        if not self._weights:
            self._weights = weigh(self.start.packages, self.now, self._market.offers, self.compare)
        weight, seen = self._weights.get(key, 0), {key}
        while (key := self._causes.get(key, "") if key in self.removed else "") and key not in seen:
            seen.add(key)
            weight = max(weight, self._weights.get(key, 0))
        return weight


def _needs(lack: _Lack) -> str:
    return "needs " + " | ".join(str(one) for one in lack.group)
