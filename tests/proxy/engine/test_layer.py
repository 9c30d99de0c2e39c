import dataclasses
import gzip
import io
import random
import tarfile
import zlib

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.engine.layer import COMPRESSION_EPOCH, WrittenLayer, add_parents, write_layer
from proxy.engine.rootfs import RootFS
from proxy.engine.tar import Entry, Kind, Span
from proxy.errors import MalformedInput, Unsupported
from proxy.oci.digest import Digest
from tests.tars import scan, tree

BODY = b"".join(b"%d %d\n" % (n, n * n) for n in range(60_000))
GOLDEN = (
    Entry("etc", Kind.DIR, 0o755, mtime=1_700_000_000),
    Entry("etc/ssl", Kind.DIR, 0o2750, 0, 42, 1_700_000_001),
    Entry("etc/ssl/cert", Kind.SYMLINK, 0o777, target="../" * 40 + "usr/cert"),
    Entry("usr/bin/ping", Kind.FILE, 0o4755, 0, 0, 1_700_000_002, 4, "", b"ping", {"security.capability": b"\1\0\0\2"}),
    Entry("usr/bin/pong", Kind.HARDLINK, 0o4755, 0, 0, 1_700_000_002, target="usr/bin/ping"),
    Entry("usr/lib/libx.so", Kind.FILE, 0o644, 0, 0, -5, len(BODY), "", Span("body", 0, len(BODY))),
    Entry("usr/share/käse/\udce9", Kind.FILE, 0o644, 2**31, 2**31, 2**35, 0, "", b""),
    Entry("usr/lib/old.so", Kind.WHITEOUT, mtime=1_700_000_003),
    Entry("dev/null", Kind.CHAR, 0o666, device=(1, 3)),
    Entry("run/pipe", Kind.FIFO, 0o600),
)
GOLDEN_DIFF_ID = "sha256:927794f5eb316f57f833463bf8ac77d521e0ddeac9b266dfa15aac49e6073410"
GOLDEN_GZIP = {"1.2.13": "sha256:ec146cbb44af7cfb215b14be8f06966f6847fe6c600815a687bf929a6fdf8386"}
GOLDEN_ZSTD = {(1, 5, 7): "sha256:f4f523fd208806339b1e295dd657db7770b42bb0268966a212ed15193fbf6db7"}


def write(entries, compression="gzip", media="oci") -> tuple[WrittenLayer, bytes]:
    out = io.BytesIO()
    layer = write_layer(
        entries, out, compression=compression, media=media, read_span=lambda span: iter((BODY[: span.size],))
    )
    assert layer.digest == Digest.of(out.getvalue())
    assert layer.size == len(out.getvalue())
    return layer, out.getvalue()


def unpacked(blob: bytes) -> bytes:
    if blob[:2] == b"\x1f\x8b":
        return gzip.decompress(blob)
    return zstandard.ZstdDecompressor().decompressobj().decompress(blob)


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_the_tar_of_a_fixed_input_never_changes(compression):
    layer, blob = write(GOLDEN, compression)
    assert str(layer.diff_id) == GOLDEN_DIFF_ID
    assert Digest.of(unpacked(blob)) == layer.diff_id


def test_the_gzip_layer_of_a_fixed_input_never_changes_with_one_zlib():
    layer, _ = write(GOLDEN)
    if (golden := GOLDEN_GZIP.get(zlib.ZLIB_RUNTIME_VERSION)) is None:
        pytest.skip(f"no golden digest for zlib {zlib.ZLIB_RUNTIME_VERSION}: its deflate may choose otherwise")
    assert str(layer.digest) == golden


def test_the_zstd_layer_of_a_fixed_input_never_changes_with_one_zstd():
    layer, _ = write(GOLDEN, "zstd")
    if (golden := GOLDEN_ZSTD.get(zstandard.ZSTD_VERSION)) is None:
        pytest.skip(f"no golden digest for zstd {zstandard.ZSTD_VERSION}: it may choose otherwise")
    assert str(layer.digest) == golden


def test_the_epoch_names_the_compressors():
    assert zlib.ZLIB_RUNTIME_VERSION in COMPRESSION_EPOCH
    assert ".".join(map(str, zstandard.ZSTD_VERSION)) in COMPRESSION_EPOCH


@settings(max_examples=20, deadline=None)
@given(st.randoms(use_true_random=False))
def test_the_order_of_entries_and_the_pieces_of_a_body_change_nothing(rng: random.Random):
    items = [*GOLDEN, GOLDEN[3]]
    rng.shuffle(items)
    cuts = sorted(rng.randrange(len(BODY)) for _ in range(5))
    pieces = [BODY[a:b] for a, b in zip([0, *cuts], [*cuts, len(BODY)], strict=True)]
    for compression in ("gzip", "zstd"):
        out = io.BytesIO()
        layer = write_layer(items, out, compression=compression, media="oci", read_span=lambda _: iter(pieces))
        assert layer == write(GOLDEN, compression)[0]


