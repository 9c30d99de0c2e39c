"""What is removed in small worlds is what the real apt would remove: `apt-get --simulate dist-upgrade`."""

import io
import os
import random
import re
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from proxy.engine.families.dpkg.candidates import choose, choosing_additions
from proxy.engine.families.dpkg.deb822 import Stanza
from proxy.engine.families.dpkg.index import parse_package
from proxy.engine.families.dpkg.spool import write_stanzas
from proxy.engine.families.dpkg.version import compare_versions
from proxy.engine.family import Blob, Installed, PackageIndex, PackageSource
from proxy.engine.plan import PlanPolicy, UpgradePlan, plan_upgrades
from proxy.engine.transition import UNSURE
from tests.proxy.engine.families.dpkg.test_additions_by_apt import ADDING
from tests.proxy.engine.families.dpkg.test_candidates import Database
from tests.proxy.engine.families.dpkg.test_upgrade_by_apt import NAMES, WORLDS, debs, fields, is_whole
from tests.simulators.debian_source import Deb, DebianSource, Suite, build_deb
from tests.simulators.private_apt import private_apt, render_status
from tests.simulators.rootfs import rootfs_of
from tests.support import require_tool
from webhook.demo.package_source import render_packages

pytestmark = pytest.mark.interop

NEW_NAME = "n 1 Conflicts=o & Replaces=o & Provides=o"
REMOVING = {
    "a package that another one replaces": ("a 1 Depends=o; o 1", f"a 2 Depends=n; {NEW_NAME}"),
    "one that others need, too, and the new one provides": (
        "a 1 Depends=o; o 1; b 1 Depends=o",
        f"a 2 Depends=n; {NEW_NAME}; b 1 Depends=o",
    ),
    "an old leaf that breaks": ("a 1; b 1", "a 2 Breaks=b (<< 2)"),
    "one that conflicts": ("a 1; b 1", "a 2 Conflicts=b"),
    "one that is still on offer": ("a 1; b 1", "a 2 Conflicts=b; b 1"),
    "none where its newer version does": ("a 1; b 1", "a 2 Breaks=b (<< 2); b 2"),
    "one whose newer version does not do either": ("a 1; b 1", "a 2 Breaks=b; b 2"),
    "one whose newer version lacks something": ("a 1; b 1", "a 2 Breaks=b (<< 2); b 2 Depends=nowhere"),
    "a staying one that must not be with the new version": ("a 1; b 1 Conflicts=a (>> 1)", "a 2"),
    "what cannot be without it": ("a 1; b 1; c 1 Depends=b", "a 2 Conflicts=b"),
    "what cannot be without that": ("a 1; b 1; c 1 Depends=b; d 1 Depends=c", "a 2 Conflicts=b"),
    "not what has an alternative": ("a 1; b 1; c 1 Depends=b | e; e 1", "a 2 Conflicts=b"),
    "not what only recommends it": ("a 1; b 1; c 1 Recommends=b", "a 2 Conflicts=b"),
    "not what its own newer version frees": ("a 1; b 1; c 1 Depends=b", "a 2 Conflicts=b; c 2"),
    "what needs the old version exactly": ("a 1; d 1 Depends=a (= 1)", "a 2"),
    "what needs what is no longer provided": ("p 1 Provides=v; a 1 Depends=v", "p 2"),
    "no essential one": ("a 1; b 1 Essential=yes", "a 2 Conflicts=b"),
    "no protected one": ("a 1; b 1 Protected=yes", "a 2 Conflicts=b"),
    "no important one": ("a 1; b 1 Important=yes", "a 2 Conflicts=b"),
    "none that an essential one needs": ("a 1; b 1; e 1 Essential=yes & Depends=b", "a 2 Conflicts=b"),
    "none that counts for more": (
        "a 1; b 1; c 1 Depends=b; d 1 Depends=b",
        "a 2 Conflicts=b; b 1; c 1 Depends=b; d 1 Depends=b",
    ),
    "one of high priority for another's sake": ("a 1 Priority=required; b 1 Priority=optional", "a 2 Conflicts=b; b 1"),
    "none of higher priority": (
        "a 1 Priority=optional; b 1 Priority=required",
        "a 2 Priority=optional & Conflicts=b; b 1 Priority=required",
    ),
    "none for what lacks something else": ("a 1; b 1", "a 2 Conflicts=b & Depends=nowhere"),
    "two for one": ("a 1; b 1; c 1", "a 2 Conflicts=b & Breaks=c"),
    "one for two": ("a 1; b 1; c 1", "a 2 Conflicts=c; b 2 Breaks=c"),
    "one for what is added": ("a 1; b 1", "a 2 Depends=n; n 1 Conflicts=b"),
    "the other alternative instead": ("a 1; b 1", "a 2 Depends=x | y; x 1 Conflicts=b; y 1"),
    "none for a recommendation": ("a 1; b 1", "a 2 Recommends=n; n 1 Conflicts=b"),
    "a recommendation that nobody has keeps nothing back": ("a 1", "a 2 Recommends=nowhere"),
    "a new one beside one that was lacking is added": ("a 1 Recommends=p", "a 2 Recommends=p, q; p 1; q 1"),
    "a library and what needs its old name": (
        "l1 1; a 1 Depends=l1; b 1 Depends=l1",
        "l2 2 Breaks=l1; a 2 Depends=l2; b 2 Depends=l2",
    ),
    "a library whose old user has no newer version": (
        "l1 1; a 1 Depends=l1; b 1 Depends=l1",
        "l2 2 Breaks=l1; a 2 Depends=l2",
    ),
}
# Worlds made at random in which nobody can tell beforehand what apt does: there less moves, and nothing more goes.
CAREFUL = frozenset({11, 29})


