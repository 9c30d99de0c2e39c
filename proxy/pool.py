"""A bounded pool of worker processes for engine jobs.

Owns starting, feeding, limiting and replacing workers. The event loop never parses an image: every job that touches
content from outside runs here. A worker that dies (killed by a limit, crashed by a hostile image) fails its own job
with ResourceExhausted and is replaced; a job past its wall-clock limit is killed. Workers are started on demand, each
with its limits, and are replaced after `JOBS_PER_WORKER` jobs so that no leak lasts. Jobs that somebody waits for go
before those done ahead of need (`lanes`).
"""

import asyncio
import contextlib
import json
import os
import sys
from collections import Counter
from dataclasses import dataclass
from typing import Any

from proxy.errors import ERRORS, AdmendError, MalformedInput, ResourceExhausted, UpstreamRefused
from proxy.lanes import Places
from proxy.worker import parse_length, render_frame

JOBS_PER_WORKER = 500
# mallopt(3): one arena, and what is freed goes back at once; together 10 MiB less at the peak, for no measurable time
ALLOCATION = {"MALLOC_ARENA_MAX": "1", "MALLOC_TRIM_THRESHOLD_": "1048576", "MALLOC_MMAP_THRESHOLD_": "1048576"}
START_SECONDS = 30.0
END_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """Limits of one worker (`memory`, bytes of address space) and of one job (seconds of CPU and of the clock)."""

    memory: int = 1 << 30
    cpu_seconds: int = 120
    wall_seconds: float = 300.0


class _Worker:
    """One process and its pipes."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.jobs = 0
        self.affinity = ""

    async def ask(self, request: bytes) -> Any:
        """Send a frame and return the parsed answer; raises EOFError when the process is gone."""
        assert self.process.stdin is not None  # noqa: S101 - pipes were asked for
        self.process.stdin.write(request)
        await self.process.stdin.drain()
        return await self.read()

    async def read(self) -> Any:
        """Return the next frame's document."""
        assert self.process.stdout is not None  # noqa: S101 - pipes were asked for
        header = await self.process.stdout.readexactly(4)
        return json.loads(await self.process.stdout.readexactly(parse_length(header)))

    async def stop(self) -> int:
        """End the process and return its exit status; one that is ending by itself keeps its own."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_SECONDS if self.process.stdout and self.process.stdout.at_eof() else 0):
                await self.process.wait()
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
        status = await self.process.wait()
        if self.process.stdin is not None:  # a request that it never read: nobody else asks what became of the pipe
            self.process.stdin.close()
            with contextlib.suppress(ConnectionError):
                await self.process.stdin.wait_closed()
        return status


class WorkerPool:
    """Runs jobs by name in at most `size` worker processes."""

    def __init__(self, size: int, limits: PoolLimits | None = None) -> None:
        self._limits = limits or PoolLimits()
        self._places = Places(size)
        self._idle: list[_Worker] = []
        self._all: set[_Worker] = set()
        self.queued = 0
        self.started = 0  # workers
        self.ended = Counter[str]()  # workers, by why
        self.jobs = Counter[tuple[str, str]]()  # by name and what became of them

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of the workers that live now (for memory measurements)."""
        return tuple(worker.process.pid for worker in self._all)

    async def run(self, job: str, *, affinity: str = "", **arguments: Any) -> Any:
        """Run one job and return its JSON result.

        Args:
            job: a name in `proxy.jobs.JOBS`.
            affinity: jobs with the same text prefer the same worker, which may still hold what they share.
            arguments: the job's own, as JSON types.

        Raises:
            AdmendError: whatever the job raised, as the same class; ResourceExhausted when its worker died.
        """
        request = render_frame({"job": job, "arguments": arguments, "cpu_seconds": self._limits.cpu_seconds})
        self.queued += 1
        try:
            async with self._places.place():
                worker = self._take(affinity) or await self._start()
                result = await self._run_on(worker, job, request, affinity)
                self.jobs[job, "done"] += 1
                return result
        except AdmendError:
            self.jobs[job, "failed"] += 1
            raise
        finally:
            self.queued -= 1

    async def warm(self, count: int) -> None:
        """Start workers ahead of the first job until `count` live; jobs that come meanwhile start none of their own."""
        await asyncio.gather(*(self._start_idle(count) for _ in range(count)))

    async def _start_idle(self, count: int) -> None:
        async with self._places.place():
            if len(self._all) < count:
                self._idle.append(await self._start())

    async def close(self) -> None:
        """End every worker."""
        await asyncio.gather(*(worker.stop() for worker in tuple(self._all)))
        self._all.clear()
        self._idle.clear()

    async def _run_on(self, worker: _Worker, job: str, request: bytes, affinity: str) -> Any:
        healthy = False
        try:
            async with asyncio.timeout(self._limits.wall_seconds):
                answer = await worker.ask(request)
            healthy = True
        except TimeoutError:
            self.ended["timeout"] += 1
            message = f"the job {job} took more than {self._limits.wall_seconds:.0f} s and was ended"
            raise ResourceExhausted(f"{message}; raise workers.wall_seconds if the image is to be trusted") from None
        except (EOFError, ConnectionError):
            status = await worker.stop()
            self.ended["died"] += 1
            raise ResourceExhausted(
                f"the worker of the job {job} died ({_death(status)}); only this image is affected"
            ) from None
        except (ValueError, MalformedInput) as error:
            self.ended["nonsense"] += 1
            raise ResourceExhausted(f"the worker of the job {job} answered nonsense: {error}") from error
        finally:
            worker.jobs += 1
            worker.affinity = affinity
            if healthy and worker.jobs < JOBS_PER_WORKER:
                self._idle.append(worker)
            else:
                self.ended["age"] += healthy
                await self._discard(worker)
        return _result(answer)

    def _take(self, affinity: str) -> _Worker | None:
        if not self._idle:
            return None
        for at, worker in enumerate(self._idle):
            if affinity and worker.affinity == affinity:
                return self._idle.pop(at)
        return self._idle.pop(0)

    async def _start(self) -> _Worker:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-m", "proxy.worker", str(self._limits.memory)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=1 << 20,
            process_group=0,  # Ctrl-C is for the command, which ends its workers
            env={**os.environ, **ALLOCATION},
        )
        worker = _Worker(process)
        self._all.add(worker)
        self.started += 1
        try:
            async with asyncio.timeout(START_SECONDS):
                await worker.read()
        except (TimeoutError, EOFError, ValueError) as error:
            self.ended["start"] += 1
            await self._discard(worker)
            raise ResourceExhausted("a worker process could not be started; see standard error") from error
        return worker

    async def _discard(self, worker: _Worker) -> None:
        self._all.discard(worker)
        await worker.stop()


def _death(status: int) -> str:
    return f"signal {-status}" if status < 0 else f"exit status {status}"


def _result(answer: Any) -> Any:
    if not isinstance(answer, dict):
        raise ResourceExhausted("a worker's answer is no object")
    if "error" not in answer:
        return answer.get("result")
    kind = ERRORS.get(str(answer["error"]), AdmendError)
    message = str(answer.get("message", ""))[:4096]
    if kind is UpstreamRefused:
        raise UpstreamRefused(message, status=0)
    raise kind(message)
