"""A file that somebody still writes, read behind the writer."""

import threading
import time
from pathlib import Path

import pytest

from proxy import growing
from proxy.growing import GrowingFile, Stalled


def test_bytes_are_read_as_they_come_and_end_at_the_full_size(tmp_path: Path) -> None:
    partial, data = tmp_path / "partial", bytes(range(256)) * 4096
    partial.touch()

    def write() -> None:
        with partial.open("ab", buffering=0) as out:
            for at in range(0, len(data), 100_000):
                out.write(data[at : at + 100_000])
                time.sleep(0.002)

    writer = threading.Thread(target=write)
    writer.start()
    with GrowingFile(partial, tmp_path / "final", len(data)) as stream:
        pieces = list(iter(lambda: stream.read(64_000), b""))
    writer.join()
    assert b"".join(pieces) == data
    assert max(map(len, pieces)) <= 64_000


def test_a_file_that_was_renamed_already_is_read_at_its_new_place(tmp_path: Path) -> None:
    (tmp_path / "final").write_bytes(b"whole")
    with GrowingFile(tmp_path / "partial", tmp_path / "final", 5) as stream:
        assert (stream.read(), stream.read()) == (b"whole", b"")


def test_a_rename_while_it_is_read_is_not_noticed(tmp_path: Path) -> None:
    partial = tmp_path / "partial"
    partial.write_bytes(b"whole")
    with GrowingFile(partial, tmp_path / "final", 5) as stream:
        assert stream.read(2) == b"wh"
        partial.rename(tmp_path / "final")
        assert (stream.read(), stream.read()) == (b"ole", b"")


def test_a_writer_that_gave_up_ends_the_reader_at_once(tmp_path: Path) -> None:
    partial = tmp_path / "partial"
    partial.write_bytes(b"half")
    with GrowingFile(partial, tmp_path / "final", 8) as stream:
        assert stream.read() == b"half"
        partial.unlink()
        with pytest.raises(Stalled):
            stream.read()


def test_a_writer_that_is_slow_is_waited_for_only_so_long_in_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(growing, "MAX_WAIT", 0.05)
    partial = tmp_path / "partial"
    partial.write_bytes(b"half")
    begin = time.monotonic()
    with GrowingFile(partial, tmp_path / "final", 8) as stream:
        assert stream.read() == b"half"
        with pytest.raises(Stalled):
            stream.read()
        partial.write_bytes(b"half-")
        assert stream.read() == b"-"
        with pytest.raises(Stalled):
            stream.read()
    assert time.monotonic() - begin < 1
