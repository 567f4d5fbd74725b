"""Takes a connection over from the HTTP server, for protocols that it does not know."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from http import HTTPStatus

from aiohttp import web

from serving.local.streaming.pipe import StreamPipe


class _Taken(asyncio.StreamReaderProtocol):
    """The HTTP server still has to learn of the end: it counts its connections."""

    def __init__(self, reader: asyncio.StreamReader, former: asyncio.BaseProtocol) -> None:
        super().__init__(reader)
        self._former = former

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._former.connection_lost(exc)


def hijack(request: web.Request) -> StreamPipe:
    """From now on the connection is the caller's, who must close the pipe, and whose answer to the request goes
    nowhere. Only for requests without a body whose client waits for an answer before it sends more.

    Raises ConnectionResetError when the client is gone already.
    """
    transport = request.transport
    if transport is None or transport.is_closing():
        raise ConnectionResetError("the client has closed the connection")
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(loop=loop)
    protocol = _Taken(reader, transport.get_protocol())
    protocol.connection_made(transport)
    transport.set_protocol(protocol)
    if not transport.is_reading():
        transport.resume_reading()
    return StreamPipe(reader, asyncio.StreamWriter(transport, protocol, reader, loop))


def switching_protocols(headers: Mapping[str, str]) -> bytes:
    """The head of an answer after which the connection speaks another protocol."""
    status = HTTPStatus.SWITCHING_PROTOCOLS
    lines = [f"HTTP/1.1 {status.value} {status.phrase}", *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()
