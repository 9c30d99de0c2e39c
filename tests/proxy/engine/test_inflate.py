import gzip
import hashlib
import io
import os
from functools import partial

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.engine.inflate import open_layer
from proxy.engine.tar import Limits
from proxy.errors import MalformedInput

DATA = os.urandom(70_000) + bytes(900_000) + b"text " * 50_000
OCI = "application/vnd.oci.image.layer.v1.tar"
DOCKER = "application/vnd.docker.image.rootfs.diff.tar"


def zstd(data: bytes, **options: bool) -> bytes:
    compressor = zstandard.ZstdCompressor(level=3, **options).compressobj()
    return compressor.compress(data) + compressor.flush()


def inflate(blob: bytes, media_type: str = "", **limits: int) -> bytes:
    layer = open_layer(io.BytesIO(blob), media_type, where="layer x", limits=Limits(**limits))
    out = b"".join(iter(lambda: layer.read(50_000), b""))
    assert layer.size == len(out)
    assert layer.diff_id.hex == hashlib.sha256(out).hexdigest()
    return out


@pytest.mark.parametrize(
    ("blob", "media_type"),
    [
        (DATA, OCI),
        (gzip.compress(DATA), f"{OCI}+gzip"),
        (gzip.compress(DATA), f"{DOCKER}.gzip"),
        (gzip.compress(DATA), DOCKER),
        (DATA, DOCKER),
        (zstd(DATA), f"{OCI}+zstd"),
        (zstd(DATA, write_checksum=True), f"{OCI}+zstd; charset=x"),
        (zstandard.ZstdCompressor().compress(DATA), ""),
    ],
)
def test_every_form_that_fits_its_media_type_is_read(blob, media_type):
    assert inflate(blob, media_type) == DATA


def test_members_frames_and_zero_padding_are_read_as_one_stream():
    assert inflate(gzip.compress(b"a") + gzip.compress(DATA) + gzip.compress(b"")) == b"a" + DATA
    assert inflate(gzip.compress(DATA) + bytes(100_000)) == DATA
    skippable = (0x184D2A53).to_bytes(4, "little") + (200_000).to_bytes(4, "little") + os.urandom(200_000)
    assert inflate(skippable + zstd(DATA) + skippable + zstd(b"b") + bytes(3)) == DATA + b"b"


@pytest.mark.parametrize(
    ("blob", "media_type"),
    [(DATA, f"{OCI}+gzip"), (gzip.compress(DATA), OCI), (gzip.compress(DATA), f"{OCI}+zstd"), (zstd(DATA), OCI)],
)
def test_a_layer_that_is_not_what_its_media_type_says_is_refused(blob, media_type):
    with pytest.raises(MalformedInput, match=r"layer x: its media type .* says"):
        inflate(blob, media_type)


def test_a_media_type_that_is_no_tar_is_refused():
    with pytest.raises(MalformedInput, match="not the media type"):
        inflate(DATA, "application/vnd.oci.image.layer.nydus.blob.v1")


@pytest.mark.parametrize("cut", [5, 9, 11, 500, 60_000, -9, -5, -1])
def test_a_truncated_stream_is_refused(cut):
    for blob in (gzip.compress(DATA), zstd(DATA, write_checksum=True)):
        with pytest.raises(MalformedInput, match=r"layer x.*(cut short|broken)"):
            inflate(blob[:cut])


def test_a_wrong_checksum_and_a_flipped_bit_are_refused():
    packed = gzip.compress(DATA)
    framed = zstd(DATA, write_checksum=True)
    for blob in (packed[:-8] + b"\1\2\3\4" + packed[-4:], packed[:-1] + b"\7", framed[:-1] + bytes([framed[-1] ^ 1])):
        with pytest.raises(MalformedInput, match="broken"):
            inflate(blob)


def test_bytes_after_the_end_are_refused():
    for blob in (gzip.compress(DATA), zstd(DATA)):
        for tail in (b"x", bytes(70_000) + b"x", b"PK\3\4"):
            with pytest.raises(MalformedInput, match="after the end"):
                inflate(blob + tail)


@pytest.mark.parametrize("pack", [gzip.compress, zstd])
def test_a_decompression_bomb_is_refused_before_it_unfolds(pack):
    blob = pack(bytes(30 << 20))
    with pytest.raises(MalformedInput, match="bomb"):
        inflate(blob, ratio=200, ratio_free=1 << 20)
    with pytest.raises(MalformedInput, match="more than 1048576 bytes"):
        inflate(blob, size=1 << 20)


def test_one_read_of_a_bomb_never_gives_more_than_a_piece():
    for blob in (gzip.compress(bytes(30 << 20)), zstd(bytes(30 << 20))):
        layer = open_layer(io.BytesIO(blob))
        assert max(map(len, iter(partial(layer.read, 1 << 30), b""))) <= 512 << 10


def test_more_gzip_members_than_the_limit_are_refused():
    with pytest.raises(MalformedInput, match="more than 10 gzip members"):
        inflate(gzip.compress(b"a") * 11, members=10)


def test_a_zstd_window_over_the_limit_is_refused():
    # frame header: no content size, window descriptor for 2 GiB; then one raw block, the last
    blob = b"\x28\xb5\x2f\xfd\x00" + bytes([21 << 3]) + b"\x09\0\0a"
    with pytest.raises(MalformedInput, match="broken zstd"):
        inflate(blob)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([b"\x1f\x8b\x08\0", b"\x28\xb5\x2f\xfd", b""]))
def test_any_bytes_are_read_or_refused_and_nothing_else(tail, magic):
    try:
        inflate(magic + tail)
    except MalformedInput as error:
        assert "layer x" in str(error)  # noqa: PT017 - either is right
