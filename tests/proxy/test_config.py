"""The configuration file."""

import pytest

from certs.errors import SettingsError
from certs.settings import load_settings
from proxy.config import ProxyConfig


def load(tmp_path, text):
    file = tmp_path / "proxy.yaml"
    file.write_text(text)
    return load_settings(file, ProxyConfig)


def test_the_smallest_configuration_is_enough(tmp_path):
    config = load(tmp_path, "mirror: {reference: 'mirror.example:5000'}")
    assert config.mirror.reference == "mirror.example:5000"
    assert config.policy.scope == "all"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("mirror: {reference: m, retian: 3}", "unknown key mirror.retian .known here: .*retain"),
        ("workers: {count: 0}", "workers.count"),
        ("polices: {}", "unknown key polices .known here: .*policy"),
    ],
)
def test_a_wrong_configuration_names_file_and_key(tmp_path, text, words):
    with pytest.raises(SettingsError, match=words) as caught:
        load(tmp_path, text)
    assert "proxy.yaml" in str(caught.value)
