"""An upgrade from any set of values to any other must be one that the API server takes, and lose nothing."""

from itertools import permutations

import pytest

from tests.charts.rendering import VALUES, config, of_kind, one, render

pytestmark = pytest.mark.interop
NAMED = {"nameOverride"}  # another prefix makes other objects: nothing is changed in place


def same_names():
    return [name for name, values in VALUES.items() if not NAMED & set(values)]


def test_no_upgrade_changes_what_cannot_be_changed():
    for old, new in permutations(same_names(), 2):
        for kind in ("Deployment", "DaemonSet"):
            after = of_kind(render(new), kind)
            for name, each in of_kind(render(old), kind).items():
                assert name not in after or after[name]["spec"]["selector"] == each["spec"]["selector"]
        for kind in ("RoleBinding", "ClusterRoleBinding"):
            after = of_kind(render(new), kind)
            for name, each in of_kind(render(old), kind).items():
                assert name not in after or after[name]["roleRef"] == each["roleRef"]
        for name, each in of_kind(render(old), "Service").items():
            after = of_kind(render(new), "Service").get(name, each)
            assert (each["spec"].get("clusterIP") == "None") == (after["spec"].get("clusterIP") == "None")


HOOK, POLICY = "helm.sh/hook", "helm.sh/hook-delete-policy"


def hooks(objects):
    """Return what is no part of the release, as kind/name -> annotations."""
    return {
        f"{each['kind']}/{each['metadata']['name']}": each["metadata"]["annotations"]
        for each in objects
        if HOOK in each["metadata"].get("annotations", {})
    }


def test_patched_images_stay_when_the_release_goes_if_they_are_to():
    for name in ("default", "opt-out"):
        claim = one(render(name), "PersistentVolumeClaim")["metadata"]
        assert claim.get("annotations") == ({"helm.sh/resource-policy": "keep"} if name == "default" else None)


def test_the_chart_holds_no_secret_that_an_upgrade_could_replace(objects):
    found = hooks(objects)
    assert all(found[f"Secret/{name}"][HOOK] == "post-delete" for name in of_kind(objects, "Secret"))


def test_hooks_are_the_test_and_what_removes_things_that_processes_made(objects):
    assert {each[HOOK] for each in hooks(objects).values()} == {"test", "post-delete"}
    for name, annotations in hooks(objects).items():
        # Without the first, making the hook would fail where a process made the object; without the second it stays.
        assert annotations[POLICY] == "before-hook-creation,hook-succeeded", name


def made_by_processes(objects):
    """Return what the processes of a release make themselves, as kind/name."""
    certs, proxy = config(objects, "certs"), config(objects, "proxy")
    issued = [each["spec"]["secretName"] for each in of_kind(objects, "Certificate").values()]
    secrets = {f"Secret/{name}" for name in (certs.cluster.secret, *issued)}
    leases = {f"Lease/{certs.cluster.lease}", *([f"Lease/{proxy.cluster.lease}"] if proxy.cluster else [])}
    return secrets, leases


def test_whatever_processes_make_goes_with_the_release(objects):
    secrets, leases = made_by_processes(objects)
    removed = {name for name, annotations in hooks(objects).items() if annotations[HOOK] == "post-delete"}
    assert leases <= removed
    kept = objects is render("opt-out")
    assert {name for name in removed if name.startswith("Secret/")} == (set() if kept else secrets)
