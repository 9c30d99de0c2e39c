"""The demonstration: one pod admitted on this machine, everything embedded, and every claim checked.

Owns the order: an image (composed, or the one that was named), an upstream, the stage, two admissions, the checks,
the story. Ends 0 only if the answer, the digest that the mirror serves, the package versions inside it and the
signature were all checked; 1 when anything failed, 3 for an image that cannot be patched.
"""

import asyncio
import json
import shutil
import sys
from contextlib import AsyncExitStack
from pathlib import Path

from certs.errors import SettingsError
from certs.settings import load_settings
from proxy.api import UpgradeInfo
from proxy.config import ProxyConfig, SourcesConfig, UpstreamConfig
from proxy.errors import AdmendError, TrustFailure
from proxy.machine import read_settings
from proxy.oci.reference import ImageRef
from proxy.serve import Engine
from webhook.demo.checks import check_signature, check_versions
from webhook.demo.compose import PACKAGES, Composed, compose, find_release
from webhook.demo.present import Story, render_json, render_text
from webhook.demo.stage import LOOPBACK, Admission, Stage, Upstream
from webhook.demo.substitute import Substitute

FOLDER = Path(".cache") / "admend" / "demo"
NAME = "demo/openssl:1"
EXIT_FAILED, EXIT_USAGE, EXIT_UNSUPPORTED = 1, 2, 3


def run(image: str | None, json_output: bool, settings: Path | None = None) -> int:
    """Run the demonstration and return its exit code; `image` None composes one.

    `settings` is a proxy's configuration file, whose package sources and policy are used.
    """
    try:
        config = load_settings(settings, ProxyConfig) if settings else ProxyConfig()
    except SettingsError as error:
        print(f"admend-webhook: the configuration is wrong: {error}", file=sys.stderr)  # noqa: T201
        return EXIT_USAGE
    folder = Path.home() / FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        story = asyncio.run(_play(image, folder, config))
    except AdmendError as error:
        print(f"admend-webhook: the demonstration failed: {error}", file=sys.stderr)  # noqa: T201
        if json_output:
            print(json.dumps({"outcome": "failed", "error": error.code, "reason": str(error)}))  # noqa: T201
        return EXIT_FAILED
    for name in ("cache", "check", "compose", "upstream"):
        shutil.rmtree(folder / name, ignore_errors=True)
    print(json.dumps(render_json(story), indent=2) if json_output else render_text(story))  # noqa: T201
    return {"patched": 0, "clean": 0, "blocked": 0, "unsupported": EXIT_UNSUPPORTED}.get(story.outcome, EXIT_FAILED)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - what happens now; the story goes to standard output


async def _play(image: str | None, folder: Path, config: ProxyConfig) -> Story:
    """Set the stage, admit twice, check, and tell what happened."""
    async with AsyncExitStack() as stack:
        note, sources = "", config.sources
        if image is None:
            _say("composing a distroless image of the release suite")
            note, sources, composed = await _compose(stack, folder, sources)
            upstream = await stack.enter_async_context(Upstream(folder / "upstream", NAME, composed))
            image = upstream.reference
        host = ImageRef.parse(image).host
        _say("starting proxy and webhook on loopback")
        stage = await stack.enter_async_context(Stage(folder, sources, config.policy, (host,)))
        _say(f"admitting a pod with {image}, twice")
        first = await stage.admit(image)
        second = await stage.admit(image)
        _say("checking the answer against the mirror\n")
        return await _check(stage, folder, image, note, (first, second))


async def _compose(stack: AsyncExitStack, folder: Path, sources: SourcesConfig) -> tuple[str, SourcesConfig, Composed]:
    """Compose the image from the machine's Debian archive, or from a source of our own where it has none."""
    note = ""
    release = find_release(read_settings(sources))
    packages: tuple[str, ...] = PACKAGES
    if release is None:
        substitute = stack.enter_context(Substitute(folder / "substitute"))
        note = "This machine's apt names no Debian archive: a small signed source on loopback stands in."
        sources, release, packages = substitute.sources, substitute.release, substitute.packages
    config = ProxyConfig(sources=sources, cache=folder / "compose")
    async with Engine(config) as engine:
        return note, sources, await compose(engine, release, packages, folder / "compose")


async def _check(stage: Stage, folder: Path, image: str, note: str, admissions: tuple[Admission, Admission]) -> Story:
    """Check what the admissions said against the mirror, and return the story."""
    first, second = admissions
    events = stage.audit_events()
    event = events[0]
    patched = first.image if first.image != image else ""
    upgrades = tuple(UpgradeInfo.model_validate(item) for item in event["upgrades"])
    if event["outcome"] == "patched":
        if not (patched and patched == second.image == event["patched"] and upgrades):
            raise TrustFailure(f"the two admissions disagree: {first.image} and {second.image}")
        config = ProxyConfig(
            cache=folder / "check",
            upstream=UpstreamConfig(private=(LOOPBACK,), ca_file=stage.certs / "ca.crt"),
        )
        async with Engine(config) as engine:
            await check_versions(engine, ImageRef.parse(patched), upgrades)
            original = f"{ImageRef.parse(image).name}@{event['source_digest']}"
            await check_signature(engine.registry, ImageRef.parse(patched), original, stage.proxy.keys.signing.public)
    return Story(
        outcome=event["outcome"] or "failed",
        original=image,
        patched=patched,
        upgrades=upgrades,
        skipped=tuple(f"{item['package']} {item['reason']}".strip() for item in event["skipped"]),
        first_sight_ms=first.milliseconds,
        cached_ms=second.milliseconds,
        signature_verified=bool(patched),
        versions_verified=bool(patched),
        audit=event,
        folder=str(stage.folder / "mirror"),
        note=note,
        reason=event["reason"],
    )
