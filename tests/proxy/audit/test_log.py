"""Audit lines to standard output: a reader that does not read, one that went away, and the whole command."""

import asyncio
import json
import os
import re
import time

import pytest

from proxy.audit import AuditEvent, AuditLog
from proxy.audit.log import StreamSink
from tests.proxy.audit.events import make_event


@pytest.fixture
def pipe():
    reader, writer = os.pipe()
    yield reader, writer
    for descriptor in (reader, writer):
        try:
            os.close(descriptor)
        except OSError:  # a test closed it
            continue


async def test_a_blocked_pipe_never_blocks_the_event_loop(pipe, caplog: pytest.LogCaptureFixture) -> None:
    reader, writer = pipe
    sink = StreamSink(writer)
    sink._limit = 128 << 10
    log = AuditLog(sinks=[sink])
    slowest = 0.0
    for number in range(2000):  # far more than a pipe's 64 KiB and the queue together
        start = time.perf_counter()
        log.write(make_event(number))
        slowest = max(slowest, time.perf_counter() - start)
    assert slowest < 0.1
    assert sink.dropped > 0

    def read_all() -> bytes:
        found = b""
        while piece := os.read(reader, 1 << 20):
            found += piece
        return found

    sink._drain_seconds = 5.0
    reading = asyncio.create_task(asyncio.to_thread(read_all))
    await log.close()
    os.close(writer)
    lines = (await reading).splitlines()
    assert len(lines) == sink.written == 2000 - sink.dropped
    seen = [int(AuditEvent.model_validate_json(line).uid.removeprefix("uid-")) for line in lines]  # every line is whole
    assert seen == sorted(set(seen))
    said = [int(count) for count in re.findall(r"audit lines to stdout: (\d+) dropped", caplog.text)]
    assert sum(said) == sink.dropped


async def test_the_end_waits_for_a_reader_for_a_limited_time(pipe) -> None:
    _, writer = pipe
    sink = StreamSink(writer)
    sink._drain_seconds = 0.2
    log = AuditLog(sinks=[sink])
    for number in range(500):
        log.write(make_event(number))
    start = time.monotonic()
    await log.close()
    assert time.monotonic() - start < 2.0
    assert sink.dropped == 500 - sink.written


async def test_lines_after_the_end_are_dropped_and_counted(pipe) -> None:
    sink = StreamSink(pipe[1])
    log = AuditLog(sinks=[sink])
    await log.close()
    log.write(make_event())
    await log.close()
    assert (sink.written, sink.dropped) == (0, 1)


async def test_a_reader_that_went_away_is_said_once(pipe, caplog: pytest.LogCaptureFixture) -> None:
    reader, writer = pipe
    os.close(reader)
    sink = StreamSink(writer)
    sink._drain_seconds = 0.1
    log = AuditLog(sinks=[sink])
    log.write(make_event())
    await log.close()
    assert sink.dropped == 1
    assert "standard output: Broken pipe" in caplog.text


def test_a_line_says_its_version_and_kind() -> None:
    line = json.loads(make_event().model_dump_json())
    assert (line["schema_version"], line["event"]) == (1, "admission")
