"""WebSocket, SSE, gRPC and large bodies through a real Envoy, warm and from zero."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
from aiohttp import ClientTimeout

from tests.gateway.apps import App, grpc_app
from tests.gateway.world import World

pytestmark = pytest.mark.envoy

HOST = "hello.default.example.test"


async def prepare(gw: World, pod: App | int, *, cold: bool, h2c: bool = False) -> None:
    """Warm: the pod is there. Cold: it appears once a request is held."""
    gw.revision("r1", h2c=h2c)
    gw.route("hello", {"r1": 100})
    await gw.until_served("hello")
    if not cold:
        gw.pod(pod, "r1")
        await gw.until_warm("r1")


async def wake(gw: World, pod: App | int, *, cold: bool) -> None:
    if cold:
        await gw.until(lambda: gw.gateway.activator.held("default/r1") == 1)
        gw.pod(pod, "r1")


@pytest.mark.parametrize("cold", [False, True], ids=["warm", "from zero"])
async def test_websocket(gw: World, app: App, cold: bool) -> None:
    await prepare(gw, app, cold=cold)
    async with asyncio.TaskGroup() as group:
        group.create_task(wake(gw, app, cold=cold))
        async with gw.session.ws_connect(f"http://127.0.0.1:{gw.port}/ws", headers={"host": HOST}) as socket:
            for text in ("one", "two"):
                await socket.send_str(text)
                assert await socket.receive_str(timeout=5) == f"p1:{text}"


@pytest.mark.parametrize("cold", [False, True], ids=["warm", "from zero"])
async def test_events_are_not_buffered(gw: World, app: App, cold: bool) -> None:
    await prepare(gw, app, cold=cold)
    app.gate.clear()
    async with asyncio.TaskGroup() as group:
        group.create_task(wake(gw, app, cold=cold))
        url = f"http://127.0.0.1:{gw.port}/sse"
        async with gw.session.get(url, headers={"host": HOST}, timeout=ClientTimeout(total=10)) as response:
            assert await response.content.readuntil(b"\n\n") == b"data: first\n\n"
            app.gate.set()
            assert await response.content.readuntil(b"\n\n") == b"data: last\n\n"


@pytest.mark.parametrize("cold", [False, True], ids=["warm", "from zero"])
async def test_grpc(gw: World, cold: bool) -> None:
    async def questions() -> AsyncIterator[bytes]:
        for question in (b"a", b"b", b"c"):
            yield question

    async with grpc_app("g") as port:
        await prepare(gw, port, cold=cold, h2c=True)
        options = [("grpc.default_authority", HOST), ("grpc.enable_http_proxy", 0)]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{gw.port}", options=options) as channel:
            async with asyncio.TaskGroup() as group:
                group.create_task(wake(gw, port, cold=cold))
                say: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/t.Echo/Say")
                answer = await say(b"hi", timeout=10)
            assert answer == b"g:hi"
            chat: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream("/t.Echo/Chat")
            assert [message async for message in chat(questions(), timeout=10)] == [b"g:a", b"g:b", b"g:c"]


@pytest.mark.parametrize("cold", [False, True], ids=["warm", "from zero"])
async def test_large_body(gw: World, app: App, cold: bool) -> None:
    await prepare(gw, app, cold=cold)
    body = b"x" * 6_000_000
    async with asyncio.TaskGroup() as group:
        group.create_task(wake(gw, app, cold=cold))
        status, _, _ = await gw.get("hello", method="POST", data=body)
    assert status == 200
    assert app.bodies == [len(body)]
