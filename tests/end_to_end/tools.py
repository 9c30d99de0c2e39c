"""Real tools and servers, run beside the event loop that serves them."""

import asyncio
import contextlib
import json
import os
import signal
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from tests.support import require_tool

SECONDS = 120.0


class ToolFailed(AssertionError):
    """A tool ended with an error; the text is all that it said."""


async def run(*command: str | Path, env: Mapping[str, str] | None = None) -> str:
    """Run a tool and return its standard output; raises ToolFailed."""
    name, *arguments = (str(word) for word in command)
    process = await asyncio.create_subprocess_exec(
        require_tool(name),
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **(env or {})},
    )
    try:
        async with asyncio.timeout(SECONDS):
            out, err = await process.communicate()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        raise
    if process.returncode:
        raise ToolFailed(f"{' '.join(map(str, command))} ended {process.returncode}\n{out.decode()}{err.decode()}")
    return out.decode()


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@asynccontextmanager
async def docker_registry(folder: Path) -> AsyncIterator[str]:
    """Run docker-registry on loopback, its content in `folder`; gives its `127.0.0.1:PORT`."""
    folder.mkdir(parents=True)  # noqa: ASYNC240 - a test waits for nothing else here
    host = f"127.0.0.1:{free_port()}"
    config = folder / "config.yml"
    storage = {"delete": {"enabled": True}, "filesystem": {"rootdirectory": str(folder / "data")}}
    settings = {"version": "0.1", "log": {"level": "error"}, "http": {"addr": host}, "storage": storage}
    config.write_text(json.dumps(settings))  # JSON is YAML
    process = await asyncio.create_subprocess_exec(
        require_tool("docker-registry"),
        "serve",
        str(config),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        env={**os.environ, "OTEL_TRACES_EXPORTER": "none"},
    )
    try:
        await answering(f"http://{host}/v2/", process)
        yield host
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
        await process.wait()


async def answering(url: str, process: asyncio.subprocess.Process) -> None:
    """Wait until a server that is starting answers."""
    async with asyncio.timeout(20), httpx.AsyncClient(trust_env=False, verify=False) as client:
        while True:
            assert process.returncode is None, f"it ended with {process.returncode}"
            with contextlib.suppress(httpx.TransportError):
                if (await client.get(url)).is_success:
                    return
            await asyncio.sleep(0.02)
