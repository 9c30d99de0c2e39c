"""What is added for small worlds is what the real apt would add: `apt-get --simulate upgrade --with-new-pkgs`."""

import io
import random
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from proxy.engine.families.dpkg.candidates import choose, choosing_additions
from proxy.engine.families.dpkg.deb822 import Stanza
from proxy.engine.families.dpkg.index import parse_package
from proxy.engine.families.dpkg.spool import write_stanzas
from proxy.engine.families.dpkg.version import compare_versions
from proxy.engine.family import Blob, Installed, PackageIndex, PackageSource
from proxy.engine.plan import plan_upgrades
from tests.proxy.engine.families.dpkg.test_candidates import Database
from tests.proxy.engine.families.dpkg.test_upgrade_by_apt import NAMES, WORLDS, debs, fields, is_whole
from tests.simulators.debian_source import Deb, DebianSource, Suite, build_deb
from tests.simulators.private_apt import private_apt, render_status
from tests.simulators.rootfs import rootfs_of
from tests.support import require_tool
from webhook.demo.package_source import render_packages

ADDING = {
    "a new dependency is added": ("a 1", "a 2 Depends=new; new 1"),
    "one of two alternatives": ("a 1", "a 2 Depends=x | y; x 1; y 1"),
    "the second where there is no first": ("a 1", "a 2 Depends=x | y; y 1"),
    "the second where the first is too old": ("a 1", "a 2 Depends=x (>= 2) | y; x 1; y 1"),
    "a sole provider": ("a 1", "a 2 Depends=v; p 1 Provides=v"),
    "a real one before a provider": ("a 1", "a 2 Depends=v; p 1 Provides=v; v 1"),
    "what it needs in turn": ("a 1", "a 2 Depends=x; x 1 Depends=y; y 1 Depends=z; z 1"),
    "what it needs and nobody has": ("a 1", "a 2 Depends=x; x 1 Depends=nowhere"),
    "what needs an upgrade": ("a 1; b 1", "a 2 Depends=x; x 1 Depends=b (>= 2); b 2"),
    "what it recommends": ("a 1", "a 2 Depends=x; x 1 Recommends=y; y 1"),
    "what it recommends and nobody has": ("a 1", "a 2 Depends=x; x 1 Recommends=nowhere"),
    "what a version newly recommends": ("a 1", "a 2 Recommends=x; x 1"),
    "an old recommendation is not": ("a 1 Recommends=x", "a 2 Recommends=x; x 1"),
    "one that conflicts with what stays": ("a 1; b 1", "a 2 Depends=x; x 1 Conflicts=b"),
    "one that breaks an old version": ("a 1; b 1", "a 2 Depends=x; x 1 Breaks=b (<< 2); b 2"),
    "the second where the first conflicts": ("a 1; b 1", "a 2 Depends=x | y; x 1 Conflicts=b; y 1"),
    "too old a version": ("a 1", "a 2 Depends=x (>= 2); x 1"),
    "two that need each other": ("a 1", "a 2 Depends=x; x 1 Depends=y; y 1 Depends=x"),
    "none for an alternative that is there": ("a 1; b 1", "a 2 Depends=x | b; x 1"),
    "none where a move is enough": ("a 1; b 1", "a 2 Depends=x | b (>= 2); x 1; b 2"),
    "the only candidate is the newest": ("a 1", "a 2 Depends=x; x 1; x 2"),
    "not the older one that would do": ("a 1", "a 2 Depends=x (<< 2); x 1; x 2"),
    "one for two": ("a 1; b 1", "a 2 Depends=x; b 2 Depends=x; x 1"),
    "not for what stays for another reason": ("a 1", "a 2 Depends=x, nowhere; x 1"),
    "the second where the first lacks something": ("a 1", "a 2 Depends=x | y; x 1 Depends=nowhere; y 1"),
    "the second where the first's need is too new": ("a 1; b 1", "a 2 Depends=x | y; x 1 Depends=b (>= 3); b 2; y 1"),
    "a move where the addition does": ("a 1; b 1; c 1", "a 2 Depends=x; x 1 Conflicts=b; c 2"),
    "additions that conflict": ("a 1; b 1", "a 2 Depends=x; b 2 Depends=y; x 1 Conflicts=y; y 1"),
    "one that serves the second group too": ("a 1", "a 2 Depends=d, e | d; d 1; e 1"),
    "what is in the way of an upgrade stays": ("a 1; f 1", "a 2 Breaks=f (= 2); f 2"),
    "a replacement that conflicts with the old name": ("a 1 Depends=o; o 1", "a 2 Depends=n; n 1 Conflicts=o"),
}


