"""docs/metrics.md has a row for each figure that the processes show, and the chart and the pages name no other."""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from certs.figures import PREFIX, Figures
from certs.holdings import CA_CERT, SERVER_CERT, SERVER_KEY, Wanted
from certs.rotate import reconcile
from certs.settings import TlsConfig
from certs.store import FolderStore
from proxy.config import ClusterConfig, ListenConfig
from proxy.serve import Proxy
from tests.docs.test_links import PAGES
from tests.faults.answers import webhook_before
from tests.simulators.kube_api import serve_kube_api, write_kubeconfig
from tests.simulators.world import World
from tests.support import REPOSITORY

PAGE = (REPOSITORY / "docs" / "metrics.md").read_text()
CHART = REPOSITORY / "charts" / "admend"
NAME = re.compile(rf"\b{PREFIX}[a-z_]+[a-z]\b")
Row = tuple[str, str, str, str]  # process, name, kind, labels


def rows() -> set[Row]:
    """Return the rows of the page's tables."""
    found = set()
    for part in re.split(r"(?m)^## ", PAGE):
        process = part.partition("\n")[0].lower()
        for name, kind, labels in re.findall(r"(?m)^\| `([a-z_]+)` \| (\w+) \|([^|]*)\|", part):
            found.add((process, name, kind, ", ".join(re.findall(r"`(\w+)`", labels))))
    return found


@pytest.fixture
async def shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[set[Row]]:
    """Return what a webhook and a proxy, with everything switched on, register."""
    found: set[Row] = set()
    process = ""

    def record(method: str, kind: str, suffix: str) -> None:
        real = getattr(Figures, method)

        def recording(self: Figures, name: str, text: str, *rest: Any, **options: Any) -> Any:
            labels = rest if method in {"counter", "histogram"} else rest[0] if method in {"counts", "levels"} else ()
            found.add((process, f"{PREFIX}{name}{suffix}", kind, ", ".join(labels)))
            return real(self, name, text, *rest, **options)

        monkeypatch.setattr(Figures, method, recording)

    for method, kind, suffix in (
        ("counter", "counter", "_total"),
        ("counts", "counter", "_total"),
        ("histogram", "histogram", ""),
        ("gauge", "gauge", ""),
        ("levels", "gauge", ""),
    ):
        record(method, kind, suffix)
    keys = tmp_path / "keys"
    reconcile(FolderStore(keys), Wanted(dns_names=("localhost",), ips=("127.0.0.1",)))
    (keys / "authorities.crt").write_bytes((keys / CA_CERT).read_bytes())
    cert, key = keys / SERVER_CERT, keys / SERVER_KEY
    document = {
        "namespace": "admend",
        "probe": {"daemonset": "admend-probe"},
        "fleet": {"restart": {"enabled": True, "namespaces": ["shop"]}},
    }
    with serve_kube_api() as api:
        document["kubeconfig"] = write_kubeconfig(api, tmp_path)
        cluster = ClusterConfig.model_validate(document)
        async with World(tmp_path / "world") as world:
            process = "proxy"
            listen = ListenConfig(port=0, tls=TlsConfig(cert_file=cert, key_file=key))
            async with Proxy(world.config(cluster=cluster, listen=listen)) as proxy:
                (keys / "signing.pub").write_bytes(proxy.keys.signing.public.render_pem())
                process = "webhook"
                serving = {"port": 0, "tls": {"cert_file": cert, "key_file": key}}
                async with webhook_before("https://127.0.0.1:1", keys, listen=serving):
                    yield found


async def test_every_figure_has_its_row_and_no_row_is_of_another(shown: set[Row]) -> None:
    assert len(shown) > 30
    assert sorted(shown - rows()) == []
    assert sorted(rows() - shown) == []


def test_the_chart_and_the_pages_name_no_other() -> None:
    known = {name for _, name, _, _ in rows()}
    known |= {
        f"{name}_{part}" for _, name, kind, _ in rows() for part in ("bucket", "sum", "count") if kind == "histogram"
    }
    texts = {path: path.read_text() for path in (*PAGES, *(each for each in CHART.rglob("*") if each.is_file()))}
    named = {(path.name, name) for path, text in texts.items() for name in NAME.findall(text)}
    assert len(named) > 30
    assert {pair for pair in named if pair[1] not in known} == set()
