"""The linker's cache after an upgrade, held against the real ldconfig, byte for byte."""

import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.engine.families.dpkg.database import keeps
from proxy.engine.families.dpkg.findings import NotReproduced
from proxy.engine.families.dpkg.ldcache import Cached, LinkerCache, parse_linker_cache, render_linker_cache
from proxy.engine.families.dpkg.ldconfig import Links, run_ldconfig, run_over
from proxy.engine.families.dpkg.libraries import Library, read_library
from proxy.engine.stage import Stage
from proxy.engine.tar import Kind
from proxy.errors import MalformedInput
from tests.proxy.engine.filesystems import Link, layered
from tests.support import data_path, require_root, require_tool

LIB = "usr/lib/x86_64-linux-gnu"
Files = Mapping[str, bytes | Link]
CONFIGURATION: Files = {
    "lib": Link("usr/lib"),
    "etc/ld.so.conf": b"include /etc/ld.so.conf.d/*.conf\n",
    "etc/ld.so.conf.d/b.conf": b"# multiarch\n/lib/x86_64-linux-gnu\n/usr/lib/x86_64-linux-gnu/\n",
    "etc/ld.so.conf.d/a.conf": b"/usr/local/lib=libc6  # here\nhwcap 1 x\n/nowhere\n",
    "etc/ld.so.conf.d/.hidden.conf": b"/opt\n",
}


def host(name: str) -> bytes:
    """Return one of this machine's own libraries."""
    path = next((found for found in (Path("/lib/x86_64-linux-gnu"), Path("/lib64")) if (found / name).exists()), None)
    if path is None:
        pytest.skip(f"this machine has no {name} of amd64")
    return (path / name).read_bytes()


def lay(root: Path, files: Files) -> None:
    """Put files into a folder, as a layer over what is there."""
    for path, content in files.items():
        where = root / path.replace(".wh.", "")
        real = (where.parent.resolve() if where.parent.exists() else where.parent) / where.name
        if real.is_symlink() or real.exists():
            real.unlink()
        real.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Link):
            real.symlink_to(content.target)
        elif ".wh." not in path:
            real.write_bytes(content)


def real_ldconfig(root: Path) -> bytes:
    require_root()
    subprocess.run([require_tool("ldconfig"), "-r", str(root)], check=True, capture_output=True)
    return (root / "etc/ld.so.cache").read_bytes()


def links_of(root: Path) -> dict[str, str]:
    return {str(path.relative_to(root)): str(path.readlink()) for path in root.rglob("*") if path.is_symlink()}


def compare(tmp_path: Path, first: Files, second: Files) -> Links:
    """Let both run over the second layer, after ldconfig ran over the first."""
    root = tmp_path / "root"
    lay(root, first)
    cache = real_ldconfig(root)
    links: dict[str, bytes | Link] = {
        path: Link(target) for path, target in links_of(root).items() if path not in first
    }
    before, after = layered({**first, **links, "etc/ld.so.cache": cache}, second, keep=keeps)
    changed = {**CONFIGURATION, **first, **second}

    def library(path: str) -> Library | None:
        content = changed[path]
        assert path in second, f"{path} did not change and is asked for"
        assert isinstance(content, bytes)
        return read_library(content, path, "amd64")

    found = run_over(before, after, "amd64", None, library)
    lay(root, second)
    before_links = links_of(root)
    assert found.cache == real_ldconfig(root)
    after_links = links_of(root)
    expected = {path: after_links.get(path) for path in {*before_links, *after_links}}
    assert found.links == {path: to for path, to in expected.items() if to != before_links.get(path)}
    return found


@pytest.mark.interop
def test_a_library_with_another_file_name_and_one_with_another_soname_equal_ldconfigs(tmp_path: Path) -> None:
    first: Files = {
        **CONFIGURATION,
        f"{LIB}/libz.so.1.0": host("libz.so.1"),
        f"{LIB}/libz.so.1": Link("libz.so.1.0"),
        f"{LIB}/libz.so": Link("libz.so.1"),
        f"{LIB}/libc.so.6": host("libc.so.6"),
        f"{LIB}/libm.so.6": host("libm.so.6"),
        f"{LIB}/ld-linux-x86-64.so.2": host("ld-linux-x86-64.so.2"),
        f"{LIB}/libscript.so": b"/* GNU ld script */ GROUP ( libz.so.1 )",
        "usr/local/lib/libm.so.6": host("libm.so.6"),
        "opt/libbz2.so.1.0": host("libbz2.so.1.0"),
    }
    second: Files = {
        f"{LIB}/.wh.libz.so.1.0": b"",
        f"{LIB}/libz.so.1.1": host("libz.so.1") + b"1",
        f"{LIB}/libz.so.1": Link("libz.so.1.1"),
        f"{LIB}/libm.so.6": host("libm.so.6") + b"1",
        f"{LIB}/libbz2.so.1.0.9": host("libbz2.so.1.0"),
        f"{LIB}/libtext.so.1": b"no library" * 200,
        f"{LIB}/README.so": host("libz.so.1"),
        f"{LIB}/libgone.so.3": Link("libgone.so.3.1"),
    }
    found = compare(tmp_path, first, second)
    assert found.links == {f"{LIB}/libbz2.so.1.0": "libbz2.so.1.0.9", f"{LIB}/libgone.so.3": None}
    assert found.cache.count(b"libm.so.6") == 2  # the soname is the end of both paths


