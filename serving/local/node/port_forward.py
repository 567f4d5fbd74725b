"""`kubectl port-forward`: connections to a pod's own loopback, which nobody else can reach."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Final

from serving.local.streaming.spdy import SpdyConnection, SpdyStream

log = logging.getLogger(__name__)

Connect = Callable[[int], Awaitable[socket.socket]]
"""A connected, non-blocking socket to a port of the pod. Raises OSError."""
CHUNK: Final = 32 * 1024
_TYPE, _PORT, _REQUEST = "streamtype", "port", "requestid"


class Forwarder:
    """One client's connection. Each connection that it forwards is a pair of streams: data and error."""

    def __init__(self, connection: SpdyConnection, connect: Connect) -> None:
        self._connection = connection
        self._connect = connect
        self._tasks: set[asyncio.Task[None]] = set()
        self._group = asyncio.TaskGroup()
        self._halves: dict[str, dict[str, SpdyStream]] = {}

    async def run(self) -> None:
        """Until the client is gone."""
        async with self._group:
            await self._connection.run(self._accept)
            for task in self._tasks:
                task.cancel()

    def _accept(self, stream: SpdyStream) -> bool:
        kind = stream.headers.get(_TYPE, "")
        if kind not in ("data", "error") or port_of(stream.headers.get(_PORT, "")) is None:
            return False
        # Clients before Kubernetes 1.3 give no number: their error stream comes just before the data stream.
        before = stream.identifier - (0 if kind == "error" else 2)
        pair = self._halves.setdefault(stream.headers.get(_REQUEST) or f"stream {before}", {})
        if kind in pair:
            return False
        pair[kind] = stream
        if len(pair) == 2:
            self._halves = {key: halves for key, halves in self._halves.items() if halves is not pair}
            task = self._group.create_task(self._forward(pair["data"], pair["error"]))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return True

    async def _forward(self, data: SpdyStream, error: SpdyStream) -> None:
        port = port_of(data.headers[_PORT]) or 0
        try:
            try:
                target = await self._connect(port)
            except OSError as problem:
                await error.write(refusal(port, problem).encode())
                return
            with target:
                await exchange(target, data.read, data.write)
        except ConnectionError:
            return
        finally:
            await _end(data, error)


async def _end(*streams: SpdyStream) -> None:
    for stream in streams:
        try:
            await stream.discard()
            await stream.finish()
        except ConnectionError:
            return


async def exchange(
    target: socket.socket, read: Callable[[], Awaitable[bytes]], write: Callable[[bytes], Awaitable[None]]
) -> None:
    """Until the pod's side ends; the client's end is passed on and the answer awaited. Raises ConnectionError."""
    loop = asyncio.get_running_loop()

    async def to_pod() -> None:
        while data := await read():
            await loop.sock_sendall(target, data)
        target.shutdown(socket.SHUT_WR)

    async with asyncio.TaskGroup() as group:
        sending = group.create_task(_quietly(to_pod()))
        try:
            while data := await loop.sock_recv(target, CHUNK):
                await write(data)
        except OSError as error:
            log.debug("a forwarded connection ended: %s", error)
        sending.cancel()


async def _quietly(work: Awaitable[None]) -> None:
    """A pod that stops reading may still answer: that ends a connection, not the failure to write to it."""
    try:
        await work
    except OSError as error:
        log.debug("a forwarded connection takes no more: %s", error)


def port_of(text: str) -> int | None:
    """1–65535, or None."""
    return int(text) if text.isdecimal() and 0 < int(text[:6]) < 65536 and len(text) < 6 else None


def refusal(port: int, problem: OSError) -> str:
    why = os.strerror(problem.errno) if problem.errno else str(problem) or type(problem).__name__
    return f"failed to connect to localhost:{port} inside the pod: {why.lower()}"
