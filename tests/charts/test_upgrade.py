"""An upgrade from any set of values to any other must be one that the API server takes, and lose nothing."""

from itertools import permutations

import pytest

from tests.charts.rendering import VALUES, of_kind, render

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


def test_patched_images_stay_when_the_release_goes(objects):
    for claim in of_kind(objects, "PersistentVolumeClaim").values():
        assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_the_chart_holds_no_secret_that_an_upgrade_could_replace(objects):
    assert not of_kind(objects, "Secret")


def test_nothing_but_the_test_is_a_hook(objects):
    hooks = [each for each in objects if "helm.sh/hook" in each["metadata"].get("annotations", {})]
    assert [each["metadata"]["annotations"]["helm.sh/hook"] for each in hooks] == ["test"]
