"""Which version is chosen under all kinds of preferences and settings: the real apt is asked for every one of them."""

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from proxy.engine.families.dpkg.candidates import choose
from proxy.engine.families.dpkg.deb822 import Stanza
from proxy.engine.families.dpkg.index import parse_package
from proxy.engine.family import Installed, PackageIndex, PackageSource
from tests.proxy.engine.families.dpkg.test_candidates import Database
from tests.proxy.engine.families.dpkg.test_index import refresh
from tests.simulators.debian_source import Deb, DebianSource, Suite
from tests.simulators.private_apt import private_apt, render_status
from tests.simulators.rootfs import rootfs_of
from tests.support import require_tool

pytestmark = pytest.mark.interop

NOW = datetime(2026, 6, 1, tzinfo=UTC)
OURS = {"Source": "alpha"}


def phased(share: int) -> dict[str, str]:
    return {"Phased-Update-Percentage": str(share)}


SUITES = (
    Suite("bookworm", (Deb("a", "1.5", fields=OURS), Deb("b", "1.0-1"), Deb("c", "1.5"), Deb("e", "1.5"))),
    Suite(
        "bookworm-security",
        (Deb("a", "1.6", fields=OURS), Deb("c", "1.6"), Deb("f", "1.1"), Deb("g", "1.2")),
        name="stable-security",
        facts={"Label": "Debian-Security", "Version": "12"},
    ),
    Suite("testing", (Deb("a", "2.0", fields=OURS), Deb("b", "2.0"), Deb("c", "1.4"), Deb("e", "1.5")), name="testing"),
    Suite(
        "bpo",
        (Deb("a", "3", fields=OURS), Deb("d", "3")),
        name="stable-backports",
        facts={"NotAutomatic": "yes", "ButAutomaticUpgrades": "yes"},
    ),
    Suite("experimental", (Deb("a", "4"), Deb("d", "4")), name="experimental", facts={"NotAutomatic": "yes"}),
    Suite("phases", (Deb("f", "2", fields=phased(30)), Deb("g", "1.1", fields=phased(30))), name="phases"),
    Suite("other", (Deb("b", "2.5"), Deb("e", "0.5")), name="other", component="contrib"),
)
ELSEWHERE = Suite("vendor", (Deb("b", "3.0"), Deb("c", "2.5")), name="vendor", facts={"Origin": "Vendor Inc"})
INSTALLED = (
    Deb("a", "1.0-1", fields=OURS),
    Deb("b", "1.0-1"),
    Deb("c", "1.5"),
    Deb("d", "1.0-1"),
    Deb("e", "1.0-1"),
    Deb("f", "1.0-1"),
    Deb("g", "1.0-1"),
)
NAMES = [deb.name for deb in INSTALLED]


def pin(package: str, what: str, priority: str) -> str:
    return f"Package: {package}\nPin: {what}\nPin-Priority: {priority}\n\n"


