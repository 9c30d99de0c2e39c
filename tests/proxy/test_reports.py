"""Scanner reports are read, and what is none is named."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.engine.families.dpkg.version import compare_versions
from proxy.errors import MalformedInput
from proxy.reports import Finding, fixed_versions, parse_report
from tests.support import data_path


def report(results: object, **more: object) -> bytes:
    return json.dumps({"SchemaVersion": 2, "ArtifactName": "app:1", "Results": results, **more}).encode()


def found(package: str, fixed: str, cve: str = "CVE-1") -> dict[str, str]:
    return {"VulnerabilityID": cve, "PkgName": package, "InstalledVersion": "1", "FixedVersion": fixed}


def test_findings_of_system_packages_are_read_and_others_are_counted() -> None:
    findings = parse_report(
        report(
            [
                {"Class": "os-pkgs", "Vulnerabilities": [found("openssl", "2"), found("openssl", "2"), found("x", "")]},
                {"Class": "lang-pkgs", "Vulnerabilities": [found("flask", "9")]},
            ],
            Metadata={"OS": {"Family": "debian", "Name": "12.5"}},
        )
    )
    assert (findings.artifact_name, findings.os_family, findings.os_version) == ("app:1", "debian", "12.5")
    assert findings.items == (
        Finding("openssl", "1", "2", "CVE-1", "UNKNOWN"),
        Finding("x", "1", "", "CVE-1", "UNKNOWN"),
    )
    assert findings.other == 1


@pytest.mark.parametrize("results", [None, [], [{"Class": "os-pkgs"}], [{"Class": "os-pkgs", "Vulnerabilities": None}]])
def test_a_report_without_findings_is_a_report(results: object) -> None:
    assert parse_report(report(results)).items == ()


def test_the_lowest_version_that_fixes_everything_is_wanted() -> None:
    items = [found("a", "1.2"), found("a", "1.10", "CVE-2"), found("b", ""), found("c", "3, 2")]
    findings = parse_report(report([{"Class": "os-pkgs", "Vulnerabilities": items}]))
    assert fixed_versions(findings, compare_versions) == {"a": "1.10", "c": "2"}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"\napp:1 (debian 12)\n=====\nTotal: 3\n", "not JSON .a table"),
        (report(None)[:-10], "ends too early"),
        (b'{"SchemaVersion": 2, "Art', "ends too early"),
        (b'{"SchemaVersion": 2,, }', "not JSON"),
        (b"[]", "schema 1"),
        (b"{}", "SchemaVersion is"),
        (b'{"SchemaVersion": 3}', "SchemaVersion is 3, 2 is read"),
        (b'{"bomFormat": "CycloneDX"}', "a CycloneDX document"),
        (b'{"spdxVersion": "SPDX-2.3"}', "an SPDX document"),
        (b'{"$schema": "x", "runs": []}', "a SARIF report"),
        (b'{"matches": []}', "a Grype report"),
        (report([{"Class": "os-pkgs", "Vulnerabilities": [{"PkgName": "a"}]}]), "Results.0.Vulnerabilities.0"),
        (report("none"), "Results"),
        (b"[" * 100_000, "not JSON|ends too early"),
        (b'{"a": "\xff"}', "not JSON text"),
    ],
)
def test_what_is_no_report_is_named(data: bytes, message: str) -> None:
    with pytest.raises(MalformedInput, match=message):
        parse_report(data, "r.json")


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=3),
        lambda x: (
            st.lists(x)
            | st.dictionaries(
                st.sampled_from(["SchemaVersion", "Results", "Class", "Vulnerabilities", "PkgName", "Metadata", "OS"]),
                x,
            )
        ),
    )
)
def test_any_json_is_a_report_or_malformed(value: object) -> None:
    document = {"SchemaVersion": 2, **value} if isinstance(value, dict) else value
    with contextlib.suppress(MalformedInput):
        assert parse_report(json.dumps(document).encode()).other >= 0


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "count", "other"),
    [
        ("distroless-base", 4, 0),
        ("debian-buster", 2, 0),
        ("copa-trivy_no_history", 1, 0),
        ("copa-pkg_types_test", 1, 1),
    ],
)
def test_recorded_reports_are_read(name: str, count: int, other: int) -> None:
    findings = parse_report(data_path(f"reports/trivy/{name}.json").read_bytes())
    assert (len(findings.items), findings.other) == (count, other)


@pytest.mark.data
def test_every_recorded_report_is_read_but_for_the_one_that_is_none() -> None:
    refused = []
    for path in sorted(data_path("reports/trivy").glob("*.json")):
        try:
            parse_report(path.read_bytes(), path.name)
        except MalformedInput:
            refused.append(path.name)
    assert refused == ["copa-invalid.json"]
