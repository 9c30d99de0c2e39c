"""Audit lines in a file: rotation, several writers, a disk that is full, a torn line."""

import asyncio
import fcntl
import json
import multiprocessing
import os
import re
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from proxy.audit import AuditConfig, AuditLog, open_audit
from proxy.audit.file import FileSink
from proxy.errors import ResourceExhausted
from tests.proxy.audit.events import make_event


def open_file(path: Path, **settings: object) -> AuditLog:
    return open_audit(AuditConfig.model_validate({"stdout": False, "file": {"path": path, **settings}}))


async def until(condition, seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.005)


def files_in(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def numbers(*files: Path) -> list[int]:
    return [
        int(json.loads(line)["uid"].removeprefix("uid-")) for file in files for line in file.read_text().splitlines()
    ]


async def test_each_event_is_one_line_and_close_waits_for_all(tmp_path: Path) -> None:
    log = open_file(tmp_path / "audit.jsonl")
    for number in range(2000):
        log.write(make_event(number))
    await log.close()
    assert numbers(tmp_path / "audit.jsonl") == list(range(2000))
    assert (log.sinks[0].written, log.sinks[0].dropped) == (2000, 0)
    assert (tmp_path / "audit.jsonl").stat().st_mode & 0o777 == 0o640


async def test_a_file_is_rotated_by_size_and_the_oldest_ones_go(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    (tmp_path / "audit.jsonl.3").write_text("left from a larger keep\n")
    log = open_file(path, max_bytes=64 << 10, keep=2)
    size = len(make_event(1000).model_dump_json()) + 1
    for number in range(1000, 1000 + 4 * (64 << 10) // size):
        log.write(make_event(number))
    await log.close()
    files = files_in(tmp_path)
    assert [file.name for file in files] == ["audit.jsonl", "audit.jsonl.1", "audit.jsonl.2"]
    assert all(file.stat().st_size <= 64 << 10 for file in files)
    kept = numbers(files[2], files[1], files[0])
    assert kept == list(range(kept[0], kept[-1] + 1))  # nothing between the files is lost
    assert kept[-1] == 1000 + 4 * (64 << 10) // size - 1


def write_many(path: str, first: int) -> None:
    async def run() -> None:
        log = open_file(Path(path), max_bytes=64 << 10, keep=1000)
        for number in range(first, first + 400):
            log.write(make_event(number, reason="x" * 300))
            if number % 20 == 0:
                await asyncio.sleep(0.001)
        await log.close()

    asyncio.run(run())


def test_processes_that_share_a_file_lose_and_tear_no_line(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    path = tmp_path / "audit.jsonl"
    workers = [context.Process(target=write_many, args=(str(path), 1000 * number)) for number in (1, 2, 3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert len(list(tmp_path.iterdir())) > 5
    expected = [1000 * process + number for process in (1, 2, 3) for number in range(400)]
    assert sorted(numbers(*tmp_path.iterdir())) == expected


async def test_a_torn_last_line_is_ended_before_the_next_one(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_text('{"torn": ')
    log = open_file(path)
    log.write(make_event(1))
    await log.close()
    torn, line = path.read_text().splitlines()
    assert torn == '{"torn": '
    assert json.loads(line)["uid"] == "uid-1"


@pytest.fixture
def file_limit() -> Iterator[Callable[[int], None]]:
    """Give a function that limits the size of files, beyond which writes fail (in part, like on a full disk)."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_a_write_that_breaks_off_tears_no_line_and_is_made_good(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, file_limit: Callable[[int], None]
) -> None:
    path = tmp_path / "audit.jsonl"
    log = open_file(path)
    sink: Any = log.sinks[0]
    sink._limit = 64 << 10
    file_limit(10_000)
    slowest = 0.0
    for number in range(1000):
        start = time.perf_counter()
        log.write(make_event(number))
        slowest = max(slowest, time.perf_counter() - start)
    assert slowest < 0.1
    await until(lambda: "File too large" in caplog.text)
    assert path.read_bytes()[-2:] in {b"", b"}\n"}
    assert sink.dropped > 0
    file_limit(resource.RLIM_INFINITY)
    await until(lambda: not sink.waiting)
    log.write(make_event(5000))
    await log.close()
    found = numbers(path)
    assert found == sorted(found)
    assert found[-1] == 5000
    assert len(found) == sink.written
    assert sink.written + sink.dropped == 1001
    assert re.search(r"audit lines to file: \d+ dropped", caplog.text)


async def test_a_full_disk_is_named_in_the_log_and_every_line_counted(caplog: pytest.LogCaptureFixture) -> None:
    log = open_file(Path("/dev/full"))
    sink: Any = log.sinks[0]
    sink._drain_seconds = 0.2
    for number in range(10):
        log.write(make_event(number))
    await log.close()
    assert (sink.written, sink.dropped) == (0, 10)
    assert "/dev/full: No space left on device" in caplog.text
    assert "10 dropped" in caplog.text


async def test_a_file_that_another_keeps_locked_does_not_hold_up_the_end(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    with path.open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        log = open_file(path)
        sink = log.sinks[0]
        sink._drain_seconds = 0.2
        log.write(make_event(1))
        start = time.monotonic()
        await log.close()
        assert time.monotonic() - start < 2.0
        assert (sink.written, sink.dropped) == (0, 1)


async def test_a_file_that_was_moved_away_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    log = open_file(path)
    log.write(make_event(1))
    await until(lambda: log.sinks[0].written == 1)
    path.rename(tmp_path / "moved")
    log.write(make_event(2))
    await log.close()
    assert (numbers(tmp_path / "moved"), numbers(path)) == ([1], [2])


async def test_a_folder_that_is_not_there_is_named_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ResourceExhausted, match=r"missing/audit\.jsonl: No such file.*audit\.file\.path"):
        open_file(tmp_path / "missing" / "audit.jsonl")


async def test_a_log_that_was_never_written_to_holds_nothing_open_after_its_end(tmp_path: Path) -> None:
    log = open_file(tmp_path / "audit.jsonl")
    sink = log.sinks[0]
    assert isinstance(sink, FileSink)
    descriptor = sink._descriptor
    await log.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
