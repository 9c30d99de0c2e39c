"""The bench's own processes: started, waited for, and ended by their ids.

Owns nothing of what they do. What they print goes to a log file beside the results.
"""

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from needs import REPOSITORY

START_SECONDS = 30.0
END_SECONDS = 10.0


@contextlib.contextmanager
def running(command: Sequence[str | Path], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command while the block runs."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as out:
        process = subprocess.Popen([str(part) for part in command], cwd=REPOSITORY, stdout=out, stderr=out)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def python(script: str, *arguments: str | Path) -> list[str | Path]:
    """Return the command that runs one of the bench's scripts."""
    return [sys.executable, REPOSITORY / "bench" / script, *arguments]


def wait_until(ready: Callable[[], bool], what: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until `ready` holds; raises RuntimeError with the log's end when the process ended or took too long."""
    end = time.monotonic() + START_SECONDS
    while not ready():
        if process.poll() is not None or time.monotonic() > end:
            tail = log.read_text(errors="replace")[-2000:]
            raise RuntimeError(f"{what} did not start; the end of {log}:\n{tail}")
        time.sleep(0.01)


def listening(port: int) -> bool:
    """Say whether somebody listens on a loopback port."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
        return True
    return False


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
