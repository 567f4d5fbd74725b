"""Takes a connection over from the HTTP server, for protocols that it does not know."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from aiohttp import web

from serving.local.streaming.pipe import StreamPipe


class _ReadControl(asyncio.Transport):
    """What a reader may do with the connection. A TLS connection that is gone cannot be told to go on reading, and
    the reader, which still has something to read, does not know that it is gone."""

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__()
        self._transport = transport

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def pause_reading(self) -> None:
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()


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
    protocol.connection_made(_ReadControl(transport))
    transport.set_protocol(protocol)
    if not transport.is_reading():
        transport.resume_reading()
    return StreamPipe(reader, asyncio.StreamWriter(transport, protocol, reader, loop))


def switching_protocols(headers: Mapping[str, str]) -> bytes:
    """The head of an answer after which the connection speaks another protocol."""
    status = HTTPStatus.SWITCHING_PROTOCOLS
    lines = [f"HTTP/1.1 {status.value} {status.phrase}", *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()
