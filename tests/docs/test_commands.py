"""Commands that pages show can be typed: flags, values and objects of the cluster are there."""

import re
import shlex

import pytest
import yaml

from certs import cli as certs_cli
from proxy import cli as proxy_cli
from proxy.errors import UsageError
from tests.charts.rendering import CHART, helm, of_kind
from tests.docs.test_links import PAGES
from webhook import cli as webhook_cli

PARSERS = {
    "admend": proxy_cli.make_parser,
    "admend-certs": certs_cli.make_parser,
    "admend-webhook": webhook_cli._parser,
}
LISTED = [page for page in PAGES if page.name != "CHANGELOG.md"]
KINDS = {
    "deploy": "Deployment",
    "deployment": "Deployment",
    "daemonset": "DaemonSet",
    "mutatingwebhookconfiguration": "MutatingWebhookConfiguration",
    "pvc": "PersistentVolumeClaim",
    "secret": "Secret",
    "svc": "Service",
    "validatingadmissionpolicybinding": "ValidatingAdmissionPolicyBinding",
}


def blocks(text):
    """Return the commands of a page's blocks, one line each."""
    shown = [line[4:] for line in text.splitlines() if line.startswith("    ")]
    return [_plain(line) for line in "\n".join(shown).replace("\\\n", " ").splitlines()]


def mentions(text):
    """Return what stands in code quotes in a page."""
    return [_plain(each) for each in re.findall(r"`([^`\n]+)`", text)]


def _plain(line):
    return re.sub(r"\s+#.*|\s*[|>].*| \.\.\.", "", line).strip()


def own(lines):
    """Return the words of each command of admend itself, those run by kubectl exec included."""
    found = [shlex.split(line.rpartition(" -- ")[2]) for line in lines if re.search(r"(^|-- )admend", line)]
    return [words for words in found if len(words) > 1 and words[0] in PARSERS]


def refused(words):
    """Return why a command refuses its arguments, or nothing."""
    try:
        PARSERS[words[0]]().parse_args(words[1:])
    except (UsageError, SystemExit) as error:
        return str(error) or "refused"
    return ""


def strange(words):
    """Return why a command that is only mentioned, with no arguments that it needs, cannot be one."""
    why = refused(words)
    return "" if "are required" in why or "invalid choice" in why else why


@pytest.mark.parametrize("page", LISTED, ids=lambda page: page.name)
def test_every_command_of_a_page_is_taken(page):
    text = page.read_text()
    assert {shlex.join(words): why for words in own(blocks(text)) if (why := refused(words))} == {}
    named = [words for words in own(mentions(text)) if words[0] == "admend"]
    assert {shlex.join(words): why for words in named if (why := strange(words))} == {}


def test_there_are_commands_and_a_wrong_flag_is_found():
    assert len([words for page in LISTED for words in own(blocks(page.read_text()))]) >= 10
    assert strange(["admend", "status", "--stat", "unpatched", "--proxy", "https://proxy.example"])
    assert refused(["admend", "patch", "registry.example/app:1", "--no-such-flag"])
    assert refused(["admend-certs", "rotate"])


def rendered(*arguments):
    done = helm("template", "admend", str(CHART), "--namespace", "admend", *arguments)
    assert done.returncode == 0, done.stderr
    return [each for each in yaml.safe_load_all(done.stdout) if each]


@pytest.mark.interop
def test_every_object_that_a_page_names_is_made_by_the_chart():
    found = rendered("--set", "validatingPolicy.enabled=true,enforce.held=deny")
    lines = [line for page in LISTED for line in (*blocks(page.read_text()), *mentions(page.read_text()))]
    named = [match for line in lines for match in re.findall(rf"\b({'|'.join(KINDS)})[ /](admend[\w-]*)", line)]
    assert {kind for kind, _ in named} >= {"secret", "mutatingwebhookconfiguration", "pvc"}
    missing = [f"{kind} {name}" for kind, name in named if name not in of_kind(found, KINDS[kind])]
    assert missing == []
    components = {each["metadata"]["labels"]["app.kubernetes.io/component"] for each in found}
    shown = {name for line in lines for name in re.findall(r"app.kubernetes.io/component=(\w+)", line)}
    assert shown <= components


@pytest.mark.interop
def test_every_installation_of_a_page_renders():
    lines = [line for page in LISTED for line in blocks(page.read_text())]
    lines = [line for line in lines if re.match(r"helm (install|upgrade|-n admend upgrade)", line)]
    assert lines
    for line in set(lines):
        words = shlex.split(line)
        sets = [word for at, word in enumerate(words) if "--set" in word or (at and "--set" in words[at - 1])]
        assert rendered(*sets), line


def files_in(deployment, found):
    """Return the files that the containers of a Deployment have by its ConfigMaps and Secrets."""
    pod = deployment["spec"]["template"]["spec"]
    inside = {}
    for volume in pod["volumes"]:
        keys = list(of_kind(found, "ConfigMap").get(volume.get("configMap", {}).get("name"), {}).get("data", {}))
        for source in volume.get("projected", {}).get("sources", ()):
            keys += [item["path"] for item in source["secret"]["items"]]
        inside[volume["name"]] = keys
    mounts = [mount for container in pod["containers"] for mount in container["volumeMounts"]]
    return {f"{mount['mountPath']}/{key}" for mount in mounts for key in inside[mount["name"]]}


@pytest.mark.interop
def test_every_file_that_a_command_in_a_pod_names_is_mounted_there():
    found = rendered()
    deployments = of_kind(found, "Deployment")
    lines = [line for page in LISTED for line in blocks(page.read_text()) if " exec deploy" in line]
    assert len({line.partition(" -- ")[2].split()[0] for line in lines}) > 1
    for line in lines:
        (name,) = re.findall(r" exec deploy(?:ment)?/([\w-]+) -- ", line)
        named = {word for word in shlex.split(line.partition(" -- ")[2]) if word.startswith("/")}
        assert named <= files_in(deployments[name], found), line