@pytest.mark.interop
def test_several_files_of_one_soname_are_ordered_by_version(tmp_path: Path) -> None:
    first: Files = {
        **CONFIGURATION,
        f"{LIB}/libz.so.1.9": host("libz.so.1"),
        f"{LIB}/libz.so.1": Link("libz.so.1.9"),
    }
    newer: Files = {f"{LIB}/libz.so.1.10": host("libz.so.1"), f"{LIB}/libother.so.1": Link("libz.so.1.10")}
    assert compare(tmp_path / "newer", first, newer).links == {f"{LIB}/libz.so.1": "libz.so.1.10"}
    older: Files = {f"{LIB}/libz.so.1.8": host("libz.so.1")}
    assert compare(tmp_path / "older", first, older).links == {}
    lost: Files = {f"{LIB}/.wh.libz.so.1": b""}
    assert compare(tmp_path / "lost", first, lost).links == {f"{LIB}/libz.so.1": "libz.so.1.9"}


@pytest.mark.interop
def test_folders_below_glibc_hwcaps_come_first_and_keep_their_own_names(tmp_path: Path) -> None:
    first: Files = {
        **CONFIGURATION,
        f"{LIB}/libz.so.1": host("libz.so.1"),
        f"{LIB}/glibc-hwcaps/x86-64-v3/libz.so.1": host("libz.so.1"),
        f"{LIB}/glibc-hwcaps/x86-64-v2/libz.so.1.2": host("libz.so.1"),
        f"{LIB}/glibc-hwcaps/empty/nothing": b"",
    }
    second: Files = {
        f"{LIB}/glibc-hwcaps/x86-64-v2/.wh.libz.so.1.2": b"",
        f"{LIB}/glibc-hwcaps/x86-64-v2/libz.so.1.3": host("libz.so.1"),
        f"{LIB}/glibc-hwcaps/x86-64-v4/libbz2.so.1.0": host("libbz2.so.1.0"),
    }
    compare(tmp_path, first, second)


@pytest.mark.interop
def test_a_library_that_the_cache_does_not_know_is_asked_for_and_refused_when_it_cannot_be_read(tmp_path: Path) -> None:
    root = tmp_path / "root"
    lay(root, CONFIGURATION)
    cache = real_ldconfig(root)
    files: Files = {**CONFIGURATION, "etc/ld.so.cache": cache, "usr/local/lib/liblate.so.1": host("libz.so.1")}
    before, after = layered(files, {"usr/share/x": b""}, keep=keeps)

    def library(path: str) -> Library | None:
        raise NotReproduced(f"/{path} cannot be read")

    with pytest.raises(NotReproduced, match="liblate"):
        run_over(before, after, "amd64", None, library)


@pytest.mark.interop
def test_ldconfig_of_a_stage_reads_what_the_image_did_not_keep_and_names_the_new_program(tmp_path: Path) -> None:
    root = tmp_path / "root"
    program = b"\0ldconfig (Debian GLIBC 2.36-1) stable release version 2.36\0"
    lay(root, CONFIGURATION)
    files: Files = {**CONFIGURATION, "usr/lib/libz.so.1.9": host("libz.so.1"), "usr/sbin/ldconfig": program}
    (fs,) = layered({"sbin": Link("usr/sbin"), **files, "etc/ld.so.cache": real_ldconfig(root)}, keep=lambda _: True)
    stage = Stage(fs, 9)
    stage.write("usr/sbin/ldconfig", program.replace(b"36-1)", b"36-9+deb12u9)"))
    assert run_ldconfig(stage, (), "amd64")
    lay(root, files)
    cache = parse_linker_cache(real_ldconfig(root))
    own = "ldconfig (Debian GLIBC 2.36-9+deb12u9) stable release version 2.36"
    assert stage.read("etc/ld.so.cache") == render_linker_cache(replace(cache, generator=own))
    assert {entry.path: entry.target for entry in stage.entries() if entry.kind is Kind.SYMLINK} == {
        "usr/lib/libz.so.1": "libz.so.1.9"
    }
    stage.write("usr/sbin/ldconfig", b"another one")
    with pytest.raises(NotReproduced, match="another format"):
        run_ldconfig(stage, ("-X",), "amd64")
    with pytest.raises(NotReproduced, match="-C x"):
        run_ldconfig(stage, ("-C", "x"), "amd64")


