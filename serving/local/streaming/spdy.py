"""The server's side of a SPDY/3.1 connection: streams that the client opens, over any pipe.

There is no flow control between streams, as in every Kubernetes client: a stream that is not read holds up the
others once `_BUFFERED` bytes wait in it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

from serving.local.streaming import spdy_frames
from serving.local.streaming.pipe import Pipe
from serving.local.streaming.spdy_frames import Data, Frame, GoAway, Ping, RstStream, SynReply, SynStream

_BUFFERED: Final = 1 << 20
_WRITE: Final = 32 * 1024
"""Bytes of a data frame that we send; other streams come in between."""
PING_SECONDS: Final = 5.0
_LAST_PING: Final = 1 << 30
MAX_STREAMS: Final = 1000
"""Open at the same time on one connection; more are refused."""


class SpdyStream:
    """One stream. Reading and writing end independently."""

    def __init__(self, connection: SpdyConnection, identifier: int, headers: Mapping[str, str]) -> None:
        self.identifier = identifier
        self.headers = headers
        self._connection = connection
        self._pieces: deque[bytes] = deque()
        self._size = 0
        self._ended = False
        self._finished = False
        self._discarding = False
        self._changed = asyncio.Condition()

    async def read(self) -> bytes:
        """At least one byte; empty when the client has ended its side, or the connection is gone."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._pieces or self._ended)
            if not self._pieces:
                return b""
            piece = self._pieces.popleft()
            self._size -= len(piece)
            self._changed.notify_all()
            return piece

    async def write(self, data: bytes) -> None:
        """Raises ConnectionError when the client is gone or has reset the stream."""
        for start in range(0, len(data), _WRITE):
            if self._finished:
                raise ConnectionResetError("the stream is closed")
            await self._connection.send(Data(stream=self.identifier, payload=data[start : start + _WRITE]))

    async def finish(self) -> None:
        """Nothing more will be written."""
        if not self._finished:
            self._finished = True
            await self._connection.send(Data(stream=self.identifier, payload=b"", last=True))

    async def discard(self) -> None:
        """Throw away what the client sends from now on."""
        self._discarding = True
        async with self._changed:
            self._pieces.clear()
            self._size = 0
            self._changed.notify_all()

    async def take(self, payload: bytes, *, last: bool) -> None:
        """For the connection: the client sent this. Waits while too much is unread."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._size < _BUFFERED or self._ended or self._discarding)
            if payload and not self._discarding:
                self._pieces.append(payload)
                self._size += len(payload)
            self._ended = self._ended or last
            self._changed.notify_all()

    async def end(self) -> None:
        """For the connection: the client has reset the stream, or is gone."""
        self._finished = True
        async with self._changed:
            self._ended = True
            self._changed.notify_all()

    @property
    def over(self) -> bool:
        """Both sides have ended."""
        return self._finished and self._ended


class SpdyConnection:
    def __init__(self, pipe: Pipe, *, ping_seconds: float = PING_SECONDS) -> None:
        self._pipe = pipe
        self._ping_seconds = ping_seconds
        self._encoder = spdy_frames.Encoder()
        self._sending = asyncio.Lock()
        self._streams: dict[int, SpdyStream] = {}
        self._last_stream = 0
        self._leaving = False

    async def run(self, accept: Callable[[SpdyStream], bool]) -> None:
        """Read until the client is gone. `accept` is called for each new stream and says whether it is wanted."""
        try:
            async with asyncio.TaskGroup() as group:
                reading = group.create_task(self._read(accept))
                pinging = group.create_task(self._ping())
                reading.add_done_callback(lambda _: pinging.cancel())
                pinging.add_done_callback(lambda _: reading.cancel())
        finally:
            for stream in list(self._streams.values()):
                await stream.end()
            self._streams.clear()

    async def _read(self, accept: Callable[[SpdyStream], bool]) -> None:
        decoder = spdy_frames.Decoder()
        try:
            while data := await self._pipe.read():
                for frame in decoder.feed(data):
                    await self._receive(frame, accept)
                if self._leaving and not self._streams:
                    return
        except (ConnectionError, spdy_frames.ProtocolError):
            return

    async def _ping(self) -> None:
        """Until the client is gone: while a stream is not read, nothing else shows that."""
        identifier = 0
        try:
            while True:
                await asyncio.sleep(self._ping_seconds)
                identifier = identifier % _LAST_PING + 2
                await self.send(Ping(identifier=identifier))
        except ConnectionError:
            return

    async def _receive(self, frame: Frame, accept: Callable[[SpdyStream], bool]) -> None:
        stream = self._streams.get(frame.stream)
        match frame:
            case SynStream():
                await self._open(frame, accept)
            case Data():
                if stream is not None:
                    await stream.take(frame.payload, last=frame.last)
                    self._forget_if_over(stream)
            case RstStream():
                if stream is not None:
                    self._streams.pop(frame.stream)
                    await stream.end()
            case Ping():
                if frame.identifier % 2:  # the client's own; even ones answer ours
                    await self.send(frame)
            case GoAway():
                self._leaving = True

    async def _open(self, frame: SynStream, accept: Callable[[SpdyStream], bool]) -> None:
        if frame.stream <= self._last_stream or not frame.stream % 2:
            raise spdy_frames.ProtocolError(f"stream {frame.stream} after {self._last_stream}")
        self._last_stream = frame.stream
        stream = SpdyStream(self, frame.stream, frame.headers)
        if self._leaving or len(self._streams) >= MAX_STREAMS or not accept(stream):
            await self.send(RstStream(stream=frame.stream, status=spdy_frames.REFUSED_STREAM))
            return
        self._streams[frame.stream] = stream
        if frame.last:
            await stream.take(b"", last=True)
        await self.send(SynReply(stream=frame.stream, headers={}))

    async def send(self, frame: Frame) -> None:
        """Raises ConnectionError."""
        async with self._sending:
            await self._pipe.write(self._encoder.encode(frame))
        stream = self._streams.get(frame.stream)
        if stream is not None:
            self._forget_if_over(stream)

    def _forget_if_over(self, stream: SpdyStream) -> None:
        if stream.over:
            self._streams.pop(stream.identifier, None)

    async def close(self) -> None:
        """Tell the client, and hang up. What was sent before arrives."""
        try:
            await self.send(GoAway(last_stream=self._last_stream))
        except ConnectionError:
            pass
        await self._pipe.close()
