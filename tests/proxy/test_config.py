"""The configuration file."""

import pytest

from certs.errors import SettingsError
from certs.settings import load_settings
from proxy.config import ProxyConfig
from proxy.errors import MalformedInput
from proxy.machine import read_settings, read_source_credentials, source_hosts


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
        ("sources: {credentials: [{prefix: 'http://a.example', token_file: x}]}", "over TLS only"),
        ("sources: {credentials: [{prefix: 'https://a.example'}]}", "give user and password_file, or token_file"),
        (
            "sources: {credentials: [{prefix: 'https://a.example', user: u, password_file: p, token_file: t}]}",
            "give user and password_file, or token_file",
        ),
        ("sources: {archives: {debian/stretch: 'http://u:hunter2@a.example'}}", "must not hold a user or password"),
        ("sources: {extra: [{uri: 'ftp://a.example', suite: x, keyring: debian}]}", "not an http or https address"),
        ("polices: {}", "unknown key polices .known here: .*policy"),
    ],
)
def test_a_wrong_configuration_names_file_and_key(tmp_path, text, words):
    with pytest.raises(SettingsError, match=words) as caught:
        load(tmp_path, text)
    assert "proxy.yaml" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_credentials_of_sources_are_read_from_their_files(tmp_path):
    (tmp_path / "password").write_text("hunter2\nmore\n")
    (tmp_path / "token").write_text("t0ken\n")
    (tmp_path / "empty").write_text("\n")
    sources = f"""
sources:
  credentials:
    - {{prefix: "https://esm.example/ubuntu", user: bearer, password_file: {tmp_path}/password}}
    - {{prefix: "https://other.example", token_file: {tmp_path}/token}}
"""
    config = load(tmp_path, sources).sources
    assert read_source_credentials(config) == {
        "https://esm.example/ubuntu": "Basic YmVhcmVyOmh1bnRlcjI=",
        "https://other.example": "Bearer t0ken",
    }
    for name in ("absent", "empty"):
        with pytest.raises(MalformedInput, match=name) as caught:
            read_source_credentials(load(tmp_path, sources.replace("/token", f"/{name}")).sources)
        assert "hunter2" not in str(caught.value)


def test_extra_sources_become_sources_with_their_options(tmp_path):
    (tmp_path / "ring").write_bytes(b"k")
    config = load(
        tmp_path,
        f"""
sources:
  machine: null
  keyrings: {{ubuntu: [{tmp_path}/ring]}}
  archives: {{ubuntu/xenial: "http://old.example"}}
  extra:
    - {{uri: "https://ports.example/ubuntu", suite: noble-security, keyring: ubuntu, architectures: [arm64, riscv64],
       fallback: true, security: true, check_valid_until: false}}
""",
    ).sources
    settings = read_settings(config)
    (source,) = settings.extra
    assert source.options == {"architectures": "arm64 riscv64", "fallback": "yes", "check-valid-until": "no"}
    assert settings.keyrings["ubuntu"].endswith(b"k")
    assert settings.archives == {"ubuntu/xenial": "http://old.example"}
    assert {"ports.example", "old.example"} <= source_hosts(config, settings)
