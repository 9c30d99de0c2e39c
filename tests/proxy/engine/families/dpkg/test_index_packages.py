"""The index of a source: how the lists of packages are read, stored and read back."""

import bz2
import gzip
import io
import lzma
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from proxy.engine.families.dpkg.index import IndexReader
from proxy.engine.families.dpkg.release import open_signed, parse_release
from proxy.engine.families.dpkg.spool import StanzaReader, write_stanzas
from proxy.engine.family import Absent, Blob, Fetch, PackageSource
from proxy.errors import MalformedInput, TrustFailure, Unsupported, UpstreamRefused
from proxy.oci.digest import Digest
from tests.proxy.engine.families.dpkg.asking import NOW, OPENSSL, SUITE, asked, refresh
from tests.simulators.debian_source import Deb, DebianSource, keyring, new_key
from tests.support import data_path
from webhook.demo.package_source import clear_sign, render_release

PACKERS = {".gz": gzip.compress, ".xz": lzma.compress, ".bz2": bz2.compress, ".zst": zstandard.compress}


@pytest.mark.parametrize("form", [*PACKERS, ""])
def test_every_form_of_a_packages_file_is_read_and_bounded(form: str) -> None:
    path = "main/binary-amd64/Packages"
    for lie in (False, True):
        with DebianSource([SUITE]) as server:
            plain = server.files[f"dists/bookworm/{path}"]
            packed = PACKERS.get(form, bytes)(plain + b"\nPackage: more\nVersion: 1\n" if lie else plain)
            listed = {path: plain, path + form: packed}
            release = render_release(replace(SUITE, by_hash=False), listed)
            server.files = {
                "dists/bookworm/InRelease": clear_sign(release, server.key),
                f"dists/bookworm/{path}{form}": packed,
            }
            if lie and form:
                with pytest.raises(TrustFailure, match="unpacks to more than"):
                    refresh(asked(server), {"debian": server.keyring})
            else:
                assert IndexReader(refresh(asked(server), {"debian": server.keyring})).lookup("openssl")
            if form and not lie:
                cut = packed[:-12]
                listed[path + form] = cut
                release = render_release(replace(SUITE, by_hash=False), listed)
                server.files["dists/bookworm/InRelease"] = clear_sign(release, server.key)
                server.files[f"dists/bookworm/{path}{form}"] = cut
                with pytest.raises(MalformedInput, match=r"cannot be unpacked|cut short|ends"):
                    refresh(asked(server), {"debian": server.keyring})


@pytest.mark.parametrize(
    ("stanza", "message"),
    [
        (b"Package: a\nVersion: 1\nVersion: 2\nArchitecture: amd64\n", "Version is there twice"),
        (b"Package: a\nArchitecture: amd64\n", "without the field Version"),
        (b"Package: a\nVersion: 1\nArchitecture: amd64\nDepends: b (>> \n", "not a relation"),
        (b"Package: a\nVersion: 1\nPackage: b\nArchitecture: amd64\n", "Package is there twice"),
        (b"Package: a\nVersion: 1\nArchitecture: amd64\nFilename: a.deb\nSize: -1\n", "no usable Filename and Size"),
        (b"Package: a\nVersion: 1\nArchitecture: amd64\nFilename: a.deb\nSize: 1\nSHA256: x\n", "digest"),
    ],
)
def test_a_stanza_that_is_not_one_names_the_source_and_what_is_wrong(stanza: bytes, message: str) -> None:
    with DebianSource([SUITE]) as server:
        release = render_release(replace(SUITE, by_hash=False), {"Packages": stanza})
        server.files = {"InRelease": clear_sign(release, server.key), "Packages": stanza}
        reader = IndexReader(refresh(asked(server, suite="./", components=()), {"debian": server.keyring}))
    with pytest.raises(MalformedInput, match=message):
        reader.candidate(reader.lookup("a")[0])


def test_a_package_is_of_the_component_that_lists_it() -> None:
    free = replace(SUITE, packages=(OPENSSL,))
    with DebianSource([free]) as server:
        text = b"Package: odd\nVersion: 1\nArchitecture: amd64\nX-Component: main\nComponent: main\n"
        listed = {
            "main/binary-amd64/Packages": server.files["dists/bookworm/main/binary-amd64/Packages"],
            "non-free/x/binary-amd64/Packages": text,
        }
        release = render_release(replace(free, by_hash=False), listed)
        server.files |= {f"dists/bookworm/{path}": data for path, data in listed.items()}
        server.files["dists/bookworm/InRelease"] = clear_sign(release, server.key)
        source = asked(server, components=("main", "non-free/x"))
        reader = IndexReader(refresh(source, {"debian": server.keyring}))
    assert [one.fields["Component"] for one in reader.lookup("openssl")] == ["main"]
    assert [one.fields["Component"] for one in reader.lookup("odd")] == ["non-free/x"]


