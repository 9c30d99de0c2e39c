"""The index of a source: what is trusted, from the signature down."""

import os
import subprocess
from functools import partial
from pathlib import Path

import pytest
from pysequoia import Cert, SignatureMode, sign

from proxy.engine.families.dpkg.detached import split_signatures
from proxy.engine.families.dpkg.index import IndexReader
from proxy.engine.families.dpkg.sourcelist import SIGNED_BY, SIGNED_BY_KEY
from proxy.engine.family import Blob
from proxy.errors import MalformedInput, TrustFailure, UpstreamRefused
from tests.proxy.engine.families.dpkg.asking import SUITE, asked, fetch, refresh
from tests.simulators.debian_source import DebianSource, keyring, new_key
from tests.support import require_tool


def test_a_good_source_is_indexed_and_found_by_name() -> None:
    with DebianSource([SUITE]) as server:
        index = refresh(asked(server, security=True), {"debian": server.keyring})
        assert index.date == SUITE.date
        assert index.facts["Codename"] == "bookworm"
        reader = IndexReader(index)
        (package,) = reader.lookup("openssl")
        assert [str(one) for group in package.requires for one in group] == ["libssl3 (>= 3)", "libc6", "libc"]
        assert [str(one) for one in package.conflicts] == ["old (< 2)"]
        candidate = reader.candidate(package)
        assert candidate.security
        assert isinstance(fetch(candidate.fetch), Blob)
        (library,) = reader.lookup("libssl3")
        assert (library.source, library.source_version) == ("openssl", "3.0.2-0")
        assert [one.name for one in reader.providers("ssl-abi")] == ["libssl3"]
        assert [one.name for one in reader.providers("ssl-virtual")] == ["libssl3"]
        assert reader.lookup("foreign") == ()
        assert reader.providers("openssl") == ()
        assert any("/by-hash/SHA256/" in path for path in server.requests)
        reader.close()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("bad-signature", "no good signature"),
        ("foreign-key", "no good signature"),
        ("unsigned", "no signature"),
        ("expired", "expired on 2020-01-01"),
        ("future", "in the future"),
        ("wrong-codename", "asked for bookworm, but the release is of elsewhere"),
        ("wrong-hash", "digest"),
        ("detached-bad", "no good signature"),
        ("detached-alone", "Release without its Release.gpg"),
    ],
)
def test_a_source_that_is_not_to_be_trusted_is_refused(fault: str, message: str) -> None:
    with DebianSource([SUITE], fault) as server, pytest.raises(TrustFailure, match=message):
        refresh(asked(server), {"debian": server.keyring})


def test_a_source_without_a_release_is_refused_by_name_and_says_what_to_set_for_an_old_release() -> None:
    with DebianSource([SUITE], "no-release") as server, pytest.raises(UpstreamRefused) as caught:
        refresh(asked(server), {"debian": server.keyring})
    assert "bookworm: the source has no InRelease and no Release" in str(caught.value)
    assert "sources.archives, as debian/bookworm" in str(caught.value)


def test_a_release_with_its_signature_beside_it_is_as_good() -> None:
    other = new_key()
    with DebianSource([SUITE], "detached") as server:
        assert refresh(asked(server), {"debian": server.keyring}).facts["Codename"] == "bookworm"
        path = "dists/bookworm/Release"
        foreign = bytes(sign(other.signer(), server.files[path], mode=SignatureMode.DETACHED))
        server.files[f"{path}.gpg"] = joined(foreign, server.files[f"{path}.gpg"])
        assert refresh(asked(server), {"debian": server.keyring}).facts["Codename"] == "bookworm"
        server.files[f"{path}.gpg"] = foreign
        with pytest.raises(TrustFailure, match=r"Release\.gpg has no good signature by a key of debian"):
            refresh(asked(server), {"debian": server.keyring})
        for damaged in (b"", b"no signature", foreign[:-90], b"\x99\x00\x01x", b"\xc2\xff\xff\xff\xff\xffx", b"\x88"):
            server.files[f"{path}.gpg"] = damaged
            with pytest.raises(MalformedInput):
                refresh(asked(server), {"debian": server.keyring})


def joined(*signatures: bytes) -> bytes:
    """Return several signatures as one binary file."""
    return b"".join(packet for one in signatures for packet in split_signatures(one, "here"))


@pytest.mark.interop
def test_signatures_of_the_real_tool_are_read(tmp_path: Path) -> None:
    gpg = require_tool("gpg")
    home = {"GNUPGHOME": str(tmp_path), "PATH": os.defpath}
    run = partial(subprocess.run, env=home, check=True, capture_output=True)
    run([gpg, "--batch", "--passphrase", "", "--quick-generate-key", "key@archive.example", "rsa2048", "sign"])
    keys = run([gpg, "--export"]).stdout
    with DebianSource([SUITE], "detached") as server:
        text = server.files["dists/bookworm/Release"]
        for armor in (["--armor"], []):
            signature = run([gpg, *armor, "--detach-sign"], input=text).stdout
            server.files["dists/bookworm/Release.gpg"] = signature
            assert refresh(asked(server), {"debian": keys}).facts["Codename"] == "bookworm"
        server.files["dists/bookworm/Release.gpg"] = joined(signature, signature)
        assert refresh(asked(server), {"debian": keys}).facts["Codename"] == "bookworm"
        server.files["dists/bookworm/Release"] = text + b"X: 1\n"
        with pytest.raises(TrustFailure, match="no good signature"):
            refresh(asked(server), {"debian": keys})


def test_signed_by_narrows_the_keys_and_adds_none() -> None:
    other = new_key()
    both = keyring(other)
    with DebianSource([SUITE]) as server:
        keys = {"debian": server.keyring + both}
        right = Cert.from_bytes(server.keyring).fingerprint.upper()
        wrong = Cert.from_bytes(both).fingerprint.upper()
        block = str(Cert.from_bytes(server.keyring))
        for options in ({SIGNED_BY: right}, {SIGNED_BY: f"{wrong} {right}"}, {SIGNED_BY_KEY: block}):
            refresh(asked(server, options=options), keys)
        with pytest.raises(TrustFailure, match="no good signature"):
            refresh(asked(server, options={SIGNED_BY: wrong}), keys)
        with pytest.raises(TrustFailure, match="no good signature"):
            refresh(asked(server, options={SIGNED_BY_KEY: str(Cert.from_bytes(both))}), keys)
        with pytest.raises(TrustFailure, match="is no key of 'debian' here; if it is to be trusted"):
            refresh(asked(server, options={SIGNED_BY: "A" * 40}), keys)
        with pytest.raises(TrustFailure, match="cannot be read"):
            refresh(asked(server, options={SIGNED_BY_KEY: "-----BEGIN PGP PUBLIC KEY BLOCK-----\n"}), keys)
