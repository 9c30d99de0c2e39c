"""The command `admend audit`, asked of lines that a webhook wrote, among whatever else a log holds."""

import gzip
import io
import json
import os
import subprocess
import sys
import tempfile
import tracemalloc
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.api import Outcome, SkipInfo, UpgradeInfo
from proxy.audit.event import AuditEvent, render_event
from proxy.audit.filters import Filter, parse_when
from proxy.audit.pieces import join_pieces
from proxy.audit.reading import MAX_LINE, Passed, read_events
from proxy.audit.table import HEAD, Summary, render_rows
from proxy.cli import main
from proxy.errors import UsageError
from tests.proxy.audit.events import START, make_event
from tests.webhook.table import NOW, make_admitter, read_request
from tests.webhook.table import TableResolver as Resolver
from webhook.review import parse_review

SSL = UpgradeInfo(package="libssl3", from_version="3.0.11-1", to_version="3.0.15-1", source="openssl")
PATCHED = "mirror.example/docker.io/library/nginx@sha256:" + "ab" * 32
EVENTS = (
    make_event(1, patched=PATCHED, upgrades_count=5, upgrades=(SSL,) * 4, fixed=("CVE-2026-1", "CVE-2026-2")),
    make_event(2, namespace="bank", outcome=Outcome.FAILED, verdict="deny", mode="enforce", reason="no answer"),
    make_event(
        3,
        user="jane@example.com",
        original="quay.io/org/tool:v2",
        outcome=Outcome.BLOCKED,
        verdict="would-deny",
        mode="audit",
        skipped=(SkipInfo(package="libc6", reason="held"),),
        reason="libc6: held",
        pod="job-",
    ),
    make_event(4, event="eviction", mode="restart", verdict="evicted", operation="EVICT", user=""),
)


def lines_of(events: Sequence[AuditEvent] = EVENTS) -> bytes:
    return b"".join(map(render_event, events))


def audit(capsys: pytest.CaptureFixture[str], *arguments: Any) -> tuple[int, str, str]:
    """Return exit code, standard output and standard error."""
    with pytest.raises(SystemExit) as ended:
        main(["audit", *map(str, arguments)])
    out, err = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return ended.value.code, out, err


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "audit.log"
    path.write_bytes(lines_of())
    return path


def test_each_line_says_who_what_when_and_why(capsys: pytest.CaptureFixture[str], log: Path) -> None:
    code, out, err = audit(capsys, log)
    assert (code, err) == (0, "")
    head, first, second, third, fourth = out.splitlines()
    assert tuple(head.split()) == HEAD
    assert first.split()[:3] == ["2026-11-22T12:00:01Z", "shop/web-1", "main"]
    assert "rewrite" in first
    assert "sha256:abababababab " in first
    assert "patched; libssl3 3.0.11-1 -> 3.0.15-1, " in first
    assert first.endswith(" and 2 more; fixes CVE-2026-1, CVE-2026-2")
    assert second.endswith("failed; no answer")
    assert "shop/job-*" in third
    assert fourth.split()[3:6] == ["-", "restart", "evicted"]


@pytest.mark.parametrize(
    ("arguments", "numbers"),
    [
        (["--namespace", "bank"], [2]),
        (["-n", "b*", "-n", "shop"], [1, 2, 3, 4]),
        (["--pod", "web-1"], [1]),
        (["--pod", "ReplicaSet/w?b", "--verdict", "deny"], [2]),
        (["--image", "quay.io/*"], [3]),
        (["--image", "*@sha256:abab*"], [1]),
        (["--user", "jane@*"], [3]),
        (["--mode", "restart"], [4]),
        (["--verdict", "*deny"], [2, 3]),
        (["--outcome", "failed", "--outcome", "blocked"], [2, 3]),
        (["--cve", "CVE-2026-2"], [1]),
        (["--package", "lib*"], [1, 3]),
        (["--since", "2026-11-22T12:00:02Z", "--until", "2026-11-22T13:00:04+01:00"], [2, 3]),
        (["--until", "2026-11-22"], []),
    ],
)
def test_only_what_is_asked_for_is_shown(
    capsys: pytest.CaptureFixture[str], log: Path, arguments: list[str], numbers: list[int]
) -> None:
    code, out, err = audit(capsys, log, "--json", *arguments)
    assert code == 0
    assert [json.loads(line)["uid"] for line in out.splitlines()] == [f"uid-{number}" for number in numbers]
    assert ("no audit line is as asked for; 4 others were read" in err) == (not numbers)