def test_a_flat_source_is_indexed() -> None:
    with DebianSource([SUITE]) as server:
        text = server.files["dists/bookworm/main/binary-amd64/Packages"]
        release = render_release(replace(SUITE, by_hash=False), {"Packages": text})
        server.files = {"InRelease": clear_sign(release, server.key), "Packages": text}
        index = refresh(asked(server, suite="./", components=()), {"debian": server.keyring})
        assert IndexReader(index).lookup("openssl")
        server.files = {f"sub/{path}": data for path, data in server.files.items()}
        index = refresh(asked(server, suite="sub/", components=()), {"debian": server.keyring})
        assert IndexReader(index).lookup("openssl")


def test_an_index_cut_short_is_malformed() -> None:
    with DebianSource([SUITE], "truncated-index") as server:
        release = server.files["dists/bookworm/InRelease"].decode()
        gz = next(line.split()[0] for line in release.splitlines() if line.endswith("binary-amd64/Packages.gz"))
        for path in [path for path in server.files if path.endswith((".gz", gz))]:
            del server.files[path]
        with pytest.raises(MalformedInput, match="cannot be unpacked"):
            refresh(asked(server), {"debian": server.keyring})


def test_a_missing_keyring_says_what_to_install() -> None:
    with DebianSource([SUITE]) as server, pytest.raises(TrustFailure, match="install the distribution's keyring"):
        refresh(asked(server), {"ubuntu": keyring(new_key())})


def test_the_next_form_is_taken_where_the_mirror_lacks_one() -> None:
    with DebianSource([SUITE]) as server:
        for path in [path for path in server.files if "/by-hash/" in path or path.endswith("Packages.gz")]:
            del server.files[path]
        index = refresh(asked(server), {"debian": server.keyring})
        assert len(IndexReader(index)) == 2
        assert server.requests[-1].endswith("Packages.xz")
        for path in [path for path in server.files if "/Packages" in path]:
            del server.files[path]
        with pytest.raises(UpstreamRefused, match="does not have it"):
            refresh(asked(server), {"debian": server.keyring})


def test_packages_of_all_architectures_are_read_where_they_are_listed_apart() -> None:
    common = Deb("common", "1", "all")
    with DebianSource([replace(SUITE, packages=(common,), archs=("amd64", "all"))]) as server:
        index = refresh(asked(server), {"debian": server.keyring})
        assert [package.arch for package in IndexReader(index).lookup("common")] == ["all", "all"]
        assert any("binary-all" in path or "/by-hash/" in path for path in server.requests)


def test_a_component_that_the_release_lacks_is_named() -> None:
    with DebianSource([SUITE]) as server:
        index = refresh(asked(server, components=("main", "contrib")), {"debian": server.keyring})
        assert index.facts["missing"] == "contrib"
        with pytest.raises(Unsupported, match="no packages of contrib for amd64"):
            refresh(asked(server, components=("contrib",)), {"debian": server.keyring})


def test_a_moving_suite_must_be_of_the_images_release() -> None:
    suite = replace(SUITE, codename="stable", facts={"Codename": "trixie"})
    with DebianSource([suite]) as server:
        refresh(asked(server, suite="stable"), {"debian": server.keyring})
        with pytest.raises(TrustFailure, match="the image is of bookworm, but the release is of trixie"):
            refresh(asked(server, suite="stable", options={"codename": "bookworm"}), {"debian": server.keyring})


def test_valid_until_counts_from_the_moment_asked_for() -> None:
    until = NOW + timedelta(days=7)
    with DebianSource([replace(SUITE, valid_until=until)]) as server:
        refresh(asked(server), {"debian": server.keyring}, until)
        with pytest.raises(TrustFailure, match="expired"):
            refresh(asked(server), {"debian": server.keyring}, until + timedelta(seconds=1))
        refresh(
            asked(server, options={"check-valid-until": "no"}), {"debian": server.keyring}, until + timedelta(days=1)
        )


def test_text_around_the_signed_part_is_not_read() -> None:
    with DebianSource([SUITE]) as server:
        path = "dists/bookworm/InRelease"
        server.files[path] += b"\nSuite: evil\n"
        index = refresh(asked(server), {"debian": server.keyring})
        assert index.facts["Suite"] == "stable"
        server.files[path] = b"Suite: evil\n\n" + server.files[path]
        with pytest.raises(TrustFailure, match="carries no signature"):
            refresh(asked(server), {"debian": server.keyring})


