"""What is measured of the proxy: first sight, repeated resolves, many at once, refresh of sources, memory.

Owns the order of starts and resolves in each measurement, and the arithmetic. Every first sight is a new process with
an empty mirror and empty caches but for the verified indexes; before the clock starts it has seen another small image
of the same sources, which needs no upgrade.
"""

import math
import os
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Protocol

from images import SMALL
from memory import MemorySampler, Peak, read_cpu
from subject import Answer, Subject

from proxy.phases import PHASES

REPETITIONS = 5
REPEATS = 500
BURSTS = 2  # of which the better one counts
REFRESHES = 50
AT_ONCE = 0.001  # seconds after which sources are asked again


@dataclass(frozen=True, slots=True)
class FirstSight:
    """Milliseconds: the median, all repetitions, the phases of the median run; and that run's answer.

    `cpu` is the least CPU time of any repetition, in seconds, of the proxy and of its workers.
    """

    median: float
    all: tuple[float, ...]
    phases: dict[str, float]
    cpu: tuple[float, float]
    answer: dict[str, object]

    def render(self) -> dict[str, object]:
        """Return JSON types, without the answer."""
        return {"median_ms": self.median, "all_ms": self.all, "phases_ms": self.phases, "cpu_s": self.cpu}


@dataclass(frozen=True, slots=True)
class Repeated:
    """Milliseconds of many resolves of one image."""

    median: float
    p99: float
    count: int

    def render(self) -> dict[str, object]:
        """Return JSON types."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Burst:
    """First sights of several images at once: milliseconds until the last was there, and of each, sorted."""

    last: float
    each: tuple[float, ...]
    peak: Peak

    def render(self) -> dict[str, object]:
        """Return JSON types."""
        return {"last_ms": self.last, "each_ms": self.each, "memory_mib": self.peak.render()}


class Start(Protocol):
    """Makes a proxy; `warm` says whether verified indexes are in its cache."""

    def __call__(self, *, warm: bool, refresh_seconds: float = ...) -> Subject:
        """Return the proxy, not started."""


def measure_first(start: Start, image: str, *, small: str | None, repetitions: int = REPETITIONS) -> FirstSight:
    """Measure the first sight of `image` in `repetitions` new proxies.

    Args:
        start: makes a proxy.
        image: the reference.
        small: an image that is seen before; None measures a process that has seen nothing.
        repetitions: how many.
    """
    answers: list[Answer] = []
    used: list[tuple[float, float]] = []
    for _ in range(repetitions):
        with start(warm=True) as subject:
            if small is not None:
                subject.resolve(small)
            os.sync()
            before = read_cpu(subject.pid)
            answers.append(subject.resolve(image))
            used.append(subtract(read_cpu(subject.pid), before))
    answers.sort(key=lambda answer: answer.milliseconds)
    middle = answers[len(answers) // 2]
    phases = {name: round(middle.document["phases"].get(name, 0.0), 1) for name in PHASES}
    phases["rest"] = round(middle.milliseconds - sum(phases.values()), 1)
    times = tuple(round(answer.milliseconds, 1) for answer in answers)
    return FirstSight(round(middle.milliseconds, 1), times, phases, min(used, key=sum), middle.document)


def subtract(after: tuple[float, float], before: tuple[float, float]) -> tuple[float, float]:
    """Return what was used between two readings."""
    return round(after[0] - before[0], 2), round(after[1] - before[1], 2)


def measure_repeated(subject: Subject, image: str, *, always: bool, count: int = REPEATS) -> Repeated:
    """Measure resolves of an image that is patched already, one after the other on one connection."""
    times = sorted(subject.resolve(image, always=always).milliseconds for _ in range(count))
    return Repeated(round(statistics.median(times), 2), round(percentile(times, 0.99), 2), count)


def measure_memory(start: Start, image: str, *, warm: bool) -> Peak:
    """Return the peak during a first sight; without `warm` the indexes are fetched and verified in it."""
    with start(warm=warm) as subject:
        with MemorySampler(subject.pid) as sampler:
            subject.resolve(image)
        if not warm:
            subject.keep_sources()
    return sampler.peak


def measure_burst(start: Start, images: Sequence[str], *, small: str) -> Burst:
    """Measure the first sights of `images` when all are asked for at once; their memory in another new proxy."""
    with start(warm=True) as subject, ThreadPoolExecutor(len(images)) as pool:
        subject.resolve(small)
        with MemorySampler(subject.pid) as sampler:
            list(pool.map(subject.resolve, images))
    last, each = min(_ask_at_once(start, images, small) for _ in range(BURSTS))
    return Burst(round(last, 1), each, sampler.peak)


def _ask_at_once(start: Start, images: Sequence[str], small: str) -> tuple[float, tuple[float, ...]]:
    """Return the milliseconds until the last image was there, and those of each, sorted."""
    with start(warm=True) as subject, ThreadPoolExecutor(len(images)) as pool:
        subject.resolve(small)
        os.sync()
        begin = time.perf_counter()
        answers = list(pool.map(subject.resolve, images))
        last = 1000 * (time.perf_counter() - begin)
    return last, tuple(sorted(round(answer.milliseconds, 1) for answer in answers))


def measure_refresh(start: Start, image: str) -> dict[str, object]:
    """Measure the refresh of all sources of an image: fetched and verified, and asked again without a change."""
    with start(warm=False) as subject:
        cold = subject.resolve(image).document["phases"]["sources"]
    with start(warm=True, refresh_seconds=AT_ONCE) as subject:
        subject.resolve(image)
        again = [subject.resolve(image).milliseconds for _ in range(REFRESHES)]
    return {
        "cold_ms": round(cold, 1),
        "warm_ms": round(statistics.median(again), 1),
        "warm_max_ms": round(max(again), 1),
    }


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that `share` of the sorted values do not exceed."""
    return values[math.ceil(share * len(values)) - 1]


def named(host: str, image: str = SMALL) -> str:
    """Return an image's reference at an upstream."""
    return f"{host}/{image}"
