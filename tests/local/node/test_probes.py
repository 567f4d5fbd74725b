"""Probes: thresholds as pure values on virtual time, handlers against real servers on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import msgspec
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from serving.api.pod import Container, Probe
from serving.local.node.prober import Prober, ProbeResult
from serving.local.node.probes import (
    ProbeKind,
    ProbeState,
    exhausted,
    first_state,
    next_delay,
    observe,
    over,
    probe_settings,
    target_port,
)
from serving.local.sandbox.protocol import PodAddress
from tests.local.node.fakes import FakeRuntime, FakeSandbox
from tests.local.node.pods import container, make_pod

LOOPBACK = PodAddress(ip="127.0.0.1")


def settings_of(kind: ProbeKind, **fields: int) -> Any:
    return probe_settings(kind, msgspec.convert(fields, Probe))


def fold(settings: Any, results: str, *, step: float = 10.0, passing: bool = False) -> ProbeState:
    state = first_state(settings, passing=passing)
    for number, result in enumerate(results):
        state = observe(state, settings, ok=result == "+", now=number * step)
    return state


@pytest.mark.parametrize(
    ("kind", "fields", "results", "passing"),
    [
        (ProbeKind.READINESS, {"periodSeconds": 10}, "", False),
        (ProbeKind.READINESS, {"periodSeconds": 10}, "+", True),
        (ProbeKind.READINESS, {"periodSeconds": 10, "successThreshold": 2}, "+", False),
        (ProbeKind.READINESS, {"periodSeconds": 10, "successThreshold": 2}, "+-+", False),
        (ProbeKind.READINESS, {"periodSeconds": 10, "successThreshold": 2}, "++", True),
        (ProbeKind.READINESS, {"periodSeconds": 10}, "+--", True),
        (ProbeKind.READINESS, {"periodSeconds": 10}, "+---", False),
        (ProbeKind.READINESS, {"periodSeconds": 10}, "+---+", True),
        (ProbeKind.READINESS, {"periodSeconds": 10, "failureThreshold": 1}, "+-", False),
        (ProbeKind.LIVENESS, {}, "", True),
        (ProbeKind.LIVENESS, {}, "--", True),
        (ProbeKind.LIVENESS, {}, "--+--", True),
        (ProbeKind.LIVENESS, {}, "---", False),
        (ProbeKind.STARTUP, {}, "--", False),
        (ProbeKind.STARTUP, {}, "--+", True),
    ],
)
def test_thresholds(kind: ProbeKind, fields: dict[str, int], results: str, passing: bool) -> None:
    assert fold(settings_of(kind, **fields), results).passing is passing


def test_exhaustion() -> None:
    assert exhausted(fold(settings_of(ProbeKind.LIVENESS), "---"), settings_of(ProbeKind.LIVENESS))
    assert exhausted(fold(settings_of(ProbeKind.STARTUP), "---"), settings_of(ProbeKind.STARTUP))
    assert not exhausted(fold(settings_of(ProbeKind.READINESS), "----"), settings_of(ProbeKind.READINESS))


def test_fast_probes_before_the_first_success_count_once_per_period() -> None:
    settings = settings_of(ProbeKind.STARTUP, periodSeconds=2, failureThreshold=3)
    assert fold(settings, "-" * 40, step=0.05).failures == 1
    assert not exhausted(fold(settings, "-" * 79, step=0.05), settings)
    assert exhausted(fold(settings, "-" * 82, step=0.05), settings)


def test_aggressive_probing_ends_with_success() -> None:
    settings = settings_of(ProbeKind.READINESS, successThreshold=2)
    assert settings.aggressive
    assert not over(fold(settings, "-+", step=0.05), settings)
    assert over(fold(settings, "-++", step=0.05), settings)
    assert over(first_state(settings, passing=True), settings)


@given(elapsed=st.floats(0, 1000), probing=st.integers(0, 200), period=st.integers(0, 30))
def test_start_up_probing_is_dense_but_bounded(elapsed: float, probing: int, period: int) -> None:
    settings = settings_of(ProbeKind.READINESS, periodSeconds=period)
    delay = next_delay(first_state(settings, passing=False), settings, elapsed=elapsed, probing=probing)
    assert 0.005 <= delay <= max(1.0, 0.005 * probing / 2)
    if period == 0 and probing <= 20:
        assert delay <= 0.05
    answered = ProbeState(passing=True, answered=True)
    if period:
        assert next_delay(answered, settings, elapsed=elapsed, probing=probing) == period


@pytest.mark.parametrize(
    ("port", "address", "expected"),
    [
        (8080, LOOPBACK, 8080),
        (9000, LOOPBACK, 9000),
        ("http1", LOOPBACK, 8080),
        ("9000", LOOPBACK, 9000),
        (0, LOOPBACK, 8080),
        (8080, PodAddress(ip="127.0.0.1", port=4711), 4711),
        ("http1", PodAddress(ip="127.0.0.1", port=4711), 4711),
        (9000, PodAddress(ip="127.0.0.1", port=4711), 9000),
    ],
)
def test_target_port(port: int | str, address: PodAddress, expected: int) -> None:
    pod = make_pod(containers=[container(ports=[{"name": "http1", "containerPort": 8080}])])
    action = msgspec.convert({"tcpSocket": {"port": port}}, Probe).tcp_socket
    assert action is not None
    assert target_port(action, pod.spec.containers[0], pod, address) == expected


def test_unknown_port_name() -> None:
    pod = make_pod()
    action = msgspec.convert({"tcpSocket": {"port": "nope"}}, Probe).tcp_socket
    assert action is not None
    with pytest.raises(ValueError, match="couldn't find port"):
        target_port(action, pod.spec.containers[0], pod, LOOPBACK)


class App:
    """A server to be probed."""

    def __init__(self) -> None:
        self.status = 200
        self.location = ""
        self.requests: list[web.Request] = []
        self.delay = 0.0
        self.port = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        await asyncio.sleep(self.delay)
        headers = {"Location": self.location} if self.location and request.path != "/end" else {}
        status = 302 if headers else self.status
        return web.Response(status=status, headers=headers, text="x" * 100_000)


@asynccontextmanager
async def app() -> AsyncIterator[App]:
    served = App()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", served.handle)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    served.port = runner.addresses[0][1]
    try:
        yield served
    finally:
        await runner.cleanup()


@asynccontextmanager
async def prober() -> AsyncIterator[Prober]:
    it = Prober()
    try:
        yield it
    finally:
        await it.close()


def sandbox(address: PodAddress = LOOPBACK) -> FakeSandbox:
    return FakeSandbox(None, FakeRuntime(), address)  # type: ignore[arg-type]


async def ask(it: Prober, probe: dict[str, Any], address: PodAddress = LOOPBACK) -> ProbeResult:
    pod = make_pod()
    return await it.probe(
        msgspec.convert(probe, Probe), container=pod.spec.containers[0], pod=pod, sandbox=sandbox(address)
    )


async def test_http() -> None:
    async with app() as served, prober() as it:
        headers = [{"name": "X-A", "value": "b"}, {"name": "user-agent", "value": "mine"}]
        get = {"port": served.port, "path": "h?x=1", "host": "other.example", "httpHeaders": headers}
        assert (await ask(it, {"httpGet": get})).ok
        request = served.requests[0]
        assert (request.path, request.query["x"], request.host) == ("/h", "1", "other.example")
        assert (request.headers["X-A"], request.headers["User-Agent"]) == ("b", "mine")
        await ask(it, {"httpGet": {"port": served.port}})
        assert served.requests[1].headers["User-Agent"].startswith("kube-probe/")
        served.status = 503
        result = await ask(it, {"httpGet": {"port": served.port}})
        assert (result.ok, result.message) == (False, "HTTP probe failed with statuscode: 503")
        served.status, served.delay = 200, 5.0
        result = await ask(it, {"httpGet": {"port": served.port}, "timeoutSeconds": 1})
        assert (result.ok, result.message) == (False, "probe timed out after 1s")


async def test_redirects_are_followed_on_the_same_host_only() -> None:
    async with app() as served, prober() as it:
        served.location = "/end"
        served.status = 500
        assert not (await ask(it, {"httpGet": {"port": served.port, "path": "/"}})).ok
        assert [request.path for request in served.requests] == ["/", "/end"]
        served.location = "http://elsewhere.invalid/end"
        assert (await ask(it, {"httpGet": {"port": served.port, "path": "/"}})).ok
        served.location = "/loop"
        result = await ask(it, {"httpGet": {"port": served.port, "path": "/loop"}})
        assert result == ProbeResult(False, "stopped after 10 redirects")


async def test_tcp_and_closed_ports() -> None:
    async with prober() as it:
        async with app() as served:
            assert (await ask(it, {"tcpSocket": {"port": served.port}})).ok
            port = served.port
        assert not (await ask(it, {"tcpSocket": {"port": port}})).ok
        assert not (await ask(it, {"httpGet": {"port": port}})).ok
        assert not (await ask(it, {"grpc": {"port": port}})).ok
        assert not (await ask(it, {})).ok


async def test_exec() -> None:
    async with prober() as it:
        assert (await ask(it, {"exec": {"command": ["ls", "x"]}})) == ProbeResult(True, "ls x")


@pytest.mark.parametrize(("service", "ok"), [("up", True), ("down", False), ("unknown", False)])
async def test_grpc(service: str, ok: bool) -> None:
    async def check(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        if request == b"\x0a\x07unknown":
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such service")
        return b"\x08\x01" if request == b"\x0a\x02up" else b"\x08\x02"

    server = grpc.aio.server()
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(check)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with prober() as it:
            assert (await ask(it, {"grpc": {"port": port, "service": service}})).ok is ok
    finally:
        await server.stop(None)


async def test_first_success_is_found_fast_and_aggressive_probing_stops() -> None:
    async with prober() as it:
        probe = msgspec.convert({"exec": {"command": ["x"]}}, Probe)
        pod, box = make_pod(), sandbox()
        box.exec_code = 1
        results: list[ProbeState] = []
        running = asyncio.create_task(
            it.run(
                ProbeKind.READINESS,
                probe,
                container=Container(name="app"),
                pod=pod,
                sandbox=box,
                started_for=0.0,
                passing=False,
                changed=lambda state, result: results.append(state),
            )
        )
        await asyncio.sleep(0.1)
        assert 5 <= len(results) <= 25
        assert it.starting == 1
        box.exec_code = 0
        await asyncio.wait_for(running, 1)
        assert results[-1].passing
        assert it.starting == 0