def test_a_package_whose_address_leaves_the_source_is_malformed() -> None:
    with DebianSource([SUITE]) as server:
        reader = IndexReader(refresh(asked(server), {"debian": server.keyring}))
    (package,) = reader.lookup("openssl")
    for bad in ("../x.deb", "pool/../../x.deb", "https://elsewhere.example/x.deb", "/etc/passwd", ""):
        with pytest.raises(MalformedInput, match="no usable Filename"):
            reader.candidate(replace(package, fields={**package.fields, "Filename": bad}))


@pytest.mark.parametrize(
    "text",
    [
        b"Suite: x\nDate: Thu, 01 Jan 2026 00:00:00 UTC\n",
        b"Suite: x\nSHA256:\n " + b"0" * 64 + b" 1 a\n",
        b"Suite: x\nDate: yesterday\nSHA256:\n " + b"0" * 64 + b" 1 a\n",
        b"Suite: x\nSHA256:\n short 1 a\n",
        b"Suite: x\nSuite: y\n",
        b"Suite: x\nsuite: y\n",
        b"Date: Thu, 01 Jan 2026 00:00:00 UTC\nSHA256:\n " + b"0" * 64 + b" 1 a\n " + b"0" * 64 + b" 2 a\n",
        b"\xff",
    ],
)
def test_a_malformed_release_is_refused(text: bytes) -> None:
    with pytest.raises(MalformedInput):
        parse_release(text, "here")


NAMES = st.text("abcdefgh0123456789+-.", min_size=1, max_size=6)


@given(
    st.dictionaries(NAMES, st.lists(NAMES, max_size=3), max_size=12),
    st.integers(1, 60),
)
def test_every_package_and_every_provided_name_is_found_whatever_the_pieces(
    packages: dict[str, list[str]], size: int
) -> None:
    text = "\n".join(
        f"Package: {name}\nTag: a,\n b\nProvides: {', '.join(provides)}\nDescription: x\n"
        if provides
        else f"Package: {name}\n"
        for name, provides in packages.items()
    ).encode()
    spool = io.BytesIO()
    assert write_stanzas(pieces(text, size), spool, "here") == len(packages)
    reader = StanzaReader(spool, "here")
    for name, provides in packages.items():
        assert any(stanza.split(b"\n")[0] == f"Package: {name}".encode() for stanza in reader.named(name))
        for one in provides:
            assert any(stanza.startswith(f"Package: {name}\n".encode()) for stanza in reader.providing(one))
    assert not any(b"Tag" in stanza or b"Description" in stanza for name in packages for stanza in reader.named(name))


def pieces(text: bytes, size: int) -> Iterable[bytes]:
    return [text[at : at + size] for at in range(0, len(text), size)]


def test_a_damaged_index_is_malformed() -> None:
    spool = io.BytesIO()
    write_stanzas([b"Package: a\n\nPackage: b\n"], spool, "here")
    data = spool.getvalue()
    for bad in (b"", data[:-1], data[1:], data[:-40] + b"\xff" * 32 + data[-8:]):
        with pytest.raises(MalformedInput):
            StanzaReader(io.BytesIO(bad), "here")


def test_a_stanza_without_a_name_is_malformed() -> None:
    with pytest.raises(MalformedInput, match="without a Package"):
        write_stanzas([b"Version: 1\n\n"], io.BytesIO(), "here")


KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


@pytest.mark.data
@pytest.mark.skipif(not KEYRING.exists(), reason="Debian's keyring package is not on this machine")
def test_the_recorded_security_release_of_debian_verifies_and_is_read() -> None:
    source = PackageSource("dpkg", "http://archive.example/x", "bullseye-security", ("main",), "amd64", ("debian",))
    keys, folder = {"debian": KEYRING.read_bytes()}, data_path("repo-metadata/debian-bullseye-security")
    signed = (folder / "InRelease").read_bytes()
    release = parse_release(open_signed(signed, source, keys), "InRelease")
    packages = (folder / "Packages.amd64.xz").read_bytes()
    listed = release.files["main/binary-amd64/Packages"]
    assert listed.digest == Digest.of(lzma.decompress(packages))

    def answer(request: Fetch) -> Blob | Absent:
        known = {"InRelease": signed, "Packages.xz": packages}.get(request.url.rpartition("/")[2])
        return Absent("404") if known is None else Blob(request.url, len(known), lambda: io.BytesIO(known))

    reader = IndexReader(refresh(source, keys, datetime(2026, 11, 1, tzinfo=UTC), answer))
    assert len(reader) > 1000
    assert "1.1.1w-0+deb11u8" in {package.version for package in reader.lookup("libssl1.1")}
