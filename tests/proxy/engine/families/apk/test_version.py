import itertools
import subprocess
import tarfile
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.engine.families.apk.version import compare_versions
from proxy.errors import MalformedInput
from tests.support import data_path

DIGITS = st.sampled_from(["0", "1", "2", "9", "10", "00", "01", "002", "20240101"])
SUFFIX = st.builds(
    "_{}{}".format,
    st.sampled_from(["alpha", "beta", "pre", "rc", "cvs", "svn", "git", "hg", "p"]),
    st.just("") | DIGITS,
)
VERSIONS = st.builds(
    "{}{}{}{}{}{}".format,
    DIGITS,
    st.lists(DIGITS.map(".{}".format), max_size=3).map("".join),
    st.just("") | st.builds("{}{}".format, st.sampled_from("ab"), DIGITS),
    st.sampled_from(["", "", "a", "b", "z"]),
    st.lists(SUFFIX, max_size=2).map("".join),
    st.just("") | DIGITS.map("-r{}".format),
)
ASCENDING = (
    *("1.0_alpha", "1.0_alpha1", "1.0_beta", "1.0_pre", "1.0_rc", "1.0_rc1", "1.0_rc2-r5"),
    *("1.0", "1.0-r0", "1.0-r1", "1.0-r10"),
    *("1.0_cvs", "1.0_svn", "1.0_git20240101", "1.0_git20240102", "1.0_hg", "1.0_p1", "1.0_p1-r1"),
    *("1.0a", "1.0b", "1.0.1", "1.01", "1.1", "1.2", "1.10", "2"),
)

Judge = Callable[[str, str], str]


@pytest.fixture(scope="module")
def apk_says(tmp_path_factory: pytest.TempPathFactory) -> Judge:
    """Return what apk 2.14 of Alpine 3.20 says of two versions: `<`, `=` or `>`."""
    root = tmp_path_factory.mktemp("alpine")
    wanted = ("lib/ld-musl", "lib/libc.musl", "lib/libapk", "lib/libcrypto", "lib/libssl", "lib/libz", "sbin/apk")
    with tarfile.open(data_path("rootfs/alpine-3.20.3-x86_64.tar.gz")) as tar:
        members = [item for item in tar if item.name.removeprefix("./").removeprefix("usr/").startswith(wanted)]
        tar.extractall(root, members, filter="tar")
    loader = [f"{root}/lib/ld-musl-x86_64.so.1", "--library-path", f"{root}/lib:{root}/usr/lib", f"{root}/sbin/apk"]

    def ask(a: str, b: str) -> str:
        command = [*loader, "version", "-t", a, b]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()

    try:
        ask("1", "2")
    except OSError:
        pytest.skip("this machine does not run x86_64 programs, and the recorded apk is one")
    return ask


def sign(a: str, b: str) -> str:
    order = compare_versions(a, b)
    return "<" if order < 0 else ">" if order > 0 else "="


@pytest.mark.data
@pytest.mark.interop
@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    a=VERSIONS,
    b=VERSIONS,
    cut=st.integers(0, 30),
    more=st.sampled_from(["", "0", "1", ".0", ".01", "a", "-r1"]) | SUFFIX,
)
def test_order_is_that_of_apk(apk_says: Judge, a: str, b: str, cut: int, more: str) -> None:
    assert sign(a, b) == apk_says(a, b)
    for near in (a + more, a[: cut % len(a)] + more):  # versions that begin alike: where most of the rules are
        try:
            ours = sign(a, near)
        except MalformedInput:
            continue
        assert ours == apk_says(a, near)


@pytest.mark.data
@pytest.mark.interop
def test_written_order_is_that_of_apk(apk_says: Judge) -> None:
    assert {apk_says(a, b) for a, b in itertools.pairwise(ASCENDING)} == {"<"}


def test_versions_stand_in_the_written_order() -> None:
    for (i, a), (j, b) in itertools.product(enumerate(ASCENDING), repeat=2):
        assert (compare_versions(a, b) > 0) == (i > j), (a, b)
        assert (compare_versions(a, b) == 0) == (i == j), (a, b)


@given(VERSIONS, VERSIONS, VERSIONS)
def test_order_is_total(a: str, b: str, c: str) -> None:
    assert compare_versions(a, a) == 0
    assert compare_versions(a, b) == -compare_versions(b, a)
    low, middle, high = sorted([a, b, c], key=lambda version: [compare_versions(version, other) for other in (a, b, c)])
    if compare_versions(low, middle) <= 0 and compare_versions(middle, high) <= 0:
        assert compare_versions(low, high) <= 0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "1.",
        "1..2",
        "1_",
        "1_foo",
        "1-r",
        "1-1",
        "1.2-r1a",
        "1a.2",
        "1ab",
        "1 ",
        "1\n",
        "1~a",
        "\u0661",
        "1" * 18,
    ],
)
def test_what_is_no_version_is_refused(text: str) -> None:
    with pytest.raises(MalformedInput, match="version"):
        compare_versions(text, "1")
    with pytest.raises(MalformedInput, match="version"):
        compare_versions("1", text)


def test_endless_version_is_refused() -> None:
    with pytest.raises(MalformedInput, match="version"):
        compare_versions("1" + ".1" * 100_000, "1")
