"""Applications that stand for pods, on loopback ports."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
from aiohttp import WSMsgType, web


class App:
    """An HTTP/1.1 pod. Every answer has `x-pod: <name>` and the request's headers as JSON."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.port = 0
        self.requests = 0
        self.active = 0
        self.most_active = 0
        self.bodies: list[int] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self._runner: web.AppRunner | None = None

    async def start(self, port: int = 0) -> None:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_get("/ws", self._websocket)
        app.router.add_get("/sse", self._events)
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        if self._runner is not None:
            runner, self._runner = self._runner, None
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        self.requests += 1
        self.active += 1
        self.most_active = max(self.most_active, self.active)
        try:
            self.bodies.append(len(await request.read()))
            await self.gate.wait()
            if pause := request.query.get("sleep"):
                await asyncio.sleep(float(pause))
            return web.json_response(dict(request.headers), headers={"x-pod": self.name})
        finally:
            self.active -= 1

    async def _websocket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            if message.type == WSMsgType.TEXT:
                await socket.send_str(f"{self.name}:{message.data}")
        return socket

    async def _events(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"data: first\n\n")
        await self.gate.wait()
        await response.write(b"data: last\n\n")
        return response


@asynccontextmanager
async def http_app(name: str) -> AsyncIterator[App]:
    app = App(name)
    await app.start()
    try:
        yield app
    finally:
        app.gate.set()
        await app.stop()


@asynccontextmanager
async def grpc_app(name: str) -> AsyncIterator[int]:
    """An h2c pod: unary `/t.Echo/Say` and bidirectional `/t.Echo/Chat`, bytes in and out. Yields its port."""

    async def say(request: bytes, _context: Any) -> bytes:
        return name.encode() + b":" + request

    async def chat(requests: AsyncIterator[bytes], _context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            yield name.encode() + b":" + request

    server = grpc.aio.server()
    handlers: dict[str, Any] = {
        "Say": grpc.unary_unary_rpc_method_handler(say),
        "Chat": grpc.stream_stream_rpc_method_handler(chat),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.Echo", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(0)
