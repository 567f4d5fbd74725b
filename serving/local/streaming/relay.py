"""Passes a request for an upgraded connection on to another server, and then every byte in both directions.

What the connection speaks is between the two ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from aiohttp import web

from serving.local.streaming.hijack import hijack
from serving.local.streaming.pipe import CHUNK, Pipe, StreamPipe

_MAX_BODY: Final = 1 << 20
_HEAD_SECONDS: Final = 30.0
_BODY_SECONDS: Final = 10.0
PASSED_ON: Final = (
    "Connection",
    "Upgrade",
    "Sec-WebSocket-Key",
    "Sec-WebSocket-Version",
    "Sec-WebSocket-Protocol",
    "X-Stream-Protocol-Version",
)
"""Headers that make an upgrade. Not the one who asks: the two servers know each other otherwise."""

Dial = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


class RelayError(Exception):
    """The other server cannot be reached, or does not speak HTTP."""


async def relay(request: web.Request, target: str, dial: Dial, headers: Mapping[str, str]) -> web.StreamResponse:
    """`target` is a path with its query. Gives the other server's answer when it refuses. Raises RelayError."""
    try:
        reader, writer = await dial()
    except (OSError, TimeoutError) as error:
        raise RelayError(str(error) or type(error).__name__) from error
    other = StreamPipe(reader, writer)
    try:
        await other.write(_head(request, target, headers))
        try:
            async with asyncio.timeout(_HEAD_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError) as error:
            raise RelayError(f"no answer to the request for an upgrade: {type(error).__name__}") from error
        status, fields = _parse(head)
        if status != 101:
            return await _refusal(status, fields, reader)
        client = hijack(request)
        try:
            await client.write(head)
            await _both_ways(client, other)
        finally:
            await client.close()
    except ConnectionError:
        pass
    finally:
        await other.close()
    return web.Response()


async def _both_ways(one: Pipe, two: Pipe) -> None:
    """Until either end is gone. What it said before has been passed on by then."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_copy(one, two)), group.create_task(_copy(two, one))]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()


async def _copy(source: Pipe, target: Pipe) -> None:
    try:
        while data := await source.read():
            await target.write(data)
    except ConnectionError:
        return


def _head(request: web.Request, target: str, headers: Mapping[str, str]) -> bytes:
    lines = [f"{request.method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    lines += [f"{name}: {value}" for name in PASSED_ON for value in request.headers.getall(name, ())]
    if request.method != "GET":
        lines.append("Content-Length: 0")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def _parse(head: bytes) -> tuple[int, dict[str, str]]:
    """Status and fields, names in lower case. Raises RelayError."""
    first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    words = first.split(" ", 2)
    if len(words) < 2 or not words[0].startswith("HTTP/1.") or not words[1].isdecimal():
        raise RelayError(f"not an answer in HTTP/1: {first[:80]!r}")
    pairs = (line.partition(":") for line in lines)
    return int(words[1]), {name.strip().lower(): value.strip() for name, _, value in pairs}


async def _refusal(status: int, fields: Mapping[str, str], reader: asyncio.StreamReader) -> web.Response:
    length = fields.get("content-length", "")
    size = min(int(length), _MAX_BODY) if length.isdecimal() else _MAX_BODY
    body = bytearray()
    async with asyncio.timeout(_BODY_SECONDS):
        while len(body) < size and (data := await reader.read(min(CHUNK, size - len(body)))):
            body += data
    kept = {
        name: fields[name.lower()]
        for name in ("Content-Type", "X-Accepted-Stream-Protocol-Versions")
        if name.lower() in fields
    }
    return web.Response(status=status, body=bytes(body), headers=kept)
