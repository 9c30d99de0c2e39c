"""The plan for small worlds is what the real apt would do: `apt-get --simulate upgrade`."""

import io
import random
import re
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from proxy.engine.closure import Closure
from proxy.engine.families.dpkg.candidates import choose
from proxy.engine.families.dpkg.deb822 import Stanza
from proxy.engine.families.dpkg.index import parse_package
from proxy.engine.families.dpkg.spool import write_stanzas
from proxy.engine.families.dpkg.version import compare_versions
from proxy.engine.family import Blob, Candidate, Fetch, Installed, Package, PackageIndex, PackageSource
from proxy.engine.plan import plan_upgrades
from tests.proxy.engine.families.dpkg.test_candidates import Database
from tests.simulators.debian_source import Deb, DebianSource, Suite, build_deb
from tests.simulators.private_apt import private_apt, render_status
from tests.simulators.rootfs import rootfs_of
from tests.support import require_tool
from webhook.demo.package_source import render_packages

NAMES = "abcdef"
WORLDS = {
    "a new dependency keeps its package back": ("a 1; b 1", "a 2 Depends=new; new 1; b 2"),
    "equal versions move together": ("lib 1; dev 1 Depends=lib (= 1)", "lib 2; dev 2 Depends=lib (= 2)"),
    "equal versions stay together": ("lib 1; dev 1 Depends=lib (= 1)", "lib 2; other 1"),
    "a break keeps its package back": ("a 1; b 1", "a 2 Breaks=b (<< 2)"),
    "a break is solved by the other's move": ("a 1; b 1", "a 2 Breaks=b (<< 2); b 2"),
    "a conflict of a staying package counts": ("a 1; b 1 Conflicts=a (>> 1)", "a 2"),
    "a provided name with a version counts": ("a 1; p 1 Provides=v (= 3)", "a 2 Depends=v (>= 3)"),
    "a provided name without one does not": ("a 1; p 1 Provides=v", "a 2 Depends=v (>= 3)"),
    "an alternative that is installed is enough": ("a 1; x 1", "a 2 Depends=none | x"),
    "what the new version no longer provides is missed": (
        "p 1 Provides=v; a 1 Depends=v",
        "p 2",
    ),
    "a dependency's own move is enough": ("a 1; l 1", "a 2 Depends=l (>= 2); l 2~rc1; l 2"),
    "a new recommendation keeps its package back": ("a 1; b 1", "a 2 Recommends=new; new 1; b 2"),
    "one that nobody has does too": ("a 1", "a 2 Recommends=nowhere"),
    "an old one that is lacking does not": ("a 1 Recommends=new", "a 2 Recommends=new; new 1"),
    "nor a new one beside it": ("a 1 Recommends=new", "a 2 Recommends=new, other; new 1"),
    "a recommendation that is met by a move": ("a 1; b 1", "a 2 Recommends=b (>= 2); b 2"),
    "a recommendation that a move breaks": ("a 1; b 1 Recommends=a (= 1)", "a 2; b 2 Recommends=a (= 1)"),
    "one of a staying package": ("a 1; b 1 Recommends=a (<< 2)", "a 2"),
    "a suggestion is none": ("a 1", "a 2 Suggests=new; new 1"),
    "what was sent back for another that stays": ("b 1; c 1; f 1", "b 2 Depends=c (<< 2); c 2 Conflicts=f; f 1"),
    "a chain falls back to its blocker": (
        "a 1; b 1; c 1",
        "a 2 Depends=b (>= 2); b 2 Depends=c (>= 2); c 2 Depends=new",
    ),
}


def debs(text: str) -> tuple[Deb, ...]:
    """Return packages written as `name version Field=value & Field=value; ...`."""
    found: list[Deb] = []
    for item in text.split("; "):
        name, version, *field = item.split(" ", 2)
        parts = field[0].split(" & ") if field else []
        found.append(Deb(name, version, fields=dict(part.split("=", 1) for part in parts)))
    return tuple(found)


def planned(installed: tuple[Deb, ...], offered: tuple[Deb, ...], settings: str = "") -> dict[str, str]:
    spool = io.BytesIO()
    write_stanzas([render_packages([(deb, build_deb(deb)) for deb in offered])], spool, "x")
    data = spool.getvalue()
    source = PackageSource("dpkg", "http://archive.example", "x", ("main",), "amd64")
    index = PackageIndex(source, datetime(2026, 1, 1, tzinfo=UTC), {}, Blob("x", len(data), lambda: io.BytesIO(data)))
    database = Database(tuple(Installed(deb.name, parse_package(Stanza(deb.stanza().encode()))) for deb in installed))
    candidates = choose(rootfs_of({"etc/apt/apt.conf": settings.encode()}), database, [index])
    plan = plan_upgrades(database.packages, candidates, compare_versions)
    return {upgrade.key: upgrade.candidate.package.version for upgrade in plan.upgrades}


