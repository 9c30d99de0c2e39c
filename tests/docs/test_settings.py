"""Every setting that a page names is a value of the chart, or a key of a configuration file."""

import re
import textwrap
from collections.abc import Iterator

import pytest
import yaml
from pydantic import BaseModel

from certs.config import CertsConfig
from proxy.config import ProxyConfig
from tests.charts.values_page import VALUES_FILE, parse_values
from tests.docs.test_links import PAGES
from tests.support import REPOSITORY
from webhook.config import WebhookConfig

VALUES = {".".join(each.path) for each in parse_values(VALUES_FILE.read_text())}
FREE = ("proxy.config", "webhook.config")  # what is below them is of the configuration files
_NAME = re.compile(r"`([a-z]\w*(?:\.\w+)+)(?==|:|`)")
OTHERS = {"cluster.local", "mirror.example"}  # host names


def keys_of(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield the key of every setting of a model, sections included."""
    for name, field in model.model_fields.items():
        yield f"{prefix}{name}"
        for inner in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                yield from keys_of(inner, f"{prefix}{name}.")


KEYS = {key for model in (ProxyConfig, WebhookConfig, CertsConfig) for key in keys_of(model)}
SECTIONS = {name.partition(".")[0] for name in VALUES | KEYS if "." in name}


def unknown(text: str) -> set[str]:
    """Return the names in a text that are below a section and are no setting; a leading section may be left out."""
    named = {name.removeprefix("proxy.config.").removeprefix("webhook.config.") for name in _NAME.findall(text)}
    named = {name for name in named if name.partition(".")[0] in SECTIONS and name not in OTHERS}
    inner = {key.split(".", depth)[-1] for key in KEYS for depth in range(1, key.count(".") + 1)}
    return {name for name in named if name not in VALUES | KEYS | inner | set(FREE)}


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "ARCHITECTURE.md"], ids=lambda page: page.name)
def test_every_setting_that_a_page_names_exists(page):
    assert unknown(page.read_text()) == set()


def test_a_setting_that_does_not_exist_is_found():
    assert unknown("`mirror.retain`, `enforce.held=deny`, `proxy.config.platforms: [linux/arm64]`") == set()
    assert unknown("`mirror.retian` or `webhook.replica`") == {"mirror.retian", "webhook.replica"}


def examples(text: str) -> list[str]:
    """Return the blocks of a page that are settings, by their first key."""
    found = re.findall(r"(?:^    .*\n|^\n(?=    ))+", text, re.MULTILINE)
    blocks = [textwrap.dedent(block.strip("\n")) for block in found]
    return [block for block in blocks if re.match(rf"(?:{'|'.join(SECTIONS)}):", block)]


def test_the_settings_that_the_readme_shows_are_taken_by_the_proxy():
    shown = examples((REPOSITORY / "README.md").read_text())
    assert len(shown) > 1
    settings: dict[str, object] = {}
    for block in shown:
        settings |= yaml.safe_load(block)
    config = ProxyConfig.model_validate(settings)
    assert config.sources.extra
    assert config.mirror.reference == "mirror.example:5000"
