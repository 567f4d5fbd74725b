"""Probes against real sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import grpc
import pytest

from serving.activator.probe_schedule import Kind, ProbeTarget
from serving.activator.prober import Prober
from serving.activator.probes import BODY_BYTES, Outcome, health_request, http_request, http_status, probe

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def server(handler: Handler) -> AsyncIterator[int]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(reader, writer)
        finally:
            writer.close()

    listening = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        listening.close()


def answering(answer: bytes) -> Handler:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()

    return handle


def refusing_port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port: int = unused.getsockname()[1]
        return port


def target(port: int, kind: Kind = Kind.TCP, **given: object) -> ProbeTarget:
    return ProbeTarget(kind=kind, host="127.0.0.1", port=port, **given)  # type: ignore[arg-type]


async def outcome(wanted: ProbeTarget, *, within: float = 2.0) -> Outcome:
    heard: list[Outcome] = []
    await probe(wanted, within=within, told=heard.append)
    (only,) = heard
    return only


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Outcome.ANSWERED),
        (b"HTTP/1.0 204\r\n\r\n", Outcome.ANSWERED),
        (b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\n\r\n", Outcome.ANSWERED),
        (b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", Outcome.ANSWERED),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", Outcome.FAILED),
        (b"HTTP/1.1 2000 OK\r\n\r\n", Outcome.FAILED),
        (b"SSH-2.0-OpenSSH_9.2\r\n", Outcome.FAILED),
        (b"", Outcome.FAILED),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 1_000_000, Outcome.ANSWERED),
        (b"HTTP/1.1 100 \r\n\r\n" * 10_000, Outcome.FAILED),
    ],
    ids=["200", "http/1.0", "redirect", "early hints", "503", "status", "ssh", "nothing", "big body", "endless"],
)
async def test_http(answer: bytes, expected: Outcome) -> None:
    async with server(answering(answer)) as port:
        assert await outcome(target(port, Kind.HTTP)) is expected


async def test_http_request_as_the_revision_wants_it() -> None:
    seen = asyncio.get_running_loop().create_future()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.set_result(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")

    async with server(handle) as port:
        wanted = target(port, Kind.HTTP, path="/healthz", headers=(("Host", "example.com"), ("X-A", "b")))
        assert await outcome(wanted) is Outcome.ANSWERED
    assert await seen == (
        b"GET /healthz HTTP/1.1\r\nHost: example.com\r\nUser-Agent: kube-probe/nodeless\r\nAccept: */*\r\n"
        b"Connection: close\r\nX-A: b\r\n\r\n"
    )


def test_an_ipv6_host_is_bracketed() -> None:
    wanted = ProbeTarget(kind=Kind.HTTP, host="fd00::1", port=80)
    assert b"Host: [fd00::1]:80\r\n" in http_request(wanted)


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (b"", None),
        (b"HT", None),
        (b"HTTP/1.1 20", None),
        (b"HTTP/1.1 200 OK\r\n", 200),
        (b"HTTP/1.1 100 Continue\r\n\r", None),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 \r\n", 404),
        (b"HTTP/2 200\r\n", 0),
        (b"GET / HTTP/1.1", 0),
    ],
)
def test_http_status(answer: bytes, status: int | None) -> None:
    assert http_status(answer) == status


async def test_http_reads_no_more_than_its_limit() -> None:
    sent = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        try:
            while sent < 50_000_000:
                writer.write(b"x" * 65536)
                await writer.drain()
                sent += 65536
        except ConnectionError:
            return

    async with server(handle) as port:
        assert await outcome(target(port, Kind.HTTP)) is Outcome.ANSWERED
    assert BODY_BYTES < 50_000_000
    assert sent < 50_000_000


async def test_a_silent_server_is_told_from_a_closed_port() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with server(silent) as port:
        assert await outcome(target(port, Kind.HTTP), within=0.05) is Outcome.SILENT
        assert await outcome(target(port), within=0.5) is Outcome.ANSWERED, "TCP only connects"
    for kind in Kind:
        assert await outcome(target(refusing_port(), kind)) is Outcome.REFUSED


@pytest.mark.parametrize(
    ("answer", "expected"),
    [(b"\x08\x01", Outcome.ANSWERED), (b"\x08\x02", Outcome.FAILED), (b"", Outcome.FAILED)],
    ids=["serving", "not serving", "unknown"],
)
async def test_grpc(answer: bytes, expected: Outcome) -> None:
    asked: list[bytes] = []

    async def check(request: bytes, context: object) -> bytes:
        asked.append(request)
        return answer

    health = grpc.aio.server()
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(check)
    health.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": handler}),)
    )
    port = health.add_insecure_port("127.0.0.1:0")
    await health.start()
    try:
        assert await outcome(target(port, Kind.GRPC, service="db")) is expected
    finally:
        await health.stop(0)
    assert asked == [b"\x0a\x02db"] == [health_request("db")]


class Told:
    """What a prober told, and an event for each answer."""

    def __init__(self) -> None:
        self.outcomes: list[tuple[str, str, bool]] = []
        self.answered = asyncio.Event()
        self.failed = asyncio.Event()

    def __call__(self, key: str, uid: str, answered: bool) -> None:
        self.outcomes.append((key, uid, answered))
        (self.answered if answered else self.failed).set()


@asynccontextmanager
async def prober(told: Told) -> AsyncIterator[Prober]:
    made = Prober(told=told, waited_for=lambda key: True)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(made.run())
        yield made
        running.cancel()


async def test_prober_finds_a_server_that_starts_later_and_stops() -> None:
    told = Told()
    port = refusing_port()
    async with prober(told) as made:
        made.want(uid="a", key="k", target=target(port))
        await told.failed.wait()
        listening = await asyncio.start_server(answering(b""), "127.0.0.1", port)
        await told.answered.wait()
        listening.close()
        assert made.probing == frozenset()
    assert told.outcomes[-1] == ("k", "a", True)
    assert sum(answered for _, _, answered in told.outcomes) == 1


async def test_prober_wants_as_many_successes_in_a_row_as_the_probe() -> None:
    answers = iter([b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 500 No\r\n\r\n", *[b"HTTP/1.1 200 OK\r\n\r\n"] * 3])
    asked = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        await answering(next(answers))(reader, writer)

    told = Told()
    async with server(handle) as port, prober(told) as made:
        made.want(uid="a", key="k", target=target(port, Kind.HTTP, success_threshold=3))
        await told.answered.wait()
    assert asked == 5
    assert [answered for _, _, answered in told.outcomes] == [False, True]


async def test_prober_started_later_probes_what_was_wanted_before() -> None:
    told = Told()
    async with server(answering(b"")) as port:
        made = Prober(told=told, waited_for=lambda key: False)
        made.want(uid="a", key="k", target=target(port))
        made.want(uid="b", key="k", target=target(port))
        made.drop("b")
        async with asyncio.TaskGroup() as group:
            running = group.create_task(made.run())
            await told.answered.wait()
            running.cancel()
    assert told.outcomes == [("k", "a", True)]


async def test_prober_drops_and_changes_its_target() -> None:
    told = Told()
    async with server(answering(b"")) as port, prober(told) as made:
        made.want(uid="a", key="k", target=target(refusing_port()))
        made.want(uid="b", key="k", target=target(refusing_port()))
        await told.failed.wait()
        made.drop("b")
        made.want(uid="a", key="k", target=target(port))
        await told.answered.wait()
        assert made.probing == frozenset()
    assert told.outcomes[-1] == ("k", "a", True)


async def test_hurry_ends_a_long_delay() -> None:
    told = Told()
    waited_for = False
    made = Prober(told=told, waited_for=lambda key: waited_for)
    port = refusing_port()
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(made.run())
        made.want(uid="a", key="k", target=target(port))
        await told.failed.wait()
        listening = await asyncio.start_server(answering(b""), "127.0.0.1", port)
        waited_for = True
        before = loop.time()
        made.hurry("a")
        await told.answered.wait()
        assert loop.time() - before < 1.0
        listening.close()
        running.cancel()
