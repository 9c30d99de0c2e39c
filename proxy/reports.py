"""Scanner reports in: which packages have findings, and which versions fix them.

Owns the reading of Trivy's JSON report (schema 2, ``trivy image --format json``). Takes only findings of operating
system packages; findings of language packages are counted, since admend does not patch them. Refuses other formats
by name, with what to do instead.
Specification: https://trivy.dev/latest/docs/configuration/reporting/#json
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cmp_to_key
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from proxy.engine.plan import with_epoch
from proxy.errors import MalformedInput

MAX_REPORT = 256 << 20  # bytes; a report with 40 findings has 0.2 MB, one with every package of a large image 20 MB
SCHEMA = 2
ADVICE = "write it with `trivy image --format json`"

_GZIP = b"\x1f\x8b"
_OTHER_FORMATS = {
    "bomFormat": "a CycloneDX document",
    "spdxVersion": "an SPDX document",
    "runs": "a SARIF report",
    "matches": "a Grype report",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One vulnerability of one installed package; `fixed` is ``""`` where no fixed version is known."""

    package: str
    installed: str
    fixed: str
    cve: str
    severity: str


@dataclass(frozen=True, slots=True)
class Findings:
    """What a report says; `other` counts its findings that are not of operating system packages.

    `diff_ids` and `arch` are those of the image that was scanned, or empty where the report does not say.
    """

    artifact_name: str
    os_family: str
    os_version: str
    items: tuple[Finding, ...]
    other: int = 0
    diff_ids: tuple[str, ...] = ()
    arch: str = ""


class _Vulnerability(BaseModel):
    VulnerabilityID: str = Field(min_length=1)
    PkgName: str = Field(min_length=1)
    InstalledVersion: str = ""
    FixedVersion: str = ""
    Severity: str = "UNKNOWN"


class _Result(BaseModel):
    Class: str = ""
    Vulnerabilities: list[_Vulnerability] | None = None


class _System(BaseModel):
    Family: str = ""
    Name: str = ""


class _ImageConfig(BaseModel):
    architecture: str = ""


class _Metadata(BaseModel):
    OS: _System | None = None
    DiffIDs: list[str] | None = None
    ImageConfig: _ImageConfig | None = None


class _Report(BaseModel):
    ArtifactName: str = ""
    Metadata: _Metadata | None = None
    Results: list[_Result] | None = None


def parse_report(data: bytes, where: str = "report") -> Findings:
    """Parse a report; one without results, or whose results hold no vulnerabilities, has no findings.

    Raises MalformedInput that says what the file is instead, where it ends too early, or which field is wrong.
    """
    document = _document(data, where)
    try:
        report = _Report.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise MalformedInput(f"not a Trivy report: {place}: {first['msg']}; {ADVICE}", file=where) from error
    metadata = report.Metadata or _Metadata()
    system = metadata.OS or _System()
    found: dict[Finding, None] = {}
    other = 0
    for result in report.Results or ():
        for item in result.Vulnerabilities or ():
            if result.Class != "os-pkgs":
                other += 1
                continue
            finding = Finding(
                item.PkgName, item.InstalledVersion, item.FixedVersion.strip(), item.VulnerabilityID, item.Severity
            )
            found[finding] = None
    arch = metadata.ImageConfig.architecture if metadata.ImageConfig else ""
    layers = tuple(metadata.DiffIDs or ())
    return Findings(report.ArtifactName, system.Family, system.Name, tuple(found), other, layers, arch)


def check_image(findings: Findings, diff_ids: Sequence[str], arch: str, system: str, version: str) -> None:
    """Check that a report is about an image: by its layers, and by its distribution.

    Args:
        findings: what the report says.
        diff_ids: the image's.
        arch: the image's architecture as its config has it; a report about another one of the same index may serve.
        system: the distribution as os-release has it.
        version: its VERSION_ID, or empty.

    Raises:
        MalformedInput: it is about another image; says what differs.
    """
    advice = f"scan this very image: `trivy image --format json IMAGE`; the report is about {findings.artifact_name!r}"
    about = f"{findings.os_family} {findings.os_version}".strip()
    if findings.os_family and system and findings.os_family != system:
        raise MalformedInput(f"the report is about {about}, the image is {system} {version}: {advice}")
    told, found = findings.os_version.split("."), version.split(".")
    if told[0].isdigit() and found[0].isdigit() and any(a != b for a, b in zip(told, found, strict=False)):
        raise MalformedInput(f"the report is about {about}, the image is {system} {version}: {advice}")
    if findings.diff_ids and findings.arch in {"", arch} and tuple(diff_ids) != findings.diff_ids:
        common = sum(1 for a, b in zip(findings.diff_ids, diff_ids, strict=False) if a == b)
        layers = f"{len(findings.diff_ids)} layers there, {len(diff_ids)} here, {common} in common"
        raise MalformedInput(f"the report is about another image ({layers}): {advice}")


def _document(data: bytes, where: str) -> dict[str, Any]:
    """Return the JSON object, or say what else the file is."""
    if len(data) > MAX_REPORT:
        raise MalformedInput(f"a report of more than {MAX_REPORT} bytes", file=where)
    if not data.strip():
        raise MalformedInput("the report is empty; was the scan interrupted?", file=where)
    if data.lstrip()[:1] not in {b"{", b"["}:
        packed = data.startswith(_GZIP)
        first = "" if packed else data.strip().splitlines()[0].decode("utf-8", "replace")
        what = (
            "compressed with gzip: unpack it first" if packed else f"not JSON (a table, or another format?): {ADVICE}"
        )
        raise MalformedInput(what, file=where, text=first)
    try:
        document: dict[str, Any] | list[Any] = json.loads(data)
    except json.JSONDecodeError as error:
        early = error.pos >= len(error.doc.rstrip()) or error.msg.startswith("Unterminated")
        what = "the report ends too early; was the scan interrupted?" if early else f"not JSON: {error.msg}"
        raise MalformedInput(what, file=where, line=error.lineno) from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise MalformedInput("not JSON text", file=where) from error
    if isinstance(document, list):
        raise MalformedInput(f"a report of Trivy's schema 1, or no report: {ADVICE} of Trivy 0.20 or newer", file=where)
    for key, kind in _OTHER_FORMATS.items():
        if key in document and "SchemaVersion" not in document:
            raise MalformedInput(f"{kind}, not Trivy's own: {ADVICE}", file=where)
    if document.get("SchemaVersion") != SCHEMA:
        version = document.get("SchemaVersion", "(none)")
        raise MalformedInput(f"SchemaVersion is {version}, {SCHEMA} is read: {ADVICE}", file=where)
    return document


def fixed_versions(findings: Findings, compare: Callable[[str, str], int]) -> dict[str, str]:
    """Return, by package name, the lowest version that fixes every finding that has a fix (`PlanPolicy.only`).

    Of several versions that fix one finding, of several releases, the lowest that is newer than the installed one
    counts; one without an epoch takes the installed one's.

    Args:
        findings: what the report says.
        compare: the family's order of versions; it raises MalformedInput for what is no version.
    """
    wanted: dict[str, str] = {}
    for item in findings.items:
        choices = [version.strip() for version in item.fixed.split(",") if version.strip()]
        if not choices:
            continue
        choices = [with_epoch(version, item.installed) for version in choices]
        newer = [version for version in choices if not item.installed or compare(version, item.installed) > 0]
        ordered = sorted(newer or choices, key=cmp_to_key(compare))
        lowest = ordered[0] if newer else ordered[-1]
        known = wanted.get(item.package)
        if known is None or compare(lowest, known) > 0:
            wanted[item.package] = lowest
    return wanted
