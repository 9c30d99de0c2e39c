"""The configuration file."""

import pytest

from proxy.config import ProxyConfig, load_config
from proxy.errors import MalformedInput


def load(tmp_path, text):
    file = tmp_path / "proxy.yaml"
    file.write_text(text)
    return load_config(file, ProxyConfig)


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
        ("mirror: [", "is not YAML"),
        ("- 1", "document"),
    ],
)
def test_a_wrong_configuration_names_file_and_key(tmp_path, text, words):
    with pytest.raises(MalformedInput, match=words) as caught:
        load(tmp_path, text)
    assert "proxy.yaml" in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(MalformedInput, match=r"nothing\.yaml: cannot be read"):
        load_config(tmp_path / "nothing.yaml", ProxyConfig)
