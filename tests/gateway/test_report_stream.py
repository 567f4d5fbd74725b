"""The stream to the controller, over a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from serving.api.reports import (
    ColdRevisions,
    ControllerMessage,
    Decided,
    Demand,
    GatewayMessage,
    Hello,
    Poke,
    Programmed,
    Settings,
)
from serving.controller.reports_server import ReportsServer
from serving.gateway.report_stream import ReportStream
from serving.gateway.store import Store
from tests.gateway.test_pods import Bench

HELLO = Hello(gateway="g", incarnation="1")


class Controller:
    def __init__(self, address: str) -> None:
        self.address = address
        self.messages: list[GatewayMessage] = []
        self.server = ReportsServer(
            token="secret",
            settings=Settings(report_interval_seconds=0.5),
            on_message=lambda _gateway, message: self.messages.append(message),
        )

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[None]:
        started = asyncio.Event()
        task = asyncio.create_task(self.server.run(self.address, started=started.set))
        await started.wait()
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


@asynccontextmanager
async def streaming(
    *greetings: GatewayMessage, token: str = "secret"
) -> AsyncIterator[tuple[ReportStream, list[ControllerMessage]]]:
    received: list[ControllerMessage] = []
    stream = ReportStream(hello=HELLO, token=token, greet=lambda: greetings, received=received.append)
    task = asyncio.create_task(stream.run())
    try:
        yield stream, received
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_levels_are_sent_again_after_a_reconnect_and_events_are_not(tmp_path: Path) -> None:
    address = f"unix:{tmp_path / 's'}"
    programmed = Programmed({"default/x": "1"})
    poke = Poke(revision="r", held=1, at=1.0)
    async with streaming(Demand(start=0, end=1, revisions={})) as (stream, received):
        stream.level(programmed)
        stream.set_address(address)
        first = Controller(address)
        async with first.serve():
            await until(lambda: len(first.messages) == 3)
            assert first.messages == [HELLO, programmed, Demand(start=0, end=1, revisions={})]
            stream.event(poke)
            stream.level(programmed)
            stream.level(ColdRevisions(frozenset({"r"})))
            await until(lambda: len(first.messages) == 5)
            assert first.messages[3:] == [poke, ColdRevisions(frozenset({"r"}))]
            decided = Decided(revision="r", poke_at=1, decided_at=2, created_at=3, pods=("p",))
            first.server.broadcast(decided)
            await until(lambda: decided in received)
            assert Settings(report_interval_seconds=0.5) in received
        await until(lambda: not stream.connected)
        second = Controller(address)
        async with second.serve():
            await until(lambda: len(second.messages) == 4)
            assert second.messages[:3] == [HELLO, programmed, ColdRevisions(frozenset({"r"}))]


async def test_the_stream_follows_the_controllers_address(tmp_path: Path) -> None:
    one, two = Controller(f"unix:{tmp_path / '1'}"), Controller(f"unix:{tmp_path / '2'}")
    async with streaming() as (stream, _), one.serve(), two.serve():
        stream.set_address(one.address)
        await until(lambda: one.messages)
        stream.set_address(two.address)
        await until(lambda: two.messages)
        await until(lambda: not one.server.connected)
        stream.set_address("")
        await until(lambda: not two.server.connected)


async def test_a_wrong_token_is_tried_again_later(tmp_path: Path) -> None:
    controller = Controller(f"unix:{tmp_path / 's'}")
    async with streaming(token="wrong") as (stream, _), controller.serve():
        stream.set_address(controller.address)
        await asyncio.sleep(0.2)
        assert controller.messages == []


async def test_the_store_keeps_the_last_state_and_puts_a_broken_one_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(tmp_path)
    assert store.load() is None
    bench = Bench()
    bench.pod("a")
    task = asyncio.create_task(store.run(bench.it.stored))
    store.touch()
    await until((tmp_path / "snapshot.msgpack").exists)
    assert store.load() == bench.it.stored()
    bench.pod("b", ip="10.0.0.2")
    store.touch()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert store.load() == bench.it.stored(), "what changed last is written at the end"
    (tmp_path / "snapshot.msgpack").write_bytes(b"\xc1")
    assert store.load() is None
    assert (tmp_path / "snapshot.unreadable").read_bytes() == b"\xc1"
    assert "cannot be read" in caplog.text
