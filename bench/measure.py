"""What is measured of the proxy: first sight, repeated resolves, memory.

Owns the order of starts and resolves in each measurement, and the arithmetic. Every first sight is a new process with
an empty mirror and empty caches but for the verified indexes; before the clock starts it has seen another small image
of the same sources, which needs no upgrade.
"""

import math
import os
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Protocol

from images import SMALL
from memory import MemorySampler, Peak
from subject import Answer, Subject

from proxy.phases import PHASES

REPETITIONS = 5
REPEATS = 500


@dataclass(frozen=True, slots=True)
class FirstSight:
    """Milliseconds: the median, all repetitions, the phases of the median run; and that run's answer."""

    median: float
    all: tuple[float, ...]
    phases: dict[str, float]
    answer: dict[str, object]

    def render(self) -> dict[str, object]:
        """Return JSON types, without the answer."""
        return {"median_ms": self.median, "all_ms": self.all, "phases_ms": self.phases}


@dataclass(frozen=True, slots=True)
class Repeated:
    """Milliseconds of many resolves of one image."""

    median: float
    p99: float
    count: int

    def render(self) -> dict[str, object]:
        """Return JSON types."""
        return asdict(self)


class Start(Protocol):
    """Makes a proxy; `warm` says whether verified indexes are in its cache."""

    def __call__(self, *, warm: bool) -> Subject:
        """Return the proxy, not started."""


def measure_first(start: Start, image: str, *, small: str | None, repetitions: int = REPETITIONS) -> FirstSight:
    """Measure the first sight of `image` in `repetitions` new proxies.

    Args:
        start: makes a proxy.
        image: the reference.
        small: an image of the same sources that is seen before; None measures a process that has seen nothing.
        repetitions: how many.
    """
    answers: list[Answer] = []
    for _ in range(repetitions):
        with start(warm=True) as subject:
            if small is not None:
                subject.resolve(small)
            os.sync()
            answers.append(subject.resolve(image))
    answers.sort(key=lambda answer: answer.milliseconds)
    middle = answers[len(answers) // 2]
    phases = {name: round(middle.document["phases"].get(name, 0.0), 1) for name in PHASES}
    phases["rest"] = round(middle.milliseconds - sum(phases.values()), 1)
    times = tuple(round(answer.milliseconds, 1) for answer in answers)
    return FirstSight(round(middle.milliseconds, 1), times, phases, middle.document)


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


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that `share` of the sorted values do not exceed."""
    return values[math.ceil(share * len(values)) - 1]


def named(host: str, image: str = SMALL) -> str:
    """Return an image's reference at an upstream."""
    return f"{host}/{image}"
