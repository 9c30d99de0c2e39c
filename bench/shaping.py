"""A slow line in front of a server: every connection and request waits, and answers share one bandwidth.

Owns bytes only; knows no HTTP. A connection costs one round trip before its first byte, and so does whatever the
client sends after having listened.
"""

import asyncio
import contextlib
import time

PIECE = 64 << 10


class Line:
    """Forwards connections to `port` on loopback.

    Args:
        port: where the server listens.
        bandwidth: bytes per second towards the client, for all connections together.
        latency: seconds per round trip.
    """

    def __init__(self, port: int, bandwidth: float, latency: float) -> None:
        self._port, self._bandwidth, self._latency = port, bandwidth, latency
        self._free_at = 0.0

    async def serve(self) -> int:
        """Start listening; returns the port."""
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await asyncio.sleep(self._latency)
            there, to_server = await asyncio.open_connection("127.0.0.1", self._port)
            up = asyncio.ensure_future(self._up(reader, to_server))
            try:
                await self._down(there, writer)
            finally:
                up.cancel()
                to_server.close()
        writer.close()

    async def _up(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while piece := await reader.read(PIECE):
                await asyncio.sleep(self._latency)
                writer.write(piece)
                await writer.drain()
            writer.write_eof()

    async def _down(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(PIECE):
            begin = max(self._free_at, time.monotonic())
            self._free_at = begin + len(piece) / self._bandwidth
            if (ahead := self._free_at - time.monotonic()) > 0.002:
                await asyncio.sleep(ahead)
            writer.write(piece)
            await writer.drain()