PINS = {
    "none": "",
    "a suite at 100": pin("*", "release a=testing", "100"),
    "a suite at 99": pin("*", "release n=testing", "99"),
    "a suite never": pin("*", "release n=testing", "never"),
    "a suite below nothing": pin("*", "release n=testing", "-10"),
    "an archive, shortly": pin("*", "release testing", "990"),
    "a version, shortly": pin("*", "release 12", "990"),
    "a version's beginning, shortly": pin("*", "release 1*", "990"),
    "a version": pin("*", "release v=12", "400") + pin("*", "release o=Debian", "300"),
    "an origin with a blank": pin("*", "release o=Vendor Inc", "50"),
    "an origin in quotes matches nothing": pin("*", 'release o="Vendor Inc"', "50"),
    "a label": pin("*", "release l=Debian-Security", "995"),
    "a component": pin("*", "release c=contrib", "-1"),
    "an architecture": pin("*", "release b=amd64, n=testing", "-1"),
    "several conditions": pin("*", "release o=Debian,a=stable,n=bookworm", "991"),
    "conditions with blanks": pin("*", "release o=Debian ,  a=testing", "1"),
    "the last condition of a kind": pin("*", "release n=bookworm, n=testing", "-1"),
    "an unknown condition": pin("*", "release z=1, n=testing", "-1"),
    "unknown conditions alone": pin("*", "release z=1", "-1"),
    "conditions in capitals": pin("*", "release N=testing", "-1"),
    "an empty condition": pin("*", "release n=", "-1"),
    "everything": pin("*", "release *", "50"),
    "a site": pin("*", "origin localhost", "-1"),
    "a site in quotes": pin("*", 'origin "localhost"', "-1"),
    "a site's pattern": pin("*", "origin local*", "-1"),
    "a site's expression": pin("*", "origin /^LOCAL/", "-1"),
    "no site is the installed state": pin("*", 'origin ""', "999"),
    "the installed state": pin("*", "release a=now", "600"),
    "a version of all packages means nothing": pin("*", "version 1*", "1"),
    "a package's version": pin("b", "version 2.0", "995"),
    "a package's version, begun": pin("b", "version 1.0*", "900"),
    "a package's version as a pattern": pin("a", "version ?.[05]", "900"),
    "a package's version as an expression": pin("a", "version /^(1|2)\\.[0-5]$/", "900"),
    "a downgrade": pin("e", "version 0.5", "1001"),
    "a downgrade at the limit": pin("e", "version 0.5", "1000"),
    "no downgrade": pin("e", "version 0.5", "999"),
    "a version in two suites": pin("e", "release n=testing", "-5"),
    "one suite of two": pin("*", "release n=testing", "-5") + pin("e", "release n=bookworm", "-7"),
    "several packages": pin("b a", "release n=testing", "-1"),
    "packages by pattern": pin("[ab]", "release n=testing", "-1"),
    "packages by pattern, not": pin("[!ab]", "release o=Debian", "-1"),
    "packages by expression": pin("/^[AB]$/", "release n=testing", "-1"),
    "packages by an expression of a part": pin("/b|x/", "release n=vendor", "-1"),
    "the star among others": pin("* a", "release n=testing", "-1"),
    "a source's packages": pin("src:alpha", "release n=testing", "-1"),
    "a source's packages by pattern": pin("src:al*", "version 2*", "-1"),
    "a source's packages, of any architecture": pin("src:alpha:any", "release n=testing", "-1"),
    "a package of the native architecture": pin("a:amd64", "release n=testing", "-1"),
    "a package of another one": pin("a:i386", "release n=testing", "-1"),
    "a package of any": pin("a:any", "release n=testing", "-1"),
    "the first specific pin": pin("a", "release n=testing", "700") + pin("a", "release n=testing", "-1"),
    "a specific pin after a general one": pin("*", "release n=testing", "-1") + pin("a", "version 2.0", "600"),
    "the first general pin": pin("*", "release a=testing", "600") + pin("*", "release n=testing", "-1"),
    "never, though not first": pin("*", "release a=testing", "600") + pin("*", "release n=testing", "never"),
    "a suite never, a package all the same": pin("*", "release n=testing", "never") + pin("a", "version 2.0", "900"),
    "backports, wanted": pin("*", "release n=bpo", "500"),
    "backports, for a package": pin("a", "release a=stable-backports", "501"),
    "experimental at 100": pin("*", "release a=experimental", "100"),
    "comments and blank lines": "# why\n\n" + pin("*", "release n=testing", "-1").replace("Pin:", "# so\nPin:"),
    "no pin at all": "Package: a\nPin-Priority: 1\n\n" + pin("*", "release n=testing", "-1"),
    "a kind that nobody knows": pin("a", "nonsense 1", "1"),
    "a kind in capitals": pin("a", "Release n=testing", "-1"),
    "an explanation": "Explanation: because\n" + pin("a", "release n=testing", "-1"),
}
REFUSED = {
    "no priority": "Package: a\nPin: release n=testing\n",
    "no number": pin("a", "release n=testing", "high"),
    "zero": pin("a", "release n=testing", "0"),
    "too much": pin("a", "release n=testing", "40000"),
    "never for a package": pin("a", "version 2.0", "never"),
    "no package": "Pin: release n=testing\nPin-Priority: 1\n",
}
SETTINGS = {
    "an archive": 'APT::Default-Release "stable";',
    "a codename": "APT::Default-Release bookworm;",
    "in a scope, with comments": '// no\nAPT { # why\n Default-Release "testing"; /* no */ };',
    "an expression": 'APT::Default-Release "/^bookworm(|-security|-updates)$/";',
    "a condition": 'APT::Default-Release "n=testing";',
    "cleared": 'APT::Default-Release "testing";\n#clear APT::Default-Release;',
    "the last": 'apt::default-release "testing"; APT::Default-Release "bookworm";',
    "unknown": 'APT::Default-Release "nowhere";',
    "a pattern": 'APT::Default-Release "book*";',
    "phased, always": 'APT::Get::Always-Include-Phased-Updates "1";',
    "phased, never": 'APT::Get::Never-Include-Phased-Updates "true";',
    "phased, never, as the desktop's": 'Update-Manager::Never-Include-Phased-Updates "yes";',
    "phased, neither": 'APT::Get::Never-Include-Phased-Updates "no"; Update-Manager::Never-Include-Phased-Updates "1";',
}


