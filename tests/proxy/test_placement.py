"""On which architectures a pod can run."""

import pytest

from proxy.placement import Affinity, bound_architectures, platforms_of


def affinity(*terms):
    terms = [
        {"matchExpressions": [{"key": key, "operator": word, "values": values} for key, word, values in term]}
        for term in terms
    ]
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
    return Affinity.model_validate({"nodeAffinity": required})


ARCH = "kubernetes.io/arch"


@pytest.mark.parametrize(
    ("selector", "terms", "expected"),
    [
        (None, [], ()),
        ({ARCH: "arm64"}, [[(ARCH, "In", ["amd64"])]], ("arm64",)),
        ({"beta.kubernetes.io/arch": "arm"}, [], ("arm",)),
        ({}, [[(ARCH, "In", ["arm64", "amd64"])], [(ARCH, "In", ["s390x"])]], ("amd64", "arm64", "s390x")),
        ({}, [[(ARCH, "In", ["arm64", "amd64"]), (ARCH, "In", ["amd64"])]], ("amd64",)),
        ({}, [[(ARCH, "NotIn", ["arm64"])]], ()),
        ({}, [[(ARCH, "In", ["arm64"])], [("zone", "In", ["a"])]], ()),
        ({}, [[(ARCH, "In", [str(number) for number in range(17)])]], ()),
    ],
)
def test_only_what_binds_surely_counts(selector, terms, expected):
    assert bound_architectures(selector, affinity(*terms)) == expected


def test_a_platform_is_asked_for_by_a_plain_name_only():
    assert platforms_of(("arm64", "amd64")) == ("linux/arm64", "linux/amd64")
    assert platforms_of(("../x", "é", "", "a" * 33)) == ()
