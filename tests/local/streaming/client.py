"""A client of SPDY, over memory, a bare connection or a WebSocket tunnel."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from aiohttp import ClientWebSocketResponse, WSMsgType

from serving.local.streaming.pipe import Pipe, StreamPipe
from serving.local.streaming.spdy_frames import (
    Data,
    Decoder,
    Encoder,
    Frame,
    GoAway,
    Ping,
    RstStream,
    SynReply,
    SynStream,
)

SECONDS = 20.0


class MemoryPipe:
    """One end of a pair."""

    def __init__(self) -> None:
        self.incoming: asyncio.Queue[bytes] = asyncio.Queue()
        self.other: MemoryPipe
        self.closed = False

    async def read(self) -> bytes:
        return b"" if self.closed else await self.incoming.get()

    async def write(self, data: bytes) -> None:
        if self.closed or self.other.closed:
            raise ConnectionResetError
        await asyncio.sleep(0)
        self.other.incoming.put_nowait(data)

    async def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.incoming.put_nowait(b"")
            self.other.incoming.put_nowait(b"")


def memory_pipes() -> tuple[MemoryPipe, MemoryPipe]:
    one, two = MemoryPipe(), MemoryPipe()
    one.other, two.other = two, one
    return one, two


class TunnelPipe:
    """The client's side of a WebSocket tunnel; splits what it sends anywhere."""

    def __init__(self, socket: ClientWebSocketResponse) -> None:
        self._socket = socket

    async def read(self) -> bytes:
        message = await self._socket.receive()
        return bytes(message.data) if message.type is WSMsgType.BINARY else b""

    async def write(self, data: bytes) -> None:
        for start in range(0, len(data), 7_001):
            await self._socket.send_bytes(data[start : start + 7_001])

    async def close(self) -> None:
        await self._socket.close()


class ClientStream:
    def __init__(self) -> None:
        self.replied = asyncio.Event()
        self.refused = asyncio.Event()
        self.data = bytearray()
        self.ended = asyncio.Event()


class SpdyClient:
    """Use as a context manager: it reads in the background."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self._encoder = Encoder()
        self._next = 1
        self._streams: dict[int, ClientStream] = {}
        self.pings: list[int] = []
        self.gone = asyncio.Event()

    async def __aenter__(self) -> SpdyClient:
        self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._pipe.close()
        self._reading.cancel()
        await asyncio.wait([self._reading])

    async def send(self, frame: Frame) -> None:
        await self._pipe.write(self._encoder.encode(frame))

    async def open(self, headers: Mapping[str, str], *, last: bool = False) -> int:
        identifier, self._next = self._next, self._next + 2
        self._streams[identifier] = ClientStream()
        await self.send(SynStream(stream=identifier, headers=headers, last=last))
        return identifier

    async def opened(self, headers: Mapping[str, str]) -> int:
        identifier = await self.open(headers)
        async with asyncio.timeout(SECONDS):
            await self[identifier].replied.wait()
        return identifier

    def __getitem__(self, identifier: int) -> ClientStream:
        return self._streams[identifier]

    async def write(self, identifier: int, data: bytes, *, last: bool = False) -> None:
        await self.send(Data(stream=identifier, payload=data, last=last))

    async def all_of(self, identifier: int) -> bytes:
        async with asyncio.timeout(SECONDS):
            await self[identifier].ended.wait()
        return bytes(self[identifier].data)

    async def _read(self) -> None:
        decoder = Decoder()
        while data := await self._pipe.read():
            for frame in decoder.feed(data):
                self._take(frame)
        self.gone.set()

    def _take(self, frame: Frame) -> None:
        match frame:
            case SynReply():
                self[frame.stream].replied.set()
            case RstStream():
                self[frame.stream].refused.set()
            case Data():
                self[frame.stream].data += frame.payload
                if frame.last:
                    self[frame.stream].ended.set()
            case Ping():
                self.pings.append(frame.identifier)
            case GoAway():
                self.gone.set()


async def upgrade_to_spdy(
    host: str, port: int, target: str, *, protocol: str, method: str = "POST"
) -> tuple[int, bytes, StreamPipe]:
    """Status, head of the answer and what follows it."""
    reader, writer = await asyncio.open_connection(host, port)
    lines = [
        f"{method} {target} HTTP/1.1",
        f"Host: {host}:{port}",
        "Connection: Upgrade",
        "Upgrade: SPDY/3.1",
        "Content-Length: 0",
        "X-Stream-Protocol-Version: unheard-of.k8s.io",
        f"X-Stream-Protocol-Version: {protocol}",
    ]
    writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
    async with asyncio.timeout(SECONDS):
        head = await reader.readuntil(b"\r\n\r\n")
    return int(head.split()[1]), head, StreamPipe(reader, writer)
