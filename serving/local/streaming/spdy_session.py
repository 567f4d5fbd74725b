"""Remote commands over SPDY: one stream each for errors, stdin, stdout, stderr and sizes of the terminal.

Only `v4.channel.k8s.io` is spoken, which every client since Kubernetes 1.4 offers.
"""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec
from aiohttp import web

from serving.api.meta import JsonObject
from serving.local.streaming.session import STDERR, STDOUT, SizeParser, TerminalSize, Wanted
from serving.local.streaming.spdy import SpdyConnection, SpdyStream

PROTOCOL: Final = "v4.channel.k8s.io"
_STREAMS_SECONDS: Final = 30.0
_HANG_UP_SECONDS: Final = 5.0
_TYPE: Final = "streamtype"


class SpdySession:
    """Implements RemoteSession."""

    def __init__(self, connection: SpdyConnection, wanted: Wanted) -> None:
        self.wanted = wanted
        self._connection = connection
        self._streams: dict[str, SpdyStream] = {}
        self._expected = {"error"} | {
            name
            for name, asked in (
                ("stdin", wanted.stdin),
                ("stdout", wanted.stdout),
                ("stderr", wanted.stderr and not wanted.tty),
                ("resize", wanted.tty),
            )
            if asked
        }
        self._complete = asyncio.Event()
        self._gone = asyncio.Event()
        self._parser = SizeParser()
        self._sizes: list[TerminalSize] = []

    async def run(self) -> None:
        try:
            await self._connection.run(self._accept)
        finally:
            self._gone.set()

    async def opened(self) -> None:
        """Wait until the client has opened every stream, or is gone. Raises TimeoutError."""
        async with asyncio.timeout(_STREAMS_SECONDS):
            gone = asyncio.create_task(self._gone.wait())
            complete = asyncio.create_task(self._complete.wait())
            try:
                await asyncio.wait((gone, complete), return_when=asyncio.FIRST_COMPLETED)
            finally:
                gone.cancel()
                complete.cancel()

    def _accept(self, stream: SpdyStream) -> bool:
        kind = stream.headers.get(_TYPE, "")
        if kind not in self._expected or kind in self._streams:
            return False
        self._streams[kind] = stream
        if len(self._streams) == len(self._expected):
            self._complete.set()
        return True

    @property
    def response(self) -> web.StreamResponse:
        return web.Response()

    async def read_stdin(self) -> bytes:
        stream = self._streams.get("stdin")
        return await stream.read() if stream is not None else b""

    async def read_size(self) -> TerminalSize | None:
        stream = self._streams.get("resize")
        while not self._sizes:
            data = await stream.read() if stream is not None else b""
            if not data:
                return None
            self._sizes = self._parser.feed(data)
        return self._sizes.pop(0)

    async def write(self, channel: int, data: bytes) -> None:
        name = {STDOUT: "stdout", STDERR: "stderr"}[channel]
        stream = self._streams.get(name)
        if stream is None:
            raise ConnectionResetError(f"the client has no {name}")
        await stream.write(data)

    async def finish(self, status: JsonObject) -> None:
        """The client hangs up when it has read all: to do so first might take from it what it has not read."""
        try:
            for name, stream in self._streams.items():
                await stream.discard()
                if name != "error":
                    await stream.finish()
            error = self._streams.get("error")
            if error is not None:
                await error.write(msgspec.json.encode(status))
                await error.finish()
            async with asyncio.timeout(_HANG_UP_SECONDS):
                await self._gone.wait()
        except (ConnectionError, TimeoutError):
            return

    async def close(self) -> None:
        await self._connection.close()
