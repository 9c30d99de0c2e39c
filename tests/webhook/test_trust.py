"""The public keys that the webhook believes, as their files change."""

from datetime import timedelta
from pathlib import Path

import pytest

from proxy.errors import MalformedInput
from proxy.trust import SigningKey
from tests.webhook.table import NAMING
from webhook.answer import FollowedTrust
from webhook.config import TrustConfig

OLD, NEW = SigningKey.generate().public, SigningKey.generate().public


def test_keys_follow_their_file_and_the_last_good_ones_stay_when_it_is_damaged(tmp_path: Path) -> None:
    file = tmp_path / "signing.pub"
    file.write_bytes(OLD.render_pem())
    trust = FollowedTrust(TrustConfig(keys=(file,), max_age=60), NAMING)
    assert trust.current.keys == (OLD,)
    assert trust.current.max_age == timedelta(minutes=1)
    file.write_bytes(NEW.render_pem() + OLD.render_pem())
    assert trust.current.keys == (NEW, OLD)
    file.write_bytes(b"garbage")
    assert trust.current.keys == (NEW, OLD)


def test_a_key_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(MalformedInput, match=r"signing\.pub: the public key cannot be read: No such file"):
        FollowedTrust(TrustConfig(keys=(tmp_path / "signing.pub",)), NAMING)
