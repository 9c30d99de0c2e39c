"""The plan for small worlds is what the real apt would do: `apt-get --simulate upgrade`."""

import io
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from proxy.engine.families.dpkg.candidates import choose
from proxy.engine.families.dpkg.deb822 import Stanza
from proxy.engine.families.dpkg.index import parse_package
from proxy.engine.families.dpkg.spool import write_stanzas
from proxy.engine.families.dpkg.version import compare_versions
from proxy.engine.family import Blob, Installed, PackageIndex, PackageSource
from proxy.engine.plan import plan_upgrades
from tests.proxy.engine.families.dpkg.test_candidates import Database
from tests.simulators.debian_source import Deb, DebianSource, Suite, build_deb
from tests.simulators.private_apt import private_apt, render_status
from tests.simulators.rootfs import rootfs_of
from tests.support import require_tool
from webhook.demo.package_source import render_packages

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
    "a chain falls back to its blocker": (
        "a 1; b 1; c 1",
        "a 2 Depends=b (>= 2); b 2 Depends=c (>= 2); c 2 Depends=new",
    ),
}


def debs(text: str) -> tuple[Deb, ...]:
    found = []
    for item in text.split("; "):
        name, version, *field = item.split(" ", 2)
        found.append(Deb(name, version, fields=dict([field[0].split("=", 1)]) if field else {}))
    return tuple(found)


def planned(installed: tuple[Deb, ...], offered: tuple[Deb, ...]) -> dict[str, str]:
    spool = io.BytesIO()
    write_stanzas([render_packages([(deb, build_deb(deb)) for deb in offered])], spool, "x")
    data = spool.getvalue()
    source = PackageSource("dpkg", "http://archive.example", "x", ("main",), "amd64")
    index = PackageIndex(source, datetime(2026, 1, 1, tzinfo=UTC), {}, Blob("x", len(data), lambda: io.BytesIO(data)))
    database = Database(tuple(Installed(deb.name, parse_package(Stanza(deb.stanza().encode()))) for deb in installed))
    candidates = choose(rootfs_of({"x": b"y"}), database, [index])
    plan = plan_upgrades(database.packages, candidates, compare_versions)
    return {upgrade.key: upgrade.candidate.package.version for upgrade in plan.upgrades}


@pytest.mark.interop
@pytest.mark.parametrize("world", WORLDS)
def test_apt_would_upgrade_the_same(tmp_path: Path, world: str) -> None:
    get = require_tool("apt-get")
    installed, offered = (debs(text) for text in WORLDS[world])
    with DebianSource([Suite("bookworm", offered)]) as server:
        (tmp_path / "key.gpg").write_bytes(server.keyring)
        status = render_status("\n\n".join(deb.stanza() for deb in installed))
        line = f"deb [signed-by={tmp_path}/key.gpg] {server.uri} bookworm main\n"
        environment = {"APT_CONFIG": private_apt(tmp_path, line, status, "", ""), "LC_ALL": "C"}
        subprocess.run([get, "-q", "update"], env=environment, check=True, capture_output=True)
        said = subprocess.run([get, "-s", "upgrade"], env=environment, check=True, capture_output=True).stdout.decode()
    assert planned(installed, offered) == dict(re.findall(r"^Inst (\S+) \[\S+\] \((\S+)", said, re.MULTILINE))