@dataclass(frozen=True)
class Judge:
    """The real apt on a state of its own, and the same sources' indexes as admend reads them."""

    folder: Path
    config: str
    indexes: tuple[PackageIndex, ...]

    def said(self, preferences: str, parts: Mapping[str, str], settings: str) -> dict[str, str]:
        """Return what `apt-get upgrade` would move: of each package the version, unless it refuses to work."""
        (self.folder / "apt/etc/preferences").write_text(preferences)
        folder = self.folder / "apt/etc/preferences.d"
        folder.mkdir(exist_ok=True)
        for old in folder.iterdir():
            old.unlink()
        for name, text in parts.items():
            (folder / name).write_text(text)
        config = self.folder / "case.conf"
        config.write_text(Path(self.config).read_text() + settings + "\n")
        command = [require_tool("apt-get"), "-s", "-o", "Dir::Etc::machine-id=/dev/null", "upgrade"]
        environment = {"APT_CONFIG": str(config), "LC_ALL": "C", "SOURCE_DATE_EPOCH": "1"}
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if ran.returncode:
            return {"apt": "refuses"}
        lines = [line.split() for line in ran.stdout.splitlines() if line.startswith("Inst ")]
        return {words[1]: words[3].strip("(") for words in lines}


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Judge:
    folder = tmp_path_factory.mktemp("judge")
    status = render_status("\n\n".join(deb.stanza() for deb in INSTALLED))
    with DebianSource((*SUITES, ELSEWHERE)) as server:
        (folder / "key.gpg").write_bytes(server.keyring)
        elsewhere = server.uri.replace("127.0.0.1", "localhost")
        asked = [(server.uri, suite) for suite in SUITES] + [(elsewhere, ELSEWHERE)]
        lines = "".join(
            f"deb [signed-by={folder}/key.gpg] {uri} {suite.codename} {suite.component}\n" for uri, suite in asked
        )
        config = private_apt(folder / "apt", lines, status, "", "")
        get = require_tool("apt-get")
        subprocess.run([get, "-q", "update"], env={"APT_CONFIG": config}, check=True, capture_output=True)
        indexes = tuple(
            refresh(
                PackageSource("dpkg", uri, suite.codename, (suite.component,), "amd64", ("debian",)),
                {"debian": server.keyring},
                NOW,
            )
            for uri, suite in asked
        )
    return Judge(folder, config, indexes)


def chosen(judge: Judge, preferences: str, parts: Mapping[str, str], settings: str) -> dict[str, str]:
    """Return what admend would move: as `Judge.said`."""
    files = {"etc/apt/preferences": preferences.encode(), "etc/apt/apt.conf": settings.encode()}
    files |= {f"etc/apt/preferences.d/{name}": text.encode() for name, text in parts.items()}
    packages = tuple(Installed(deb.name, parse_package(Stanza(deb.stanza().encode()))) for deb in INSTALLED)
    found = choose(rootfs_of(files), Database(packages), judge.indexes)
    if any("cannot be followed" in one.blocked or "apt refuses" in one.blocked for one in found.values()):
        return {"apt": "refuses"}
    return {key: candidate.package.version for key, candidate in found.items() if not candidate.blocked}


def without_downgrades(said: Mapping[str, str]) -> dict[str, str]:
    """Leave out what apt would take an older version of: admend never does, and apt asks before it does."""
    return {name: version for name, version in said.items() if version != "0.5"}


@pytest.mark.parametrize("case", PINS)
@pytest.mark.parametrize("settings", ["", 'APT::Default-Release "bookworm";'])
def test_apt_follows_the_same_pins(judge: Judge, case: str, settings: str) -> None:
    said = judge.said(PINS[case], {}, settings)
    assert chosen(judge, PINS[case], {}, settings) == without_downgrades(said)


@pytest.mark.parametrize("case", REFUSED)
def test_where_apt_refuses_pins_nothing_moves(judge: Judge, case: str) -> None:
    assert judge.said(REFUSED[case], {}, "") == {"apt": "refuses"}
    assert chosen(judge, REFUSED[case], {}, "") == {"apt": "refuses"}


@pytest.mark.parametrize("case", SETTINGS)
def test_apt_follows_the_same_settings(judge: Judge, case: str) -> None:
    assert chosen(judge, "", {}, SETTINGS[case]) == judge.said("", {}, SETTINGS[case])


FILES = {
    "the main file comes first": ({"": ("a", "600"), "one": ("a", "-1")}),
    "the parts in order": {"20-b": ("a", "-1"), "10-a": ("a", "600")},
    "only parts of the right name": {"a.pref": ("a", "-1"), "b.bak": ("b", "-1"), "c~": ("b", "-1"), ".d": ("b", "-1")},
}


@pytest.mark.parametrize("case", FILES)
def test_apt_reads_the_same_files(judge: Judge, case: str) -> None:
    texts = {name: pin(package, "release n=testing", priority) for name, (package, priority) in FILES[case].items()}
    main = texts.pop("", "")
    assert chosen(judge, main, texts, "") == judge.said(main, texts, "")