def test_json_gives_each_line_as_it_was_with_fields_of_a_newer_admend(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    line = json.loads(render_event(EVENTS[0])) | {"of_tomorrow": [1]}
    (tmp_path / "log").write_text(json.dumps(line) + "\n")
    code, out, _ = audit(capsys, tmp_path / "log", "--json")
    assert (code, json.loads(out)) == (0, line)


def test_summary_counts(capsys: pytest.CaptureFixture[str], log: Path) -> None:
    _, out, _ = audit(capsys, log, "--summary")
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert lines[0] == "4 audit lines from 2026-11-22T12:00:01+00:00 to 2026-11-22T12:00:04+00:00"
    assert {"verdict 1 deny (enforce)", "namespace 3 shop", "reason 1 no answer"} <= set(lines)
    assert lines[-1] == "1 packages were upgraded in images that pods got, 2 CVEs fixed"
    _, out, _ = audit(capsys, log, "--summary", "--json")
    assert json.loads(out)["outcome"] == {"patched": 2, "failed": 1, "blocked": 1}


def test_lines_are_found_in_the_logs_of_containers_and_among_others(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    one, two, three, four = lines_of().splitlines(keepends=True)
    docker = json.dumps({"log": three.decode(), "stream": "stdout", "time": "2026-11-22T12:00:03Z"}).encode() + b"\n"
    log = (
        b"[pod/admend-webhook-1/webhook] 2026-11-22T12:00:01Z " + one,
        b"2026-11-22 INFO certs: a certificate ends in 3 days\n",
        b'{"level": "info", "message": "JSON of somebody else"}\n',
        b"\xff\xfe{not JSON\n",
        b'{"log": "of somebody else", "stream": []}\n',
        b'{"log": ["of somebody else"], "stream": "stdout"}\n',
        b"2026-11-22T12:00:02Z stdout F " + two,
        docker,
        four.rstrip(b"\n"),
    )
    (tmp_path / "log").write_bytes(b"".join(log))
    code, out, err = audit(capsys, tmp_path / "log", "--json")
    assert code == 0
    assert [json.loads(line)["uid"] for line in out.splitlines()] == ["uid-1", "uid-2", "uid-3", "uid-4"]
    assert err == "admend: passed over, for they are no audit lines: 5\n"


def cut_by_cri(line: bytes, size: int) -> list[bytes]:
    """Return a line as containerd keeps it on a node."""
    pieces = [line.rstrip(b"\n")[at : at + size] for at in range(0, len(line) - 1, size)]
    marks = [b"P"] * (len(pieces) - 1) + [b"F"]
    return [b"2026-11-22T12:00:01.5Z stdout %s %s\n" % pair for pair in zip(marks, pieces, strict=True)]


def cut_by_docker(line: bytes, size: int) -> list[bytes]:
    """Return a line as Docker's json-file keeps it."""
    texts = [line[at : at + size].decode() for at in range(0, len(line), size)]
    return [json.dumps({"log": text, "stream": "stdout", "time": "x"}).encode() + b"\n" for text in texts]


@given(st.sampled_from([cut_by_cri, cut_by_docker]), st.integers(1, 2000), st.integers(0, 400))
def test_lines_that_a_runtime_cut_into_pieces_are_whole(cut: Any, size: int, fill: int) -> None:
    wanted = [render_event(make_event(number, reason="x" * fill * number)) for number in range(3)]
    other = b"2026-11-22T12:00:01.5Z stderr %s INFO something else\n"
    lines: list[bytes] = []
    for line in wanted:
        pieces = cut(line, size)
        lines += [pieces[0], other % b"P", *pieces[1:], other % b"F"]  # streams take turns
    whole = [line.rstrip(b"\n") for _, line in join_pieces(enumerate(lines, 1), MAX_LINE)]
    assert [line for line in whole if b"schema_version" in line] == [line.rstrip(b"\n") for line in wanted]
    assert len(whole) == 6


def test_pieces_without_end_take_no_more_memory_than_a_line_may_have(tmp_path: Path) -> None:
    piece = b"2026-11-22T12:00:01Z stdout P " + b'{"schema_version" "verdict"' * 2000 + b"\n"
    (tmp_path / "log").write_bytes(piece * 400 + lines_of())
    passed = Passed()
    tracemalloc.start()
    assert len(list(read_events([tmp_path / "log"], passed))) == len(EVENTS)
    assert tracemalloc.get_traced_memory()[1] < 4 * MAX_LINE
    tracemalloc.stop()
    assert passed.first == f"{tmp_path}/log:1: a line of more than {MAX_LINE} bytes"


def test_rotated_and_compressed_files_of_a_folder_come_in_the_order_of_time(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "audit.log").write_bytes(lines_of(EVENTS[3:]))
    (tmp_path / "audit.log.1").write_bytes(lines_of(EVENTS[1:3]))
    (tmp_path / "audit.log.2.gz").write_bytes(gzip.compress(lines_of(EVENTS[:1])))
    _, out, _ = audit(capsys, tmp_path, "--json")
    assert [json.loads(line)["uid"] for line in out.splitlines()] == ["uid-1", "uid-2", "uid-3", "uid-4"]


def test_what_cannot_be_read_is_counted_and_named_and_the_rest_is_shown(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    good = json.loads(render_event(EVENTS[0]))
    lines = [
        json.dumps(good),
        json.dumps(good)[:-30],
        json.dumps(good | {"time": "yesterday"}),
        json.dumps(good | {"schema_version": 2}),
        json.dumps(good | {"reason": "x" * (MAX_LINE + 5)}),
        json.dumps(good),
    ]
    path = tmp_path / "log"
    path.write_text("\n".join(lines) + "\n")
    code, out, err = audit(capsys, path)
    assert code == 1
    assert len(out.splitlines()) == 3
    assert "of a newer format, which only a newer admend reads: 1" in err
    assert f"cannot be read: 3, the first: {path}:2: an audit line that is cut off" in err


@pytest.mark.parametrize("damage", [lambda data: data[:-20], lambda data: data[:40] + b"\0" * 40 + data[80:]])
@pytest.mark.parametrize("form", ["--json", "--summary"])
def test_a_damaged_archive_is_named_and_other_files_are_shown(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, damage: Any, form: str
) -> None:
    (tmp_path / "log.1.gz").write_bytes(damage(gzip.compress(lines_of(EVENTS[:1]) * 20)))
    (tmp_path / "log").write_bytes(lines_of(EVENTS[3:]))
    code, out, err = audit(capsys, tmp_path, form)
    assert code == 1
    assert "log.1.gz: not a whole gzip file" in err
    assert "uid-4" in out if form == "--json" else "evicted" in out
    assert form != "--json" or all(json.loads(line) for line in out.splitlines())


@pytest.mark.parametrize(
    "change",
    [
        {"time": "0001-01-01T00:00:00+14:00"},
        {"time": "2026-11-22T12:00:00"},
        {"time": 1e400},
        {"platforms": {"\x1b[2J\x9b": "new"}},
        {"upgrades": "many"},
        {"milliseconds": -1},
    ],
)
@pytest.mark.parametrize("form", [[], ["--summary"], ["--since", "2026-01-01"]])
def test_a_hostile_line_is_counted_and_nothing_else(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, change: dict[str, Any], form: list[str]
) -> None:
    for name in ("one\x1b[31m", "two"):  # several files are put in order by the times of their lines
        (tmp_path / name).write_text(json.dumps(json.loads(render_event(EVENTS[0])) | change) + "\n")
        (tmp_path / f"{name}-good").write_bytes(lines_of(EVENTS[1:2]))
    code, out, err = audit(capsys, tmp_path, *form)
    assert code == 1
    assert "bank" in out
    assert "audit lines that cannot be read: 2, the first: " in err
    assert all(line.isprintable() for line in (out + err).splitlines())


@given(
    st.dictionaries(
        st.sampled_from(tuple(AuditEvent.model_fields)),
        st.none() | st.integers() | st.floats() | st.text() | st.datetimes().map(str) | st.lists(st.text()),
    )
)
def test_whatever_a_line_holds_nothing_fails(changes: dict[str, Any]) -> None:
    line = json.dumps(json.loads(render_event(EVENTS[0])) | changes).encode()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log"
        path.write_bytes(line)
        passed = Passed()
        events = [read.event for read in read_events([path, path], passed)]
    wanted = Filter(since=START, until=START + timedelta(days=1), image=["*a"], cve=["*"])
    summary = Summary()
    for event in events:
        wanted.takes(event)
        summary.add(event)
    assert all(row.isprintable() for row in [*render_rows(events), *summary.render()])
    assert len(events) + passed.damaged + passed.newer + passed.others == 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["/nowhere/audit.log"], "/nowhere/audit.log: there is no such file"),
        (["--since", "soon", "-"], "--since is a time"),
        (["--until", "999999w", "-"], "--until: before all time"),
        (["--colour", "-"], "unrecognized arguments: --colour"),
    ],
)
def test_what_is_asked_wrongly_is_said(capsys: pytest.CaptureFixture[str], arguments: list[str], says: str) -> None:
    code, out, err = audit(capsys, *arguments)
    assert (code, out) == (2, "")
    assert says in err


