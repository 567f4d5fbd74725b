"""WebSocket, server-sent events, gRPC and large bodies: warm, and as the request that wakes the service."""

from __future__ import annotations

import asyncio
import hashlib
import io
from typing import Any

import aiohttp
import grpc
import pytest

from tests.e2e.cluster import Cluster
from tests.e2e.http import Gateway
from tests.e2e.manifests import service

BODY_BYTES = 6 * 1024 * 1024
both = pytest.mark.parametrize("cold", [False, True], ids=["warm", "from zero"])


async def start(cluster: Cluster, name: str, *, image: str, cold: bool, h2c: bool = False) -> None:
    container = {"ports": [{"name": "h2c", "containerPort": 8080}]} if h2c else None
    await cluster.deploy(service(name, image=image, container=container))
    if cold:
        await cluster.at_zero(name)


@both
async def test_websocket(cluster: Cluster, gateway: Gateway, name: str, aiohttp_image: str, cold: bool) -> None:
    await start(cluster, name, image=aiohttp_image, cold=cold)
    headers = {"Host": gateway.host(name)}
    async with (
        asyncio.timeout(40),
        gateway.session.ws_connect(f"{gateway.url}/ws", headers=headers) as socket,
    ):
        for number in range(20):
            await socket.send_str(f"message {number}")
            assert (await socket.receive_str()) == f"message {number}"
        await socket.send_bytes(b"x" * 100_000)
        assert len(await socket.receive_bytes()) == 100_000


@both
async def test_server_sent_events(cluster: Cluster, gateway: Gateway, name: str, cold: bool) -> None:
    await start(cluster, name, image="dev.local/hello-static:latest", cold=cold)
    clock = asyncio.get_running_loop().time
    async with (
        asyncio.timeout(40),
        gateway.session.get(f"{gateway.url}/sse?n=4&ms=300", headers={"Host": gateway.host(name)}) as response,
    ):
        assert response.content_type == "text/event-stream"
        arrived = [clock() async for line in response.content if line.startswith(b"data:")]
    assert len(arrived) == 4
    assert arrived[-1] - arrived[0] >= 0.6, "events arrive as they are sent, not all at the end"


@both
async def test_grpc(cluster: Cluster, gateway: Gateway, name: str, grpc_image: str, cold: bool) -> None:
    await start(cluster, name, image=grpc_image, cold=cold, h2c=True)
    target = gateway.url.removeprefix("http://")
    options = [("grpc.default_authority", gateway.host(name))]
    async with grpc.aio.insecure_channel(target, options=options) as channel:
        unary: Any = channel.unary_unary("/nodeless.Echo/Unary")
        assert await unary(b"hello", timeout=40) == b"hello"
        assert await unary(b"y" * 1_000_000, timeout=40) == b"y" * 1_000_000
        call: Any = channel.stream_stream("/nodeless.Echo/Bidi")(timeout=40)
        for number in range(10):
            await call.write(f"{number}".encode())
            assert await call.read() == f"{number}".encode()
        await call.done_writing()
        assert await call.read() == grpc.aio.EOF
        assert await call.code() == grpc.StatusCode.OK


@both
async def test_a_large_body(cluster: Cluster, gateway: Gateway, name: str, cold: bool) -> None:
    await start(cluster, name, image="dev.local/hello-static:latest", cold=cold)
    body = hashlib.sha256(name.encode()).digest() * (BODY_BYTES // 32)
    async with gateway.session.post(
        f"{gateway.url}/echo",
        data=io.BytesIO(body),
        headers={"Host": gateway.host(name)},
        timeout=aiohttp.ClientTimeout(total=50),
    ) as response:
        assert response.status == 200
        echoed = await response.read()
    assert echoed == body


async def test_http2_from_the_client(cluster: Cluster, gateway: Gateway, name: str) -> None:
    """A client that speaks HTTP/2 without TLS to a service that speaks HTTP/1.1."""
    await cluster.deploy(service(name))
    target = gateway.url.removeprefix("http://")
    options = [("grpc.default_authority", gateway.host(name))]
    async with grpc.aio.insecure_channel(target, options=options) as channel:
        unary: Any = channel.unary_unary("/nodeless.Echo/Unary")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await unary(b"", timeout=40)
    # The service does not speak gRPC; that its 404 arrives shows that the request did.
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
