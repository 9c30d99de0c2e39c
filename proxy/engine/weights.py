"""How much packages weigh against each other where not all can stay, by the measure of Debian's resolver.

Owns the sum: a package's own standing, what depends on it, and a share of how much that weighs itself. Essential ones
outweigh all others. Decides nothing.
"""

from collections.abc import Callable, Iterator, Mapping
from itertools import chain

from proxy.engine.closure import Compare, State
from proxy.engine.family import Constraint, Package

ESSENTIAL_START, ESSENTIAL = 100, 5000
PRIORITIES = {"required": 3, "important": 2, "standard": 1, "optional": -1, "extra": -2}
NOT_OFFERED = PRIORITIES["extra"]
NEEDED, UNWANTED = 1, -1  # for each relation of another package that means it, or without a version what it provides


def is_essential(package: Package) -> bool:
    """Say whether a package is marked as one that systems are not without."""
    return any(package.fields.get(name, "").lower() == "yes" for name in ("Essential", "Important", "Protected"))


def weigh(
    before: Mapping[str, Package], after: State, offered: Callable[[Package], bool], compare: Compare
) -> dict[str, int]:
    """Return the weight of every package, by key.

    Args:
        before: the installed packages.
        after: the packages if all that is wanted came true.
        offered: says whether the sources have this very version.
        compare: the order of versions.
    """
    own = {key: _standing(key, package, before, offered) for key, package in after.packages.items()}
    for key, package in after.packages.items():
        for one, share in _relations(package):
            for other in after.holders(one, package, compare):
                by_name = after.packages[other].name == one.name
                own[other] += share if other != key and (by_name or not one.op) else 0
    lent: dict[str, int] = {}  # to names
    for key, package in after.packages.items():
        for one in chain(*package.requires, *package.recommends):
            lent[one.name] = lent.get(one.name, 0) + max(own[key], 0)
    weights = dict(own)
    names = {package.name for package in after.packages.values()}
    for key, package in after.packages.items():
        provided = {one.name for one in package.provides} & names
        weights[key] += sum(lent.get(name, 0) for name in {package.name, *provided})
        weights[key] += ESSENTIAL if is_essential(package) or is_essential(before.get(key, package)) else 0
    return weights


def _standing(key: str, package: Package, before: Mapping[str, Package], offered: Callable[[Package], bool]) -> int:
    """Return what a package counts by itself."""
    known = before.get(key, package)
    there = offered(package)
    standing = PRIORITIES.get(known.fields.get("Priority", ""), 0) if there else NOT_OFFERED
    standing += 1 if key in before and there else 0
    return standing + (ESSENTIAL_START if is_essential(known) or is_essential(package) else 0)


def _relations(package: Package) -> Iterator[tuple[Constraint, int]]:
    yield from ((one, NEEDED) for one in chain(*package.requires, *package.recommends))
    yield from ((one, UNWANTED) for one in package.conflicts)
