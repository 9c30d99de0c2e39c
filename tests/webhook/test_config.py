import json
from pathlib import Path
from typing import Any

import pytest

from proxy.errors import MalformedInput
from webhook.config import Mode, load_config

MINIMAL: dict[str, Any] = {
    "proxy": {"urls": ["https://proxy.example:8443/"]},
    "mirror": {"reference": "mirror.example:5000"},
    "trust": {"keys": ["signing.pub"]},
}


def load(tmp_path: Path, **changes: Any) -> Any:
    file = tmp_path / "webhook.json"
    file.write_text(json.dumps(MINIMAL | changes))
    return load_config(file)


def test_minimal_configuration_has_defaults(tmp_path: Path) -> None:
    config = load(tmp_path)
    assert config.mode is Mode.PERMISSIVE
    assert config.max_body_bytes == 3 << 20
    assert config.proxy.urls == ("https://proxy.example:8443",)


def test_yaml_is_read_too(tmp_path: Path) -> None:
    file = tmp_path / "webhook.yaml"
    file.write_text(
        "mode: enforce\nproxy: {urls: [http://127.0.0.1:1]}\nmirror: {reference: localhost}\ntrust: {keys: [k]}\n"
    )
    assert load_config(file).mode is Mode.ENFORCE


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"mod": "audit"}, "unknown key mod (known here: enforce, listen, margin"),
        ({"enforce": {"cleen": "pin"}}, "unknown key enforce.cleen (known here: blocked, clean, failed"),
        ({"listen": {"tls": {"cert": "x"}}}, "unknown key listen.tls.cert (known here: cert_file, client_ca_file"),
        ({"mode": "strict"}, "mode: "),
        ({"enforce": {"clean": "deny"}}, "enforce.clean: "),
        ({"proxy": {"urls": []}}, "proxy.urls: "),
        ({"proxy": {"urls": ["proxy.example"]}}, "a proxy is written https://"),
        ({"proxy": {"urls": ["https://user:password@proxy.example"]}}, "without user"),
        ({"proxy": {"urls": ["https://p"], "client_cert_file": "c"}}, "go together"),
        ({"proxy": {"urls": ["https://p"], "client_cert_file": "c", "client_key_file": "k"}}, "ca_file"),
        ({"mirror": {"reference": "mirror"}}, "needs a dot"),
        ({"mirror": {"reference": "mirror.example/Upper"}}, "a mirror is written"),
        ({"trust": {"keys": []}}, "trust.keys: "),
        ({"margin": -1}, "margin: "),
        ({"margin": "nan"}, "margin: "),
        ({"max_body_bytes": 0}, "max_body_bytes: "),
    ],
)
def test_wrong_configuration_is_refused_with_file_and_key(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(MalformedInput) as caught:
        load(tmp_path, **changes)
    assert str(tmp_path / "webhook.json") in str(caught.value)
    assert says in str(caught.value)


def test_files_that_are_no_configuration_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "webhook.yaml"
    with pytest.raises(MalformedInput, match="cannot be read"):
        load_config(file)
    file.write_text("a: [b")
    with pytest.raises(MalformedInput, match=r"webhook\.yaml:1: is not YAML"):
        load_config(file)
    for text in ("", "[]", "5"):
        file.write_text(text)
        with pytest.raises(MalformedInput):
            load_config(file)
    file.write_text("#" * ((1 << 20) + 1))
    with pytest.raises(MalformedInput, match="at the most"):
        load_config(file)
