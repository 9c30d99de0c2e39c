import base64
import io
import subprocess
import tarfile
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.engine.tar import Entry, Kind, Limits
from proxy.engine.tarread import read_tar
from proxy.engine.tarwrite import END, render_member
from proxy.errors import MalformedInput
from tests.tars import END as ZEROS
from tests.tars import member, pax


def members(raw: bytes, **limits: int) -> list[tuple[Entry, bytes]]:
    return [
        (entry, b"".join(iter(partial(body.read, 1000), b"")))
        for entry, body in read_tar(io.BytesIO(raw), where="layer y", limits=Limits(**limits))
    ]


def only(raw: bytes) -> Entry:
    [(entry, _)] = members(raw + ZEROS)
    return entry


def refuse(raw: bytes, match: str, **limits: int) -> None:
    with pytest.raises(MalformedInput, match=match) as caught:
        members(raw, **limits)
    assert "layer y" in str(caught.value)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_format_of_the_standard_library_is_read(form):
    out = io.BytesIO()
    long = "d/" * 60 + "name" if form == tarfile.USTAR_FORMAT else "d/" * 150 + "näme"
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for name, kind, target in (
            ("a", tarfile.DIRTYPE, ""),
            (long, tarfile.REGTYPE, ""),
            ("./a/b", tarfile.SYMTYPE, "../" * 30 + "x"),
            ("a/c", tarfile.LNKTYPE, "./" + long[:90]),
            ("a/null", tarfile.CHRTYPE, ""),
            ("a/sda", tarfile.BLKTYPE, ""),
            ("a/pipe", tarfile.FIFOTYPE, ""),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.mode, info.mtime = kind, target, 0o4751, 1_700_000_000
            info.uid, info.gid = (1234, 5) if form == tarfile.USTAR_FORMAT else (3_000_000, 4_000_000)
            info.devmajor, info.devminor = 8, 1
            info.size = 7000 if kind == tarfile.REGTYPE else 0
            tar.addfile(info, io.BytesIO(b"x" * 7000) if info.size else None)
    found = members(out.getvalue())
    assert [entry.path for entry, _ in found] == ["a", long, "a/b", "a/c", "a/null", "a/sda", "a/pipe"]
    assert [entry.kind for entry, _ in found] == [
        Kind.DIR, Kind.FILE, Kind.SYMLINK, Kind.HARDLINK, Kind.CHAR, Kind.BLOCK, Kind.FIFO,
    ]  # fmt: skip
    assert found[1][1] == b"x" * 7000
    assert found[2][0].target == "../" * 30 + "x"
    assert found[3][0].target == long[:90].rstrip("/")
    assert found[5][0].device == (8, 1)
    assert {(entry.uid, entry.gid) for entry, _ in found} <= {(1234, 5), (3_000_000, 4_000_000)}
    assert {entry.mode for entry, _ in found} == {0o4751}
    assert {entry.mtime for entry, _ in found} == {1_700_000_000}


def test_extended_attributes_are_read_in_both_forms():
    value = b"\1\0\0\2\n=\xff"
    assert only(pax({"SCHILY.xattr.security.capability": value}) + member("a")).xattrs == {"security.capability": value}
    coded = base64.b64encode(b"four").rstrip(b"=")
    raw = pax({"LIBARCHIVE.xattr.user.%61": coded, "LIBARCHIVE.xattr.user.b": coded, "SCHILY.xattr.user.b": b"5"})
    assert only(raw + member("a")).xattrs == {"user.a": b"four", "user.b": b"5"}


def test_pax_records_win_over_the_header_and_an_empty_one_takes_nothing_away():
    raw = pax({"path": "p/q", "uid": "5", "mtime": "-1.5", "size": "3", "atime": "1", "comment": "c"})
    [(entry, body)] = members(raw + member("x", b"abc", size=0) + ZEROS)
    assert (entry.path, entry.uid, entry.mtime, body) == ("p/q", 5, -2, b"abc")
    assert only(pax({"path": "", "linkpath": ""}) + member("x", flag=b"2", target="t")).path == "x"


def test_gnu_long_names_are_read():
    raw = member("././@LongLink", b"n" * 200 + b"\0", flag=b"L") + member("././@LongLink", b"t/" * 100, flag=b"K")
    entry = only(raw + member("short", flag=b"2", target="short"))
    assert (entry.path, entry.target) == ("n" * 200, "t/" * 100)


def test_base_256_numbers_are_read():
    size = b"\x80" + (3).to_bytes(11, "big")
    [(entry, body)] = members(member("a", b"abc", size=size, uid=b"\x80" + (2**31).to_bytes(7, "big")) + ZEROS)
    assert (entry.uid, body) == (2**31, b"abc")


def test_the_root_may_have_an_empty_name_or_a_dot_or_a_slash():
    for name in ("", "./", "/", ".", "././/"):
        assert (only(member(name, flag=b"5")).path, only(member(name, flag=b"5")).kind) == ("", Kind.DIR)
        refuse(member(name) + ZEROS, "(root directory as a|name ends in a slash)")


@pytest.mark.parametrize("name", ["/etc/passwd", "./etc/passwd", "//etc///passwd", "etc/./passwd"])
def test_names_are_relative_to_the_root(name):
    assert only(member(name)).path == "etc/passwd"


def test_names_that_are_not_utf_8_survive():
    assert only(member(b"caf\xe9")).path == "caf\udce9"


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/..", "..", "a/..", "./../x"])
def test_a_path_that_climbs_out_is_refused(name):
    refuse(member(name) + ZEROS, "climbs out")
    refuse(member("x", flag=b"1", target=name) + ZEROS, "climbs out")
    refuse(pax({"path": name}) + member("x") + ZEROS, "climbs out")


def test_a_symlink_may_name_anything():
    assert only(member("x", flag=b"2", target="../../../etc")).target == "../../../etc"


def test_old_directories_with_a_slash_are_directories():
    assert only(member("d/", flag=b"\0", magic=bytes(8))).kind is Kind.DIR


def test_a_directory_with_a_size_has_no_body_as_in_go():
    assert [entry.path for entry, _ in members(member("d/", flag=b"5", size=5) + member("f", b"b") + ZEROS)] == [
        "d",
        "f",
    ]


@pytest.mark.parametrize(
    ("raw", "match"),
    [
        (member("a", checksum=b"0000000\0") + ZEROS, "checksum"),
        (member("a", checksum=b"junk    ") + ZEROS, "checksum"),
        (b"not a tar at all".ljust(1024, b"!"), "(checksum|not one that a layer)"),
        (member("a", b"x" * 600)[:700], "cut short"),
        (member("a", b"x" * 600)[:-1], "cut short"),
        (member("a")[:300], "cut short"),
        (member("a", b"x"), "cut short"),
        (b"", "cut short"),
        (member("a") + ZEROS + b"garbage", "bytes after the end"),
        (member("a") + ZEROS + member("b") + ZEROS, "bytes after the end"),
        (member("a", flag=b"S") + ZEROS, "sparse"),
        (pax({"GNU.sparse.major": "1"}) + member("a") + ZEROS, "sparse"),
        (member("a", flag=b"V") + ZEROS, "not one that a layer may have"),
        (member("a", flag=b"7") + ZEROS, "not one that a layer may have"),
        (member("a", uid=b"12-45678") + ZEROS, "not a number"),
        (member("a", uid=b"0000009\0") + ZEROS, "not a number"),
        (member("a", uid=b"1_0    \0") + ZEROS, "not a number"),
        (member("a", size=b"\xff" * 12) + ZEROS, "size of -1"),
        (member("a", uid=b"\xff" * 8) + ZEROS, "out of range"),
        (member("a", size=b"\x80" + b"\x7f" * 11) + ZEROS, "not a number"),
        (pax({"size": "-1"}) + member("a") + ZEROS, "does not read"),
        (pax({"size": "1" * 30}) + member("a") + ZEROS, "does not read"),
        (pax({"size": "99999999999999999"}) + member("a") + ZEROS, "a size of"),
        (pax({"mtime": "1e5"}) + member("a") + ZEROS, "does not read"),
        (pax({"path": b"a\0b"}) + member("a") + ZEROS, "NUL"),
        (pax({"LIBARCHIVE.xattr.user.a": "***"}) + member("a") + ZEROS, "does not read"),
        (member("x", b"99 path=a\n", flag=b"x") + member("a") + ZEROS, "wrong length"),
        (member("x", b"9 path=ab", flag=b"x") + member("a") + ZEROS, "wrong length"),
        (member("x", b"0 path=ab\n", flag=b"x") + member("a") + ZEROS, "wrong length"),
        (member("x", b"7 path\n", flag=b"x") + member("a") + ZEROS, "wrong length"),
        (pax({"path": "a"}) + ZEROS, "belongs to no member"),
        (pax({"path": "a"}) + pax({"path": "b"}) + member("a") + ZEROS, "two extended headers"),
        (member("L", b"a\0b", flag=b"L") + member("a") + ZEROS, "NUL"),
        (pax({"path": "evil"}, flag=b"g") + member("a") + ZEROS, "global pax header"),
        (member("a", flag=b"2") + ZEROS, "empty target"),
        (member("a", flag=b"1", target="./") + ZEROS, "empty target"),
        (member("a/", b"x") + ZEROS, "ends in a slash"),
        (member("a", magic=b"ustar  \0", prefix=b"evil") + ZEROS, "GNU header with a name prefix"),
        (pax({"path": "a/" * 3000 + "b"}) + member("a") + ZEROS, "at most 4096"),
        (pax({"path": "a/" * 600 + "b"}) + member("a") + ZEROS, "512 components"),
    ],
)
def test_bad_tars_are_refused_with_the_reason(raw, match):
    refuse(raw, match)


def test_limits_hold():
    refuse(member("a") * 11 + ZEROS, "more than 10 members", entries=10)
    refuse(pax({"path": "a" * 2000}) + member("a") + ZEROS, "extended header of 20", header=1000)
    refuse(pax({"SCHILY.xattr.a": b"x" * (2 << 20)}) + member("a") + ZEROS, "extended header of 20")


def test_a_global_header_with_a_comment_is_passed_over():
    assert only(pax({"comment": "a commit", "mtime": "5"}, flag=b"g") + member("a")).mtime == 0


def test_a_body_that_has_gone_by_is_an_error():
    stream = read_tar(io.BytesIO(member("a", b"1") + member("b", b"2") + ZEROS))
    _, body = next(stream)
    next(stream)
    with pytest.raises(ValueError, match="gone by"):
        body.read()


names = st.text(st.characters(exclude_characters="/\0", exclude_categories=("Cs",)), min_size=1, max_size=60)
raw_names = st.binary(min_size=1, max_size=40).map(lambda raw: raw.decode("utf-8", "surrogateescape"))
part = st.one_of(names, raw_names).filter(lambda name: name not in {".", ".."} and "/" not in name and "\0" not in name)
paths = st.lists(part, min_size=1, max_size=6).map("/".join)
numbers = st.integers(0, 2**32 - 1)
xattrs = st.dictionaries(
    st.text(st.characters(exclude_characters="=\0", exclude_categories=("Cs",)), min_size=1, max_size=20),
    st.binary(max_size=50),
    max_size=3,
)
times = st.integers(-(2**40), 2**40)
modes = st.integers(0, 0o7777)
entries = st.one_of(
    st.builds(
        lambda path, data, mode, uid, gid, mtime, attrs: Entry(
            path, Kind.FILE, mode, uid, gid, mtime, len(data), "", data, attrs
        ),
        paths, st.binary(max_size=1500), modes, numbers, numbers, times, xattrs,
    ),
    st.builds(Entry, paths, st.just(Kind.DIR), modes, numbers, numbers, times),
    st.builds(Entry, paths, st.just(Kind.SYMLINK), modes, numbers, numbers, times, st.just(0), paths),
    st.builds(Entry, paths, st.just(Kind.HARDLINK), modes, numbers, numbers, times, st.just(0), paths),
    st.builds(
        lambda path, kind, device: Entry(path, kind, device=device),
        paths, st.sampled_from([Kind.CHAR, Kind.BLOCK]), st.tuples(st.integers(0, 4095), st.integers(0, 2**20)),
    ),
)  # fmt: skip


def written(items: list[Entry]) -> bytes:
    pieces = (
        piece
        for entry in items
        for piece in render_member(entry, iter((entry.content,) if isinstance(entry.content, bytes) else ()))
    )
    return b"".join(pieces) + END


@settings(max_examples=150, deadline=None)
@given(st.lists(entries, max_size=5))
def test_what_is_written_is_read_back(items):
    found = members(written(items))
    for entry, (back, body) in zip(items, found, strict=True):
        content = body if entry.kind is Kind.FILE else None
        again = Entry(
            back.path, back.kind, back.mode, back.uid, back.gid, back.mtime, back.size, back.target, content,
            dict(back.xattrs), back.device,
        )  # fmt: skip
        assert again == entry


@settings(max_examples=60, deadline=None)
@given(st.lists(entries, max_size=5))
def test_the_standard_library_reads_what_is_written(items):
    with tarfile.open(fileobj=io.BytesIO(written(items))) as tar:
        assert [info.name for info in tar] == [entry.path for entry in items]


def test_gnu_tar_reads_what_is_written():
    items = [
        Entry("ä" * 200, Kind.DIR),
        Entry("b" * 300, Kind.SYMLINK, target="c" * 300),
        Entry("long/" * 25 + "name", Kind.FILE, size=1, content=b"x", uid=2**31),
    ]
    run = subprocess.run(
        ["tar", "-t", "--quoting-style=literal"], input=written(items), capture_output=True, check=True
    )
    assert run.stdout.decode().splitlines() == [f"{'ä' * 200}/", "b" * 300, "long/" * 25 + "name"]
    assert run.stderr == b""


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_tar_with_changed_bytes_is_read_or_refused_and_nothing_else(data):
    raw = bytearray(pax({"path": "a/b", "SCHILY.xattr.user.a": "b"}) + member("x", b"abc") + member("y/", flag=b"5"))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        members(bytes(raw) + ZEROS)
    except MalformedInput as error:
        assert "layer y" in str(error)  # noqa: PT017 - either is right
