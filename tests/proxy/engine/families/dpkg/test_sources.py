"""Which sources an image gets: its own as far as they may be used, or the machine's for its release."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.engine.families.dpkg.sourcelist import MAX_ENTRIES, parse_source_list
from proxy.engine.families.dpkg.sources import image_sources
from proxy.engine.family import Distribution, PackageSource, SourceSettings
from tests.simulators.rootfs import rootfs_of

BOOKWORM = Distribution("debian", "12", "bookworm")
MACHINE = {
    "os-release": b'ID=debian\nVERSION_CODENAME="trixie"\n',
    "/etc/apt/sources.list.d/debian.sources": b"""\
Types: deb deb-src
# a comment
URIs: http://archive.example/debian
Suites: trixie trixie-updates trixie-backports
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://archive.example/debian-security
Suites: trixie-security
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
""",
    "/etc/apt/sources.list.d/other.list": b"deb [signed-by=/x/other.gpg] https://other.example/apt trixie main\n",
}
SETTINGS = SourceSettings(machine=MACHINE)
LIST = "etc/apt/sources.list"


def judge(
    files: dict[str, bytes], settings: SourceSettings = SETTINGS, distribution: Distribution = BOOKWORM
) -> tuple[list[PackageSource], list[str]]:
    sources, skipped = image_sources(rootfs_of(files), distribution, "amd64", settings)
    return list(sources), [f"{skip.uri}|{skip.written}|{skip.reason}" for skip in skipped]


def archs_of(files: dict[str, bytes], arch: str, *foreign: str) -> tuple[list[str], list[str]]:
    """Return the sources of an image with these architectures, with theirs, and what is skipped."""
    sources, skipped = image_sources(rootfs_of(files), BOOKWORM, arch, SETTINGS, foreign)
    return [f"{source.suite} {source.arch}" for source in sources], [skip.reason for skip in skipped]


def test_every_architecture_that_has_packages_gets_sources_of_its_own() -> None:
    line = b"deb http://archive.example/debian bookworm main\n"
    assert archs_of({LIST: line}, "amd64", "i386") == (["bookworm amd64", "bookworm i386"], [])
    assert archs_of({}, "arm64", "armhf")[0] == [
        "bookworm arm64",
        "bookworm-updates arm64",
        "bookworm-security arm64",
        "bookworm armhf",
        "bookworm-updates armhf",
        "bookworm-security armhf",
    ]


def test_a_source_for_some_architectures_serves_no_other() -> None:
    lines = (
        b"deb [arch=amd64] http://archive.example/debian bookworm main\n"
        b"deb [arch=i386,armhf] http://archive.example/debian bookworm-updates main\n"
    )
    assert archs_of({LIST: lines}, "amd64", "i386") == (["bookworm amd64", "bookworm-updates i386"], [])
    assert archs_of({LIST: lines}, "amd64") == (
        ["bookworm amd64"],
        ["it is for i386, armhf, the image is amd64"],
    )


def test_an_image_whose_sources_are_for_another_architecture_gets_the_machines() -> None:
    lines = b"deb [arch=amd64] http://archive.example/debian bookworm main\n"
    sources, skipped = archs_of({LIST: lines}, "arm64")
    assert sources == ["bookworm arm64", "bookworm-updates arm64", "bookworm-security arm64"]
    assert skipped == ["it is for amd64, the image is arm64"]


def test_the_architecture_in_an_address_is_the_native_one() -> None:
    lines = b"deb http://archive.example/$(ARCH) sub/$(ARCH)/\n"
    sources, _ = image_sources(rootfs_of({LIST: lines}), BOOKWORM, "arm64", SETTINGS, ["armhf"])
    assert {source.uri for source in sources} == {"http://archive.example/arm64"}
    assert {source.suite for source in sources} == {"sub/arm64/"}
    assert [source.arch for source in sources] == ["arm64", "armhf"]


def brief(sources: list[PackageSource]) -> list[str]:
    return [f"{source.uri} {source.suite} {' '.join(source.components)}" for source in sources]


@pytest.mark.parametrize(
    ("codename", "version", "security"),
    [("bookworm", "12", "bookworm-security"), ("", "11", "bullseye-security"), ("buster", "10", "buster/updates")],
)
def test_a_distroless_image_gets_the_machines_sources_for_its_release(
    codename: str, version: str, security: str
) -> None:
    sources, skipped = judge({}, distribution=Distribution("debian", version, codename))
    name = security.partition("-")[0].partition("/")[0]
    assert brief(sources) == [
        f"http://archive.example/debian {name} main",
        f"http://archive.example/debian {name}-updates main",
        f"http://archive.example/debian-security {security} main",
    ]
    assert [source.security for source in sources] == [False, False, True]
    assert {source.keys for source in sources} == {("debian",)}
    assert all(source.written.startswith("machine: /etc/apt/sources.list.d/debian.sources:") for source in sources)
    assert skipped == []


def test_a_distribution_that_the_machine_is_not_of_gets_nothing_and_says_what_to_set() -> None:
    sources, skipped = judge({}, distribution=Distribution("ubuntu", "22.04", "jammy"))
    assert sources == []
    assert "ubuntu 22.04 jammy: set sources.extra" in skipped[0]


def test_the_operators_own_sources_serve_their_release_only() -> None:
    extra = tuple(
        PackageSource("dpkg", "https://mirror.example/ubuntu", suite, keys=("ubuntu",)) for suite in ("jammy", "noble")
    )
    settings = SourceSettings(machine=MACHINE, extra=extra)
    sources, skipped = judge({}, settings, Distribution("ubuntu", "22.04", "jammy"))
    assert brief(sources) == ["https://mirror.example/ubuntu jammy main"]
    assert sources[0].arch == "amd64"
    assert skipped == []


def test_the_images_own_sources_are_used_where_the_machine_knows_the_host() -> None:
    sources, skipped = judge(
        {
            LIST: b"# comment\ndeb [arch=amd64,arm64 trusted=yes signed-by=/evil.gpg] https://archive.example/debian"
            b" bookworm main contrib # rest\ndeb-src http://archive.example/debian bookworm main\n"
            b"deb [arch=arm64] http://archive.example/debian bookworm-updates main\n",
            "etc/apt/sources.list.d/security.sources": b"Types: deb\nURIs: http://archive.example/debian-security/\n"
            b"Suites: bookworm-security\nComponents: main\nTrusted: yes\n\n"
            b"Enabled: no\nTypes: deb\nURIs: http://off.example/\nSuites: x\nComponents: main\n",
            "etc/apt/sources.list.d/ignored.list.save": b"deb http://ignored.example/ x main\n",
        }
    )
    assert brief(sources) == [
        "https://archive.example/debian bookworm main contrib",
        "http://archive.example/debian-security bookworm-security main",
    ]
    assert {source.keys for source in sources} == {("debian",)}
    assert sources[0].written == "image: /etc/apt/sources.list:2"
    told, skip, other = skipped
    assert told.endswith("its option trusted=yes is ignored: the source must be signed and valid all the same")
    assert skip.endswith("it is for arm64, the image is amd64")
    assert "option trusted=yes is ignored" in other


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("deb file:/srv/debian bookworm main", "file: addresses of an image are not used"),
        ("deb cdrom:[Debian 12 _Bookworm_ - DVD]/ bookworm main", "cdrom: addresses"),
        ("deb copy:/srv bookworm main", "copy: addresses"),
        ("deb mirror+file:/etc/mirrors bookworm main", "mirror+file: addresses"),
        ("deb tor+http://archive.example/debian bookworm main", "tor+http: addresses"),
        ("deb http://user:secret@archive.example/debian bookworm main", "it carries credentials"),
        ("deb http://unknown.example/debian bookworm main", "unknown.example is not a source of debian that"),
        ("deb http://169.254.169.254/latest bookworm main", "169.254.169.254 is not a source"),
        ("deb http://archive.example:8080/debian bookworm main", "is not a source"),
        ("deb http://archive.example/debian/../x bookworm main", "in its path"),
        ("deb http://archive.example/debian ../../x main", "`..` in its path"),
        ("deb http://archive.example/debian bookworm main/../..", "`..` in its path"),
        ("deb http://archive.example/debian bookworm", "no component is named"),
        ("deb http://archive.example:port/debian bookworm main", "not an address"),
        ("deb http://archive.example/debian?x=1 bookworm main", "not an address"),
        ("deb http://", "an address and a suite are needed"),
        ("rpm http://archive.example/debian bookworm main", "not a `deb` line"),
    ],
)
def test_what_an_image_must_not_name_is_skipped_with_its_line_and_reason(line: str, reason: str) -> None:
    _, skipped = judge({LIST: f"\n{line}\n".encode()})
    assert len(skipped) == 1
    assert "/etc/apt/sources.list:2|" in skipped[0]
    assert reason in skipped[0]
    assert "secret" not in skipped[0]


def test_an_image_whose_sources_are_all_unknown_gets_the_machines() -> None:
    sources, skipped = judge({LIST: b"deb http://unknown.example/debian bookworm main\n"})
    assert brief(sources)[0] == "http://archive.example/debian bookworm main"
    assert len(skipped) == 1


def test_the_longest_mirror_prefix_wins_and_a_prefix_ends_at_a_slash() -> None:
    settings = SourceSettings(
        machine=MACHINE,
        mirrors={
            "http://old.example/": "https://mirror.example/all",
            "http://old.example/debian": "https://mirror.example/deb/",
        },
    )
    sources, skipped = judge(
        {
            LIST: b"deb http://old.example/debian bookworm main\ndeb http://old.example/debian-security"
            b" bookworm-security main\ndeb http://old.example.evil/debian bookworm main\n"
        },
        settings,
    )
    assert brief(sources) == [
        "https://mirror.example/deb bookworm main",
        "https://mirror.example/all/debian-security bookworm-security main",
    ]
    assert len(skipped) == 1


def test_an_allowed_source_has_the_key_that_is_named_like_its_host() -> None:
    settings = SourceSettings(
        machine=MACHINE, allowed=("https://third.example/apt",), keyrings={"third.example": b"k", "debian": b"d"}
    )
    sources, skipped = judge(
        {LIST: b"deb https://third.example/apt ./\ndeb https://third.example/aptitude x main\n"}, settings
    )
    assert brief(sources) == ["https://third.example/apt ./ "]
    assert sources[0].keys == ("debian", "third.example")
    assert len(skipped) == 1


def test_a_moving_suite_expects_the_images_codename() -> None:
    sources, _ = judge({LIST: b"deb http://archive.example/debian stable-updates main\n"})
    assert sources[0].options == {"codename": "bookworm"}


def test_a_proxy_of_the_image_is_ignored_and_named() -> None:
    _, skipped = judge(
        {
            "etc/apt/apt.conf.d/01proxy": b'Acquire::http::Proxy "http://evil.example:3128";\n',
            "etc/apt/apt.conf.d/02quiet": b"// no Proxy here\n# Proxy\n/* Proxy */\nAPT::Get::Assume-Yes yes;\n",
        }
    )
    assert skipped == ["|/etc/apt/apt.conf.d/01proxy|apt.conf names a proxy; ignored"]


def test_components_of_one_suite_on_several_lines_are_joined() -> None:
    line = b"deb http://archive.example/debian bookworm main\n"
    sources, _ = judge({LIST: line + line.replace(b"debian bookworm main", b"debian/ bookworm contrib")})
    assert brief(sources) == ["http://archive.example/debian bookworm main contrib"]


def test_check_valid_until_is_the_machines_to_switch_off_not_the_images() -> None:
    off = b"deb [check-valid-until=no] http://archive.example/debian trixie main\n"
    machine = {"os-release": MACHINE["os-release"], "sources.list": off}
    sources, _ = judge({}, SourceSettings(machine=machine))
    assert sources[0].options == {"check-valid-until": "no"}
    sources, _ = judge({LIST: off.replace(b"trixie", b"bookworm")})
    assert sources[0].options == {}


def test_a_stanza_that_cannot_be_read_is_skipped_and_named() -> None:
    _, skipped = judge({"etc/apt/sources.list.d/x.sources": b"Types: deb\nTypes: deb\n"})
    assert "/etc/apt/sources.list.d/x.sources" in skipped[0]


def test_a_list_without_end_is_cut() -> None:
    found = parse_source_list(b"deb http://a.example/ x main\n" * 10_000, "x.list")
    assert len(found) == MAX_ENTRIES + 1
    assert "more than" in found[-1].fault


@given(st.binary(max_size=200), st.sampled_from(["x.list", "x.sources"]))
def test_no_bytes_make_the_parser_fail(data: bytes, name: str) -> None:
    for entry in parse_source_list(b"deb " + data, name):
        assert entry.written.startswith(name)


def test_lists_of_architectures_are_added_to_and_taken_from() -> None:
    def served(options: str, *archs: str) -> list[str]:
        line = f"deb [{options}] http://archive.example/debian bookworm main\n".encode()
        sources, _ = image_sources(
            rootfs_of({LIST: line}), BOOKWORM, archs[0], SourceSettings(machine=MACHINE), archs[1:]
        )
        return [source.arch for source in sources if source.written.startswith("image")]

    assert served("arch=i386 arch+=amd64", "amd64", "i386", "arm64") == ["amd64", "i386"]
    assert served("arch+=s390x", "amd64", "i386") == ["amd64", "i386"]
    assert served("arch-=i386", "amd64", "i386") == ["amd64"]
    assert served("lang=en by-hash=force pdiffs=no", "amd64") == ["amd64"]


def test_deb822_options_mean_the_same() -> None:
    stanza = (
        b"Types: deb\nURIs: http://archive.example/debian\nSuites: bookworm bookworm-updates\nComponents: main\n"
        b"Architectures: i386 armhf\nArchitectures-Add: amd64\nArchitectures-Remove: armhf\nTrusted: yes\n"
        b"Check-Valid-Until: no\nSigned-By: " + b"a" * 40 + b", " + b"B" * 40 + b"!\n"
    )
    files = {"etc/apt/sources.list.d/x.sources": stanza}
    sources, skipped = image_sources(rootfs_of(files), BOOKWORM, "amd64", SETTINGS, ["armhf", "i386"])
    assert [f"{one.suite} {one.arch}" for one in sources] == [
        "bookworm amd64",
        "bookworm i386",
        "bookworm-updates amd64",
        "bookworm-updates i386",
    ]
    assert {one.options["signed-by"] for one in sources} == {f"{'A' * 40} {'B' * 40}"}
    assert all("check-valid-until" not in one.options for one in sources)
    assert sorted({one.reason.split(" is ")[0] for one in skipped}) == [
        "its option check-valid-until=no",
        "its option trusted=yes",
    ]


def test_a_block_of_keys_in_signed_by_is_kept_without_its_indentation() -> None:
    block = "-----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc=\n -----END PGP PUBLIC KEY BLOCK-----"
    stanza = (
        f"Types: deb\nURIs: http://archive.example/debian\nSuites: bookworm\nComponents: main\nSigned-By:\n {block}\n"
    )
    sources, _ = judge({"etc/apt/sources.list.d/x.sources": stanza.encode()})
    assert sources[0].options == {
        "signed-by-key": "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nabc=\n-----END PGP PUBLIC KEY BLOCK-----\n"
    }
    machine = {"os-release": MACHINE["os-release"], "x.sources": stanza.replace("bookworm", "trixie").encode()}
    sources, _ = judge({}, SourceSettings(machine=machine))
    assert brief(sources) == ["http://archive.example/debian bookworm main"]
    assert "signed-by-key" in sources[0].options


STRETCH = Distribution("debian", "9", "stretch")
ARCHIVES = SourceSettings(machine=MACHINE, archives={"debian/stretch": "https://old.example/"})


@pytest.mark.parametrize("lists", [True, False])
def test_a_release_at_the_end_of_its_life_comes_from_its_archive(lists: bool) -> None:
    lines = (
        b"deb http://gone.example/debian stretch main\ndeb http://gone.example/debian-security stretch/updates main\n"
        b"deb http://third.example/packages/debian stretch main\n"
    )
    sources, skipped = judge({LIST: lines} if lists else {}, ARCHIVES, STRETCH)
    assert [text for text in brief(sources) if "-updates" not in text] == [
        "https://old.example/debian stretch main",
        "https://old.example/debian-security stretch/updates main",
    ]
    assert {source.options["check-valid-until"] for source in sources} == {"no"}
    assert len(skipped) == lists
    others, _ = judge({}, ARCHIVES)
    assert brief(others)[0] == "http://archive.example/debian bookworm main"


def test_an_archive_may_be_named_by_version_and_a_mirror_comes_before_it() -> None:
    jammy = Distribution("ubuntu", "16.04", "xenial")
    line = {LIST: b"deb http://any.example/ubuntu xenial-updates main\n"}
    settings = SourceSettings(archives={"ubuntu/16.04": "http://old.example"})
    assert brief(judge(line, settings, jammy)[0]) == ["http://old.example/ubuntu xenial-updates main"]
    mapped = SourceSettings(archives=settings.archives, mirrors={"http://any.example/": "http://mine.example/x"})
    (source,) = judge(line, mapped, jammy)[0]
    assert (source.uri, source.options) == ("http://mine.example/x/ubuntu", {})


def test_sources_of_the_settings_serve_some_architectures_and_only_images_without_their_own() -> None:
    def extra(uri: str, **options: str) -> PackageSource:
        return PackageSource("dpkg", uri, "noble", ("main",), keys=("ubuntu",), options=options)

    settings = SourceSettings(
        allowed=("http://own.example/",),
        extra=(
            extra("http://main.example", architectures="amd64 i386", fallback="yes"),
            extra("http://ports.example", architectures="arm64", fallback="yes"),
        ),
    )
    noble, line = Distribution("ubuntu", "24.04", "noble"), {LIST: b"deb http://own.example/ubuntu noble main\n"}

    def uris(files: dict[str, bytes], arch: str) -> list[str]:
        return [one.uri for one in image_sources(rootfs_of(files), noble, arch, settings)[0]]

    assert uris({}, "amd64") == ["http://main.example"]
    assert uris({}, "arm64") == ["http://ports.example"]
    assert uris(line, "arm64") == ["http://own.example/ubuntu"]
