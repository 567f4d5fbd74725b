"""Remote commands over WebSocket: each message begins with the number of its channel.

`v4.channel.k8s.io` has numbers as bytes, `v4.base64.channel.k8s.io` as digits before base64 text, and
`v5.channel.k8s.io` adds the message `255 <channel>`: that stream has ended.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from typing import Final

import msgspec
from aiohttp import WSMessage, WSMsgType, web

from serving.api.meta import JsonObject
from serving.local.streaming.session import (
    ERROR,
    RESIZE,
    STDERR,
    STDIN,
    STDOUT,
    SizeParser,
    TerminalSize,
    Wanted,
)

V5: Final = "v5.channel.k8s.io"
V4: Final = "v4.channel.k8s.io"
V4_BASE64: Final = "v4.base64.channel.k8s.io"
PROTOCOLS: Final = (V5, V4, V4_BASE64)
_END_OF_STREAM: Final = 255
_WRITE: Final = 32 * 1024
_UNREAD: Final = 64
"""Messages of stdin that wait for the program."""
_KEEP_ALIVE_SECONDS: Final = 5.0


class ChannelSession:
    """Implements RemoteSession."""

    def __init__(self, socket: web.WebSocketResponse, wanted: Wanted) -> None:
        self.wanted = wanted
        self._socket = socket
        self._base64 = socket.ws_protocol == V4_BASE64
        self._stdin: asyncio.Queue[bytes] = asyncio.Queue(_UNREAD)
        self._sizes: asyncio.Queue[TerminalSize | None] = asyncio.Queue()
        self._stdin_ended = False
        self._running: asyncio.Task[None] | None = None

    async def run(self) -> None:
        self._running = asyncio.current_task()
        try:
            await self._greet()
            async for message in self._socket:
                channel, data = self._decode(message)
                if channel == _END_OF_STREAM and self._socket.ws_protocol == V5:
                    if data == bytes([STDIN]):
                        await self._end_stdin()
                elif channel == STDIN and data:
                    await self._put(data)
                elif channel == RESIZE:
                    for size in SizeParser().feed(data):
                        self._sizes.put_nowait(size)
        except ConnectionError:
            return
        finally:
            self._sizes.put_nowait(None)

    async def _greet(self) -> None:
        """An empty message says that the connection is established."""
        first = STDOUT if self.wanted.stdout else STDERR if self.wanted.stderr else ERROR
        await self._send(first, b"")

    async def _put(self, data: bytes) -> None:
        """Also while the program does not read, the client must see that we live."""
        while not self._stdin_ended:
            try:
                async with asyncio.timeout(_KEEP_ALIVE_SECONDS):
                    await self._stdin.put(data)
                    return
            except TimeoutError:
                await self._socket.pong()

    async def _end_stdin(self) -> None:
        if not self._stdin_ended:
            await self._put(b"")
            self._stdin_ended = True

    def _decode(self, message: WSMessage) -> tuple[int, bytes]:
        """Channel and content; a channel of -1 means nothing."""
        if message.type is WSMsgType.BINARY and not self._base64 and message.data:
            return message.data[0], bytes(message.data[1:])
        if message.type is WSMsgType.TEXT and self._base64 and message.data[:1].isdecimal():
            try:
                return int(message.data[0]), base64.b64decode(message.data[1:], validate=True)
            except (binascii.Error, ValueError):
                return -1, b""
        return -1, b""

    async def _send(self, channel: int, data: bytes) -> None:
        if self._base64:
            await self._socket.send_str(f"{channel}{base64.b64encode(data).decode()}")
        else:
            await self._socket.send_bytes(bytes([channel]) + data)

    async def opened(self) -> None:
        """At once: a WebSocket has all its channels."""

    @property
    def response(self) -> web.StreamResponse:
        return self._socket

    async def read_stdin(self) -> bytes:
        if self._stdin_ended and self._stdin.empty():
            return b""
        return await self._stdin.get()

    async def read_size(self) -> TerminalSize | None:
        return await self._sizes.get()

    async def write(self, channel: int, data: bytes) -> None:
        for start in range(0, len(data), _WRITE):
            await self._send(channel, data[start : start + _WRITE])

    async def finish(self, status: JsonObject) -> None:
        """The client's answer to the close is awaited, and what it sends until then is thrown away: a connection
        that is closed with input unread takes from the client what it has not read."""
        try:
            await self._send(ERROR, msgspec.json.encode(status))
        except ConnectionError:
            return
        if self._running is not None:
            self._running.cancel()  # while it reads, closing would not
            await asyncio.wait((self._running,))
        await self.close()

    async def close(self) -> None:
        if not self._socket.closed:
            await self._socket.close()
