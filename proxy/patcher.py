"""The shell round the engine: pull an image, fetch its packages, run the engine's jobs, assemble the patched image.

Owns the order of steps of one patch, and nothing of their content:

1. manifest: the index's children for the platforms asked for, or the one manifest;
2. layers: pulled into the blob store and scanned side by side (see `layers`);
3. inspect: which family, which packages, which sources;
4. sources: each refreshed (see `sources`);
5. plan; 6. packages: fetched by hash and unpacked (see `packages`); what cannot be recorded faithfully is excluded
   and the plan is made again until it holds;
7. layer: written by the engine; 8. image: layer, config, manifest and index put together.

Pushing and signing are the caller's. The same image, package versions and policy give the same digest.
"""

import hashlib
import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from proxy.api import Outcome
from proxy.blobs import BlobStore
from proxy.codec import decode, encode
from proxy.config import PolicyConfig
from proxy.engine.family import Upgrade
from proxy.engine.image import add_layer, assemble_index, has_patch_layer, parse_config, without_layer
from proxy.engine.plan import PlanPolicy, UpgradePlan
from proxy.errors import AdmendError, MalformedInput, ResourceExhausted, Unsupported, UpstreamRefused
from proxy.flight import gather_all
from proxy.images import ImageSource
from proxy.jobs import EPOCH, Built, IndexFile, Inspection, LayerFile
from proxy.layers import Layers
from proxy.oci.digest import Digest
from proxy.oci.manifest import DOCKER_MANIFEST, Descriptor, Index, Manifest, Platform
from proxy.packages import Packages
from proxy.phases import Phases
from proxy.pool import WorkerPool
from proxy.results import (
    Opened,
    PatchResult,
    PlatformResult,
    combine_outcomes,
    describe_blocked,
    describe_reasons,
    describe_result,
    select_platforms,
)
from proxy.sources import Sources, SourceState

GONE = frozenset({404, 410})
MAX_ROUNDS = 32  # of plan, unpack, exclude: each round excludes at least one package
UPGRADES = "dev.admend.upgrades"
BASE_NAME = "org.opencontainers.image.base.name"
BASE_DIGEST = "org.opencontainers.image.base.digest"
CREATED_BY = "admend: OS packages upgraded"


@dataclass(frozen=True, slots=True)
class Target:
    """One manifest on its way: where it comes from, and what the patched one is called after."""

    source: ImageSource
    base_name: str
    phases: Phases
    keep: ExitStack  # keeps the blobs of the result in the store until the caller has pushed them
    dry_run: bool = False
    only: Mapping[str, str] | None = None
    check: Callable[[Opened], None] | None = None  # raises where the image is not the one that is meant