def planned(installed: tuple[Deb, ...], offered: tuple[Deb, ...], settings: str = "") -> dict[str, str]:
    spool = io.BytesIO()
    write_stanzas([render_packages([(deb, build_deb(deb)) for deb in offered])], spool, "x")
    data = spool.getvalue()
    source = PackageSource("dpkg", "http://archive.example", "x", ("main",), "amd64")
    index = PackageIndex(source, datetime(2026, 1, 1, tzinfo=UTC), {}, Blob("x", len(data), lambda: io.BytesIO(data)))
    database = Database(tuple(Installed(deb.name, parse_package(Stanza(deb.stanza().encode()))) for deb in installed))
    fs = rootfs_of({"etc/apt/apt.conf": settings.encode()})
    candidates = choose(fs, database, [index])
    with choosing_additions(fs, database, [index]) as addable:
        plan = plan_upgrades(database.packages, candidates, compare_versions, addable=addable)
    return {
        item.key: f"{'' if item.package.version else '+'}{item.candidate.package.version}" for item in plan.upgrades
    }


def judged(tmp_path: Path, installed: tuple[Deb, ...], offered: tuple[Deb, ...], settings: str = "") -> dict[str, str]:
    """Return what the real apt would upgrade and add."""
    get = require_tool("apt-get")
    with DebianSource([Suite("bookworm", offered)]) as server:
        (tmp_path / "key.gpg").write_bytes(server.keyring)
        status = render_status("\n\n".join(deb.stanza() for deb in installed))
        line = f"deb [signed-by={tmp_path}/key.gpg] {server.uri} bookworm main\n"
        config = Path(private_apt(tmp_path, line, status, "", ""))
        config.write_text(config.read_text() + settings)
        environment = {"APT_CONFIG": str(config), "LC_ALL": "C"}
        subprocess.run([get, "-q", "update"], env=environment, check=True, capture_output=True)
        words = [get, "-s", "upgrade", "--with-new-pkgs"]
        said = subprocess.run(words, env=environment, check=True, capture_output=True).stdout.decode()
    found = re.findall(r"^Inst (\S+) (\[\S+\] )?\((\S+)", said, re.MULTILINE)
    return {name: version if old else f"+{version}" for name, old, version in found}


@pytest.mark.interop
@pytest.mark.parametrize("world", [*WORLDS, *ADDING])
def test_apt_would_add_the_same(tmp_path: Path, world: str) -> None:
    installed, offered = (debs(text) for text in (WORLDS | ADDING)[world])
    assert planned(installed, offered) == judged(tmp_path, installed, offered)


@pytest.mark.interop
@pytest.mark.parametrize("seed", range(40))
def test_apt_would_add_the_same_in_worlds_made_at_random(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    installed: tuple[Deb, ...] = ()
    while not installed or not is_whole(installed):
        there = [name for name in NAMES if chance.random() < 0.6]
        installed = tuple(Deb(name, chance.choice("12"), fields=fields(chance, name, 0.35)) for name in there)
    known = {(deb.name, deb.version): deb for deb in installed}
    made = [Deb(name, version, fields=fields(chance, name, 0.5)) for name in (*NAMES, "x") for version in "123"]
    offered = tuple(known.get((deb.name, deb.version), deb) for deb in made if chance.random() < 0.45)
    assert planned(installed, offered) == judged(tmp_path, installed, offered)
