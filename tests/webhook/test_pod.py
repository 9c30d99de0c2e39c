import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from proxy.api import Outcome
from proxy.provenance import PROVENANCE, Provenance, parse_provenance, render_provenance
from tests.webhook.table import TableResolver, admit, answer, apply_edits, read_request
from tests.webhook.test_recorded import without_ours
from webhook.pod import Container, Edit, annotation_fits, edit_images, edit_map, escape_pointer

TEXT = st.text(max_size=20)
IMAGES = {
    f"docker.io/library/app{number}:1": answer(f"docker.io/library/app{number}:1", outcome)
    for number, outcome in enumerate(Outcome)
}
MAPS = st.none() | st.dictionaries(
    st.sampled_from(["a", "a/b", "~1", "admend.dev/patch", "admend.dev/provenance", "admend.dev/unpatched"]),
    st.sampled_from(["", "false", "true", "pending", "{}"]),
)
CONTAINERS = st.lists(
    st.fixed_dictionaries(
        {"image": st.sampled_from([*IMAGES, "", "Not Valid", "app0:1"])},
        optional={"imagePullPolicy": st.sampled_from(["Always", "Never", ""]), "env": st.lists(TEXT, max_size=2)},
    ),
    max_size=4,
)


def make_review(lists: dict[str, Any], annotations: Any, labels: Any, extra: Any) -> Any:
    document = read_request("create-single-container")
    named = {
        key: [{**item, "name": f"{key.lower()}-{at}"} for at, item in enumerate(items)] for key, items in lists.items()
    }
    metadata = {"name": "p", "annotations": annotations, "labels": labels}
    document["request"]["object"] = {"metadata": metadata, "spec": {**named, **extra}}
    return document


REVIEWS = st.builds(
    make_review,
    st.dictionaries(st.sampled_from(["containers", "initContainers"]), CONTAINERS),
    MAPS,
    MAPS,
    st.fixed_dictionaries(
        {},
        optional={
            "nodeSelector": st.sampled_from([None, {"kubernetes.io/os": "windows"}, {"kubernetes.io/arch": "arm64"}]),
            "volumes": st.just([{"name": "v", "image": {"reference": "app0:1"}}]),
            "hostNetwork": st.booleans(),
        },
    ),
)


@given(REVIEWS, st.sampled_from(["permissive", "enforce", "audit"]))
async def test_edits_of_any_pod_touch_images_and_our_metadata_only(review: Any, mode: str) -> None:
    before = review["request"]["object"]
    decision = await admit(review, TableResolver(IMAGES), mode=mode)
    edits = [edit.to_json() for edit in decision.edits]
    after = apply_edits(before, edits)
    assert without_ours(after) == without_ours(before)
    opted = (before["metadata"]["annotations"] or {}).get("admend.dev/patch")
    assert (after["metadata"]["annotations"] or {}).get("admend.dev/patch") == opted
    if mode == "audit" or not decision.allowed:
        assert edits == []


@given(REVIEWS, st.sampled_from(["permissive", "enforce"]))
async def test_edits_of_any_pod_are_complete_after_one_call(review: Any, mode: str) -> None:
    first = await admit(review, TableResolver(IMAGES), mode=mode)
    review["request"]["object"] = apply_edits(review["request"]["object"], [edit.to_json() for edit in first.edits])
    second = await admit(review, TableResolver(IMAGES), mode=mode)
    assert second.edits == ()
    assert second.allowed == first.allowed


@given(st.dictionaries(TEXT, st.builds(Provenance, TEXT, TEXT, TEXT)))
def test_provenance_comes_back_from_its_annotation(entries: dict[str, Provenance]) -> None:
    value = render_provenance(entries)
    assert parse_provenance({PROVENANCE: value} if value else None) == entries


@given(st.none() | st.dictionaries(TEXT, TEXT), TEXT, st.none() | TEXT)
def test_edited_map_has_the_key_and_all_the_others(current: Any, key: str, value: str | None) -> None:
    edits = [edit.to_json() for edit in edit_map("/m", current, key, value)]
    after = apply_edits({} if current is None else {"m": current}, edits).get("m")
    expected = {**(current or {}), key: value} if value is not None else dict(current or {})
    if value is None:
        expected.pop(key, None)
    assert (after or {}) == expected


def test_pointer_escapes_tilde_before_slash() -> None:
    assert escape_pointer("a~/b") == "a~0~1b"


def test_image_that_stays_needs_no_edit() -> None:
    assert edit_images([(Container("containers", 0, "c", "x"), "x")]) == ()


def test_replaced_image_is_tested_first() -> None:
    edits = edit_images([(Container("initContainers", 2, "c", "x"), "y")])
    assert edits == (
        Edit("test", "/spec/initContainers/2/image", "x"),
        Edit("replace", "/spec/initContainers/2/image", "y"),
    )


def test_provenance_that_is_not_ours_is_ignored() -> None:
    good = {"original": "a", "digest": "b", "image": "c"}
    document = {"good": good, "more": {**good, "x": "y"}, "less": {"original": "a"}, "number": {**good, "digest": 1}}
    assert set(parse_provenance({PROVENANCE: json.dumps(document)})) == {"good"}
    for value in ("[]", "1", "null", "", "{", "[" * 100_000):
        assert parse_provenance({PROVENANCE: value}) == {}


def test_annotations_are_counted_in_bytes_without_the_old_provenance() -> None:
    limit = 256 * 1024 - len(PROVENANCE) - 1
    assert annotation_fits({"k": "x" * (limit - 10), PROVENANCE: "z" * 10_000}, "v" * 10)
    assert not annotation_fits({"k": "x" * (limit - 10)}, "v" * 11)
    assert not annotation_fits({"k": "é" * (limit // 2)}, "v" * 10)
