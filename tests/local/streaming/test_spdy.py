"""Streams over one SPDY connection: opening, both directions, endings, refusals, bounds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from serving.local.streaming.spdy import SpdyConnection, SpdyStream
from serving.local.streaming.spdy_frames import GoAway, Ping, RstStream
from tests.local.streaming.client import SECONDS, MemoryPipe, SpdyClient, memory_pipes


class Server:
    def __init__(self, connection: SpdyConnection) -> None:
        self.connection = connection
        self.streams: asyncio.Queue[SpdyStream] = asyncio.Queue()
        self.running: asyncio.Task[None]

    def accept(self, stream: SpdyStream) -> bool:
        self.streams.put_nowait(stream)
        return stream.headers.get("streamtype") != "unwanted"

    async def next(self) -> SpdyStream:
        async with asyncio.timeout(SECONDS):
            return await self.streams.get()


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[SpdyClient, Server]]:
    theirs, ours = memory_pipes()
    server = Server(SpdyConnection(ours))
    async with asyncio.TaskGroup() as group:
        server.running = group.create_task(server.connection.run(server.accept))
        async with SpdyClient(theirs) as client:
            yield client, server
        async with asyncio.timeout(SECONDS):
            await server.running


async def test_both_directions_of_several_streams() -> None:
    async with connected() as (client, server):
        first = await client.opened({"streamType": "data", "port": "80"})
        second = await client.opened({"streamType": "error"})
        one, two = await server.next(), await server.next()
        assert one.headers == {"streamtype": "data", "port": "80"}
        await client.write(second, b"other")
        await client.write(first, b"ques")
        await client.write(first, b"tion", last=True)
        assert [await one.read(), await one.read(), await one.read()] == [b"ques", b"tion", b""]
        assert await two.read() == b"other"
        await one.write(b"answer" * 20_000)
        await one.finish()
        await one.finish()
        assert await client.all_of(first) == b"answer" * 20_000
        with pytest.raises(ConnectionError):
            await one.write(b"more")


async def test_refused_and_reset_streams() -> None:
    async with connected() as (client, server):
        unwanted = await client.open({"streamType": "unwanted"})
        async with asyncio.timeout(SECONDS):
            await client[unwanted].refused.wait()
        await server.next()
        good = await client.opened({"streamType": "data"})
        stream = await server.next()
        await client.send(RstStream(stream=good, status=5))
        assert await stream.read() == b""
        with pytest.raises(ConnectionError):
            await stream.write(b"to nobody")


async def test_pings_are_answered_and_answers_are_not() -> None:
    async with connected() as (client, _):
        for identifier in (1, 2, 3):
            await client.send(Ping(identifier=identifier))
        await client.opened({"streamType": "data"})
        assert client.pings == [1, 3]


async def test_a_client_that_says_goodbye() -> None:
    async with connected() as (client, server):
        first = await client.opened({"streamType": "data"})
        stream = await server.next()
        await client.send(GoAway(last_stream=0))
        late = await client.open({"streamType": "data"})
        async with asyncio.timeout(SECONDS):
            await client[late].refused.wait()
            await client.write(first, b"last", last=True)
            assert await stream.read() == b"last"
            await stream.finish()
            await client.send(Ping(identifier=1))
            await server.running


async def test_the_end_of_the_connection_ends_its_streams() -> None:
    async with connected() as (client, server):
        await client.opened({"streamType": "data"})
        stream = await server.next()
        await client.__aexit__()
        assert await stream.read() == b""
        with pytest.raises(ConnectionError):
            await stream.write(b"x")


@pytest.mark.parametrize(
    "break_it",
    [
        pytest.param(lambda pipe: pipe.write(b"\x80\x09\0\1\0\0\0\0"), id="another version"),
        pytest.param(lambda pipe: pipe.write(b"\x80\3\0\6\0\0\0\1\0"), id="a frame too short"),
    ],
)
async def test_nonsense_ends_the_connection(break_it: Callable[[MemoryPipe], object]) -> None:
    theirs, ours = memory_pipes()
    connection = SpdyConnection(ours)
    async with asyncio.timeout(SECONDS), asyncio.TaskGroup() as group:
        running = group.create_task(connection.run(lambda _: True))
        await break_it(theirs)  # type: ignore[misc]
        await running


async def test_stream_numbers_only_grow() -> None:
    async with connected() as (client, server):
        await client.opened({"streamType": "data"})
        client._next = 1
        await client.open({"streamType": "data"})
        async with asyncio.timeout(SECONDS):
            await server.running


async def test_what_is_not_read_is_bounded_and_what_is_discarded_is_not_kept() -> None:
    async with connected() as (client, server):
        full = await client.opened({"streamType": "data"})
        stream = await server.next()
        for _ in range(64):
            await client.write(full, bytes(64 * 1024))
        other = await client.open({"streamType": "data"})
        for _ in range(100):
            await asyncio.sleep(0)
        assert not client[other].replied.is_set(), "the connection waits for the reader"
        await stream.discard()
        async with asyncio.timeout(SECONDS):
            await client[other].replied.wait()
        assert stream._size == 0


async def test_a_client_that_died_is_noticed_while_nobody_reads() -> None:
    theirs, ours = memory_pipes()
    connection = SpdyConnection(ours, ping_seconds=0.01)
    async with asyncio.timeout(SECONDS), asyncio.TaskGroup() as group:
        running = group.create_task(connection.run(lambda _: True))
        async with SpdyClient(theirs) as client:
            stream = await client.opened({"streamType": "data"})
            for _ in range(40):
                await client.write(stream, bytes(64 * 1024))
            while len(client.pings) < 3:
                await asyncio.sleep(0.01)
            assert client.pings[:3] == [2, 4, 6]
            assert not running.done()
        await running


async def test_closing_tells_the_client() -> None:
    async with connected() as (client, server):
        await client.opened({"streamType": "data"})
        await server.connection.close()
        async with asyncio.timeout(SECONDS):
            await client.gone.wait()
        await server.connection.close()
