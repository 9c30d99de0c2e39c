"""Alerts and dashboard ask for figures that the processes have, as they are served."""

import json
import re
from pathlib import Path

import httpx
import pytest

from certs.holdings import SERVER_CERT, SERVER_KEY, Wanted
from certs.rotate import reconcile
from certs.settings import TlsConfig
from certs.store import FolderStore
from proxy.config import ClusterConfig, FleetConfig, ListenConfig, ProbeConfig, RestartConfig
from proxy.serve import Proxy
from tests.charts.rendering import CHART, of_kind, one, render
from tests.docs.test_metrics_page import rows
from tests.simulators.kube_api import serve_kube_api, write_kubeconfig
from tests.simulators.world import World
from tests.support import REPOSITORY
from tests.webhook.serving import make_keys, settings
from webhook.config import WebhookConfig
from webhook.serve import Webhook

# Figures of others: Prometheus's own of each target, the API server's, and those of every process on Linux.
OTHERS = {
    "up",
    "apiserver_admission_webhook_fail_open_count",
    "apiserver_admission_webhook_rejection_count",
    "process_resident_memory_bytes",
}
TARGET = {"namespace", "pod", "job", "instance", "service"}  # labels of what is scraped
OPERATING = (REPOSITORY / "docs" / "operating.md").read_text()
WORD = re.compile(r"\b(?:admend|apiserver|process)_\w+|\bup\b")


def rules(name="monitoring"):
    [group] = one(render(name), "PrometheusRule")["spec"]["groups"]
    return group["rules"]


def queries():
    """Return every expression of the dashboard."""
    board = json.loads((CHART / "files" / "dashboard.json").read_text())
    asked = [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]
    return [*asked, *(each["definition"] for each in board["templating"]["list"] if "definition" in each)]


async def serve_figures(folder: Path) -> str:
    """Return what webhook and proxy serve on /metrics, everything switched on."""
    tls = TlsConfig(cert_file=folder / SERVER_CERT, key_file=folder / SERVER_KEY)
    reconcile(FolderStore(folder), Wanted(dns_names=("localhost",), ips=("127.0.0.1",)))
    keys = make_keys(folder)
    async with World(folder / "world") as world:
        with serve_kube_api() as api:
            probe, fleet = ProbeConfig(daemonset="probe"), FleetConfig(restart=RestartConfig(enabled=True))
            file = Path(write_kubeconfig(api, folder))
            config = world.config(
                listen=ListenConfig(port=0, tls=tls),
                cluster=ClusterConfig(namespace="admend", kubeconfig=file, probe=probe, fleet=fleet),
            )
            webhook_config = WebhookConfig.model_validate(settings(keys, "https://127.0.0.1:1"))
            async with (
                Proxy(config) as proxy,
                Webhook(webhook_config) as webhook,
                httpx.AsyncClient(verify=False, trust_env=False) as http,
            ):
                ports = (proxy.port, webhook.port)
                return "\n".join([(await http.get(f"https://127.0.0.1:{port}/metrics")).text for port in ports])


async def test_every_figure_that_an_alert_or_a_panel_names_is_served(tmp_path):
    served = set(re.findall(r"^# TYPE (\S+) (\w+)$", await serve_figures(tmp_path), re.MULTILINE))
    names = {name for name, _ in served} | OTHERS
    names |= {f"{name}{part}" for name, kind in served if kind == "histogram" for part in ("_bucket", "_count", "_sum")}
    asked = {word for text in queries() for word in WORD.findall(text)}
    assert len(asked) > 10
    assert asked - names == set()


def wrong_labels(texts):
    """Return the labels that expressions select or group by and that their figures do not have."""
    had = {name: set(text.split(", ")) - {""} | {"le"} for _, name, _, text in rows()}
    wrong, seen = set(), 0
    for text in texts:
        names = [re.sub("_(?:bucket|sum|count)$", "", name) for name in re.findall(r"\badmend_\w+", text)]
        if not names:
            continue
        used = {label for part in re.findall(r"\{([^{}]*)\}", text) for label in re.findall(r"(\w+)\s*(?:=|!)", part)}
        used |= {label.strip() for part in re.findall(r"\bby \(([^)]*)\)", text) for label in part.split(",")}
        wrong |= {(label, text) for label in used - TARGET if not any(label in had[name] for name in names)}
        seen += len(used - TARGET)
    return wrong, seen


def test_panels_select_and_group_by_labels_that_are_there():
    wrong, seen = wrong_labels(queries())
    assert wrong == set()
    assert seen > 10


@pytest.mark.interop
def test_alerts_select_and_group_by_labels_that_are_there():
    wrong, seen = wrong_labels(rule["expr"] for rule in rules())
    assert wrong == set()
    assert seen > 3


@pytest.mark.interop
def test_every_figure_that_an_alert_names_is_one_of_the_dashboard():
    asked = {word for rule in rules() for word in WORD.findall(rule["expr"])}
    shown = {word for text in queries() for word in WORD.findall(text)}
    assert asked - shown == {"up"}


@pytest.mark.interop
def test_alerts_are_about_this_release_and_say_what_is_wrong():
    found = rules()
    assert len({rule["alert"] for rule in found}) == len(found)
    for rule in found:
        assert re.search(r'namespace="admend-system"|name=~".\+\[.\]admend\[.\]dev"', rule["expr"]), rule["expr"]
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert {"summary", "description"} == set(rule["annotations"])


@pytest.mark.interop
def test_a_release_has_alerts_for_what_it_has_only():
    embedded = {rule["alert"] for rule in rules()}
    assert {"AdmendMirrorFull", "AdmendMirrorNotProven"} <= embedded
    external = {rule["alert"] for rule in rules("autoscaling")}
    assert embedded - external == {"AdmendMirrorFull"}
    assert embedded <= set(re.findall(r"^\| `(Admend\w+)` \|", OPERATING, re.MULTILINE))


@pytest.mark.interop
def test_services_are_scraped_under_names_of_their_certificate():
    found = render("monitoring")
    for name, each in of_kind(found, "ServiceMonitor").items():
        [endpoint] = each["spec"]["endpoints"]
        assert endpoint["tlsConfig"]["serverName"].endswith(".admend-system.svc")
        selector = each["spec"]["selector"]["matchLabels"].items()
        [service] = [one for one in of_kind(found, "Service").values() if selector <= one["metadata"]["labels"].items()]
        assert endpoint["tlsConfig"]["serverName"].split(".")[0] == service["metadata"]["name"]
        assert endpoint["port"] in [port["name"] for port in service["spec"]["ports"]]
        assert each["metadata"]["labels"]["release"] == "prometheus", name


@pytest.mark.interop
def test_the_dashboard_is_whole_in_its_config_map():
    [held] = [each for name, each in of_kind(render("monitoring"), "ConfigMap").items() if name.endswith("-dashboard")]
    [text] = held["data"].values()
    assert json.loads(text) == json.loads((CHART / "files" / "dashboard.json").read_text())
    assert held["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert held["metadata"]["annotations"]["folder"] == "Security"
