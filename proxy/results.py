"""What a patch came to, by platform and for the whole image; values and the pure functions over them.

Owns the nouns between the patcher and whoever publishes, prints or answers: an opened image, the result of one
manifest, the result of an index, and how outcomes of several platforms combine.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from proxy.api import MOVED, Outcome, SkipInfo, SourceDate, UpgradeInfo, make_printable
from proxy.engine.family import Judgement, Removal, Skip, SkippedSource, Upgrade
from proxy.engine.plan import UpgradePlan
from proxy.errors import MalformedInput
from proxy.jobs import Inspection, LayerFile
from proxy.oci.digest import Digest
from proxy.oci.manifest import Descriptor, Index, Manifest, Platform
from proxy.sources import SourceState

BLOCKERS = 3  # packages that the reason of a blocked image names; `skipped` has them all
BLOCKER = 200  # characters of each one's reason


@dataclass(frozen=True, slots=True)
class Opened:
    """An image that was pulled and scanned: `config` is the raw config, `layers` the scans' names in the cache.

    Of an image that was patched before, this is its original, and `base` the original's name and digest as the patched
    one's annotations give them.
    """

    manifest: Manifest
    config: bytes
    platform: str
    layers: tuple[LayerFile, ...]
    inspection: Inspection
    base: tuple[str, str] | None = None

    def with_skipped(self, sources: Sequence[SkippedSource]) -> "Opened":
        """Return the image with more sources that are not used."""
        skipped = (*self.inspection.skipped_sources, *sources)
        return replace(self, inspection=replace(self.inspection, skipped_sources=skipped))


@dataclass(frozen=True, slots=True)
class PlatformResult:
    """What one manifest came to. `manifest` is the patched one, or the original where nothing moved."""

    platform: str
    outcome: Outcome
    manifest: Manifest
    upgrades: tuple[UpgradeInfo, ...] = ()
    skipped: tuple[SkipInfo, ...] = ()
    reason: str = ""
    as_of: tuple[SourceDate, ...] = ()
    stale: bool = False
    inspection: Inspection | None = None
    checked: datetime | None = None  # when the source asked longest ago was asked


@dataclass(frozen=True, slots=True)
class PatchResult:
    """What one image came to.

    `top` is what the patched reference names (manifest or index), `children` the index's manifests, and `blobs` maps
    all that they reference to local files. All three are empty unless the outcome is `patched`.
    """

    outcome: Outcome
    source_digest: Digest
    platforms: tuple[PlatformResult, ...]
    reason: str = ""
    top: Manifest | Index | None = None
    children: tuple[Manifest, ...] = ()
    blobs: Mapping[Digest, Path] = field(default_factory=dict)


def describe_result(
    image: Opened,
    outcome: Outcome,
    states: Sequence[SourceState] = (),
    plan: UpgradePlan | None = None,
    *,
    reason: str = "",
    patched: Manifest | None = None,
    judgements: Mapping[str, Judgement] | None = None,
) -> PlatformResult:
    """Return the result of one manifest: the skipped sources, then the skipped packages, then notes on upgrades."""
    judged = judgements or {}
    sources = [
        SkipInfo(package="", reason=f"source {item.uri} ({item.written}): {item.reason}")
        for item in image.inspection.skipped_sources
    ]
    packages = [
        SkipInfo(package=item.package, installed=item.installed, available=item.available, reason=item.reason)
        for item in (plan.skipped if plan else ())
    ]
    upgrades = plan.upgrades if plan else ()
    notes = [
        SkipInfo(
            package=item.key,
            installed=item.package.version,
            available=item.candidate.package.version,
            reason=f"{MOVED}{note}",
        )
        for item in upgrades
        for note in judged.get(item.key, Judgement()).notes
    ]
    told = [describe_upgrade(item, judged.get(item.key)) for item in upgrades]
    told += [describe_removal(item, judged.get(item.key, Judgement())) for item in (plan.removals if plan else ())]
    return PlatformResult(
        platform=image.platform,
        outcome=outcome,
        manifest=patched or image.manifest,
        upgrades=tuple(told),
        skipped=(*sources, *packages, *notes),
        reason=make_printable(reason),
        as_of=tuple(SourceDate(source=s.index.source.label, date=s.index.date.isoformat()) for s in states),
        stale=any(state.stale for state in states),
        inspection=image.inspection,
        checked=min((state.checked for state in states), default=None),
    )


def describe_upgrade(upgrade: Upgrade, judgement: Judgement | None) -> UpgradeInfo:
    """Return the wire form of an upgrade."""
    return UpgradeInfo(
        package=upgrade.key,
        from_version=upgrade.package.version,
        to_version=upgrade.candidate.package.version,
        source=upgrade.candidate.source,
        effect=judgement.effect if judgement else "",
    )


def describe_removal(removal: Removal, judgement: Judgement) -> UpgradeInfo:
    """Return the wire form of a removal: a move to no version, with its reason."""
    return UpgradeInfo(
        package=removal.key,
        from_version=removal.package.version,
        to_version="",
        effect=judgement.effect,
        reason="; ".join((removal.reason, *judgement.notes)),
    )


def select_platforms(index: Index, platforms: Sequence[Platform]) -> tuple[Descriptor, ...]:
    """Return the index's entries for the platforms asked for, in the index's order.

    Raises MalformedInput when one that was asked for is not there, naming those that are.
    """
    chosen: list[Descriptor] = []
    for wanted in platforms:
        found = [
            item for item in index.manifests if item.platform and item.platform.normalized() == wanted.normalized()
        ]
        if not found:
            there = ", ".join(str(item.platform) for item in index.manifests if _is_image(item))
            raise MalformedInput(
                f"the image has no platform {wanted}; it has {there or 'none'}", file=str(index.digest)
            )
        chosen.append(found[0])
    return tuple(item for item in index.manifests if item in chosen)


def present_platforms(index: Index, platforms: Sequence[Platform]) -> tuple[Platform, ...]:
    """Return those of `platforms` that the index has; all of them, to be refused by name, when it has none."""
    there = {item.platform.normalized() for item in index.manifests if item.platform}
    return tuple(item for item in platforms if item.normalized() in there) or tuple(platforms)


def combine_outcomes(outcomes: Sequence[Outcome]) -> Outcome:
    """Return the outcome of an index from its platforms' outcomes: the first of these that any has.

    Where one platform moved the image is patched, and the others stay in it as they were. Else what is wrong with one
    platform is not covered by another that is clean.
    """
    order = (Outcome.FAILED, Outcome.PATCHED, Outcome.BLOCKED, Outcome.UNSUPPORTED, Outcome.CLEAN)
    return next((outcome for outcome in order if outcome in outcomes), Outcome.UNSUPPORTED)


def describe_reasons(results: Sequence[PlatformResult]) -> str:
    """Return why platforms of an index are not as they should be: every one that is not patched, if any is."""
    moved = any(result.outcome is Outcome.PATCHED for result in results)
    told = [result for result in results if result.reason or (moved and result.outcome is not Outcome.PATCHED)]
    return "; ".join(
        f"{result.platform}: {result.outcome}{f': {result.reason}' if result.reason else ''}" for result in told
    )


def describe_blocked(skipped: Sequence[Skip]) -> str:
    """Return why nothing moves: the first packages with what stands in their way, and how many more there are."""
    if not skipped:
        return ""
    first = "; ".join(f"{skip.package}: {skip.reason[:BLOCKER]}" for skip in skipped[:BLOCKERS])
    more = f" (and {len(skipped) - BLOCKERS} more)" if len(skipped) > BLOCKERS else ""
    return f"newer packages exist and every one is skipped: {first}{more}"


def _is_image(descriptor: Descriptor) -> bool:
    return descriptor.platform is not None and descriptor.platform.os != "unknown"