def policy_hash(policy: PolicyConfig) -> str:
    """Return the SHA-256 (hex) of the policy and the engine's epoch: what a result depends on besides its inputs."""
    text = json.dumps({"policy": policy.model_dump(mode="json"), "epoch": EPOCH}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


class Patcher:
    """Patches images; shares its store, workers and sources between all patches of a process."""

    def __init__(
        self,
        *,
        root: Path,
        store: BlobStore,
        pool: WorkerPool,
        sources: Sources,
        packages: Packages,
        policy: PolicyConfig,
    ) -> None:
        self._root, self._store, self._pool = root, store, pool
        self._sources, self._packages, self._policy = sources, packages, policy
        self.layers = Layers(root, store, pool)
        self.scans = self.layers.lookups

    async def patch(self, top: Manifest | Index, target: Target, platforms: Sequence[Platform]) -> PatchResult:
        """Patch one image.

        Args:
            top: what the reference names: a manifest, or an index of which `platforms` are patched.
            target: where manifests and blobs come from, and how the patch is to be made. With `dry_run` the result
                says what would be done (outcome, upgrades, skips) and holds no image.
            platforms: the platforms that a patched index holds; a single manifest is patched whatever its platform.

        Raises:
            AdmendError: as the parts raise it; nothing is left half-done.
        """
        if isinstance(top, Manifest):
            result = await self._patch_manifest(top, target)
            patched = result.manifest if _has_image(result, target) else None
            blobs = await self._blob_files((patched,), target) if patched else {}
            return PatchResult(result.outcome, top.digest, (result,), result.reason, patched, (), blobs)
        wanted = select_platforms(top, platforms)
        results = await gather_all(self._patch_child(descriptor, target) for descriptor in wanted)
        outcome = combine_outcomes([result.outcome for result in results])
        reason = describe_reasons(results)
        if outcome is not Outcome.PATCHED or target.dry_run:
            return PatchResult(outcome, top.digest, tuple(results), reason)
        pairs = zip(wanted, results, strict=True)
        replaced = {old.digest: new.manifest.descriptor for old, new in pairs if new.outcome is Outcome.PATCHED}
        children = tuple(result.manifest for result in results)
        index = assemble_index(top, replaced, {descriptor.digest for descriptor in wanted})
        blobs = await self._blob_files(children, target)
        return PatchResult(outcome, top.digest, tuple(results), reason, index, children, blobs)

    async def _patch_child(self, descriptor: Descriptor, target: Target) -> PlatformResult:
        child = await target.source.get_manifest(descriptor.digest)
        if not isinstance(child, Manifest):
            raise MalformedInput("an index inside an index is not an image", file=str(descriptor.digest))
        platform = str(descriptor.platform.normalized()) if descriptor.platform else str(descriptor.digest)
        try:
            return await self._patch_manifest(child, target)
        except Unsupported as error:  # it stays what it was, the other platforms are patched all the same
            return PlatformResult(platform, Outcome.UNSUPPORTED, child, reason=str(error))
        except AdmendError as error:
            raise error.within(platform) from error.__cause__

    async def open(self, manifest: Manifest, target: Target, *, any_image: bool = False) -> Opened:
        """Pull and scan one manifest's image and say what it holds; nothing of it is changed or executed.

        Of an image that admend patched already the original is opened, or with `any_image`, to look at it, itself.
        """
        self._keep(target, [manifest.config.digest, *(layer.digest for layer in manifest.layers)])
        raw, config = await self.layers.read_config(target.source, manifest)
        platform = str(Platform(config.os, config.architecture, config.variant).normalized())
        if config.os != "linux":
            reason = f"a {config.os} image: admend patches the packages of Linux images only"
            return Opened(manifest, raw, platform, (), Inspection("", reason))
        base = None
        if has_patch_layer(config) and not any_image:
            found = without_layer(manifest, raw)
            if found is None:
                reason = (
                    "patched by admend already, and other layers lie on top of that: patch what they were built from"
                )
                return Opened(manifest, raw, platform, (), Inspection("", reason))
            base = (manifest.annotations.get(BASE_NAME, ""), manifest.annotations.get(BASE_DIGEST, ""))
            manifest, raw = found.manifest, found.config_raw
            self._keep(target, [manifest.config.digest])
            await self._store.put_bytes(raw)
            config = parse_config(raw)
        layers = await self.layers.scan_all(target.source, manifest, config, target.phases)
        with target.phases.phase("index"):
            return Opened(manifest, raw, platform, layers, await self._inspect(layers), base)

    async def _patch_manifest(self, manifest: Manifest, target: Target) -> PlatformResult:
        image = await self.open(manifest, target)
        if image.inspection.reason:
            return describe_result(image, Outcome.UNSUPPORTED, reason=image.inspection.reason)
        if target.check is not None:
            target.check(image)
        with target.phases.phase("sources"):
            states, without = await self._sources.refresh_all(image.inspection.sources)
        image = image.with_skipped(without)
        if not any(state.index.source.arch == image.inspection.arch for state in states):
            return describe_result(image, Outcome.UNSUPPORTED, reason="no usable package source (see skipped)")
        plan, built = await self._plan_and_build(image, states, target)
        if not plan.upgrades:
            outcome = Outcome.BLOCKED if plan.skipped else Outcome.CLEAN
            reason = describe_blocked(plan.skipped)
            return describe_result(image, outcome, states, plan, reason=reason)
        patched = manifest
        if not target.dry_run:
            with target.phases.phase("layer"):
                patched = await self._assemble(image, built, plan, target)
        return describe_result(image, Outcome.PATCHED, states, plan, patched=patched, judgements=built.judgements)

    async def _inspect(self, layers: Sequence[LayerFile]) -> Inspection:
        answer = await self._pool.run(
            "inspect",
            affinity=_affinity(layers),
            root=str(self._root),
            layers=encode(layers),
            settings=self._sources.settings,
        )
        return decode(Inspection, answer, "inspect")

    async def _plan_and_build(
        self, image: Opened, states: Sequence[SourceState], target: Target
    ) -> tuple[UpgradePlan, Built]:
        """Plan, unpack and build until every package of the plan can be recorded faithfully."""
        excluded: dict[str, str] = {}
        indexes = tuple(state.index for state in states)
        for _ in range(MAX_ROUNDS):
            with target.phases.phase("plan"):
                plan = await self._plan(image.layers, indexes, excluded, target)
            if not plan.upgrades:
                return plan, Built()
            with target.phases.phase("packages"):
                payloads, absent = await self._unpack(image.inspection.family, plan.upgrades)
            if absent:
                excluded |= absent
                continue
            with target.phases.phase("layer"):
                gone = [removal.key for removal in plan.removals]
                built = await self._build(image, payloads, gone, check_only=target.dry_run)
            if not built.unsupported:
                return plan, built
            excluded |= built.unsupported
        raise ResourceExhausted(f"no plan holds after {MAX_ROUNDS} rounds; exclude packages in policy.exclude")

    async def _plan(
        self, layers: Sequence[LayerFile], indexes: Sequence[IndexFile], excluded: Mapping[str, str], target: Target
    ) -> UpgradePlan:
        mine = self._policy
        policy = PlanPolicy(mine.scope, target.only, mine.exclude, mine.allow_transitions)
        answer = await self._pool.run(
            "plan",
            affinity=_affinity(layers),
            root=str(self._root),
            layers=encode(layers),
            indexes=encode(indexes),
            policy=encode(policy),
            excluded=excluded,
        )
        return decode(UpgradePlan, answer, "plan")

    async def _unpack(self, family: str, upgrades: Sequence[Upgrade]) -> tuple[dict[str, str], dict[str, str]]:
        """Fetch and unpack, the largest first: it would be the one that everything waits for in the end.

        Returns the unpacked packages' names by key, and by key why a source no longer has one.
        """
        absent: dict[str, str] = {}

        async def one(upgrade: Upgrade) -> str:
            try:
                return await self._packages.unpacked(family, upgrade.candidate)
            except UpstreamRefused as error:
                if error.status not in GONE:
                    raise
                version = upgrade.candidate.package.version
                absent[upgrade.key] = f"the source lists {version} but lacks its file: {error}"
                return ""

        largest = sorted(upgrades, key=lambda upgrade: upgrade.candidate.fetch.size or 0, reverse=True)
        found = await gather_all(one(upgrade) for upgrade in largest)
        names = {upgrade.key: name for upgrade, name in zip(largest, found, strict=True)}
        return {upgrade.key: names[upgrade.key] for upgrade in upgrades}, absent

    async def _build(
        self, image: Opened, payloads: Mapping[str, str], gone: Sequence[str], *, check_only: bool
    ) -> Built:
        docker = image.manifest.media_type == DOCKER_MANIFEST
        chosen = self._policy.compression
        compression = ("gzip" if docker else "zstd") if chosen == "auto" else chosen
        out = f"layers/{EPOCH}/{uuid.uuid4().hex}.new"
        answer = await self._pool.run(
            "build",
            affinity=_affinity(image.layers),
            root=str(self._root),
            layers=encode(image.layers),
            payloads=payloads,
            out=out,
            compression=compression,
            docker=docker,
            check_only=check_only,
            apply_unknown=self._policy.unknown_scripts == "apply",
            removals=gone,
        )
        built = decode(Built, answer, "build")
        if built.layer is not None:
            await self._store.adopt(self._root / out, built.layer.digest, built.layer.size)
        return built

    async def _assemble(self, image: Opened, built: Built, plan: UpgradePlan, target: Target) -> Manifest:
        if built.layer is None:
            raise ResourceExhausted("the build job wrote no layer")
        moved = [[item.key, item.package.version, item.candidate.package.version] for item in plan.upgrades]
        moved += [[item.key, item.package.version, ""] for item in plan.removals]
        annotations = {
            BASE_NAME: image.base[0] if image.base else target.base_name,
            BASE_DIGEST: image.base[1] if image.base else str(image.manifest.digest),
            UPGRADES: json.dumps(moved, separators=(",", ":")),
        }
        patched = add_layer(image.manifest, image.config, built.layer, annotations=annotations, created_by=CREATED_BY)
        self._keep(target, [built.layer.digest, patched.manifest.config.digest])
        await self._store.put_bytes(patched.config_raw)
        return patched.manifest

    async def _blob_files(self, manifests: Sequence[Manifest], target: Target) -> dict[Digest, Path]:
        """Return the local files of all blobs, pulling those of manifests that nothing else needed."""
        items = [item for manifest in manifests for item in (manifest.config, *manifest.layers)]
        paths = await gather_all(self.layers.pull(target.source, item) for item in items)
        return {item.digest: path for item, path in zip(items, paths, strict=True)}

    def _keep(self, target: Target, digests: Sequence[Digest]) -> None:
        target.keep.enter_context(self._store.pin(digests))


def _has_image(result: PlatformResult, target: Target) -> bool:
    return result.outcome is Outcome.PATCHED and not target.dry_run


def _affinity(layers: Sequence[LayerFile]) -> str:
    return hashlib.sha256("\n".join(layer.name for layer in layers).encode()).hexdigest()