def test_terminals_are_not_told_what_to_do() -> None:
    event = make_event(reason="\x1b]0;owned\x07 \x1b[2J\nnext", original="a\u202eb", user="\r\x9b31m")
    rows = list(render_rows([event]))
    assert len(rows) == 2
    assert all(row.isprintable() for row in rows)


def test_ages_are_counted_from_now() -> None:
    assert parse_when("--since", "1d2h", START) == START - timedelta(hours=26)
    assert parse_when("--since", "2026-01-31", START) == datetime(2026, 1, 31, tzinfo=UTC)
    with pytest.raises(UsageError):
        parse_when("--since", "-2h", START)


def test_rows_from_a_pipe_are_shown_as_they_come() -> None:
    command = [sys.executable, "-m", "proxy.cli", "audit"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=False) as asked:
        assert asked.stdin is not None
        assert asked.stdout is not None
        asked.stdin.write(render_event(EVENTS[0]))
        asked.stdin.flush()
        assert asked.stdout.readline().startswith(b"TIME")
        assert b"shop/web-1" in asked.stdout.readline()  # the input is still open
        asked.stdin.close()
        assert asked.wait(20) == 0


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(lines_of() * 2000)
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "proxy.cli", "audit", str(tmp_path / "log")],
        stdout=write,
        stderr=subprocess.PIPE,
        check=False,
        timeout=60,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")


def test_memory_does_not_grow_with_the_log(tmp_path: Path) -> None:
    peaks = []
    for times in (50, 1500):
        (tmp_path / "log").write_bytes(lines_of() * times)
        tracemalloc.start()
        for _ in render_rows((read.event for read in read_events([tmp_path / "log"], Passed())), 1):
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + (256 << 10)


@pytest.fixture
async def written() -> str:
    """Return the lines that a webhook wrote about recorded admissions."""
    log = io.StringIO()
    admitter = make_admitter(Resolver(), log)
    for name in ("create-single-container", "create-replicaset-pod-init-sidecar-digest-refs"):
        await admitter.admit(parse_review(json.dumps(read_request(name)).encode()), 10.0)
    return log.getvalue()


def test_lines_of_a_real_webhook_are_read(tmp_path: Path, written: str) -> None:
    (tmp_path / "log").write_text(written)
    passed = Passed()
    found = list(read_events([tmp_path / "log"], passed))
    assert len(found) == len(written.splitlines()) > 1
    assert "".join(render_event(AuditEvent.model_validate(read.raw)).decode() for read in found) == written
    assert (passed.others, passed.damaged) == (0, 0)
    assert NOW.date().isoformat() in list(render_rows(read.event for read in found))[1]
