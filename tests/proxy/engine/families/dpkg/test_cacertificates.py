"""The CA bundle and its links, held against the real update-ca-certificates and the real openssl rehash."""

import datetime as dt
import random
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from proxy.engine.families.dpkg.cacertificates import run_update_ca_certificates
from proxy.engine.families.dpkg.findings import NotReproduced
from proxy.engine.families.dpkg.rehash import read_certificates, run_rehash, subject_hash
from proxy.engine.stage import Stage
from proxy.engine.tar import Kind
from proxy.errors import MalformedInput
from tests.proxy.engine.filesystems import Link, make_fs
from tests.support import require_tool

Files = dict[str, bytes | Link]
SHARE, LOCAL, CERTS = "usr/share/ca-certificates", "usr/local/share/ca-certificates", "etc/ssl/certs"
PROGRAM = Path("/usr/sbin/update-ca-certificates")
KEY = ec.generate_private_key(ec.SECP256R1())


def certificate(*names: tuple[x509.ObjectIdentifier, str], serial: int = 1) -> bytes:
    """Return a certificate (PEM) with this subject."""
    subject = x509.Name([x509.NameAttribute(kind, text) for kind, text in names])
    start = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    builder = x509.CertificateBuilder(subject, subject, KEY.public_key(), serial, start, start + dt.timedelta(9))
    return builder.sign(KEY, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def common(text: str, serial: int = 1) -> bytes:
    return certificate((NameOID.COMMON_NAME, text), serial=serial)


def lay(root: Path, files: Files) -> None:
    for path, content in files.items():
        where = root / path
        where.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Link):
            where.symlink_to(str(root) + content.target if content.target.startswith("/") else content.target)
        else:
            where.write_bytes(content)


def theirs(root: Path) -> dict[str, str | bytes]:
    """Return the links and files in the folder of certificates, targets as inside the root."""
    return {
        str(path.relative_to(root)): str(path.readlink()).removeprefix(str(root))
        if path.is_symlink()
        else path.read_bytes()
        for path in (root / CERTS).rglob("*")
        if path.is_symlink() or path.is_file()
    }


def ours(stage: Stage) -> dict[str, str | bytes]:
    return {
        entry.path: entry.target if entry.kind is Kind.SYMLINK else stage.read(entry.path) or b""
        for entry in stage.walk(CERTS)
        if entry.kind is not Kind.DIR
    }


class Both:
    def __init__(self, root: Path, files: Files) -> None:
        require_tool("update-ca-certificates")
        program = PROGRAM.read_bytes()
        self.files = {
            "usr/bin/openssl": b"",
            "usr/sbin/update-ca-certificates": program,
            f"{CERTS}/.keep": b"",
            **files,
        }
        self.root = root
        lay(root, self.files)
        self.stage = Stage(make_fs(self.files, lambda _: True))

    def call(self, *arguments: str) -> None:
        options = {
            "--certsconf": "etc/ca-certificates.conf",
            "--certsdir": SHARE,
            "--localcertsdir": LOCAL,
            "--etccertsdir": CERTS,
            "--hooksdir": "none",
        }
        words = [word for name, path in options.items() for word in (name, str(self.root / path))]
        subprocess.run(
            ["sh", str(PROGRAM), *words, *arguments],
            check=True,
            capture_output=True,
            env={"PATH": "/usr/sbin:/usr/bin:/bin", "LC_ALL": "C"},
        )
        run_update_ca_certificates(self.stage, arguments)
        assert ours(self.stage) == theirs(self.root)

    def write(self, path: str, content: bytes) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_bytes(content)
        self.stage.make_dir(path.rpartition("/")[0])
        self.stage.write(path, content)

    def remove(self, path: str) -> None:
        (self.root / path).unlink()
        self.stage.remove(path)


@pytest.mark.interop
def test_certificates_come_and_go_as_the_program_lets_them(tmp_path: Path) -> None:
    both = Both(
        tmp_path,
        {
            "etc/ca-certificates.conf": b"#\n\nmozilla/a.crt\nmozilla/B (2), x.crt\n!mozilla/c.crt\nmozilla/no.crt\n",
            f"{SHARE}/mozilla/a.crt": common("A"),
            f"{SHARE}/mozilla/B (2), x.crt": common("Ünï  Cödé ").rstrip(b"\n"),
            f"{SHARE}/mozilla/c.crt": common("C"),
            f"{CERTS}/stale.pem": Link("/nowhere"),
            f"{CERTS}/own.pem": common("Own"),
        },
    )
    both.call()
    both.write(f"{LOCAL}/z/late.crt", common("A", serial=2))
    both.write(f"{LOCAL}/two.crt", common("A") + common("B"))
    both.call()
    both.write("etc/ca-certificates.conf", b"!mozilla/a.crt\nmozilla/c.crt\n")
    both.call()
    both.call()
    both.call("--fresh")
    both.remove(f"{LOCAL}/z/late.crt")
    both.call("--fresh", "--verbose")


