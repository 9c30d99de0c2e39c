"""Reports through the command: what is patched by them, and what each wrong one is answered with."""

import gzip
import json

import pytest

from tests.end_to_end.command import admend
from tests.simulators.world import FIXED, RELEASED


def report(*findings, system=("debian", "12"), **metadata):
    """Return a scanner's report with these (package, installed, fixed, id) findings."""
    vulnerabilities = [
        {"PkgName": name, "InstalledVersion": old, "FixedVersion": new, "VulnerabilityID": cve, "Severity": "HIGH"}
        for name, old, new, cve in findings
    ]
    results = [{"Target": "app", "Class": "os-pkgs", "Type": "debian", "Vulnerabilities": vulnerabilities}]
    metadata = {"OS": {"Family": system[0], "Name": system[1]}, **metadata}
    return json.dumps({"SchemaVersion": 2, "ArtifactName": "app", "Metadata": metadata, "Results": results}).encode()


VULNERABLE = ("libdemo1", RELEASED, FIXED, "CVE-2099-1")


async def patch_by(world, found, *more, image=None):
    """Patch by a report on standard input; returns exit code, standard output and standard error."""
    arguments = ("patch", image or world.add_image(), "-r", "-", "-o", "oci:out:x", "--config", "proxy.json", *more)
    return await admend(world, *arguments, stdin=found)


async def test_a_report_decides_what_is_patched_and_what_is_fixed(world):
    code, out, err = await patch_by(world, report(VULNERABLE, ("libdemo1", RELEASED, "", "CVE-2099-2")), "--json")
    assert code == 0, err
    document = json.loads(out)
    assert document["outcome"] == "patched"
    assert document["fixed"] == ["CVE-2099-1"]
    assert "libdemo1" in {upgrade["package"] for upgrade in document["platforms"][0]["upgrades"]}


async def test_a_report_with_nothing_to_fix_is_clean_and_writes_nothing(world):
    code, out, _ = await patch_by(world, report(), "--json")
    assert (code, json.loads(out)["outcome"]) == (0, "clean")
    assert not (world.folder / "out").exists()


async def test_a_fix_that_the_sources_do_not_have_is_named(world):
    code, out, _ = await patch_by(world, report(("libdemo1", RELEASED, "9.9-9", "CVE-2099-3")))
    assert code == 0
    assert "blocked" in out
    assert f"the report asks for 9.9-9, the sources offer {FIXED}" in out


async def test_a_report_older_than_the_sources_takes_what_they_have_now(world):
    code, out, _ = await patch_by(world, report(("libdemo1", RELEASED, "1.0-1+deb12u0", "CVE-2099-4")), "--json")
    assert code == 0
    moved = {item["package"]: item["to"] for item in json.loads(out)["platforms"][0]["upgrades"]}
    assert moved["libdemo1"] == FIXED


async def test_a_package_that_the_image_does_not_have_is_named(world):
    _, out, _ = await patch_by(world, report(VULNERABLE, ("nothere", "1", "2", "CVE-2099-5")))
    assert "nothere" in out
    assert "the report names it, but the image does not have it" in out


WRONG = {
    "a table": (b"app:1 (debian 12)\n====\nTotal: 3 (HIGH: 3)\n", ["not JSON", "--format json"]),
    "an empty file": (b"\n", ["is empty", "interrupted"]),
    "a cut report": (report(VULNERABLE)[:-20], ["ends too early", "interrupted"]),
    "compressed": (gzip.compress(report(VULNERABLE)), ["compressed with gzip", "unpack it first"]),
    "no JSON": (b'{"SchemaVersion": 2,, }', ["not JSON"]),
    "schema 1": (b'[{"Target": "app"}]', ["schema 1", "--format json"]),
    "another schema": (b'{"SchemaVersion": 3, "Results": []}', ["SchemaVersion is 3", "2 is read"]),
    "CycloneDX": (b'{"bomFormat": "CycloneDX"}', ["CycloneDX", "--format json"]),
    "SPDX": (b'{"spdxVersion": "SPDX-2.3"}', ["SPDX", "--format json"]),
    "SARIF": (b'{"version": "2.1.0", "runs": []}', ["SARIF", "--format json"]),
    "a wrong field": (b'{"SchemaVersion": 2, "Results": {"a": 1}}', ["not a Trivy report", "Results"]),
    "deep nesting": (b"[" * 100_000, ["not JSON"]),
    "another distribution": (report(VULNERABLE, system=("ubuntu", "22.04")), ["about ubuntu 22.04", "debian 12"]),
    "another release": (report(VULNERABLE, system=("debian", "11.5")), ["about debian 11.5", "debian 12"]),
    "another image": (
        report(VULNERABLE, DiffIDs=["sha256:" + "0" * 64, "sha256:" + "1" * 64]),
        ["about another image", "2 layers there, 1 here", "scan this very image", "'app'"],
    ),
}


@pytest.mark.parametrize("name", WRONG)
async def test_a_wrong_report_ends_with_what_it_is_and_what_to_do(world, name):
    data, words = WRONG[name]
    code, out, err = await patch_by(world, data)
    assert (code, out) == (1, "")
    assert "Traceback" not in err
    assert all(word in err for word in ["standard input", *words]), err
    assert not (world.folder / "out").exists()


async def test_a_wrong_report_is_one_document_with_json(world):
    code, out, _ = await patch_by(world, b"Total: 3\n", "--json")
    assert code == 1
    assert json.loads(out)["outcome"] == "failed"


@pytest.mark.parametrize("results", ["null", "[]", '[{"Class": "os-pkgs"}]'])
async def test_a_report_without_results_is_clean(world, results):
    code, out, _ = await patch_by(world, b'{"SchemaVersion": 2, "Results": %s}' % results.encode(), "--json")
    assert (code, json.loads(out)["outcome"]) == (0, "clean")


async def test_findings_of_language_packages_change_nothing(world):
    document = json.loads(report(VULNERABLE))
    document["Results"][0]["Class"] = "lang-pkgs"
    code, out, _ = await patch_by(world, json.dumps(document).encode(), "--json")
    assert (code, json.loads(out)["outcome"]) == (0, "clean")


async def test_the_report_of_this_very_image_is_taken(world):
    layers = [str(item) for item in world.diff_ids(world.push("team/scanned", "1"))]
    image = f"{world.upstream.host}/team/scanned:1"
    code, out, err = await patch_by(world, report(VULNERABLE, DiffIDs=layers), "--json", image=image)
    assert (code, json.loads(out)["outcome"]) == (0, "patched"), err
