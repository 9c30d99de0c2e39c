"""The documents and texts that the commands print about a result. Owns wording and layout only."""

from collections.abc import Sequence
from typing import Any

from proxy.api import Outcome, SkipInfo, UpgradeInfo
from proxy.errors import Unsupported
from proxy.phases import Phases
from proxy.results import PatchResult, PlatformResult
from proxy.trust import Claim, VerifyKey

Told = tuple[dict[str, Any], str]


def tell_patch(image: str, written: str, result: PatchResult, phases: Phases, fixed: Sequence[str]) -> Told:
    """Tell what a patch came to; `written` is where the patched image went, or empty."""
    document = {
        "outcome": result.outcome.value,
        "image": image,
        "source_digest": str(result.source_digest),
        "patched": str(result.top.digest) if result.top else "",
        "destination": written,
        "reason": result.reason,
        "fixed": list(fixed),
        "platforms": [_platform(item) for item in result.platforms],
        "milliseconds": {name: round(value, 1) for name, value in phases.milliseconds.items()},
    }
    if result.outcome is Outcome.UNSUPPORTED:
        document["error"] = Unsupported.code
    lines = [f"{image}: {result.outcome.value}" + (f": {result.reason}" if result.reason else "")]
    several = len(result.platforms) > 1
    for item in result.platforms:
        said = f": {item.outcome.value}" if several else ""
        lines.append(f"{item.platform}{said}" + (" (sources are stale)" if item.stale else ""))
        rows = [
            (u.package, u.from_version or "(new)", "->", u.to_version or "(removed)", _scripts(u.effect), u.reason)
            for u in item.upgrades
        ]
        lines += [f"  {line}" for line in table(rows)]
        lines += [f"  {'note' if skip.moved else 'skipped'}: {_skip(skip)}" for skip in item.skipped]
    if fixed:
        lines.append(f"fixed: {' '.join(fixed)}")
    if written and result.top:
        lines.append(f"written: {written} ({result.top.digest})")
    elif result.outcome is Outcome.PATCHED:
        lines.append("dry run: nothing was written")
    return document, "\n".join(lines)


def tell_inspection(image: str, _: str, result: PatchResult, phases: Phases, fixed: Sequence[str]) -> Told:
    """Tell what an image holds and what a patch would do."""
    document, _text = tell_patch(image, "", result, phases, fixed)
    lines = []
    for platform, told in zip(result.platforms, document["platforms"], strict=True):
        found = platform.inspection
        if found is None or not found.family:
            lines.append(f"{image} {platform.platform}: {platform.reason}")
            continue
        system = found.distribution.pretty or f"{found.distribution.id} {found.distribution.version}".strip()
        moves = {upgrade.package: upgrade for upgrade in platform.upgrades}
        skips = {skip.package: skip for skip in platform.skipped if skip.package}
        told |= {
            "family": found.family,
            "distribution": system,
            "arch": found.arch,
            "sources": [source.label for source in found.sources],
            "packages": [
                {
                    "package": item.key,
                    "version": item.package.version,
                    "available": _available(moves.get(item.key), skips.get(item.key)),
                    "effect": moves[item.key].effect if item.key in moves else "",
                    "note": _note(skips.get(item.key), item.fixed),
                }
                for item in found.packages
            ],
        }
        rows = [(p["package"], p["version"], p["available"], p["effect"], p["note"]) for p in told["packages"]]
        lines += [f"{image} {platform.platform}: {system}, {found.family} {found.arch}, {len(rows)} packages"]
        lines += table([("package", "installed", "available", "scripts", "note"), *rows])
        lines += [f"source: {label}" for label in told["sources"]]
        lines += [f"skipped: {skip.reason}" for skip in platform.skipped if not skip.package]
    return document, "\n".join(lines)


def tell_verified(image: str, claim: Claim, key: VerifyKey) -> Told:
    """Tell what a signature that holds says."""
    document = {
        "outcome": "verified",
        "image": image,
        "source": f"{claim.source_repository}@{claim.source_digest}",
        "policy": claim.policy_hash,
        "signed_at": claim.signed_at.isoformat(),
        "key_id": key.key_id,
    }
    text = (
        f"{image}: verified\n  made from {document['source']}\n  signed {document['signed_at']} by key {key.short_id}"
    )
    return document, text


def table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Return rows of cells as aligned lines."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _platform(item: PlatformResult) -> dict[str, Any]:
    return {
        "platform": item.platform,
        "outcome": item.outcome.value,
        "digest": str(item.manifest.digest),
        "upgrades": [_upgrade(upgrade) for upgrade in item.upgrades],
        "skipped": [skip.model_dump() for skip in item.skipped],
        "reason": item.reason,
        "as_of": [date.model_dump() for date in item.as_of],
        "stale": item.stale,
    }


def _upgrade(upgrade: UpgradeInfo) -> dict[str, str]:
    moved = {"package": upgrade.package, "from": upgrade.from_version, "to": upgrade.to_version}
    more = {"effect": upgrade.effect, "reason": upgrade.reason}
    return moved | {name: text for name, text in more.items() if text}


def _skip(skip: SkipInfo) -> str:
    versions = f" {skip.installed} -> {skip.available}" if skip.available else ""
    return f"{skip.package}{versions}: {skip.reason}" if skip.package else skip.reason


def _scripts(effect: str) -> str:
    return f"(scripts: {effect})" if effect else ""


def _available(moved: UpgradeInfo | None, skip: SkipInfo | None) -> str:
    if moved is not None:
        return moved.to_version or "(removed)"
    return skip.available if skip else ""


def _note(skip: SkipInfo | None, fixed: str) -> str:
    if skip is None:
        return fixed
    return skip.reason if skip.moved else f"skipped: {skip.reason}"