def planned(installed: tuple[Deb, ...], offered: tuple[Deb, ...], held: str = "") -> UpgradePlan:
    spool = io.BytesIO()
    write_stanzas([render_packages([(deb, build_deb(deb)) for deb in offered])], spool, "x")
    data = spool.getvalue()
    source = PackageSource("dpkg", "http://archive.example", "x", ("main",), "amd64")
    index = PackageIndex(source, datetime(2026, 1, 1, tzinfo=UTC), {}, Blob("x", len(data), lambda: io.BytesIO(data)))
    packages = [Installed(deb.name, parse_package(Stanza(deb.stanza().encode()))) for deb in installed]
    database = Database(tuple(replace(item, fixed="held" if item.key == held else "") for item in packages))
    fs = rootfs_of({"etc/apt/apt.conf": b""})
    with choosing_additions(fs, database, [index]) as market:
        found = choose(fs, database, [index])
        policy = PlanPolicy(transitions="full")
        return plan_upgrades(database.packages, found, compare_versions, policy, addable=market, market=market)


def told(plan: UpgradePlan) -> dict[str, str]:
    moved = {
        item.key: f"{'' if item.package.version else '+'}{item.candidate.package.version}" for item in plan.upgrades
    }
    return moved | {item.key: "-" for item in plan.removals}


class Apt:
    """The real apt over one world."""

    def __init__(self, folder: Path, server: DebianSource, installed: tuple[Deb, ...], held: str) -> None:
        (folder / "key.gpg").write_bytes(server.keyring)
        status = render_status("\n\n".join(deb.stanza() for deb in installed))
        status = re.sub(rf"(?s)(Package: {held}\n.*?Status: )install", r"\1hold", status) if held else status
        line = f"deb [signed-by={folder}/key.gpg] {server.uri} bookworm main\n"
        self._environment = {**os.environ, "LC_ALL": "C", "APT_CONFIG": private_apt(folder, line, status, "", "")}
        self._status = folder / "status"

    def run(self, *words: str) -> str:
        command = [require_tool("apt-get"), *words]
        return subprocess.run(command, env=self._environment, check=True, capture_output=True).stdout.decode()

    def upgrade(self) -> dict[str, str]:
        self.run("-q", "update")
        said = self.run("-s", "dist-upgrade")
        found = re.findall(r"^Inst (\S+) (\[\S+\] )?\((\S+)", said, re.MULTILINE)
        moved = {name: version if old else f"+{version}" for name, old, version in found}
        return moved | dict.fromkeys(re.findall(r"^Remv (\S+)", said, re.MULTILINE), "-")

    def check(self, installed: tuple[Deb, ...]) -> None:
        """Let apt look for broken dependencies."""
        self._status.write_text(render_status("\n\n".join(deb.stanza() for deb in installed)))
        self.run("-q", "check")


