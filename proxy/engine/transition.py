"""The closure that may also remove packages: what the native tool's full upgrade would do, as far as that is certain.

Owns who gives way where two packages cannot be together, or one cannot be without another: what is in the way of an
upgrade is removed, with those that cannot be without it, unless it weighs more than what depends on it allows. Never
removes what is essential, held, excluded or not removable for another reason: then the upgrade stays, with the reason.
As in `closure`, the final state violates nothing that the image did not.

Algorithm (numbers in the code), in rounds, each with the whole state looked at anew:
1. a violation that a move or an addition can mend is mended so; a recommendation that is new or was met brings packages
   along, and keeps nothing back;
2. an upgrade that lacks something is sent back, and the closure starts again without it;
3. a package that an upgrade must not be with is removed;
4. a staying package that must not be with an upgrade, or lacks what an upgrade or a removal took away, is removed where
   it weighs no more than the other (see `weigh`), which stays otherwise;
5. of two upgrades that cannot be together the lighter one is sent back.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from proxy.engine.closure import Closure, Compare, Group, satisfies
from proxy.engine.family import Candidate, Constraint, Installed, Package
from proxy.engine.weights import weigh


class Market(Protocol):
    """What the sources offer."""

    def __call__(self, name: str, /) -> Sequence[Candidate]:
        """Return what may be added, see `Closure`."""

    def offers(self, package: Package) -> bool:
        """Say whether a source has this very version of a package."""

    def several(self, name: str) -> bool:
        """Say whether more than one package provides a name, and none is preferred."""


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
        self.removed: dict[str, str] = {}
        self._weights: dict[str, int] = {}
        self._causes: dict[str, str] = {}  # for whose sake each package goes

    def solve(self, wanted: set[str]) -> set[str]:
        """Return the keys that move; `removed` and `reasons` then say why others go, and why those tried do not move."""
        self.moved = set(wanted)
        while True:  # bounded: a round mends, removes or adds; what is sent back or spared stays so
            self._set_state()
            lacks, clashes = list(self._lacks()), list(self._clashes())
            parted = list(self._parted())
            if self._mend(lacks, clashes):  # (1)
                continue
            required = [lack for lack in lacks if not lack.wished]
            back = {lack.key: self._why(lack) for lack in self._hopeless(required)}
            back |= {item.culprit: item.reason for item in parted}
            needed = self._outweighed(required)
            if needed:
                self._send_back(needed, wanted)
                continue
            if back:  # (2)
                self._send_back(back, wanted)
                self._lacking |= {key for key in back if key not in self.start.packages}
                continue
            if not (required or clashes):
                return self.moved
            spared = self._give_way(required, clashes)
            if spared:
                self._send_back(spared, wanted)

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
            helpers = self._helpers(lack.group, package) + ((lack.key,) if self._may_move(lack.key) else ())
            if helpers:
                self.moved.add(helpers[0])
                return True
            names = [one.name for one in lack.group]
            self._unsure = self._unsure or (lack.key in self.moved and any(map(self._market.several, names)))
        for clash in clashes:
            for key in (clash.hit, clash.owner):
                if self._may_move(key) and self._fits(key, clash):
                    self.moved.add(key)
                    return True
        return False

    def _may_move(self, key: str) -> bool:
        return key in self.start.packages and self._free(key)

    def _fits(self, key: str, clash: _Clash) -> bool:
        """Say whether the candidate of one side of a clash can be with the other."""
        package = self.movable[key].package
        if key == clash.owner:
            other = self.now.packages[clash.hit]
            return not any(satisfies(other, one, package, self.compare) for one in package.conflicts)
        return not satisfies(package, clash.constraint, self.now.packages[clash.owner], self.compare)

    def _hopeless(self, lacks: Sequence[_Lack]) -> Sequence[_Lack]:
        """Return what upgrades lack: first what the image does not have either, then what others took away."""
        moving = [lack for lack in lacks if lack.key in self.moved]
        first = [lack for lack in moving if not self._met(lack.group, self.now.packages[lack.key], self.start)]
        return first or moving[:1]

    def _outweighed(self, lacks: Sequence[_Lack]) -> dict[str, str]:
        """Return what was removed too soon: an upgrade needs it that weighs more."""
        for lack in lacks:
            package = self.now.packages[lack.key]
            gone = [key for one in lack.group for key in self.start.holders(one, package, self.compare)]
            for key in gone if lack.key in self.moved else ():
                if key in self.removed and self._weight(lack.key) > self._weight(key):
                    return {key: f"{package.name} {package.version} needs it"}
        return {}

    def _give_way(self, lacks: Sequence[_Lack], clashes: Sequence[_Clash]) -> dict[str, str]:
        """Remove what is in the way; return what must not be taken away instead, with the reasons."""
        ahead = [clash for clash in clashes if clash.owner in self.moved and self._is_in_the_way(clash)]
        for clash in sorted(ahead, key=lambda clash: -self._weight(clash.owner)):  # (3)
            owner, hit = self.now.packages[clash.owner], self.now.packages[clash.hit]
            text = f"{owner.name} {owner.version} must not be with {clash.constraint}"
            if clash.hit in self.moved and clash.owner not in self.start.packages:  # the move itself may need the other
                return {clash.hit: f"{text}, which is added"}
            if not self._may_go(clash.hit, clash.owner) or self._weight(clash.owner) <= self._weight(clash.hit):
                self._clashed |= {clash.hit} if clash.hit in self.moved else set()
                why = self._kept.get(clash.hit, "it weighs more")
                return {clash.owner: f"must not be with {clash.constraint}: {hit.name} {hit.version} stays ({why})"}
            self._remove(clash.hit, clash.owner, text)
            return {}
        for clash in clashes:  # (4)
            if clash.owner not in self.moved:
                owner = self.now.packages[clash.owner]
                if clash.hit not in self.start.packages:
                    return {clash.hit: f"{owner.name} {owner.version} must not be with {clash.constraint} and stays"}
                return self._weigh(clash.owner, clash.hit, f"must not be with {clash.constraint}")
        for lack in lacks:
            package = self.now.packages[lack.key]
            taken = [key for one in lack.group for key in self.start.holders(one, package, self.compare)]
            taken = [key for key in taken if key in self.moved or key in self.removed]
            return self._weigh(lack.key, taken[0], self._needing(lack))
        return self._part(clashes)

    def _may_go(self, key: str, cause: str) -> bool:
        """Say whether a package may be removed for another one's sake, as far as the native tool's choice is certain."""
        return key not in self._kept and not self._clashed & {key, cause} and not self._unsure

    def _remove(self, key: str, cause: str, reason: str) -> None:
        self.removed[key], self._causes[key] = reason, cause
        self.moved.discard(key)

    def _free(self, key: str) -> bool:
        return super()._free(key) and key not in self.removed

    def _weigh(self, key: str, other: str, reason: str) -> dict[str, str]:
        """Remove a staying package, or say that the other one must stay."""
        if self._may_go(key, other) and self._weight(key) <= self._weight(other):
            gone = self.now.packages.get(other) or self.start.packages[other]
            self._remove(key, other, f"{reason}, which {'moves' if other in self.moved else 'goes'} ({gone.version})")
            return {}
        return {other: f"{key} {reason} and stays ({self._kept.get(key, 'it weighs more')})"}

    def _is_in_the_way(self, clash: _Clash) -> bool:
        """Say whether the installed version is what an upgrade must not be with, whatever its candidate would do."""
        if clash.hit not in self.start.packages:
            return False
        old, owner = self.start.packages[clash.hit], self.now.packages[clash.owner]
        return clash.hit not in self.moved or satisfies(old, clash.constraint, replace(owner, arch=""), self.compare)

    def _part(self, clashes: Sequence[_Clash]) -> dict[str, str]:
        """(5) Choose which of two that move is sent back."""
        clash = clashes[0]
        lighter = clash.owner if self._weight(clash.owner) <= self._weight(clash.hit) else clash.hit
        other = clash.hit if lighter == clash.owner else clash.owner
        owner, package = self.now.packages[clash.owner], self.now.packages[other]
        reason = f"{owner.name} {owner.version} must not be with {clash.constraint}; {package.name} moves"
        self._clashed |= {clash.owner, clash.hit}
        return {lighter: reason}

    def _weight(self, key: str) -> int:
        """Return what a package weighs; one that goes, at least what that weighs which it goes for."""
        if not self._weights:
            self._weights = weigh(self.start.packages, self.now, self._market.offers, self.compare)
        weight, seen = self._weights.get(key, 0), {key}
        while (key := self._causes.get(key, "") if key in self.removed else "") and key not in seen:
            seen.add(key)
            weight = max(weight, self._weights.get(key, 0))
        return weight

    def _needing(self, lack: _Lack) -> str:
        return "needs " + " | ".join(str(one) for one in lack.group)

    def _why(self, lack: _Lack) -> str:
        package = self.now.packages[lack.key]
        text = " | ".join(str(one) for one in lack.group)
        return f"needs {text}: {self._why_lacking(lack.group, package)}"