def judged(tmp_path: Path, installed: tuple[Deb, ...], offered: tuple[Deb, ...], settings: str = "") -> dict[str, str]:
    """Return what the real apt would upgrade."""
    get = require_tool("apt-get")
    with DebianSource([Suite("bookworm", offered)]) as server:
        (tmp_path / "key.gpg").write_bytes(server.keyring)
        status = render_status("\n\n".join(deb.stanza() for deb in installed))
        line = f"deb [signed-by={tmp_path}/key.gpg] {server.uri} bookworm main\n"
        config = Path(private_apt(tmp_path, line, status, "", ""))
        config.write_text(config.read_text() + settings)
        environment = {"APT_CONFIG": str(config), "LC_ALL": "C"}
        subprocess.run([get, "-q", "update"], env=environment, check=True, capture_output=True)
        said = subprocess.run([get, "-s", "upgrade"], env=environment, check=True, capture_output=True).stdout.decode()
    return dict(re.findall(r"^Inst (\S+) \[\S+\] \((\S+)", said, re.MULTILINE))


@pytest.mark.interop
@pytest.mark.parametrize("world", WORLDS)
def test_apt_would_upgrade_the_same(tmp_path: Path, world: str) -> None:
    installed, offered = (debs(text) for text in WORLDS[world])
    assert planned(installed, offered) == judged(tmp_path, installed, offered)


@pytest.mark.interop
@pytest.mark.parametrize("settings", ['APT::Install-Recommends "0";', 'APT { Install-Recommends "false"; };'])
def test_recommendations_count_only_where_the_image_installs_them(tmp_path: Path, settings: str) -> None:
    installed, offered = debs("a 1; b 1"), debs("a 2 Recommends=new; new 1; b 2 Recommends=a (= 1)")
    found = planned(installed, offered, settings)
    assert found == judged(tmp_path, installed, offered, settings) == {"a": "2", "b": "2"}


def relation(chance: random.Random, own: str) -> str:
    name = chance.choice([name for name in (*NAMES, "x", "v") if name != own])
    return (
        name if chance.random() < 0.4 else f"{name} ({chance.choice(['=', '>=', '<<', '>='])} {chance.choice('123')})"
    )


def fields(chance: random.Random, own: str, share: float) -> dict[str, str]:
    found: dict[str, str] = {}
    if chance.random() < share:
        groups = [" | ".join(relation(chance, own) for _ in range(chance.choice((1, 1, 2)))) for _ in range(2)]
        found["Depends"] = ", ".join(groups[: chance.choice((1, 1, 2))])
    if chance.random() < share / 2:
        found["Recommends"] = relation(chance, own)
    if chance.random() < share / 2:
        found[chance.choice(("Breaks", "Conflicts"))] = relation(chance, own)
    if chance.random() < share / 3:
        found["Provides"] = chance.choice(("v", "v (= 2)"))
    return found


def is_whole(installed: tuple[Deb, ...]) -> bool:
    """Say whether nothing is missing and nothing in conflict: apt refuses to work on anything else."""
    packages = [Installed(deb.name, parse_package(Stanza(deb.stanza().encode()))) for deb in installed]
    offers = {item.key: Candidate(item.package, Fetch(""), "") for item in packages}
    for item in packages:  # as if each came into an empty image
        others = [one for one in packages if one.key != item.key]
        empty = replace(item, package=Package(item.package.name, "0", "amd64"))
        closure = Closure([empty, *others], {item.key: offers[item.key]}, compare_versions, {})
        if closure.solve({item.key}) != {item.key}:
            return False
    return True


@pytest.mark.interop
@pytest.mark.parametrize("seed", range(40))
def test_apt_would_upgrade_the_same_in_worlds_made_at_random(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    installed: tuple[Deb, ...] = ()
    while not installed or not is_whole(installed):
        there = [name for name in NAMES if chance.random() < 0.8]
        installed = tuple(Deb(name, chance.choice("12"), fields=fields(chance, name, 0.35)) for name in there)
    known = {(deb.name, deb.version): deb for deb in installed}
    made = [Deb(name, version, fields=fields(chance, name, 0.5)) for name in (*NAMES, "x") for version in "123"]
    offered = tuple(known.get((deb.name, deb.version), deb) for deb in made if chance.random() < 0.45)
    assert planned(installed, offered) == judged(tmp_path, installed, offered)
