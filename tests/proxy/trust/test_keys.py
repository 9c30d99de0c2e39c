import hashlib
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import MalformedInput, TrustFailure, Unsupported
from proxy.trust import SigningKey, VerifyKey

KEY = SigningKey.generate()
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def test_saved_key_is_read_back_and_only_its_owner_may_read_the_file(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "signing.pem"
    KEY.save(path)
    assert path.stat().st_mode & 0o7777 == 0o600
    assert [item.name for item in path.parent.iterdir()] == ["signing.pem"]
    loaded = SigningKey.load(path)
    assert loaded.public == KEY.public
    KEY.public.verify(b"text", loaded.sign(b"text"))


def test_encrypted_key_needs_its_password(tmp_path: Path) -> None:
    path = tmp_path / "signing.pem"
    KEY.save(path, b"secret")
    assert SigningKey.load(path, b"secret").public == KEY.public
    with pytest.raises(MalformedInput, match="is encrypted: give its password"):
        SigningKey.load(path)
    with pytest.raises(MalformedInput, match="wrong password"):
        SigningKey.load(path, b"other")


def test_password_for_a_plain_key_is_refused() -> None:
    with pytest.raises(MalformedInput, match="not encrypted"):
        SigningKey.parse_pem(KEY.render_pem(), b"secret")


def test_openssl_key_in_either_form_is_read(tmp_path: Path) -> None:
    sec1 = tmp_path / "sec1.pem"
    command = ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(sec1)]
    subprocess.run(command, check=True, capture_output=True)
    pkcs8 = subprocess.run(
        ["openssl", "pkcs8", "-topk8", "-nocrypt", "-in", str(sec1)], check=True, capture_output=True
    )
    assert SigningKey.load(sec1).public == SigningKey.parse_pem(pkcs8.stdout).public


def test_missing_key_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MalformedInput, match=r"nowhere\.pem: the signing key cannot be read"):
        SigningKey.load(tmp_path / "nowhere.pem")


@pytest.mark.parametrize("label", ["SIGSTORE", "COSIGN"])
def test_cosign_encrypted_key_is_unsupported_with_a_way_out(label: str) -> None:
    pem = f"-----BEGIN ENCRYPTED {label} PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED {label} PRIVATE KEY-----\n"
    with pytest.raises(Unsupported, match="openssl genpkey"):
        SigningKey.parse_pem(pem.encode())


@pytest.mark.parametrize("other", [ec.generate_private_key(ec.SECP384R1()), rsa.generate_private_key(65537, 2048)])
def test_keys_of_other_kinds_are_unsupported(other: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> None:
    private = other.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = other.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    with pytest.raises(Unsupported, match="P-256"):
        SigningKey.parse_pem(private)
    with pytest.raises(Unsupported, match="P-256"):
        VerifyKey.parse_pem(public)


@given(st.binary(max_size=200))
def test_garbage_is_no_key(data: bytes) -> None:
    with pytest.raises(MalformedInput):
        VerifyKey.parse_pem(data)
    with pytest.raises((MalformedInput, Unsupported)):  # hypothesis knows the name of cosign's format
        SigningKey.parse_pem(data)


def test_endless_key_file_is_not_read_whole(tmp_path: Path) -> None:
    with pytest.raises(MalformedInput, match="at the most"):
        SigningKey.load(Path("/dev/zero"))


def test_public_key_comes_back_from_pem_with_the_same_id() -> None:
    key = VerifyKey.parse_pem(KEY.public.render_pem())
    der = serialization.load_pem_public_key(KEY.public.render_pem()).public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    assert key == KEY.public
    assert key.key_id == hashlib.sha256(der).hexdigest()
    assert key.short_id == key.key_id[:16]


def test_neither_repr_nor_error_shows_the_private_key() -> None:
    secret = KEY.render_pem().decode().splitlines()[1]
    assert secret not in repr(KEY)
    with pytest.raises(MalformedInput) as caught:
        SigningKey.parse_pem(KEY.render_pem().replace(b"MIG", b"MIH", 1))
    assert secret not in str(caught.value)


@given(st.binary(max_size=300), st.integers(min_value=0), st.integers(min_value=1, max_value=255))
def test_signature_holds_for_its_text_alone(data: bytes, position: int, change: int) -> None:
    signature = KEY.sign(data)
    KEY.public.verify(data, signature)
    damaged = bytearray(signature)
    damaged[position % len(damaged)] ^= change
    assert not KEY.public.made(data, bytes(damaged))
    with pytest.raises(TrustFailure, match=KEY.public.short_id):
        KEY.public.verify(data + b"x", signature)


@given(st.binary(max_size=100))
def test_garbage_is_no_signature(signature: bytes) -> None:
    assert not KEY.public.made(b"text", signature)


def test_signature_in_another_encoding_is_refused() -> None:
    signature = KEY.sign(b"text")
    r, s = decode_dss_signature(signature)
    assert not KEY.public.made(b"text", signature + b"\0")
    assert not KEY.public.made(b"text", r.to_bytes(32, "big") + s.to_bytes(32, "big"))
    long_form = b"\x30\x81" + signature[1:]
    assert not KEY.public.made(b"text", long_form)
    for pair in ((0, 0), (r, 0), (0, s), (s, r), (r, s + P256_ORDER), (r + P256_ORDER, s)):
        assert not KEY.public.made(b"text", encode_dss_signature(*pair))


def test_signature_with_another_hash_is_refused() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    public = VerifyKey.parse_pem(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    assert public.made(b"text", key.sign(b"text", ec.ECDSA(hashes.SHA256())))
    assert not public.made(b"text", key.sign(b"text", ec.ECDSA(hashes.SHA512())))
