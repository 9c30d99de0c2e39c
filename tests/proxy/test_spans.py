"""Contents that lie in files of the cache."""

import os
from pathlib import Path

import pytest

from proxy import spans
from proxy.engine.tar import Span
from proxy.errors import MalformedInput
from proxy.spans import SpanReader, read_span


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_many_spans_of_many_files_are_read_with_few_files_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spans, "MAX_OPEN", 4)
    monkeypatch.setattr(spans, "CHUNK", 3)
    for number in range(10):
        (tmp_path / str(number)).write_bytes(bytes([number]) * 10)
    before = open_files()
    with SpanReader(str(tmp_path)) as reader:
        for turn in range(3):
            for number in range(10):
                assert reader.read(Span(str(number), turn, 7)) == bytes([number]) * 7
                assert open_files() <= before + 4
        pieces = list(reader.chunks(Span("1", 0, 10)))
    assert [len(piece) for piece in pieces] == [3, 3, 3, 1]
    assert open_files() == before


def test_a_file_that_is_too_short_is_named(tmp_path: Path) -> None:
    (tmp_path / "short").write_bytes(b"12345")
    assert read_span(str(tmp_path), Span("short", 1, 4)) == b"2345"
    assert read_span(str(tmp_path), Span("short", 9, 0)) == b""
    with pytest.raises(MalformedInput, match=r"^short: shorter than its index says"):
        read_span(str(tmp_path), Span("short", 1, 5))


def test_files_are_closed_when_the_block_ends_with_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(os.urandom(4))
    before = open_files()
    with pytest.raises(MalformedInput), SpanReader(str(tmp_path)) as reader:
        reader.read(Span("file", 0, 5))
    assert open_files() == before
