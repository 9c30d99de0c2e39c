"""IMAGE and DEST as people write them."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import MalformedInput
from proxy.images import Kind, parse_location


@pytest.mark.parametrize(
    ("text", "kind", "full"),
    [
        ("nginx", Kind.REGISTRY, "docker.io/library/nginx:latest"),
        ("docker://registry.example/app:v1", Kind.REGISTRY, "registry.example/app:v1"),
        ("localhost:5000/app", Kind.REGISTRY, "localhost:5000/app:latest"),
        ("oci/app:v1", Kind.REGISTRY, "docker.io/oci/app:v1"),
        ("dir:5000/app", Kind.REGISTRY, "dir:5000/app:latest"),
        ("oci:folder", Kind.OCI, "oci:folder"),
        ("oci:/some/folder:v1.2", Kind.OCI, "oci:/some/folder:v1.2"),
        ("oci:folder:registry.example/app", Kind.OCI, "oci:folder:registry.example/app"),
        ("oci-archive:image.tar", Kind.OCI_ARCHIVE, "oci-archive:image.tar"),
        ("oci-archive:image.tar:v1", Kind.OCI_ARCHIVE, "oci-archive:image.tar:v1"),
        ("docker-archive:../image.tar", Kind.DOCKER_ARCHIVE, "docker-archive:../image.tar"),
        ("docker-archive:a.tar:nginx", Kind.DOCKER_ARCHIVE, "docker-archive:a.tar:docker.io/library/nginx:latest"),
    ],
)
def test_a_location_is_parsed_as_skopeo_does(text: str, kind: Kind, full: str) -> None:
    location = parse_location(text)
    assert (location.kind, str(location)) == (kind, full)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "oci:",
        "oci::tag",
        "oci:folder:",
        "oci:folder:ta g",
        "oci:folder:/x",
        "oci:fol\0der",
        "dir:/tmp/x",
        "docker-daemon:nginx:latest",
        "containers-storage:nginx",
        "docker-archive:a.tar:Upper/Case/",
    ],
)
def test_other_forms_are_refused(text: str) -> None:
    with pytest.raises(MalformedInput):
        parse_location(text)


@given(
    st.sampled_from(["oci", "oci-archive"]),
    st.from_regex(r"[a-z./_-]{1,20}", fullmatch=True),
    st.sampled_from(["", "v1", "a/b:c"]),
)
def test_a_rendered_location_parses_to_itself(word: str, path: str, tag: str) -> None:
    location = parse_location(f"{word}:{path}{':' if tag else ''}{tag}")
    assert (location.path, location.tag) == (Path(path), tag)
    assert parse_location(str(location)) == location