@pytest.mark.interop
def test_the_cache_of_this_machine_survives_parsing_and_rendering() -> None:
    path = Path("/etc/ld.so.cache")
    if not path.exists():
        pytest.skip("this machine has no cache")
    cache = parse_linker_cache(path.read_bytes())
    assert render_linker_cache(cache) == path.read_bytes()
    assert (cache.generator or "").startswith("ldconfig ")


@pytest.mark.data
@pytest.mark.interop
def test_the_older_format_equals_its_own_ldconfig(tmp_path: Path) -> None:
    """Ubuntu 20.04 has glibc 2.31: strings are not shared and the oldest kernel is written."""
    require_root()
    archive = data_path("rootfs/ubuntu-20.04.6-amd64.tar.xz")
    names = ("etc/ld.so*", "lib", "usr/lib/x86_64-linux-gnu/lib*.so*", "usr/lib/x86_64-linux-gnu/ld-*")
    subprocess.run(
        ["tar", "-xJf", str(archive), "-C", str(tmp_path), "--wildcards", *names, "usr/sbin/ldconfig.real"],
        check=False,
        capture_output=True,
    )
    first = on_disk(tmp_path)
    cache = first["etc/ld.so.cache"]
    assert isinstance(cache, bytes)
    assert render_linker_cache(parse_linker_cache(cache)) == cache
    second: Files = {
        f"{LIB}/libzstd.so.1.9.9": first[f"{LIB}/libzstd.so.1.4.4"],
        f"{LIB}/.wh.libbz2.so.1.0.4": b"",
        f"{LIB}/libm-2.31.so": content(first, f"{LIB}/libm-2.31.so") + b"1",
        "usr/lib/libm.so.6": first[f"{LIB}/libm-2.31.so"],
    }
    before, after = layered(first, second, keep=keeps)
    found = run_over(before, after, "amd64", None, lambda path: read_library(content(second, path), path, "amd64"))
    lay(tmp_path, second)
    subprocess.run(["chroot", str(tmp_path), "/usr/sbin/ldconfig.real"], check=True, capture_output=True)
    assert found.cache == (tmp_path / "etc/ld.so.cache").read_bytes()
    assert found.cache != cache
    after_links = links_of(tmp_path)
    assert {path: after_links.get(path) for path in found.links} == found.links != {}


def on_disk(root: Path) -> Files:
    files: dict[str, bytes | Link] = {path: Link(target) for path, target in links_of(root).items()}
    for path in root.rglob("*"):
        if path.is_file() and not path.is_symlink():
            files[str(path.relative_to(root))] = path.read_bytes()
    return files


def content(files: Files, path: str) -> bytes:
    found = files[path]
    assert isinstance(found, bytes)
    return found


names = st.text(st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)
entries = st.builds(Cached, names, names, st.integers(0, 2**31 - 1), st.integers(0, 2**32 - 1))


@given(st.lists(entries), st.none() | names, st.sampled_from([("<", 2), (">", 3)]))
def test_every_cache_is_read_back_as_it_was_written(
    found: list[Cached], generator: str | None, order: tuple[str, int]
) -> None:
    cache = LinkerCache(tuple(found), generator, frozenset(), *order)
    assert parse_linker_cache(render_linker_cache(cache)) == cache


@given(st.binary(max_size=200), st.integers(0, 300))
def test_a_damaged_cache_is_read_or_refused_and_nothing_else(noise: bytes, at: int) -> None:
    whole = render_linker_cache(LinkerCache((Cached("a", "/a", 1), Cached("b", "/b", 3, folder="c")), "x"))
    for data in (whole[:at] + noise, whole[: at % len(whole)], whole[:at] + noise + whole[at + len(noise) :]):
        try:
            parse_linker_cache(data)
        except MalformedInput:
            continue
