"""A two-way stream of bytes, whatever carries it."""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from aiohttp import WSMsgType, web

CHUNK: Final = 64 * 1024
CLOSE_SECONDS: Final = 5.0


class Pipe(Protocol):
    async def read(self) -> bytes:
        """What has come, at least one byte; empty at the end, also of a broken connection."""
        ...

    async def write(self, data: bytes) -> None:
        """Waits while the peer does not read. Raises ConnectionError when it is gone."""
        ...

    async def close(self) -> None: ...


class StreamPipe:
    """A bare connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def read(self) -> bytes:
        try:
            return await self._reader.read(CHUNK)
        except OSError:
            return b""

    async def write(self, data: bytes) -> None:
        if self._writer.is_closing():
            raise ConnectionResetError("the peer has closed the connection")
        self._writer.write(data)
        await self._writer.drain()

    def abort(self) -> None:
        """Hang up at once; what was written and not sent is lost."""
        self._writer.transport.abort()

    async def close(self) -> None:
        """What was written is sent first, unless the peer reads nothing for `CLOSE_SECONDS`."""
        self._writer.close()
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._writer.wait_closed()
        except OSError:  # among them TimeoutError
            self.abort()


class WebSocketPipe:
    """A tunnel: the bytes are split over binary messages anywhere."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self._socket = socket

    async def read(self) -> bytes:
        while True:
            message = await self._socket.receive()
            if message.type is not WSMsgType.BINARY:
                return b""
            if message.data:
                return bytes(message.data)

    async def write(self, data: bytes) -> None:
        await self._socket.send_bytes(data)

    async def close(self) -> None:
        await self._socket.close()
