import pytest

from proxy.engine.family import Distribution
from proxy.engine.osrelease import parse_distribution, read_distribution
from tests.proxy.engine.filesystems import Link, make_fs


def keep(_: str) -> bool:
    return True


@pytest.mark.parametrize(
    ("text", "distribution"),
    [
        (b"ID=wolfi\nVERSION_ID='20230201'\n", Distribution("wolfi", "20230201")),
        (b'# ID=no\n\nID="debian"\nVERSION_CODENAME=bookworm\n', Distribution("debian", "", "bookworm")),
        (b'ID=a\nPRETTY_NAME="say \\"hi\\" for \\$5"\n', Distribution("a", pretty='say "hi" for $5')),
        (b"PRETTY_NAME='as \\$ is'\n", Distribution("", pretty="as \\$ is")),
        (b"ID=first\nID=last\r\n", Distribution("last")),
        (b"nonsense\n\xff=\n", Distribution("")),
        (b"", Distribution("")),
        (b"ID=" + b"a" * 1000, Distribution("a" * 256)),
    ],
)
def test_os_release_is_read_as_a_shell_would(text: bytes, distribution: Distribution) -> None:
    assert parse_distribution(text) == distribution


def test_file_in_etc_goes_before_the_one_in_usr() -> None:
    both = {"etc/os-release": b"ID=etc\n", "usr/lib/os-release": b"ID=usr\n"}
    assert read_distribution(make_fs(both, keep)).id == "etc"
    assert read_distribution(make_fs({"usr/lib/os-release": b"ID=usr\n"}, keep)).id == "usr"
    linked = {"usr/lib/os-release": b"ID=usr\n", "etc/os-release": Link("../usr/lib/os-release")}
    assert read_distribution(make_fs(linked, keep)).id == "usr"
    assert read_distribution(make_fs({}, keep)) == Distribution("")