@pytest.mark.interop
@pytest.mark.parametrize("seed", range(6))
def test_any_order_of_changes_equals_the_program(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    subjects = ["One", "one ", "Two", "Three"]
    both = Both(tmp_path, {"etc/ca-certificates.conf": b"a.crt\n", f"{SHARE}/a.crt": common("One")})
    for step in range(8):
        name = dice.choice("abcde")
        both.write(f"{SHARE}/{name}.crt", common(dice.choice(subjects), serial=dice.randrange(1, 4)))
        lines = [dice.choice(("", "", "!")) + f"{name}.crt\n" for name in dice.sample("abcde", 3)]
        both.write("etc/ca-certificates.conf", ("a.crt\n" + "".join(lines)).encode())
        both.call(*(["--fresh"] if step % 3 == 2 else []))


@pytest.mark.interop
def test_hashes_of_subjects_are_openssls(tmp_path: Path) -> None:
    openssl = require_tool("openssl")
    names = [
        ((NameOID.COMMON_NAME, "  Many \t BLANKS  "), (NameOID.ORGANIZATION_NAME, "Straße ÄÖ")),
        ((NameOID.COUNTRY_NAME, "DE"), (NameOID.EMAIL_ADDRESS, "A@B.c"), (NameOID.DOMAIN_COMPONENT, "Org")),
        ((NameOID.COMMON_NAME, "x" * 60), (NameOID.ORGANIZATION_NAME, "y" * 60), (NameOID.LOCALITY_NAME, "z" * 99)),
    ]
    for number, parts in enumerate(names):
        path = tmp_path / f"{number}.pem"
        path.write_bytes(certificate(*parts))
        said = subprocess.run(
            [openssl, "x509", "-subject_hash", "-noout", "-in", str(path)], check=True, capture_output=True, text=True
        )
        assert subject_hash(read_certificates(path.read_bytes())[0]) == said.stdout.strip()


def stage_with(files: Files) -> Stage:
    base: Files = {
        "usr/sbin/update-ca-certificates": b"openssl rehash .",
        "usr/bin/openssl": b"",
        "etc/ca-certificates.conf": b"a.crt\n",
        f"{SHARE}/a.crt": common("A"),
        f"{CERTS}/a.pem": Link(f"/{SHARE}/a.crt"),
    }
    return Stage(make_fs({**base, **files}, lambda _: True))


def test_javas_hook_has_nothing_to_do_when_nothing_changed_and_is_refused_otherwise() -> None:
    hook = {"etc/ca-certificates/update.d/jks-keystore": b"cat - >> /var/lib/ca-certificates-java/pending\n"}
    for files, refused in ((hook, False), ({"etc/ca-certificates/update.d/x": b"other"}, True)):
        stage = stage_with(files)
        for name in files:
            stage.change(name, mode=0o755)
        if refused:
            with pytest.raises(NotReproduced, match="hook"):
                run_update_ca_certificates(stage, ())
        else:
            assert run_update_ca_certificates(stage, ())
        assert run_update_ca_certificates(stage, ("--hooksdir", ""))
        stage.write("etc/ca-certificates.conf", b"!a.crt\nb.crt\n")
        stage.write(f"{SHARE}/b.crt", common("B"))
        with pytest.raises(NotReproduced, match="hook"):
            run_update_ca_certificates(stage, ())


@pytest.mark.parametrize(
    ("files", "arguments", "what"),
    [
        ({}, ("--default",), "--default"),
        ({"usr/sbin/update-ca-certificates": b"c_rehash"}, (), "version"),
        ({"etc/ca-certificates.conf": b"a\\b.crt\n"}, (), "backslashes"),
        ({"etc/ca-certificates.conf": b"none.crt\n"}, (), "no certificate"),
        ({f"{CERTS}/b.pem": b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"}, ("--fresh",), "b.pem"),
        ({f"{CERTS}/b.pem": b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"}, ("--fresh",), "revocation"),
        ({f"{CERTS}/01234567.r0": Link("/etc/ca-certificates.conf")}, ("--fresh",), "revocation"),
    ],
)
def test_what_is_not_known_here_is_refused(files: Files, arguments: tuple[str, ...], what: str) -> None:
    with pytest.raises(NotReproduced, match=what):
        run_update_ca_certificates(stage_with(files), arguments)


@given(st.binary(max_size=120), st.integers(0, 400))
def test_a_damaged_certificate_has_a_hash_or_is_refused_and_nothing_else(noise: bytes, at: int) -> None:
    whole = read_certificates(DAMAGED)[0]
    for data in (noise, whole[:at], whole[:at] + noise + whole[at + len(noise) :]):
        try:
            assert len(subject_hash(data)) == 8
        except MalformedInput:
            continue


DAMAGED = common("Damaged")


@pytest.mark.interop
def test_rehash_alone_equals_openssls_with_links_of_other_numbers(tmp_path: Path) -> None:
    openssl = require_tool("openssl")
    one = common("Same")
    name = subject_hash(read_certificates(one)[0])
    files: Files = {
        f"{CERTS}/b.pem": one,
        f"{CERTS}/a.crt": common("Same", serial=2),
        f"{CERTS}/same-as-b.cer": one,
        f"{CERTS}/{name}.0": Link("b.pem"),
        f"{CERTS}/{name}.7": Link("a.crt"),
        f"{CERTS}/{name}.3": Link("gone.pem"),
        f"{CERTS}/12345678.0": Link("other.txt"),
        f"{CERTS}/12345678.1": Link("other"),
        f"{CERTS}/12345678.pem.0": Link("other"),
        f"{CERTS}/87654321.1": Link("gone.pem"),
        f"{CERTS}/text.pem": b"nothing",
    }
    lay(tmp_path, files)
    stage = Stage(make_fs(files, lambda _: True))
    run_rehash(stage, CERTS)
    subprocess.run([openssl, "rehash", str(tmp_path / CERTS)], check=False, capture_output=True)
    assert ours(stage) == theirs(tmp_path)