def test_the_gzip_header_holds_no_name_no_time_and_no_system():
    assert write(GOLDEN)[1][:10] == b"\x1f\x8b\x08\0\0\0\0\0\0\xff"


def test_parents_come_first_and_hard_links_last():
    with tarfile.open(fileobj=io.BytesIO(unpacked(write(GOLDEN)[1]))) as tar:
        names = tar.getnames()
        assert {(info.uname, info.gname) for info in tar} == {("", "")}
    assert names[:3] == ["dev/null", "etc", "etc/ssl"]
    assert names[-1] == "usr/bin/pong"
    assert "usr/lib/.wh.old.so" in names


@pytest.mark.parametrize(
    ("media", "compression", "media_type"),
    [
        ("docker", "gzip", "application/vnd.docker.image.rootfs.diff.tar.gzip"),
        ("oci", "gzip", "application/vnd.oci.image.layer.v1.tar+gzip"),
        ("oci", "zstd", "application/vnd.oci.image.layer.v1.tar+zstd"),
    ],
)
def test_the_media_type_is_of_the_images_family(media, compression, media_type):
    layer, blob = write(GOLDEN, compression, media)
    assert layer.media_type == media_type
    assert scan(blob, media_type=media_type).diff_id == layer.diff_id


def test_a_docker_image_gets_no_zstd_layer():
    with pytest.raises(Unsupported, match="gzip"):
        write(GOLDEN, "zstd", "docker")


def test_a_written_layer_scans_to_the_same_entries():
    index = scan(write(GOLDEN, "zstd")[1])
    found = {entry.path: entry for entry in index.entries}
    for entry in GOLDEN:
        if entry.kind is Kind.WHITEOUT:
            assert found[entry.path].kind is Kind.WHITEOUT
            continue
        back = dataclasses.replace(found[entry.path], content=entry.content)
        assert back == entry


def file(path: str, content: bytes = b"", **fields) -> Entry:
    return Entry(path, Kind.FILE, size=len(content), content=content, **fields)


@pytest.mark.parametrize(
    ("entries", "match"),
    [
        ([file("../x")], "normalized"),
        ([file("/x")], "normalized"),
        ([file("a//x")], "normalized"),
        ([file("a/./x")], "normalized"),
        ([file("a/")], "normalized"),
        ([file("a\0b")], "normalized"),
        ([file("")], "root directory"),
        ([file("a", b"1"), file("a", b"2")], "two different entries"),
        ([file("a", b"1"), file("a", b"1", mode=0o600)], "two different entries"),
        ([file("a"), Entry("a", Kind.WHITEOUT)], "two different entries"),
        ([file("a"), file("a/b")], "below a file"),
        ([Entry("a", Kind.SYMLINK, target="b"), file("a/b/c")], "below a symlink"),
        ([Entry("a", Kind.WHITEOUT), file("a/b")], "below a whiteout"),
        ([Entry("a", Kind.HARDLINK, target="b")], "hard link"),
        ([Entry("a", Kind.HARDLINK, target="b"), Entry("b", Kind.DIR)], "hard link"),
        ([Entry("a", Kind.HARDLINK, target="b"), Entry("b", Kind.HARDLINK, target="a")], "hard link"),
        ([Entry("a", Kind.SYMLINK)], "without a target"),
        ([file(".wh.a")], "whiteout"),
        ([file("a/.wh..wh..opq")], "whiteout"),
        ([Entry("a", Kind.FILE, size=5, content=b"abc")], "3 bytes of content"),
        ([Entry("a", Kind.FILE, size=5)], "0 bytes of content"),
        ([file("a", xattrs={"user.a=b": b""})], "attribute"),
        ([file("a", xattrs={"": b""})], "attribute"),
    ],
)
def test_entries_that_make_no_sound_layer_are_refused_and_nothing_is_written(entries, match):
    out = io.BytesIO()
    with pytest.raises(MalformedInput, match=match):
        write_layer(entries, out, compression="gzip", media="oci", read_span=lambda _: iter(()))
    assert out.getvalue() == b""


def test_a_body_of_another_size_is_an_error():
    with pytest.raises(MalformedInput, match="7 bytes"):
        write_layer(
            [Entry("a", Kind.FILE, size=5, content=Span("f", 0, 5))],
            io.BytesIO(),
            compression="gzip",
            media="oci",
            read_span=lambda _: iter((b"1234", b"567")),
        )


def test_an_empty_layer_is_a_tar():
    assert len(scan(write([])[1])) == 0


def test_parents_are_added_as_the_image_has_them():
    root = RootFS([scan(tree("d tmp 1777", "d usr", "d usr/lib 700", "l lib usr/lib"))], lambda _: b"")
    found = {entry.path: entry for entry in add_parents([file("usr/lib/new/x"), file("tmp/y")], root)}
    assert {path: entry.mode for path, entry in found.items() if entry.kind is Kind.DIR} == {
        "tmp": 0o1777,
        "usr": 0o755,
        "usr/lib": 0o700,
        "usr/lib/new": 0o755,
    }