def judged(folder: Path, installed: tuple[Deb, ...], offered: tuple[Deb, ...], held: str = "") -> dict[str, str]:
    """Return what the real apt would upgrade, add and remove."""
    with DebianSource([Suite("bookworm", offered)]) as server:
        return Apt(folder, server, installed, held).upgrade()


@pytest.mark.parametrize("world", [*WORLDS, *ADDING, *REMOVING])
def test_apt_would_remove_the_same(tmp_path: Path, world: str) -> None:
    installed, offered = (debs(text) for text in (WORLDS | ADDING | REMOVING)[world])
    assert told(planned(installed, offered)) == judged(tmp_path, installed, offered)


UNCERTAIN = {
    "an alternative that could be added": ("a 1; b 1; c 1 Depends=b | e", "a 2 Conflicts=b; e 1"),
    "one that has a newer version, for what is added": ("a 1; b 1", "a 2 Depends=n; n 1 Conflicts=b; b 2"),
}


@pytest.mark.parametrize("world", UNCERTAIN)
def test_where_nothing_is_certain_the_upgrade_stays_with_a_reason(tmp_path: Path, world: str) -> None:
    installed, offered = (debs(text) for text in UNCERTAIN[world])
    plan = planned(installed, offered)
    assert judged(tmp_path, installed, offered).get("a") == "2"
    assert plan.removals == ()
    assert UNSURE in {skip.package: skip.reason for skip in plan.skipped}["a"]


@pytest.mark.parametrize("held", ["b", "a", "c"])
def test_a_held_package_is_never_removed(tmp_path: Path, held: str) -> None:
    installed, offered = debs("a 1; b 1; c 1 Depends=b"), debs("a 2 Conflicts=b")
    plan = planned(installed, offered, held)
    assert told(plan) == judged(tmp_path, installed, offered, held)
    assert plan.skipped


@pytest.mark.parametrize("seed", range(40))
def test_apt_would_remove_the_same_in_worlds_made_at_random(tmp_path: Path, seed: int) -> None:
    installed, offered = made_at_random(seed)
    plan = planned(installed, offered)
    with DebianSource([Suite("bookworm", offered)]) as server:
        apt = Apt(tmp_path, server, installed, "")
        expected, found = apt.upgrade(), told(plan)
        if seed in CAREFUL:
            assert {item.key for item in plan.removals} <= {name for name, move in expected.items() if move == "-"}
        else:
            assert found == expected
        apt.check(after(installed, offered, found))


def made_at_random(seed: int) -> tuple[tuple[Deb, ...], tuple[Deb, ...]]:
    chance = random.Random(f"full{seed}")
    installed: tuple[Deb, ...] = ()
    while not installed or not is_whole(installed):
        there = [name for name in NAMES if chance.random() < 0.7]
        installed = tuple(Deb(name, chance.choice("12"), fields=fields(chance, name, 0.35)) for name in there)
    marks: dict[str, Mapping[str, str]] = {}
    for name in (*NAMES, "x"):
        lot = chance.random()
        if lot < 0.06 and any(deb.name == name for deb in installed):
            marks[name] = {"Essential": "yes"}
        elif lot < 0.3:
            marks[name] = {"Priority": chance.choice(("required", "important", "standard", "optional"))}
    installed = tuple(marked(deb, marks) for deb in installed)
    known = {(deb.name, deb.version): deb for deb in installed}
    made = [
        marked(Deb(name, version, fields=fields(chance, name, 0.5)), marks)
        for name in (*NAMES, "x")
        for version in "123"
    ]
    return installed, tuple(known.get((deb.name, deb.version), deb) for deb in made if chance.random() < 0.45)


def marked(deb: Deb, marks: Mapping[str, Mapping[str, str]]) -> Deb:
    return replace(deb, fields={**deb.fields, **marks.get(deb.name, {})})


def after(installed: tuple[Deb, ...], offered: tuple[Deb, ...], moves: Mapping[str, str]) -> tuple[Deb, ...]:
    """Return the packages that there are when all was done."""
    wanted = {deb.name: deb.version for deb in installed} | {name: move.strip("+-") for name, move in moves.items()}
    known = {(deb.name, deb.version): deb for deb in (*offered, *installed)}
    return tuple(known[name, version] for name, version in sorted(wanted.items()) if version)
