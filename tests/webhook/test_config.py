import json
from pathlib import Path
from typing import Any

import pytest

from certs.errors import SettingsError
from certs.settings import load_settings
from webhook.config import Mode, WebhookConfig

MINIMAL: dict[str, Any] = {
    "proxy": {"urls": ["https://proxy.example:8443/"]},
    "mirror": {"reference": "mirror.example:5000"},
    "trust": {"keys": ["signing.pub"]},
}


def load(tmp_path: Path, **changes: Any) -> Any:
    file = tmp_path / "webhook.json"
    file.write_text(json.dumps(MINIMAL | changes))
    return load_settings(file, WebhookConfig)


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
    assert load_settings(file, WebhookConfig).mode is Mode.ENFORCE


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"mod": "audit"}, "unknown key mod (known here: audit, enforce, listen, log, margin"),
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
        ({"pin_also": ["blocked"]}, "pin_also does nothing without pin"),
        ({"pin": True, "pin_also": ["failed"]}, "pin_also.0: "),
        ({"selection": {"foreign_owners": "allow"}}, "selection.foreign_owners: "),
        ({"selection": {"opt_out": "enforce"}}, "selection.opt_out"),
        ({"margin": -1}, "margin: "),
        ({"margin": "nan"}, "margin: "),
        ({"max_body_bytes": 0}, "max_body_bytes: "),
    ],
)
def test_wrong_configuration_is_refused_with_file_and_key(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(tmp_path, **changes)
    assert str(tmp_path / "webhook.json") in str(caught.value)
    assert says in str(caught.value)
