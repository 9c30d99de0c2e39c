"""Peak memory of a process and all its descendants, the largest sum over one instant; and the CPU time they used.

Owns reading /proc. PSS counts a page that n processes share as one n-th in each; RSS counts it whole in each, so the
true figure for a machine that runs nothing else lies between the two sums.
Specification: proc(5), `/proc/pid/smaps_rollup`.
"""

import contextlib
import os
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

PROC = Path("/proc")
PAUSE = 0.01  # seconds between two samples
SCAN = 20  # samples between two looks for new processes


@dataclass(frozen=True, slots=True)
class Peak:
    """Mebibytes: the largest sums of PSS and RSS, the processes at the peak of PSS, and how many samples there were."""

    pss: float
    rss: float
    processes: tuple[float, ...]
    samples: int

    def render(self) -> dict[str, object]:
        """Return JSON types."""
        return asdict(self)


class MemorySampler:
    """Samples while the block runs; `peak` has the result afterwards."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.peak = Peak(0.0, 0.0, (), 0)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        pids: list[int] = []
        count = 0
        while not self._stop.is_set():
            if count % SCAN == 0:
                pids = tree(self._pid)
            samples = [sample for pid in pids if (sample := read_memory(pid)) is not None]
            count += 1
            pss, rss = sum(s[0] for s in samples) / 1024, sum(s[1] for s in samples) / 1024
            old = self.peak
            shown = tuple(round(s[0] / 1024, 1) for s in samples) if pss > old.pss else old.processes
            self.peak = Peak(max(pss, old.pss), max(rss, old.rss), shown, count)
            time.sleep(PAUSE)


def tree(pid: int) -> list[int]:
    """Return a process and its living descendants."""
    found = [pid]
    for parent in found:
        for task in _names(PROC / str(parent) / "task"):
            with contextlib.suppress(OSError):
                text = (PROC / str(parent) / "task" / task / "children").read_text()
                found += [int(child) for child in text.split() if int(child) not in found]
    return found


def read_memory(pid: int) -> tuple[int, int] | None:
    """Return PSS and RSS in KiB; None for a process that is gone."""
    try:
        text = (PROC / str(pid) / "smaps_rollup").read_text()
    except OSError:
        return None
    fields = {key: int(rest.split()[0]) for key, _, rest in (line.partition(":") for line in text.splitlines()[1:])}
    return fields["Pss"], fields["Rss"]


def read_tree(pid: int) -> tuple[float, float]:
    """Return PSS and RSS in MiB, each summed over a process and its living descendants."""
    samples = [sample for one in tree(pid) if (sample := read_memory(one)) is not None]
    return sum(pss for pss, _ in samples) / 1024, sum(rss for _, rss in samples) / 1024


def read_cpu(pid: int) -> tuple[float, float]:
    """Return the CPU seconds that a process, and all its living descendants, have used so far."""
    own, *rest = (_cpu(one) for one in tree(pid))
    return own, sum(rest)


def _cpu(pid: int) -> float:
    try:
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _names(folder: Path) -> list[str]:
    try:
        return [path.name for path in folder.iterdir()]
    except OSError:
        return []
