"""Traces from an admission to the push of a patched image: a real webhook, a real proxy, and a collector."""

import asyncio
import json
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from certs.collector import QUEUE
from certs.errors import SettingsError
from certs.traces import Tracing, child_span, current_span, open_tracing
from certs.tracing import TracingConfig
from proxy.phases import PHASES
from tests.faults.answers import admit
from tests.faults.site import Site, open_site
from tests.simulators.collector import Collector, Got
from webhook.config import Mode

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def admit_one(site: Site, image: str, parent: str = "") -> dict[str, object]:
    """Admit a pod in mode permissive, on behalf of the span `parent`; returns its audit line."""
    ca = site.keys / "authorities.crt"
    headers = {"traceparent": parent} if parent else {}
    found = await admit(site.webhook, site.log, ca, Mode.PERMISSIVE, image, deadline=10.0, headers=headers)
    return dict(found.line)


def path_to_root(span: Got, spans: Sequence[Got]) -> list[str]:
    """Return the names of a span and of all above it."""
    by_id = {each.id: each for each in spans}
    names = []
    here: Got | None = span
    while here is not None:
        names.append(f"{here.service}: {here.name}")
        here = by_id.get(here.parent)
    return names


async def test_one_trace_goes_from_the_admission_to_the_push(tmp_path: Path) -> None:
    with Collector() as collector:
        async with open_site(tmp_path, {"endpoint": collector.endpoint}) as site:
            image = site.world.add_image()
            line = await admit_one(site, image)
            assert line["verdict"] == "rewrite"
            counts = [site.webhook.tracing.counts, site.proxy.tracing.counts]
        spans = collector.spans
    assert {span.trace for span in spans} == {line["trace_id"]}
    made = {span.name: span for span in spans}
    way = ["admend-proxy: resolve", "admend-webhook: ask", "admend-webhook: resolve", "admend-webhook: admit"]
    for phase in PHASES:
        assert path_to_root(made[phase], spans) == [f"admend-proxy: {phase}", "admend-proxy: patch", *way]
    root = made["admit"]
    assert root.parent == ""
    assert root.values["admend.verdicts"] == "rewrite"
    assert root.values["k8s.namespace.name"] == line["namespace"]
    assert made["patch"].values["container.image.name"].startswith(image.rpartition(":")[0])
    assert all(root.start <= span.start <= span.end for span in spans)
    assert not any(span.failed for span in spans)
    assert all(each["made"] == each["sent"] and not each["lost"] for each in counts)
    assert sum(each["made"] for each in counts) == len(spans)


async def test_the_trace_of_the_api_server_goes_on(tmp_path: Path) -> None:
    with Collector() as collector:
        async with open_site(tmp_path, {"endpoint": collector.endpoint, "sample": 0.0}) as site:
            image = site.world.add_image()
            line = await admit_one(site, image, PARENT)
            assert line["trace_id"] == PARENT[3:35]
            others = [await admit_one(site, image, parent) for parent in ("", PARENT[:-1] + "0", "00-" + "f" * 4000)]
            assert [other["trace_id"] for other in others] == ["", "", ""]
            assert {other["verdict"] for other in others} == {"rewrite"}
        spans = collector.spans
    assert {span.trace for span in spans} == {PARENT[3:35]}
    assert {span.service for span in spans} == {"admend-webhook", "admend-proxy"}
    (root,) = [span for span in spans if span.name == "admit"]
    assert root.parent == PARENT[36:52]


async def test_what_fails_is_marked_with_its_reason(tmp_path: Path) -> None:
    with Collector() as collector:
        async with open_site(tmp_path, {"endpoint": collector.endpoint}) as site:
            await admit_one(site, f"{site.world.upstream.host}/none:1")
        failed = {span.name for span in collector.spans if span.failed}
    assert failed == {"resolve"}


@pytest.mark.parametrize(
    ("header", "sampled"), [(PARENT, True), (PARENT[:-1] + "0", False), ("00-nonsense", True), ("", True)]
)
async def test_a_caller_that_says_whether_its_trace_is_recorded_is_followed(header: str, *, sampled: bool) -> None:
    with Collector() as collector:
        tracing = open_tracing(TracingConfig(endpoint=collector.endpoint), "tool")
        with tracing.span("one", parent=header) as span, child_span("two") as inner:
            assert current_span() is inner
            assert bool(span.trace_id) is sampled
            assert inner.header.endswith("01" if sampled else "00")
            if header == PARENT:
                assert inner.header[3:35] == PARENT[3:35]
        assert current_span().trace_id == ""
        await tracing.close()
        assert [got.name for got in collector.spans] == (["two", "one"] if sampled else [])
        if header == PARENT:
            assert collector.spans[-1].parent == PARENT[36:52]


async def test_a_share_of_traces_is_recorded() -> None:
    with Collector() as collector:
        tracing = open_tracing(TracingConfig(endpoint=collector.endpoint, sample=0.25), "tool")
        for _ in range(400):
            with tracing.span("one"):
                pass
        await tracing.close()
        assert 50 < len(collector.spans) < 150


