"""What the subcommands `patch`, `inspect` and `verify` do.

Owns the way from arguments to a document and a text; `cli` prints and exits. The user names the registries of IMAGE
and DEST himself, so these may be private or on loopback.
"""

import sys
from argparse import Namespace
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from proxy.api import Outcome
from proxy.config import ProxyConfig, UpstreamConfig
from proxy.engine.image import parse_config
from proxy.errors import MalformedInput, ResourceExhausted, Unsupported, UsageError
from proxy.images import ImageDest, Kind, Location, open_dest, open_source, parse_location
from proxy.jobs import family_named
from proxy.oci.digest import Digest
from proxy.oci.manifest import Descriptor, Index, Manifest, Platform
from proxy.oci.reference import ImageRef
from proxy.patcher import Target, policy_hash
from proxy.phases import Phases
from proxy.progress import show_progress
from proxy.publish import attach_signature
from proxy.reports import Findings, check_image, fixed_versions, parse_report
from proxy.results import Opened, PatchResult
from proxy.serve import Engine, machine_platform
from proxy.tell import tell_inspection, tell_patch, tell_verified
from proxy.trust import Claim, SigningKey, VerifyKey, check_claim, is_signature, signature_tag, verify_attached

EXITS = {Outcome.UNSUPPORTED: 3, Outcome.FAILED: 1}
FAMILIES_OF = {"debian": "dpkg", "ubuntu": "dpkg", "alpine": "apk", "wolfi": "apk", "chainguard": "apk"}
DOCKER_CONFIG = Path(".docker/config.json")
CACHE = Path(".cache/admend")
MAX_PAYLOAD = 64 << 10
OTHER_CACHE = "set HOME, or give a settings file with cache: FOLDER by --config"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command prints (`document` with --json, else `text`) and its exit code."""

    document: Mapping[str, Any]
    text: str
    code: int = 0


async def run(options: Namespace, config: ProxyConfig | None) -> Answer:
    """Run the subcommand that `options.command` names."""
    config = config or _default_config()
    if options.command == "verify":
        return await _verify(options, config)
    return await _patch(options, config)


def _default_config() -> ProxyConfig:
    try:
        home = Path.home()
        docker = home / DOCKER_CONFIG
        upstream = UpstreamConfig(docker_config=docker if docker.exists() else None)
        (home / CACHE).mkdir(parents=True, exist_ok=True)
    except RuntimeError as error:
        raise ResourceExhausted(f"there is no home folder for the cache; {OTHER_CACHE}") from error
    except OSError as error:
        raise ResourceExhausted(f"{error.filename}: {error.strerror}; {OTHER_CACHE}") from error
    return ProxyConfig(cache=home / CACHE, upstream=upstream)


def _typed(what: str, parse: Callable[[str], T], text: str) -> T:
    """Parse what the person typed; raises UsageError."""
    try:
        return parse(text)
    except MalformedInput as error:
        raise UsageError(f"{what}: {error}") from error


async def _patch(options: Namespace, config: ProxyConfig) -> Answer:
    """Patch, or with `inspect` only say what a patch would do."""
    dry_run = options.command == "inspect" or options.dry_run
    image = _typed("IMAGE", parse_location, options.image)
    platforms = [_typed("--platform", Platform.parse, text) for text in options.platform] or [machine_platform()]
    dest = None if dry_run else _destination(options, image)
    findings = _read_report(options) if options.command == "patch" and options.report else None
    chosen = {
        "scope": options.scope,
        "unknown_scripts": options.unknown_scripts,
        "allow_transitions": options.transitions,
    }
    asked = {name: value for name, value in chosen.items() if value}
    config = config.model_copy(update={"policy": config.policy.model_copy(update=asked)})
    key = SigningKey.load(options.key) if not dry_run and options.key else None
    if key and dest and dest.kind is not Kind.REGISTRY:
        raise UsageError("--key signs in a registry, beside the image; give a registry's DEST", text=str(dest))
    async with AsyncExitStack() as stack:
        engine = await stack.enter_async_context(Engine(config, named=_hosts(image, dest)))
        keep = stack.enter_context(ExitStack())
        progress = stack.enter_context(show_progress(str(image), quiet=options.json))
        source = await stack.enter_async_context(open_source(image, engine.registry, config.cache))
        phases = Phases(progress)
        only = _only(findings) if findings else None
        check = partial(_check_report, findings, options.report) if findings else None
        target = Target(source, _base_name(image), phases, keep, dry_run=dry_run, only=only, check=check)
        result = await engine.patcher.patch(await source.get_manifest(), target, platforms)
        written = result.top is not None and dest is not None
        if result.top is not None and dest is not None:
            with phases.phase("push"):
                await _write(result, await stack.enter_async_context(_open(dest, image, engine)))
            if key is not None and dest.ref is not None:
                with phases.phase("sign"):
                    claim = _claim(image, dest.ref, result.top, result, policy_hash(config.policy))
                    await attach_signature(engine.registry, dest.ref, result.top, claim, key)
        with suppress(OSError):  # all is done; a cache that cannot be pruned now is pruned another time
            await engine.derived.prune()
    told = tell_inspection if options.command == "inspect" else tell_patch
    document, text = told(str(image), str(dest) if written and dest else "", result, phases, _fixed(findings, result))
    code = EXITS.get(result.outcome, 0)
    if options.command == "inspect" and any(item.inspection and item.inspection.family for item in result.platforms):
        code = 0
    return Answer(document, text, code)


def _open(dest: Location, image: Location, engine: Engine) -> Any:
    same = image.ref is not None and dest.ref is not None and image.ref.host == dest.ref.host
    return open_dest(dest, engine.registry, mount_from=image.ref.repository if same and image.ref else "")


async def _write(result: PatchResult, dest: ImageDest) -> None:
    """Blobs, then children, then the image, then its name."""
    if result.top is None:
        return
    manifests = [*result.children, *([result.top] if isinstance(result.top, Manifest) else [])]
    blobs: dict[Digest, Descriptor] = {
        item.digest: item for manifest in manifests for item in (*manifest.layers, manifest.config)
    }
    for digest, descriptor in blobs.items():
        path = result.blobs[digest]
        await dest.put_blob(descriptor, lambda path=path: path.open("rb"))  # type: ignore[misc]  # a default argument
    for manifest in [*result.children, result.top]:
        await dest.put_manifest(manifest)
    await dest.tag(result.top)


def _claim(image: Location, dest: ImageRef, top: Manifest | Index, result: PatchResult, policy: str) -> Claim:
    return Claim(
        source_repository=_base_name(image),
        source_digest=result.source_digest,
        patched_repository=dest.name,
        patched_digest=top.digest,
        policy_hash=policy,
        signed_at=datetime.now(UTC),
    )


async def _verify(options: Namespace, config: ProxyConfig) -> Answer:
    """Check the signatures of an image in a registry; raises TrustFailure when none holds."""
    location = _typed("IMAGE", parse_location, options.image)
    if location.ref is None:
        raise Unsupported(f"{location}: signatures are kept in registries; give an image there")
    source = _typed("--source", ImageRef.parse, options.source) if options.source else None
    key = VerifyKey.parse_pem(_read_file(options.key), where=str(options.key))
    async with Engine(config, named=_hosts(location, None)) as engine:
        registry, ref = engine.registry, location.ref
        top = await registry.get_manifest(ref)
        name = ref.with_digest(top.digest)
        manifests = await _signatures(engine, name, top)
        blobs = {
            layer.digest: b"".join([piece async for piece in registry.stream_blob(name, layer)])
            for manifest in manifests
            for layer in manifest.layers
            if layer.size <= MAX_PAYLOAD
        }

    def check(claim: Claim) -> None:
        check_claim(
            claim,
            source_repository=source.name if source else None,
            source_digest=source.digest if source else None,
            patched_digest=top.digest,
            patched_repository=None,
            policy_hash=None,
            max_age=None,
            now=datetime.now(UTC),
        )

    claim, used = verify_attached(manifests, lambda layer: blobs.get(layer.digest, b""), [key], check)
    return Answer(*tell_verified(str(name), claim, used))


async def _signatures(engine: Engine, name: ImageRef, top: Manifest | Index) -> list[Manifest]:
    """Return the signature manifests of an image: its referrers' and its `.sig` tag's."""
    wanted = [item.digest for item in await engine.registry.referrers(name, top.digest) if is_signature(item)]
    refs = [name.with_digest(digest) for digest in wanted]
    tagged = name.with_tag(signature_tag(top.digest))
    if await engine.registry.head_manifest(tagged) is not None:
        refs.append(tagged)
    found = [await engine.registry.get_manifest(ref) for ref in refs]
    return [manifest for manifest in found if isinstance(manifest, Manifest)]


def _destination(options: Namespace, image: Location) -> Location:
    """Return where the patched image goes: DEST, the tag, or beside the original with `-patched`."""
    if options.output:
        return _typed("DEST", parse_location, options.output)
    if image.ref is not None:
        if options.tag and ("/" in options.tag or ":" in options.tag):
            return _typed("--tag", parse_location, options.tag)
        ref = _typed("--tag", ImageRef.parse, f"{image.ref.name}:{options.tag}") if options.tag else None
        return Location(Kind.REGISTRY, ref or image.ref.with_tag(f"{image.ref.tag or 'latest'}-patched"))
    if image.kind is Kind.OCI:
        tag = options.tag or f"{image.tag or 'latest'}-patched"
        return _typed("--tag", parse_location, f"{Kind.OCI}:{image.path}:{tag}")
    stem = image.path.name.removesuffix(".gz").removesuffix(".tar")
    archive = image.path.with_name(f"{stem}-patched.tar")
    tag = options.tag or image.tag
    return _typed("--tag", parse_location, f"{image.kind}:{archive}:{tag}" if tag else f"{image.kind}:{archive}")


def _hosts(*locations: Location | None) -> set[str]:
    return {location.ref.host for location in locations if location is not None and location.ref is not None}


def _base_name(image: Location) -> str:
    return image.ref.name if image.ref is not None else f"localhost/{image.kind}"


def _read_report(options: Namespace) -> Findings:
    if options.report == "-":
        return parse_report(sys.stdin.buffer.read(), "standard input")
    return parse_report(_read_file(Path(options.report)), options.report)


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise MalformedInput(f"cannot be read: {error.strerror}", file=str(path)) from error


def _only(findings: Findings) -> dict[str, str]:
    """Return the lowest wanted version by package; Unsupported for a distribution that is not patched."""
    family = FAMILIES_OF.get(findings.os_family)
    if family is None:
        if not findings.items:
            return {}
        raise Unsupported(f"the report is about {findings.os_family or 'an unknown system'}: not patched by admend yet")
    return fixed_versions(findings, family_named(family).compare)


def _check_report(findings: Findings, where: str, image: Opened) -> None:
    """Check that the report is about this image; raises MalformedInput."""
    config, system = parse_config(image.config), image.inspection.distribution
    try:
        check_image(findings, [str(item) for item in config.diff_ids], config.architecture, system.id, system.version)
    except MalformedInput as error:
        raise error.within("standard input" if where == "-" else where) from None


def _fixed(findings: Findings | None, result: PatchResult) -> tuple[str, ...]:
    """Return the report's vulnerabilities that the upgrades fix."""
    if findings is None:
        return ()
    moved = {upgrade.package for platform in result.platforms for upgrade in platform.upgrades}
    return tuple(sorted({item.cve for item in findings.items if item.fixed and item.package in moved}))
