from typing import Any

import pytest

from proxy.api import Outcome
from proxy.provenance import Provenance, render_provenance
from tests.webhook.table import MIRROR, NAMING
from webhook.config import EnforceConfig, Mode, SelectionConfig
from webhook.pod import Container, ImageVolume, Owner, Pod
from webhook.policy import Choice, Verdict, decide, find_notes, is_untouchable, select

HEX = "a" * 64


def pod(image: str = "nginx", policy: str = "IfNotPresent", **fields: Any) -> Pod:
    return Pod("p", "shop", (Container("containers", 0, "c", image, policy),), **fields)


def choose(pod: Pod, **settings: Any) -> Choice:
    (choice,) = select(pod, None, SelectionConfig(**settings), NAMING)
    return choice


SKIPPED = {
    "deleted": (pod(deleting=True), "being deleted"),
    "mirror pod": (pod(annotations={"kubernetes.io/config.mirror": "x"}), "a mirror pod"),
    "windows": (pod(os="windows"), "a Windows pod"),
    "opted out": (pod(annotations={"admend.dev/patch": "false"}), "opted out"),
    "never pulled": (pod(policy="Never"), "imagePullPolicy is Never"),
}


@pytest.mark.parametrize(("skipped", "says"), SKIPPED.values(), ids=SKIPPED)
def test_pod_is_passed_over_with_a_reason(skipped: Pod, says: str) -> None:
    choice = choose(skipped)
    assert choice.reference is None
    assert says in choice.reason
    assert not choice.invalid


@pytest.mark.parametrize(
    "owner",
    [
        None,
        Owner("ReplicaSet", "apps", "r"),
        Owner("StatefulSet", "apps", "s"),
        Owner("DaemonSet", "apps", "d"),
        Owner("Job", "batch", "j"),
    ],
)
def test_pods_of_the_known_controllers_are_taken(owner: Owner | None) -> None:
    assert choose(pod(owner=owner)).reference is not None


@pytest.mark.parametrize(
    "owner", [Owner("Cluster", "postgresql.cnpg.io", "db"), Owner("StatefulSet", "apps.kruise.io", "s")], ids=str
)
def test_foreign_owner_is_looked_at_unless_it_is_to_be_skipped(owner: Owner) -> None:
    assert choose(pod(owner=owner)).reference is not None
    assert choose(pod(owner=owner), foreign_owners="deny").reference is not None
    skipped = choose(pod(owner=owner), foreign_owners="skip")
    assert skipped.reference is None
    assert f"add {owner.kind}.{owner.group} to selection.owners" in skipped.reason


def test_config_source_alone_makes_no_static_pod() -> None:
    assert choose(pod(annotations={"kubernetes.io/config.source": "file"})).reference is not None


@pytest.mark.parametrize(
    ("opt_out", "honoured"),
    [(True, set(Mode)), (False, set()), ("permissive", {Mode.PERMISSIVE})],
)
def test_opt_out_is_honoured_where_the_operator_says(opt_out: Any, honoured: set[Mode]) -> None:
    opted_out, settings = pod(annotations={"admend.dev/patch": "false"}), SelectionConfig(opt_out=opt_out)
    for mode in Mode:
        (choice,) = select(opted_out, None, settings, NAMING, mode)
        assert (choice.reference is None) is (mode in honoured)
        assert (find_notes(opted_out, None, settings, mode) == ()) is (mode in honoured)
    for value in ("False", "true", ""):
        assert choose(pod(annotations={"admend.dev/patch": value})).reference is not None


def test_opt_out_can_be_forbidden() -> None:
    opted_out = pod(annotations={"admend.dev/patch": "false"})
    assert choose(opted_out, opt_out=False).reference is not None
    assert "not honoured" in find_notes(opted_out, None, SelectionConfig(opt_out=False))[0]
    assert find_notes(opted_out, None, SelectionConfig()) == ()
    assert "means nothing" in find_notes(pod(annotations={"admend.dev/patch": "no"}), None, SelectionConfig())[0]


@pytest.mark.parametrize(
    ("settings", "taken"),
    [
        ({"exclude": ("docker.io/library/*",)}, False),
        ({"exclude": ("docker.io/library/nginx",)}, False),
        ({"exclude": ("*:1.2?",)}, False),
        ({"exclude": ("nginx",)}, True),
        ({"exclude": ("docker.io/library/NGINX",)}, True),
        ({"include": ("quay.io/*",)}, False),
        ({"include": ("quay.io/*", "docker.io/*")}, True),
        ({"include": ("docker.io/*",), "exclude": ("*/nginx",)}, False),
    ],
)
def test_patterns_see_full_references(settings: dict[str, Any], *, taken: bool) -> None:
    assert (choose(pod("nginx:1.25"), **settings).reference is not None) is taken
    assert (choose(pod(f"{MIRROR}/docker.io/library/nginx:1.25"), **settings).reference is not None) is taken


@pytest.mark.parametrize("image", ["", "Nginx", "nginx:", f"nginx@sha256:{HEX[:-1]}", HEX, "a" * 9000, "nginx nginx"])
def test_reference_that_cannot_be_read_is_left_and_marked(image: str) -> None:
    choice = choose(pod(image))
    assert choice.invalid
    assert choice.reference is None
    assert choice.original == image