@pytest.mark.parametrize("fault", ["nobody listens", "slow", "503", "redirect"])
async def test_a_collector_that_fails_costs_spans_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.setattr("certs.traces.DRAIN", 0.8)
    with Collector() as other, Collector() as collector:
        collector.status = {"503": 503, "redirect": 307}.get(fault, 200)
        collector.delay = 1.5 if fault == "slow" else 0.0
        collector.location = other.endpoint if fault == "redirect" else ""
        (tmp_path / "secret").write_text("s3cret\n")
        endpoint = "http://127.0.0.1:1/v1/traces" if fault == "nobody listens" else collector.endpoint
        tracing = open_tracing(TracingConfig(endpoint=endpoint, token_file=tmp_path / "secret"), "tool")
        start = time.monotonic()
        for _ in range(4000):  # more than fit
            with tracing.span("one"), child_span("two"):
                pass
        assert time.monotonic() - start < 1.5
        await asyncio.sleep(0)
        start = time.monotonic()
        await tracing.close()
        assert time.monotonic() - start < 2.0
        assert not other.tokens
        counts = tracing.counts
        assert counts["made"] == 8000
        if fault == "redirect":  # known at once to be of no use
            assert counts["lost"] + counts["dropped"] == 8000
        else:
            assert counts["dropped"] >= 8000 - 2 * QUEUE
        if fault != "slow":
            assert counts["sent"] == 0


async def test_admissions_do_not_wait_for_a_collector_that_never_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("certs.traces.DRAIN", 0.1)
    monkeypatch.setattr("certs.collector.PAUSE", 0.01)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # connections are made, and that is all
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}/v1/traces"
        async with open_site(tmp_path, {"endpoint": endpoint}) as site:
            image = site.world.add_image()
            assert (await admit_one(site, image))["verdict"] == "rewrite"
            took = []
            for _ in range(40):
                start = time.monotonic()
                line = await admit_one(site, image)
                took.append(time.monotonic() - start)
                assert (line["verdict"], len(str(line["trace_id"]))) == ("rewrite", 32)
            counts = site.webhook.tracing.counts
            assert counts["made"] > 100
            assert counts["sent"] == counts["lost"] == 0
        assert sorted(took)[len(took) // 2] < 0.5
        assert max(took) < 3.0  # one request to the collector takes 5 s until it is given up


def test_a_process_ends_though_its_collector_never_answers() -> None:
    program = """
import asyncio, sys
import certs.traces
from certs.traces import open_tracing
from certs.tracing import TracingConfig
certs.traces.DRAIN = 0.5
async def run():
    tracing = open_tracing(TracingConfig(endpoint=sys.argv[1]), "tool")
    for _ in range(3000):
        with tracing.span("one"):
            pass
    await tracing.close()
asyncio.run(run())
"""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}/v1/traces"
        start = time.monotonic()
        subprocess.run([sys.executable, "-c", program, endpoint], check=True, capture_output=True, timeout=60)
        assert time.monotonic() - start < 4.0  # one request alone may take 5 s


async def test_spans_say_which_process_made_them() -> None:
    with Collector() as collector:
        wanted = {"deployment.environment.name": "test", "service.name": "forged"}
        tracing = open_tracing(TracingConfig(endpoint=collector.endpoint, attributes=wanted), "tool")
        with tracing.span("one"):
            pass
        await tracing.close()
        (span,) = collector.spans
        assert span.service == "tool"
        assert span.resource["deployment.environment.name"] == "test"
        assert span.resource["service.instance.id"] == socket.gethostname()
        assert span.resource["service.version"]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"endpoint": "http://collector.example/v1/traces", "token_file": "/t"}, "over TLS only"),
        ({"endpoint": "collector:4318"}, "a collector is written"),
        ({"attributes": {"Name With Spaces": "x"}}, "should match pattern"),
        ({"attributes": {"a": "x" * 257}}, "at most 256"),
        ({"attributes": {f"a{number}": "" for number in range(33)}}, "at most 32"),
        ({"sample": 1.5}, "less than or equal to 1"),
    ],
)
def test_settings_that_are_wrong_are_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        TracingConfig.model_validate(settings)


async def test_a_token_is_sent_and_read_anew(tmp_path: Path) -> None:
    with Collector() as collector:
        file = tmp_path / "token"
        file.write_text("first\n")
        for token in ("first", "second"):
            file.write_text(f"{token}\n")
            tracing = open_tracing(TracingConfig(endpoint=collector.endpoint, token_file=file), "tool")
            with tracing.span("one"):
                pass
            await tracing.close()
        assert collector.tokens == ["Bearer first", "Bearer second"]
        assert set(collector.paths) == {"/v1/traces"}


def test_files_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"tracing\.ca_file: .*none is no file"):
        open_tracing(TracingConfig(endpoint="https://collector.example/v1/traces", ca_file=tmp_path / "none"), "tool")


def test_without_a_collector_nothing_of_opentelemetry_is_loaded() -> None:
    program = """
import json, sys
import webhook.serve, proxy.serve
from certs.traces import open_tracing
from certs.tracing import TracingConfig
with open_tracing(TracingConfig(), "tool").span("one") as span:
    assert not span.header
print(json.dumps([name for name in sys.modules if name.split(".")[0] in {"opentelemetry", "google", "requests"}]))
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert json.loads(done.stdout) == []
    assert isinstance(open_tracing(TracingConfig(), "tool"), Tracing)
