"""From pods to uses: whose image runs where, and as what it was admitted."""

from datetime import UTC, datetime

import pytest

from proxy.config import NamespaceSelection
from proxy.fleet.survey import Question, Surveyor, Workload, find_workload
from proxy.kube.pods import Controller, RunningPod
from proxy.mirror import EmbeddedMirror, Naming
from proxy.provenance import PROVENANCE, Provenance, render_provenance

HEX = "a" * 64
PATCHED = f"mirror.example/docker.io/library/nginx@sha256:{HEX}"
NOW = datetime(2026, 11, 1, tzinfo=UTC)


@pytest.fixture
async def mirror(tmp_path):
    opened = EmbeddedMirror(tmp_path, Naming("mirror.example"), 1 << 20)
    yield opened
    await opened.close()


def make_pod(image="nginx:1", namespace="shop", *, owner=None, said=None, **more):
    annotations = {PROVENANCE: render_provenance({"app": said})} if said else {}
    annotations |= more.pop("annotations", {})
    return RunningPod(namespace, "p-1", "uid", NOW, {"app": image}, annotations, owner, **more)


def take(mirror, *pods, labels=None, include=("*",), without=(), **selection):
    surveyor = Surveyor(mirror, NamespaceSelection(**selection), include=include, exclude=without)
    surveyor.set_namespaces(labels or {"shop": {"admend.dev/admission": "enabled"}, "other": {}})
    surveyor.begin()
    surveyor.take(pods)
    return surveyor.survey


async def test_pods_of_one_workload_and_image_are_one_use(mirror):
    owner = Controller("apps/v1", "ReplicaSet", "web-55d", "r")
    survey = take(mirror, *(make_pod(owner=owner, template="55d") for _ in range(3)), make_pod("nginx:2"))
    assert [(use.workload.name, use.image, use.pods) for use in survey.uses.values()] == [
        ("web", "nginx:1", 3),
        ("p-1", "nginx:2", 1),
    ]
    assert list(survey.questions()) == [Question("nginx:1"), Question("nginx:2")]


@pytest.mark.parametrize(
    ("owner", "template", "expected"),
    [
        (None, "", Workload("shop", "Pod", "p-1")),
        (Controller("apps/v1", "ReplicaSet", "web-55d", "r"), "55d", Workload("shop", "Deployment", "web")),
        (Controller("apps/v1", "ReplicaSet", "web-55d", "r"), "", Workload("shop", "ReplicaSet", "web-55d")),
        (Controller("apps/v1", "ReplicaSet", "alone", "r"), "55d", Workload("shop", "ReplicaSet", "alone")),
        (Controller("apps/v1", "DaemonSet", "agent", "d"), "", Workload("shop", "DaemonSet", "agent")),
    ],
)
def test_a_pod_belongs_to_what_people_know(owner, template, expected):
    assert find_workload(make_pod(owner=owner, template=template)) == expected


@pytest.mark.parametrize(
    ("image", "said", "asked"),
    [
        (PATCHED, Provenance("nginx:1", f"sha256:{HEX}", PATCHED), "nginx:1"),
        (PATCHED, Provenance("redis:1", f"sha256:{HEX}", PATCHED), PATCHED),  # not that image's name
        (PATCHED, Provenance("nginx:1", f"sha256:{HEX}", "other"), PATCHED),  # not of what runs
        (PATCHED, Provenance("Not A Name", "", PATCHED), PATCHED),
        (PATCHED, None, PATCHED),
        (f"nginx@sha256:{HEX}", Provenance("nginx:1", f"sha256:{HEX}", f"nginx@sha256:{HEX}"), "nginx:1"),  # pinned
        (f"nginx@sha256:{HEX}", Provenance("redis:1", "", f"nginx@sha256:{HEX}"), f"nginx@sha256:{HEX}"),
    ],
)
async def test_what_a_pod_says_is_believed_where_names_agree(mirror, image, said, asked):
    survey = take(mirror, make_pod(image, said=said))
    (use,) = survey.uses.values()
    assert use.question.image == asked
    assert len(survey.in_use) == (1 if image == PATCHED else 0)


@pytest.mark.parametrize(
    ("selection", "labels", "takes_part"),
    [
        ({}, {}, False),
        ({"opt_in": False}, {}, True),
        ({"opt_in": False}, {"admend.dev/admission": "typo"}, True),
        ({"opt_in": False}, {"admend.dev/admission": "disabled"}, False),
        ({"opt_in": False, "exclude": ("sh*",)}, {}, False),
        ({}, {"admend.dev/admission": "enforce"}, True),
        ({}, {"admend.dev/admission": "disabled"}, False),
        ({}, {"admend.dev/admission": "nonsense"}, False),
        ({"label": "patch"}, {"patch": "permissive"}, True),
    ],
)
async def test_namespaces_take_part_as_the_webhook_selects_them(mirror, selection, labels, takes_part):
    survey = take(mirror, make_pod(PATCHED), labels={"shop": labels}, **selection)
    assert bool(survey.uses) == takes_part
    assert survey.in_use  # what runs is in use, whoever it belongs to


@pytest.mark.parametrize(("label", "audit"), [("audit", True), ("enabled", True), ("enforce", False)])
async def test_mode_audit_is_the_namespaces_own_or_the_default(mirror, label, audit):
    labels = {"shop": {"admend.dev/admission": label}}
    (use,) = take(mirror, make_pod(), labels=labels, default_mode="audit").uses.values()
    assert use.audit is audit


@pytest.mark.parametrize(
    ("given", "left"),
    [
        ({"annotations": {"admend.dev/patch": "false"}}, "opted out: the pod has the annotation"),
        ({"without": ("docker.io/library/*",)}, "excluded by a pattern"),
        ({"include": ("quay.io/*",)}, "included by no pattern"),
        ({}, ""),
    ],
)
async def test_why_an_image_is_left_alone_is_known(mirror, given, left):
    annotations = given.pop("annotations", {})
    (use,) = take(mirror, make_pod(annotations=annotations), **given).uses.values()
    assert use.left.startswith(left)
    assert bool(use.left) == bool(left)


async def test_mirror_pods_and_windows_pods_are_nobodys_business(mirror):
    static = make_pod(annotations={"kubernetes.io/config.mirror": "x"})
    survey = take(mirror, static, make_pod(windows=True), make_pod("Not An Image"))
    assert (survey.uses, survey.pods) == ({}, 3)


async def test_platforms_and_pull_secrets_of_the_pod_go_with_the_question(mirror):
    pod = make_pod(architectures=("arm64",), pull_secrets=("login",), service_account="runner")
    ((question, asker),) = take(mirror, pod).questions().items()
    assert question == Question("nginx:1", ("linux/arm64",))
    assert (asker.namespace, asker.pull_secrets, asker.service_account) == ("shop", ("login",), "runner")
