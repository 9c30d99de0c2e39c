"""The API server's side of the bench: admission reviews over HTTPS, sent when they are due and not when there is time.

Owns the arrival schedule, the connections and the time each review took. A review's time runs from the moment at which
it was due, so one that had to wait behind a slow one shows it (no coordinated omission). Connections are kept, the
latest used first, as many as the API server keeps idle; one more is opened whenever none is free. Nothing of an answer
is looked at while time is taken.
"""

import asyncio
import contextlib
import gc
import math
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass

IDLE = 25  # connections that are kept, as client-go does for webhooks
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True, slots=True)
class Call:
    """One review: milliseconds from when it was due, the status, the body; `late` is the caller's own lateness."""

    milliseconds: float
    late: float
    status: int
    body: bytes


class Caller:
    """Sends bodies to a webhook on loopback.

    Args:
        port: where it listens.
        path: with the query.
        context: checks its certificate.
        deadline: seconds after which an answer counts as none (status 0), as for the API server.
    """

    def __init__(self, port: int, path: str, context: ssl.SSLContext, deadline: float) -> None:
        self._port, self._path, self._context, self._deadline = port, path, context, deadline
        self._idle: list[Connection] = []
        self.opened = 0

    def call_all(self, bodies: Sequence[bytes], seconds: float) -> tuple[Call, ...]:
        """Send all bodies, evenly over `seconds`, and return what became of each."""
        gc.collect()
        gc.disable()  # a pause here would be counted as the webhook's
        try:
            return asyncio.run(self._call_all(bodies, seconds))
        finally:
            gc.enable()

    async def _call_all(self, bodies: Sequence[bytes], seconds: float) -> tuple[Call, ...]:
        self._idle = []
        begin = time.perf_counter() + 0.1
        calls = []
        for number, body in enumerate(bodies):
            due = begin + number * seconds / len(bodies)
            if (ahead := due - time.perf_counter()) > 0:
                await asyncio.sleep(ahead)
            calls.append(asyncio.create_task(self._call(body, due)))
        done = await asyncio.gather(*calls)
        for _, writer in self._idle:
            writer.close()
        return tuple(done)

    async def _call(self, body: bytes, due: float) -> Call:
        late = time.perf_counter() - due
        try:
            async with asyncio.timeout_at(asyncio.get_running_loop().time() + self._deadline - late):
                status, answer = await self._exchange(body)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, ValueError) as error:
            status, answer = 0, f"{type(error).__name__}: {error}".encode()
        return Call(1000 * (time.perf_counter() - due), late, status, answer)

    async def _exchange(self, body: bytes) -> tuple[int, bytes]:
        reader, writer = self._idle.pop() if self._idle else await self._open()
        kept = False
        try:
            head = f"POST {self._path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            writer.write(f"{head}Accept: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
            status_line, *fields = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
            named = {name.lower(): value for name, _, value in (line.partition(b":") for line in fields)}
            answer = await reader.readexactly(int(named[b"content-length"]))
            kept = len(self._idle) < IDLE and named.get(b"connection", b"").strip().lower() != b"close"
        finally:
            if kept:
                self._idle.append((reader, writer))
            else:
                with contextlib.suppress(OSError):
                    writer.close()
        return int(status_line.split()[1]), answer

    async def _open(self) -> Connection:
        self.opened += 1
        return await asyncio.open_connection("127.0.0.1", self._port, ssl=self._context, server_hostname="localhost")


def share(values: Sequence[float], part: float) -> float:
    """Return the smallest value that `part` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)]
