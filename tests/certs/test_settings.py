"""The one reading of settings files."""

from pathlib import Path

import pytest

from certs.errors import SettingsError
from certs.settings import ListenConfig, Port, Seconds, Section, load_settings


class Rule(Section):
    name: str


class Listen(ListenConfig):
    port: Port = 1


class Settings(Section):
    listen: Listen = Listen()
    rules: tuple[Rule, ...] = ()
    pause: Seconds = 1.0
    secret: int = 0


def load(tmp_path, text):
    file = tmp_path / "service.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_settings(file, Settings)


@pytest.mark.parametrize("text", ["", "# nothing but a comment\n", "{}", "null"])
def test_an_empty_file_has_every_default(tmp_path, text):
    assert load(tmp_path, text) == Settings()


@pytest.mark.parametrize(
    "text",
    [
        "listen: {host: '::1', tls: {cert_file: c, key_file: k}}",
        '{"listen": {"host": "::1", "tls": {"cert_file": "c", "key_file": "k"}}}',
    ],
)
def test_yaml_and_json_are_read(tmp_path, text):
    listen = load(tmp_path, text).listen
    assert (listen.host, listen.port) == ("::1", 1)
    assert (listen.tls.cert_file, listen.tls.client_ca_file) == (Path("c"), None)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("pauze: 1", "unknown key pauze (known here: listen, pause, rules, secret)"),
        ("listen: {tls: {cert: x}}", "unknown key listen.tls.cert (known here: cert_file, client_ca_file, key_file)"),
        ("rules: [{name: a}, {nam: b}]", "unknown key rules.1.nam (known here: name)"),
        ("rules: [{}]\npause: -1", "rules.0.name: Field required; pause: "),
        ("pause: .inf", "pause: "),
        ("listen: {port: 65536}", "listen.port: "),
        ("- 1", "document: "),
        ("[]", "document: "),
        ("false", "document: "),
        ("pause: 1\nlisten: [", "service.yaml:2: is not YAML"),
        ("pause: 2026-99-99", "is not YAML: month"),
        (b"pause: \xff", "is not YAML"),
        ("[" * 20_000, "is not YAML"),
        ("pause: !!python/object/apply:os.getcwd []", "is not YAML"),
        ("#" * ((1 << 20) + 1), "1048576 bytes at the most"),
    ],
)
def test_a_wrong_file_is_refused_with_its_name_and_the_place(tmp_path, text, says):
    with pytest.raises(SettingsError) as caught:
        load(tmp_path, text)
    assert str(caught.value).startswith(str(tmp_path / "service.yaml"))
    assert says in str(caught.value)


def test_a_value_that_is_wrong_is_not_shown_since_it_may_be_a_secret(tmp_path):
    with pytest.raises(SettingsError) as caught:
        load(tmp_path, "secret: hunter2")
    assert "hunter2" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    for place in (tmp_path / "nothing.yaml", tmp_path):
        with pytest.raises(SettingsError, match=f"{place}: cannot be read"):
            load_settings(place, Settings)
