"""Installed packages, their candidates and a policy in; which packages move, and why the others do not, out.

Owns what is wanted: scope, report, exclusions, held and blocked packages, each refusal with its reason. What can move
together is the closure's part. Knows no package format.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from proxy.engine.closure import Addable, Closure, Compare
from proxy.engine.family import Candidate, Installed, Market, Package, Removal, Skip, Upgrade
from proxy.engine.transition import Transition
from proxy.engine.weights import is_essential

REASON_LIMIT = 400  # characters; a chain of blockers is cut there


@dataclass(frozen=True, slots=True)
class PlanPolicy:
    """What the operator or a report asks for.

    `only` maps package names (binary or source) to the lowest version wanted, ``""`` for any newer one; None means
    every package. `exclude` holds shell patterns of binary or source names that must not move. `transitions` says
    whether packages that upgrades newly need are added (`new`), and those that they must not be with removed (`full`).
    """

    scope: Literal["all", "security"] = "all"
    only: Mapping[str, str] | None = None
    exclude: tuple[str, ...] = ()
    transitions: Literal["none", "new", "full"] = "none"


@dataclass(frozen=True, slots=True)
class UpgradePlan:
    """What moves (sorted by key) and what could, or should, and does not, with reasons (sorted by name).

    An upgrade from no version is a package that others newly need and that the image did not have. `removals` (sorted
    by key) go for the sake of upgrades.
    """

    upgrades: tuple[Upgrade, ...] = ()
    skipped: tuple[Skip, ...] = ()
    removals: tuple[Removal, ...] = ()


def plan_upgrades(
    installed: Sequence[Installed],
    candidates: Mapping[str, Candidate],
    compare: Compare,
    policy: PlanPolicy | None = None,
    blocked: Mapping[str, str] | None = None,
    *,
    addable: Addable | None = None,
    market: Market | None = None,
) -> UpgradePlan:
    """Return the largest safe upgrade that this closure finds.

    Args:
        installed: every installed package.
        candidates: at most one newer version per key, chosen by the native tool's rules.
        compare: the family's order of versions.
        policy: what is wanted; everything if None.
        blocked: reasons by key why a package must stay all the same (an unknown script, the ABI gate...).
        addable: see `Closure`; nothing is added if None.
        market: where packages may be added and removed, what the sources offer besides; see `Transition`.
    """
    policy = policy or PlanPolicy()
    candidates = {key: c for key, c in candidates.items() if key in {item.key for item in installed}}
    stuck, unwanted = _fixed(installed, candidates, policy, blocked or {})
    skips = _unmet(installed, candidates, compare, policy)
    wanted = {key for key in candidates if key not in stuck and key not in unwanted}
    wanted -= {skip.key for skip in skips}
    movable = {key: c for key, c in candidates.items() if key not in stuck}
    known = {item.key for item in installed}
    stuck |= {key: why for key, why in (blocked or {}).items() if key not in known}
    closure = Closure(installed, movable, compare, stuck, _allowed(addable, policy))
    if market is not None:
        kept = _kept(installed, candidates, policy, blocked or {})
        closure = Transition(installed, movable, compare, stuck, _Narrowed(market, policy), kept)
    moved = closure.solve(wanted)
    removed = closure.removed
    by_key = {item.key: item for item in installed}
    upgrades = tuple(
        Upgrade(key, by_key[key].package if key in by_key else _absent(key, candidate), candidate)
        for key in sorted(moved)
        for candidate in (closure.movable[key],)
    )
    reasons = {key: closure.reasons[key] for key in closure.reasons if key in wanted}
    reasons |= {
        key: why for key, why in stuck.items() if key in by_key and _asked(by_key[key].package, candidates[key], policy)
    }
    skipped = [
        _skip(by_key[key], candidates[key], why) for key, why in reasons.items() if key not in moved | removed.keys()
    ]
    skipped += [skip.skip for skip in skips]
    ordered = tuple(sorted(set(skipped), key=lambda s: (s.package, s.installed, s.reason)))
    removals = tuple(Removal(key, by_key[key].package, removed[key][:REASON_LIMIT]) for key in sorted(removed))
    return UpgradePlan(upgrades, ordered, removals)


def _absent(key: str, candidate: Candidate) -> Package:
    return Package(key, "", candidate.package.arch)


def _allowed(addable: Addable | None, policy: PlanPolicy) -> Addable | None:
    """Return what may be added, without what the policy excludes."""
    if addable is None:
        return None
    return lambda name: [one for one in addable(name) if not _is_excluded(one.package, policy)]


class _Narrowed:
    """What the sources offer, without what the policy excludes."""

    def __init__(self, market: Market, policy: PlanPolicy) -> None:
        self._market, self._policy = market, policy

    def __call__(self, name: str, /) -> Sequence[Candidate]:
        return [one for one in self._market(name) if not _is_excluded(one.package, self._policy)]

    def offers(self, package: Package) -> bool:
        return self._market.offers(package)

    def several(self, name: str) -> bool:
        return self._market.several(name)


def _is_excluded(package: Package, policy: PlanPolicy) -> bool:
    return any(fnmatchcase(name, pattern) for name in _names(package) for pattern in policy.exclude)


def _kept(
    installed: Sequence[Installed], candidates: Mapping[str, Candidate], policy: PlanPolicy, blocked: Mapping[str, str]
) -> dict[str, str]:
    """Return why packages are never removed, by key."""
    found: dict[str, str] = {}
    for item in installed:
        candidate = candidates.get(item.key)
        packages = (item.package, candidate.package) if candidate is not None else (item.package,)
        reason = item.fixed or blocked.get(item.key) or (candidate.blocked if candidate is not None else "")
        if not reason and any(map(is_essential, packages)):
            reason = "it is essential"
        if not reason and _is_excluded(item.package, policy):
            reason = "excluded by policy"
        if reason:
            found[item.key] = reason
    return found


@dataclass(frozen=True, slots=True)
class _Unmet:
    """Something that the report asks for and that cannot be had at all; `key` is the package, if installed."""

    key: str
    skip: Skip


def _skip(item: Installed, candidate: Candidate, reason: str) -> Skip:
    return Skip(item.key, item.package.version, candidate.package.version, reason[:REASON_LIMIT])


def _names(package: Package) -> tuple[str, ...]:
    return (package.name, package.source) if package.source else (package.name,)


def _asked(package: Package, candidate: Candidate, policy: PlanPolicy) -> bool:
    """Say whether scope and report ask for this package."""
    if policy.scope == "security" and not candidate.security:
        return False
    return policy.only is None or any(name in policy.only for name in _names(package))


def _fixed(
    installed: Sequence[Installed], candidates: Mapping[str, Candidate], policy: PlanPolicy, blocked: Mapping[str, str]
) -> tuple[dict[str, str], set[str]]:
    """Return the reasons of what must not move at all, and the keys that nobody asked for."""
    stuck: dict[str, str] = {}
    unwanted: set[str] = set()
    for item in installed:
        candidate = candidates.get(item.key)
        if candidate is None:
            continue
        if item.fixed:
            stuck[item.key] = item.fixed
        elif item.key in blocked or candidate.blocked:
            stuck[item.key] = blocked.get(item.key) or candidate.blocked
        elif _is_excluded(item.package, policy):
            stuck[item.key] = "excluded by policy"
        elif not _asked(item.package, candidate, policy):
            unwanted.add(item.key)
    return stuck, unwanted


def _unmet(
    installed: Sequence[Installed], candidates: Mapping[str, Candidate], compare: Compare, policy: PlanPolicy
) -> list[_Unmet]:
    """Return what the report names and the image or the sources do not have."""
    result: list[_Unmet] = []
    for name, minimum in sorted((policy.only or {}).items()):
        items = [item for item in installed if item.package.name == name]
        items = items or [item for item in installed if item.package.source == name]
        if not items:
            result.append(_Unmet("", Skip(name, "", minimum, "the report names it, but the image does not have it")))
        for item in items:
            reason = _unmet_version(item.package, candidates.get(item.key), minimum, compare)
            if not reason and policy.scope == "security" and not candidates[item.key].security:
                reason = "the sources offer a newer version, but no security source does"
            if reason:
                offered = candidates[item.key].package.version if item.key in candidates else ""
                result.append(_Unmet(item.key, Skip(item.key, item.package.version, offered, reason)))
    return result


def _unmet_version(package: Package, candidate: Candidate | None, minimum: str, compare: Compare) -> str:
    if minimum and _reaches(package, minimum, compare):
        return f"the image already has {package.version}; the report asks for {minimum} or newer"
    if candidate is None:
        return f"the report asks for {minimum or 'a newer version'}, the sources offer nothing newer"
    if minimum and not _reaches(candidate.package, minimum, compare):
        return f"the report asks for {minimum}, the sources offer {candidate.package.version}"
    return ""


def with_epoch(version: str, other: str) -> str:
    """Return a version that was written without its epoch with that of another one of the same package."""
    epoch, sign, _ = other.partition(":")
    return f"{epoch}:{version}" if sign and ":" not in version else version


def _reaches(package: Package, minimum: str, compare: Compare) -> bool:
    """Say whether a package is at `minimum` or newer; scanners give the source's version where the two differ."""
    version = package.source_version or package.version
    return compare(version, with_epoch(minimum, version)) >= 0
