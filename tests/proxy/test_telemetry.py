"""The proxy's figures, read by the reference parser of their format."""

from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from proxy.api import Outcome, ResolveResponse
from proxy.telemetry import Metrics


def figures(metrics, accept=""):
    body, content_type = metrics.render(accept)
    parse = parse_openmetrics if "openmetrics" in content_type else parse_text
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in parse(body.decode())
        for sample in family.samples
    }


def test_resolves_are_counted_by_outcome_and_timed():
    metrics = Metrics()
    for milliseconds in (4.0, 400.0):
        metrics.observe(ResolveResponse(outcome=Outcome.PATCHED, image="a/b:1", milliseconds=milliseconds))
    seen = figures(metrics)
    assert seen["admend_resolves_total", "patched"] == 2
    assert seen["admend_resolves_total", "failed"] == 0
    assert seen["admend_resolve_seconds_bucket", "0.005"] == 1
    assert seen["admend_resolve_seconds_bucket", "+Inf"] == 2
    assert abs(seen["admend_resolve_seconds_sum",] - 0.404) < 1e-9


def test_gauges_are_read_when_they_are_asked_for_and_in_the_format_asked_for():
    metrics, held = Metrics(), [1.0]
    metrics.gauge("mirror_bytes", "Bytes.", lambda: held[0])
    held[0] = 5.0
    assert figures(metrics)["admend_mirror_bytes",] == 5
    assert figures(metrics, "application/openmetrics-text; version=1.0.0")["admend_mirror_bytes",] == 5


def test_two_proxies_in_one_process_count_apart():
    first, second = Metrics(), Metrics()
    first.observe(ResolveResponse(outcome=Outcome.CLEAN, image="a/b:1"))
    assert figures(second)["admend_resolves_total", "clean"] == 0
