"""References are understood as Docker and containerd understand them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import MalformedInput
from proxy.oci.digest import Digest
from proxy.oci.reference import ImageRef

HEX = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("nginx", "docker.io/library/nginx:latest"),
        ("nginx:1.27", "docker.io/library/nginx:1.27"),
        ("team/app", "docker.io/team/app:latest"),
        ("docker.io/nginx", "docker.io/library/nginx:latest"),
        ("index.docker.io/nginx", "docker.io/library/nginx:latest"),
        ("index.docker.io/library/nginx", "docker.io/library/nginx:latest"),
        ("docker.io/team/deep/app", "docker.io/team/deep/app:latest"),
        ("localhost/app", "localhost/app:latest"),
        ("localhost:5000", "docker.io/library/localhost:5000"),
        ("localhost:5000/app", "localhost:5000/app:latest"),
        ("Team/app", "Team/app:latest"),  # an upper-case letter makes it a host, as in Docker
        ("registry.example/a/b/c:v1", "registry.example/a/b/c:v1"),
        ("registry.example:443/app", "registry.example:443/app:latest"),
        ("[2001:db8::1]:5000/app:v1", "[2001:db8::1]:5000/app:v1"),
        ("[::1]/app", "[::1]/app:latest"),
        (f"app@sha256:{HEX}", f"docker.io/library/app@sha256:{HEX}"),
        (f"app:v1@sha256:{HEX}", f"docker.io/library/app:v1@sha256:{HEX}"),
        (f"app@sha512:{HEX}{HEX}", f"docker.io/library/app@sha512:{HEX}{HEX}"),
        ("a__b/c--d/e.f_g", "docker.io/a__b/c--d/e.f_g:latest"),
        (f"{HEX}:tag", f"docker.io/library/{HEX}:tag"),
        ("r.example/" + "a" * 255, "r.example/" + "a" * 255 + ":latest"),
        ("app:" + "t" * 128, "docker.io/library/app:" + "t" * 128),
    ],
)
def test_reference_is_normalized_as_docker_does(text: str, full: str) -> None:
    assert str(ImageRef.parse(text)) == full


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":tag",
        "app:",
        "app@",
        "/app",
        "app/",
        "a//b",
        "App",
        "registry.example/App",
        "registry.example/",
        "app:ta g",
        "app:-tag",
        "app:" + "t" * 129,
        "app@sha256:abc",
        "app@sha256:" + HEX.upper(),
        "app@md5:" + "0" * 32,
        f"app@sha256:{HEX}:tag",
        f"app@sha256:{HEX}@sha256:{HEX}",
        HEX,
        "-host.example/app",
        "host.example-/app",
        "host..example/app",
        "host.example:port/app",
        "host.example:123456/app",
        "[::1/app",
        "a___b",
        "a._b",
        "a.",
        "app\n",
        "app\x00",
        "ápp",
        "app:\u0661",
        "../etc/passwd",
        "user@registry.example/app",
        "https://registry.example/app",
        "r.example/" + "a" * 256,
    ],
)
def test_what_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(MalformedInput):
        ImageRef.parse(text)


def test_upper_case_repository_is_refused_with_a_hint() -> None:
    with pytest.raises(MalformedInput, match="must be lower case"):
        ImageRef.parse("registry.example/Team/App")


def test_a_digest_wins_over_a_tag_when_the_registry_is_asked() -> None:
    assert ImageRef.parse(f"app:v1@sha256:{HEX}").selector == f"sha256:{HEX}"
    assert ImageRef.parse("app:v1").selector == "v1"


def test_digest_and_tag_replace_each_other() -> None:
    ref = ImageRef.parse("registry.example/app:v1")
    pinned = ref.with_digest(Digest("sha256", HEX))
    assert str(pinned) == f"registry.example/app@sha256:{HEX}"
    assert str(pinned.with_tag("v2")) == "registry.example/app:v2"
    assert pinned.name == "registry.example/app"


component = st.from_regex(r"[a-z0-9]{1,6}((\.|_|__|-{1,3})[a-z0-9]{1,6}){0,2}", fullmatch=True)
label = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,5}[a-z0-9])?", fullmatch=True)
host = st.one_of(
    st.just("localhost"),
    st.builds(
        lambda labels, port: ".".join(labels) + port,
        st.lists(label, min_size=2, max_size=4),
        st.sampled_from(["", ":5000"]),
    ),
)
tag = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True)


@given(host, st.lists(component, min_size=1, max_size=4), tag, st.binary(max_size=4), st.integers(0, 2))
def test_a_rendered_reference_parses_to_itself(
    host: str, path: list[str], tag: str, content: bytes, which: int
) -> None:
    digest = Digest.of(content)
    ref = ImageRef(host, "/".join(path), tag if which != 1 else None, digest if which != 0 else None)
    assert ImageRef.parse(str(ref)) == ref


@given(st.text(max_size=60))
def test_any_text_parses_to_a_stable_reference_or_is_refused(text: str) -> None:
    try:
        ref = ImageRef.parse(text)
    except MalformedInput:
        return
    assert ImageRef.parse(str(ref)) == ref
