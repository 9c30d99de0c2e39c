"""Key rings that follow their files."""

import pytest

from proxy.errors import MalformedInput, Unsupported
from proxy.trust import FollowedKeys, SigningKey, VerifyKey

OLD, NEW = SigningKey.generate(), SigningKey.generate()


def test_a_key_ring_signs_with_the_newest_key_and_believes_older_ones_too(tmp_path):
    key, older = tmp_path / "signing.pem", tmp_path / "older.pub"
    OLD.save(key)
    older.write_bytes(b"")
    with pytest.raises(MalformedInput, match=r"older\.pub"):
        FollowedKeys(key, [older])
    older.write_bytes(OLD.public.render_pem())
    ring = FollowedKeys(key, [older])
    assert (ring.signing.public, ring.accepted) == (OLD.public, (OLD.public,))
    NEW.save(key)
    assert (ring.signing.public, ring.accepted) == (NEW.public, (NEW.public, OLD.public))


def test_a_key_that_is_damaged_later_leaves_the_last_good_one(tmp_path, caplog):
    key = tmp_path / "signing.pem"
    OLD.save(key)
    ring = FollowedKeys(key)
    key.write_bytes(b"garbage")
    assert ring.signing.public == OLD.public
    assert "cannot be loaded" in caplog.text
    assert "garbage" not in caplog.text


def test_a_key_that_is_not_there_is_named(tmp_path):
    with pytest.raises(MalformedInput, match=r"signing\.pem: the key cannot be read: No such file"):
        FollowedKeys(tmp_path / "signing.pem")


def test_a_file_may_hold_several_public_keys(tmp_path):
    file = tmp_path / "keys.pub"
    file.write_bytes(b"# first\n" + OLD.public.render_pem() + NEW.public.render_pem() + OLD.public.render_pem())
    assert VerifyKey.load_all(file) == (OLD.public, NEW.public)
    file.write_bytes(OLD.public.render_pem() + b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")
    with pytest.raises((MalformedInput, Unsupported), match=r"keys\.pub"):
        VerifyKey.load_all(file)


def test_a_key_is_a_key_ring_of_one():
    assert (OLD.signing, OLD.accepted) == (OLD, (OLD.public,))