def test_tag_that_only_the_mirror_has_is_refused() -> None:
    assert choose(pod(f"{MIRROR}/docker.io/library/nginx:src-{HEX[:32]}")).invalid


@pytest.mark.parametrize(
    ("image", "ask"),
    [
        ("nginx", "docker.io/library/nginx:latest"),
        (f"{MIRROR}/docker.io/library/nginx:1", "docker.io/library/nginx:1"),
        (f"{MIRROR}/registry.example_5000/team/app:1", "registry.example:5000/team/app:1"),
        (f"{MIRROR}/docker.io/library/nginx@sha256:{HEX}", f"{MIRROR}/docker.io/library/nginx@sha256:{HEX}"),
        (f"{MIRROR}/not-a-host/app:1", f"{MIRROR}/not-a-host/app:1"),
    ],
)
def test_reference_is_asked_for_by_its_original(image: str, ask: str) -> None:
    assert choose(pod(image)).ask == ask


def test_provenance_hint_is_believed_for_the_same_repository_only() -> None:
    image = f"{MIRROR}/docker.io/library/nginx@sha256:{HEX}"
    for original, ask in (
        ("nginx:1.25", "docker.io/library/nginx:1.25"),
        ("httpd:2", image),
        (image, image),
        ("Not Valid", image),
    ):
        value = render_provenance({"c": Provenance(original, "", image)})
        assert choose(pod(image, annotations={"admend.dev/provenance": value or ""})).ask == ask
    other = render_provenance({"c": Provenance("nginx:1.25", "", image.replace("a", "b"))})
    assert choose(pod(image, annotations={"admend.dev/provenance": other or ""})).ask == image


def test_update_looks_at_changed_and_new_containers_only() -> None:
    old = Pod("p", "n", (Container("containers", 0, "a", "x"), Container("containers", 1, "b", "y")))
    new = Pod(
        "p",
        "n",
        (
            Container("containers", 0, "a", "x"),
            Container("containers", 1, "b", "y:2"),
            Container("ephemeralContainers", 0, "e", "z"),
        ),
        image_volumes=(ImageVolume("v", "w"),),
    )
    assert [choice.container.name for choice in select(new, old, SelectionConfig(), NAMING)] == ["b", "e"]


def test_image_volumes_are_told_about_but_not_resolved() -> None:
    volume = select(pod(image_volumes=(ImageVolume("v", "w"),)), None, SelectionConfig(), NAMING)[1]
    assert (volume.container.name, volume.original, volume.volume, volume.reference) == ("volume/v", "w", True, None)


def test_only_mirror_pods_and_deleted_ones_are_untouchable() -> None:
    assert is_untouchable(pod(deleting=True))
    assert is_untouchable(pod(annotations={"kubernetes.io/config.mirror": "x"}))
    assert not is_untouchable(pod(annotations={"admend.dev/patch": "false"}))


TABLE = {  # permissive, and enforce (or audit, which tells what it would do), with the default settings
    Outcome.PATCHED: ("rewrite", "rewrite"),
    Outcome.CLEAN: ("keep", "pin"),
    Outcome.BLOCKED: ("keep", "pin"),
    Outcome.UNSUPPORTED: ("keep", "pin"),
    Outcome.PENDING: ("keep", "deny"),
    Outcome.FAILED: ("keep", "deny"),
}


@pytest.mark.parametrize("outcome", Outcome)
def test_default_verdicts(outcome: Outcome) -> None:
    found = {mode: decide(outcome, mode, EnforceConfig(), mapped=False, dry_run=False) for mode in Mode}
    assert (found[Mode.PERMISSIVE], found[Mode.ENFORCE]) == TABLE[outcome]
    assert found[Mode.AUDIT] is found[Mode.ENFORCE]


@pytest.mark.parametrize("pinned", [(Outcome.CLEAN,), (Outcome.CLEAN, Outcome.BLOCKED, Outcome.UNSUPPORTED)])
def test_permissive_pins_the_outcomes_that_the_operator_names(pinned: tuple[Outcome, ...]) -> None:
    for outcome in set(Outcome) - {Outcome.PATCHED}:
        found = decide(outcome, Mode.PERMISSIVE, EnforceConfig(), mapped=False, dry_run=False, pinned=pinned)
        assert found is (Verdict.PIN if outcome in pinned else Verdict.KEEP)


def test_dry_run_denies_nothing_for_a_missing_result() -> None:
    verdicts = {decide(Outcome.PENDING, mode, EnforceConfig(), mapped=False, dry_run=True) for mode in Mode}
    assert verdicts == {Verdict.KEEP}
    assert decide(Outcome.FAILED, Mode.ENFORCE, EnforceConfig(), mapped=False, dry_run=True) is Verdict.DENY


def test_image_asked_of_the_mirror_is_never_left_there() -> None:
    for outcome in (Outcome.CLEAN, Outcome.BLOCKED, Outcome.UNSUPPORTED):
        assert decide(outcome, Mode.PERMISSIVE, EnforceConfig(), mapped=True, dry_run=False) is Verdict.PIN
