"""The mirror, the upstream or the package source is away: what a whole admission comes to, real webhook and real proxy.

Both speak TLS on loopback; the mirror is a registry of its own. What the proxy patched before the fault is what nodes
know already; each test says what becomes of it, and of an image that nobody has seen.
"""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults.answers import Admitted
from tests.faults.site import MIRROR, Site, open_site
from tests.simulators.registry import Faults
from webhook.config import Mode

DOWN, UP = Faults(error_status=503, errors=-1), Faults()


@pytest.fixture
async def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    monkeypatch.setattr("proxy.witness.PATIENCE", 0.1)  # deadlines are shorter here than in a cluster
    async with open_site(tmp_path) as made:
        yield made


def check_rewritten(answers: dict[Mode, Admitted]) -> None:
    for mode, found in answers.items():
        assert found.response["allowed"]
        assert found.line["outcome"] == "patched"
        assert found.line["verdict"] == ("would-rewrite" if mode is Mode.AUDIT else "rewrite")
        assert found.image.startswith(f"{MIRROR}/") is (mode is not Mode.AUDIT)


def check_withheld(answers: dict[Mode, Admitted], image: str, *reasons: str, outcome: str = "failed") -> None:
    for mode, found in answers.items():
        assert found.image == image
        assert found.response["allowed"] is (mode is not Mode.ENFORCE)
        assert found.line["outcome"] == outcome
        for reason in reasons:
            assert reason in found.line["reason"], found.line["reason"]
    assert [answers[mode].line["verdict"] for mode in Mode] == ["keep", "deny", "would-deny"]


async def test_without_the_mirror_nothing_is_rewritten_to_it_and_all_is_well_when_it_is_back(site: Site) -> None:
    image = await site.patched()
    check_rewritten(await site.admit(image))
    site.mirror.faults = DOWN
    check_withheld(await site.admit(image), image, "the mirror does not say whether it has", "503")
    new = site.world.add_image()
    check_withheld(await site.admit(new), new, "the mirror does not say whether it has")
    site.mirror.faults = UP
    check_rewritten(await site.admit(image))
    check_rewritten(await site.admit(new))


async def test_a_mirror_that_is_slow_costs_the_deadline_and_no_more(site: Site) -> None:
    image = await site.patched()
    site.mirror.faults = Faults(delay=30.0)
    for found in (await site.admit(image)).values():
        assert found.image == image
        assert found.line["outcome"] == "failed"
        assert "the mirror has not said in time whether it has" in found.line["reason"]


async def test_without_the_upstream_known_images_are_patched_ones_and_new_ones_keep_their_own(site: Site) -> None:
    image, new = await site.patched(), site.world.add_image()
    site.world.upstream.faults = DOWN
    check_rewritten(await site.admit(image))
    check_withheld(await site.admit(new), new, "upstream-unavailable", site.world.upstream.host)
    site.world.upstream.faults = Faults(delay=30.0)
    check_rewritten(await site.admit(image))
    check_withheld(await site.admit(new), new, "digest not known: the registry has not answered yet", outcome="pending")


async def test_an_image_that_the_upstream_does_not_have_is_named(site: Site) -> None:
    missing = f"{site.world.upstream.host}/team/nothing:1"
    check_withheld(await site.admit(missing), missing, "upstream-refused", "check the name and the tag")


async def test_without_the_package_source_its_last_index_and_the_packages_that_are_there_serve_on(site: Site) -> None:
    image, new = await site.patched(), site.world.add_image()
    site.world.source.__exit__(None, None, None)
    check_rewritten(await site.admit(image))
    check_rewritten(await site.admit(new))


async def test_without_a_package_source_that_was_never_seen_images_keep_their_own(site: Site) -> None:
    image = site.world.add_image()
    site.world.source.__exit__(None, None, None)
    site.proxy.engine.source_egress.policy = replace(site.proxy.engine.source_egress.policy, backoff=0.01)
    check_withheld(await site.admit(image), image, "upstream-unavailable", site.world.source.uri.split("/")[2])
