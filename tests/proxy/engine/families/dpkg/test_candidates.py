"""Which version is chosen, by apt's rules; apt itself is asked in the end."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from proxy.engine.families.dpkg.candidates import available, choose
from proxy.engine.families.dpkg.spool import write_stanzas
from proxy.engine.family import Blob, Candidate, Distribution, Installed, Package, PackageIndex, PackageSource
from tests.simulators.rootfs import rootfs_of

BOOKWORM = Distribution("debian", "12", "bookworm")
DATE = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Database:
    packages: tuple[Installed, ...]
    distribution: Distribution = BOOKWORM
    arch: str = "amd64"


def installed(*names: str, version: str = "1.0-1", arch: str = "amd64") -> Database:
    return Database(tuple(Installed(name, Package(name, version, arch)) for name in names))


def index(suite: str, *packages: str, facts: Mapping[str, str] | None = None, more: str = "") -> PackageIndex:
    """Make an index of `name version arch` texts."""
    stanzas = "".join(
        f"Package: {name}\nVersion: {version}\nArchitecture: {arch}\nFilename: pool/{name}_{version}.deb\nSize: 1\n"
        f"SHA256: {'0' * 64}\n{more}\n"
        for name, version, arch in (text.split() for text in packages)
    )
    spool = io.BytesIO()
    write_stanzas([stanzas.encode()], spool, suite)
    data = spool.getvalue()
    security = suite.endswith("-security")
    source = PackageSource("dpkg", f"http://{suite}.example/debian", suite, ("main",), "amd64", security=security)
    known = {"Suite": "stable", "Codename": suite, "Origin": "Debian", "Label": "Debian", **(facts or {})}
    return PackageIndex(source, DATE, known, Blob(suite, len(data), lambda: io.BytesIO(data)))


def versions(chosen: Mapping[str, Candidate]) -> dict[str, str]:
    return {key: candidate.package.version for key, candidate in chosen.items()}


BACKPORTS = {"NotAutomatic": "yes", "ButAutomaticUpgrades": "yes"}
NOTHING = rootfs_of({"etc/hostname": b"x"})


def test_the_highest_version_of_all_sources_is_chosen() -> None:
    chosen = choose(
        NOTHING, installed("a", "b"), [index("bookworm", "a 1.0-1 amd64"), index("x-security", "a 1.0-2 amd64")]
    )
    assert versions(chosen) == {"a": "1.0-2"}
    assert chosen["a"].fetch.url == "http://x-security.example/debian/pool/a_1.0-2.deb"
    assert chosen["a"].security


def test_a_version_that_a_security_source_has_too_is_a_security_update_from_the_first_source() -> None:
    chosen = choose(NOTHING, installed("a"), [index("bookworm", "a 1.0-2 amd64"), index("x-security", "a 1.0-2 amd64")])
    assert chosen["a"].security
    assert chosen["a"].source == "bookworm.example/debian bookworm"


def test_a_version_that_comes_after_one_of_a_security_source_is_a_security_update() -> None:
    offers = [index("bookworm-updates", "a 1.0-3 amd64", "b 1.0-3 amd64"), index("x-security", "a 1.0-2 amd64")]
    chosen = choose(NOTHING, installed("a", "b"), [*offers, index("y-security", "b 1.0-1 amd64", "b 0.9 amd64")])
    assert versions(chosen) == {"a": "1.0-3", "b": "1.0-3"}
    assert (chosen["a"].security, chosen["b"].security) == (True, False)


def test_an_older_version_is_never_chosen() -> None:
    assert choose(NOTHING, installed("a"), [index("bookworm", "a 0.9-1 amd64", "a 1.0-1 amd64")]) == {}


def test_another_architecture_is_never_chosen_but_all_is_native() -> None:
    offers = [index("bookworm", "a 2 i386", "b 2 all", "c 2 amd64")]
    assert versions(choose(NOTHING, installed("a", "b", "c"), offers)) == {"b": "2", "c": "2"}
    assert versions(choose(NOTHING, installed("a", "b", "c", arch="i386"), offers)) == {"a": "2"}


def test_backports_do_not_replace_a_release_version_but_do_follow_their_own() -> None:
    release, backports = index("bookworm", "a 1.0-1 amd64"), index("bookworm-backports", "a 2 amd64", facts=BACKPORTS)
    assert choose(NOTHING, installed("a"), [release, backports]) == {}
    own = installed("a", version="1.9~bpo")
    assert versions(choose(NOTHING, own, [release, backports])) == {"a": "2"}
    assert choose(NOTHING, own, [index("experimental", "a 2 amd64", facts={"NotAutomatic": "yes"})]) == {}


@pytest.mark.parametrize(
    ("path", "data", "reason"),
    [
        ("etc/hostname", b"x", ""),
        ("etc/machine-id", b"uninitialized\n", ""),
        ("etc/machine-id", b"0123456789abcdef0123456789abcdef\n", "has a machine-id, by which apt draws lots"),
        ("etc/apt/apt.conf", b'APT::Get::Never-Include-Phased-Updates "1";', "Never-Include-Phased-Updates"),
        ("etc/apt/apt.conf.d/10id", b'APT::Machine-ID "abc";', "has a machine-id, by which apt draws lots"),
        ("etc/apt/apt.conf.d/10id.bak", b'APT::Machine-ID "abc";', ""),
    ],
)
def test_a_phased_update_stays_away_only_where_something_identifies_the_machine(
    path: str, data: bytes, reason: str
) -> None:
    phases = index("x", "a 2 amd64", more="Phased-Update-Percentage: 40\n")
    chosen = choose(rootfs_of({path: data}), installed("a"), [phases])
    assert bool(chosen["a"].blocked) == bool(reason)
    assert reason in chosen["a"].blocked
    security = index("bookworm-security", "a 1.5 amd64", facts={"Suite": "stable-security"})
    assert not choose(rootfs_of({path: data}), installed("a"), [phases, security])["a"].blocked


@pytest.mark.parametrize(
    ("preferences", "expected"),
    [
        (b"Package: a\nPin: version 1.0*\nPin-Priority: 1001\n", {}),
        (b"Package: *\nPin: release n=testing\nPin-Priority: 50\n", {"a": "1.5"}),
        (b"# why\nPackage: *\nPin: release a=stable, n=test*\nPin-Priority: -1\n", {"a": "1.5"}),
        (b"Package: *\nPin: origin testing.example\nPin-Priority: -1\n", {"a": "1.5"}),
        (b'Package: *\nPin: origin "other.example"\nPin-Priority: -1\n', {"a": "2"}),
        (b"Package: z a\nPin: release o=Debian\nPin-Priority: 10\n", {}),
        (b"Package: src:src\nPin: release n=bookworm\nPin-Priority: 600\n", {"a": "2"}),
        (b"Package: a*\nPin: release n=bookworm\nPin-Priority: 600\n", {"a": "1.5"}),
    ],
)
def test_pins_of_the_image_are_followed(preferences: bytes, expected: dict[str, str]) -> None:
    fs = rootfs_of({"etc/apt/preferences.d/pins": preferences})
    offers = [index("bookworm", "a 1.5 amd64"), index("testing", "a 2 amd64")]
    assert versions(choose(fs, installed("a"), offers)) == expected


def test_a_default_release_comes_before_newer_versions_elsewhere() -> None:
    fs = rootfs_of({"etc/apt/apt.conf.d/99": b'APT::Default-Release "bookworm";\n'})
    offers = [index("bookworm", "a 1.0-1 amd64", "b 1.1 amd64"), index("testing", "a 2 amd64", "b 2 amd64")]
    assert versions(choose(fs, installed("a", "b"), offers)) == {"b": "1.1"}


@pytest.mark.parametrize(
    "bad",
    [
        b"Package: a\nPin: release n=x\nPin-Priority: high\n",
        b"Package: a\nPin: release n=x\n",
        b"Package: a\nPin: version 1\nPin-Priority: never\n",
        b"Pin: release n=x\nPin-Priority: 1\n",
        b"Package: /(a)\\1/\nPin: release n=x\nPin-Priority: 1\n",
        b"Package: a\nPin: version /[[.a.]]/\nPin-Priority: 1\n",
        b"Package: a\nPin: release n=/" + b"x" * 280 + b"/\nPin-Priority: 1\n",
    ],
)
def test_preferences_that_cannot_be_followed_block_rather_than_guess(bad: bytes) -> None:
    fs = rootfs_of({"etc/apt/preferences": bad})
    chosen = choose(fs, installed("a"), [index("bookworm", "a 2 amd64")])
    assert "the image's apt preferences cannot be followed: /etc/apt/preferences" in chosen["a"].blocked


def test_every_version_on_offer_is_listed_newest_first() -> None:
    offers = [index("bookworm", "a 1 amd64", "a 3 i386"), index("x-security", "a 2 amd64", "a 1 amd64")]
    found = available(installed("a"), offers, "a")
    assert [(one.package.version, one.source.split("/")[0]) for one in found] == [
        ("2", "x-security.example"),
        ("1", "bookworm.example"),
    ]
