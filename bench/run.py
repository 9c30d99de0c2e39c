"""`make bench`: first sight, repeated resolves, many at once, sources and memory, and the same upgrade by apt-get.

Owns the order of measurements. Prints a table and writes the same figures to bench/results.json. Ends 0 when all was
measured, whether or not the aims were reached; 1 when something could not be measured, with the reason.
"""

import json
import os
import platform
import statistics
import time
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from typing import Any

import images
import peer
from admissions import measure_admissions
from measure import (
    Start,
    measure_burst,
    measure_first,
    measure_memory,
    measure_refresh,
    measure_repeated,
    named,
)
from needs import FOLDER, REPOSITORY, check_machine
from report import render_table
from servers import start_archive, start_upstream
from subject import Subject

from proxy.files import writing

RESULTS = REPOSITORY / "bench" / "results.json"
APT_RUNS = 3
LARGE_RUNS = 3


def main() -> None:
    """Measure everything and report."""
    archive = check_machine()
    FOLDER.mkdir(parents=True, exist_ok=True)
    begin = time.monotonic()
    with ExitStack() as stack:
        port = start_archive(stack, archive)
        sizes = images.prepare(archive, port)
        say("apt-get upgrade in a chroot")
        peer.fill_archive()
        apt = [peer.upgrade() for _ in range(APT_RUNS)]
        unsafe = peer.upgrade("--option=Dpkg::Options::=--force-unsafe-io")
        plain, shaped = start_upstream(stack)
        results: dict[str, Any] = {"machine": describe_machine(), "images": {}}
        for name in (images.DISTROLESS, images.MINBASE):
            figures = measure_image((plain, shaped), port, name)
            figures["layer_bytes"] = asdict(sizes[name])
            results["images"][name] = figures
        results |= measure_load((plain, shaped), port, sizes)
        say("admissions: a burst of new images, then a steady load")
        results["admissions"] = measure_admissions(partial(Subject, (plain, shaped), port), plain)
    results["apt"] = {
        "median_ms": round(statistics.median(run.milliseconds for run in apt), 1),
        "all_ms": [round(run.milliseconds, 1) for run in apt],
        "unsafe_io_ms": round(unsafe.milliseconds, 1),
        "moved": {name: list(pair) for name, pair in sorted(apt[0].moved.items())},
    }
    results["seconds"] = round(time.monotonic() - begin, 1)
    with writing(RESULTS) as out:
        out.write(json.dumps(results, indent=2).encode() + b"\n")
    print(render_table(results))


def measure_image(hosts: tuple[str, str], archive_port: int, name: str) -> dict[str, Any]:
    """Return all figures of one image; `hosts` are the plain and the shaped upstream."""
    plain, shaped = hosts
    start = partial(Subject, hosts, archive_port)
    say(f"{name}: memory")
    memory = {"cold": measure_memory(start, named(plain, name), warm=False)}
    memory["warm"] = measure_memory(start, named(plain, name), warm=True)
    say(f"{name}: first sight")
    first = measure_first(start, named(plain, name), small=named(plain))
    fresh = measure_first(start, named(plain, name), small=None)
    slow = measure_first(start, named(shaped, name), small=named(plain))
    say(f"{name}: repeated")
    repeated = measure_again(start, hosts, name)
    return {
        "outcome": first.answer["outcome"],
        "first_sight": first.render(),
        "first_sight_of_a_new_process": fresh.render(),
        "first_sight_shaped": slow.render(),
        "memory_mib": {key: peak.render() for key, peak in memory.items()},
        "upgrades": first.answer["upgrades"],
        "skipped": first.answer["skipped"],
        **repeated,
    }


def measure_load(hosts: tuple[str, str], archive_port: int, sizes: dict[str, images.Sizes]) -> dict[str, Any]:
    """Return the figures of the large image, of eight images at once, and of the refresh of sources."""
    plain = hosts[0]
    start = partial(Subject, hosts, archive_port)
    say(f"{images.LARGE}: memory, first sight, repeated")
    large, small = named(plain, images.LARGE), named(plain)
    memory = measure_memory(start, large, warm=True)
    first = measure_first(start, large, small=small, repetitions=LARGE_RUNS)
    with start(warm=True) as subject:
        subject.resolve(large)
        repeated = measure_repeated(subject, large, always=False)
    figures: dict[str, Any] = {
        "large": {
            "layer_bytes": asdict(sizes[images.LARGE]),
            "first_sight": first.render(),
            "memory_mib": memory.render(),
            "repeat_cached": repeated.render(),
        }
    }
    say(f"{images.MINBASE}: first sight after another image with its packages")
    other = named(plain, images.APART[0])
    known = measure_first(start, named(plain, images.MINBASE), small=other, repetitions=LARGE_RUNS)
    figures["known"] = known.render()
    for key, group in (("sharing", images.SHARING), ("apart", images.APART)):
        say(f"eight images at once, {key}")
        burst = measure_burst(start, [named(plain, name) for name in group], small=small)
        figures[key] = {"layer_bytes": asdict(sizes[group[0]]), **burst.render()}
    say("refresh of sources")
    return {"load": figures, "refresh": measure_refresh(start, named(plain, images.MINBASE))}


def measure_again(start: Start, hosts: tuple[str, str], name: str) -> dict[str, Any]:
    """Return the figures of repeated resolves: tag cached, upstream asked again, the same behind the slow line."""
    plain, shaped = named(hosts[0], name), named(hosts[1], name)
    with start(warm=True) as subject:
        subject.resolve(plain)
        subject.resolve(shaped)
        return {
            "repeat_cached": measure_repeated(subject, plain, always=False).render(),
            "repeat_asked": measure_repeated(subject, plain, always=True).render(),
            "repeat_asked_shaped": measure_repeated(subject, shaped, always=True, count=100).render(),
        }


def describe_machine() -> dict[str, Any]:
    """Return what the figures depend on besides admend."""
    return {
        "admend": version("admend"),
        "python": platform.python_version(),
        "cpus": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 2),
        "architecture": platform.machine(),
        "kernel": platform.release(),
    }


def say(text: str) -> None:
    """Say what is being measured."""
    print(f"bench: {text} ...", flush=True)


if __name__ == "__main__":
    main()
