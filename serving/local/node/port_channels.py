"""Forwarding ports over `v4.channel.k8s.io`, as Kubernetes' Python client does.

The request names the ports. Port number i has the channels 2i for data and 2i + 1 for errors, and both begin with
the port as two bytes, the low one first. Each port is one connection.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Final

from aiohttp import WSMsgType, web

from serving.local.node.port_forward import Connect, exchange, refusal
from serving.local.streaming import channels

PROTOCOLS: Final = (channels.V4,)
_UNREAD: Final = 64


async def forward_channels(websocket: web.WebSocketResponse, ports: list[int], connect: Connect) -> None:
    """Until the client is gone or every port's connection has ended."""
    queues: list[asyncio.Queue[bytes]] = [asyncio.Queue(_UNREAD) for _ in ports]
    async with asyncio.TaskGroup() as group:
        forwarding = [
            group.create_task(_forward(websocket, index, port, queues[index], connect))
            for index, port in enumerate(ports)
        ]
        reading = group.create_task(_read(websocket, queues))
        reading.add_done_callback(lambda _: [task.cancel() for task in forwarding])
        await asyncio.wait(forwarding)
        reading.cancel()
    await websocket.close()


async def _read(websocket: web.WebSocketResponse, queues: list[asyncio.Queue[bytes]]) -> None:
    async for message in websocket:
        if message.type is not WSMsgType.BINARY or len(message.data) < 2:
            continue
        index, is_error = divmod(message.data[0], 2)
        if not is_error and index < len(queues):
            await queues[index].put(bytes(message.data[1:]))


async def _forward(
    websocket: web.WebSocketResponse, index: int, port: int, queue: asyncio.Queue[bytes], connect: Connect
) -> None:
    data, error = bytes([2 * index]), bytes([2 * index + 1])

    async def write(piece: bytes) -> None:
        await websocket.send_bytes(data + piece)

    try:
        for channel in (data, error):
            await websocket.send_bytes(channel + port.to_bytes(2, "little"))
        try:
            target: socket.socket = await connect(port)
        except OSError as problem:
            await websocket.send_bytes(error + refusal(port, problem).encode())
            return
        with target:
            await exchange(target, queue.get, write)
    except ConnectionError:
        return
