from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import MalformedInput
from proxy.oci.digest import Digest
from proxy.oci.naming import Naming
from proxy.oci.reference import ImageRef

HEX = "ab" * 32
LABEL = st.from_regex(r"[a-z0-9](?:[a-z0-9-]{0,6}[a-z0-9])?", fullmatch=True)
HOSTS = st.one_of(
    st.builds(lambda a, b: f"{a}.{b}", LABEL, LABEL),
    st.builds(lambda a, port: f"{a}:{port}", LABEL, st.integers(1, 65535)),
    st.ip_addresses(v=6).map(lambda address: f"[{address}]:5000"),
    st.just("localhost"),
)
COMPONENT = st.from_regex(r"[a-z0-9]{1,4}(?:(?:\.|_|__|-{1,4})[a-z0-9]{1,3}){0,3}", fullmatch=True)
REFS = st.builds(
    lambda host, parts: ImageRef.parse(f"{host}/{'/'.join(parts)}:t"),
    HOSTS,
    st.lists(COMPONENT, min_size=1, max_size=4),
)


@pytest.mark.parametrize(
    ("style", "upstream", "expected"),
    [
        ("nested", "nginx", "m.example:5000/docker.io/library/nginx:latest"),
        ("nested", "Reg.Example:443/a/b:1", "m.example:5000/reg.example_443/a/b:1"),
        ("nested", "[2001:db8::1]:5000/a:1", "m.example:5000/ipv6__2001-0db8-0000-0000-0000-0000-0000-0001_5000/a:1"),
        ("flat", "nginx", "m.example:5000/docker.io--library--nginx:latest"),
        ("flat", "r.example/a--b/c-d:1", "m.example:5000/r.example--a---b--c-d:1"),
    ],
)
def test_an_upstream_name_has_one_place_in_the_mirror(
    style: Literal["nested", "flat"], upstream: str, expected: str
) -> None:
    naming = Naming("m.example:5000", "", style)
    assert str(naming.name_for(ImageRef.parse(upstream))) == expected


@given(ref=REFS, style=st.sampled_from(["nested", "flat"]), prefix=st.sampled_from(["", "team/mirror", "a--b"]))
def test_every_name_is_found_back(ref: ImageRef, style: Literal["nested", "flat"], prefix: str) -> None:
    naming = Naming("m.example", prefix, style)
    there = naming.name_for(ref)
    assert ImageRef.parse(str(there)) == there
    back = naming.original_of(there)
    assert back is not None
    assert naming.name_for(back) == there
    assert (back.repository, back.tag) == (ref.repository, "t")


@given(one=REFS, other=REFS)
def test_two_names_never_share_a_place_in_the_flat_naming(one: ImageRef, other: ImageRef) -> None:
    naming = Naming("m.example", "", "flat")
    assert (naming.name_for(one) == naming.name_for(other)) == (one == other)
    assert "/" not in naming.name_for(one).repository


@pytest.mark.parametrize("tag", [f"src-{HEX[:32]}", f"src-{HEX[:32]}.result", f"sha256-{HEX}.patched", f"sha256-{HEX}"])
def test_a_tag_that_only_the_mirror_has_is_dropped_on_the_way_back(tag: str) -> None:
    ref = Naming("m.example").original_of(ImageRef.parse(f"m.example/docker.io/library/nginx:{tag}"))
    assert ref == ImageRef("docker.io", "library/nginx")


@pytest.mark.parametrize(
    "text",
    ["docker.io/library/nginx", "m.example/nginx", "m.example/library/nginx", "m.example/docker.io/nginx"],
)
def test_what_is_not_a_name_of_the_mirror_has_no_original(text: str) -> None:
    assert Naming("m.example").original_of(ImageRef.parse(text)) is None


def test_the_digest_is_kept_on_the_way_back() -> None:
    digest = Digest("sha256", HEX)
    ref = Naming("m.example").original_of(ImageRef.parse(f"m.example/docker.io/library/nginx@{digest}"))
    assert ref == ImageRef("docker.io", "library/nginx", None, digest)


def test_a_name_that_gets_too_long_is_refused() -> None:
    with pytest.raises(MalformedInput, match="255"):
        Naming("m.example").name_for(ImageRef.parse("r.example/" + "a/" * 120 + "a"))


def test_a_mirror_is_written_host_port_and_prefix() -> None:
    assert Naming.parse("m.example:5000/team/x", "flat") == Naming("m.example:5000", "team/x", "flat")
    with pytest.raises(MalformedInput):
        Naming.parse("m example")
