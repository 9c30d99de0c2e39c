"""docs/install.md and NOTES.txt speak of values and objects that there are."""

import re
import shlex

import pytest
import yaml

from tests.charts.rendering import CHART, helm, of_kind
from tests.charts.values_page import VALUES_FILE, parse_values
from tests.support import REPOSITORY

GUIDE = (REPOSITORY / "docs" / "install.md").read_text()
OPEN = {"proxy.config", "webhook.config"}  # what is below them is described with the configuration files


def blocks():
    """Return the commands of the guide, each line with its continuations."""
    lines = [line.removeprefix("    ") for line in GUIDE.splitlines() if line.startswith("    ")]
    return "\n".join(lines).replace("\\\n", " ").splitlines()


def rendered(*arguments):
    done = helm("template", "admend", str(CHART), "--namespace", "admend", *arguments)
    assert done.returncode == 0, done.stderr
    return [each for each in yaml.safe_load_all(done.stdout) if each]


def test_every_value_that_the_guide_names_exists():
    values = {".".join(each.path) for each in parse_values(VALUES_FILE.read_text())}
    tops = {name.partition(".")[0] for name in values}
    named = {name for name in re.findall(r"`([a-z]\w*(?:\.\w+)+)", GUIDE) if name.partition(".")[0] in tops}
    assert len(named) > 20
    assert {name for name in named if name not in values and not name.startswith(tuple(OPEN))} == set()


@pytest.mark.interop
def test_every_installation_of_the_guide_renders():
    installs = [line for line in blocks() if line.startswith("helm install")]
    assert len(installs) >= 3
    for line in installs:
        words = shlex.split(line)
        sets = [word for at, word in enumerate(words) if "--set" in word or (at and "--set" in words[at - 1])]
        assert rendered(*sets), line


@pytest.mark.interop
def test_the_values_for_production_and_for_cert_manager_render():
    settings = [line for line in blocks() if re.match(r"\w+: \{", line)]
    assert len(settings) >= 8
    for line in (*settings, "\n".join(settings[:-1])):
        values = yaml.safe_load(line)
        if "proxy" in values and "mirror" not in values:
            continue  # several proxies need the line before
        done = helm("template", "admend", str(CHART), values=values)
        assert done.returncode == 0, done.stderr


@pytest.mark.interop
def test_every_object_that_the_guide_names_is_made_by_the_chart():
    found = rendered("--set", "validatingPolicy.enabled=true,enforce.held=deny")
    for kind in ("Deployment", "DaemonSet", "MutatingWebhookConfiguration", "ValidatingAdmissionPolicyBinding"):
        named = set(re.findall(rf"{kind.lower()}[/ ](admend[\w-]*)", GUIDE))
        assert named, kind
        assert named <= set(of_kind(found, kind))
    assert set(re.findall(r"pvc (admend[\w-]*)", GUIDE)) == set(of_kind(found, "PersistentVolumeClaim"))
    assert set(re.findall(r"https://(admend[\w-]*)\.admend\.svc:8443", GUIDE)) <= set(of_kind(found, "Service"))
    components = set(re.findall(r"app.kubernetes.io/component=(\w+)", GUIDE))
    assert components <= {each["metadata"]["labels"]["app.kubernetes.io/component"] for each in found}
