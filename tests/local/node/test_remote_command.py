"""Programs of a real pod (a plain process) over real connections, in every protocol, also through a relay."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from serving.local.node.port_channels import PROTOCOLS, forward_channels
from serving.local.node.port_forward import Forwarder, port_of
from serving.local.node.remote_command import attach, execute, serve
from serving.local.node.streaming_api import wanted_streams
from serving.local.sandbox.process import ProcessRuntime
from serving.local.sandbox.protocol import Sandbox
from serving.local.streaming import upgrade
from serving.local.streaming.relay import RelayError, relay
from serving.local.streaming.upgrade import UpgradeRefused
from tests.local.sandbox import support
from tests.local.streaming.client import SECONDS, SpdyClient, TunnelPipe, upgrade_to_spdy

IDLE = "echo up; while :; do sleep 0.05; done"
ALL = "input=1&output=1&error=1"
V5, V4, BASE64 = "v5.channel.k8s.io", "v4.channel.k8s.io", "v4.base64.channel.k8s.io"


class Kubelet:
    """The handlers under test around one pod, and a server that relays to them."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.port = 0
        self.path = ""
        self.relay_port = 0
        self.ended = asyncio.Event()

    async def exec(self, request: web.Request) -> web.StreamResponse:
        argv = request.query.getall("command")
        wanted = wanted_streams(request)

        async def start() -> Any:
            return await self.sandbox.execute(
                "main", argv, stdin=wanted.stdin, stdout=wanted.stdout, stderr=wanted.stderr, tty=wanted.tty
            )

        try:
            async with upgrade.remote_command(request, wanted, ping_seconds=0.1) as session:
                await serve(session, lambda: execute(session, start))
                return session.response
        except UpgradeRefused as refused:
            return refused.response()
        finally:
            self.ended.set()

    async def attach(self, request: web.Request) -> web.StreamResponse:
        async with upgrade.remote_command(request, wanted_streams(request)) as session:
            await serve(session, lambda: attach(session, self.sandbox, "main", stdin=True, once=False))
            return session.response

    async def forward(self, request: web.Request) -> web.StreamResponse:
        if upgrade.asks_for_websocket(request) and not upgrade.offers(request, upgrade.TUNNEL):
            socket = await upgrade.websocket(request, PROTOCOLS)
            ports = [int(port) for port in request.query.getall("port")]
            await forward_channels(socket, ports, self._connect)
            return socket
        async with upgrade.port_streams(request) as (connection, response):
            await Forwarder(connection, self._connect).run()
            return response

    async def _connect(self, port: int) -> Any:
        made = await self.sandbox.tcp_socket()
        try:
            await asyncio.get_running_loop().sock_connect(made, ("127.0.0.1", port))
        except OSError:
            made.close()
            raise
        return made

    async def relayed(self, request: web.Request) -> web.StreamResponse:
        async def dial() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            return await asyncio.open_unix_connection(self.path)

        return await relay(request, request.path_qs, dial, {"Host": "kubelet"})


async def _serve(routes: list[web.RouteDef], stack: list[web.AppRunner], *, cancel: bool = False) -> int:
    application = web.Application()
    application.add_routes(routes)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1, handler_cancellation=cancel)
    await runner.setup()
    stack.append(runner)
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return int(runner.addresses[0][1])


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[Sandbox]:
    runtime = ProcessRuntime(tmp_path, support.instance())
    await runtime.start()
    try:
        yield await runtime.create(support.pod(tmp_path))
    finally:
        for held in runtime.held():
            await held.destroy()
        await runtime.stop()


@pytest.fixture
async def kubelet(sandbox: Sandbox, tmp_path: Path) -> AsyncIterator[Kubelet]:
    kubelet, runners = Kubelet(sandbox), list[web.AppRunner]()
    routes = [
        web.route("*", "/exec", kubelet.exec),
        web.route("*", "/attach", kubelet.attach),
        web.route("*", "/portForward", kubelet.forward),
    ]
    kubelet.port = await _serve(routes, runners)
    kubelet.path = str(tmp_path / "k.sock")
    await web.UnixSite(runners[0], kubelet.path).start()
    kubelet.relay_port = await _serve([web.route("*", "/{path:.*}", kubelet.relayed)], runners, cancel=True)
    try:
        yield kubelet
    finally:
        for runner in runners:
            await runner.cleanup()


@pytest.fixture(params=["direct", "relayed"])
def port(request: pytest.FixtureRequest, kubelet: Kubelet) -> int:
    return kubelet.port if request.param == "direct" else kubelet.relay_port


@pytest.fixture
async def main(sandbox: Sandbox, tmp_path: Path) -> None:
    await sandbox.start_container(support.shell(tmp_path, IDLE, rootfs=support.machine_root()))


@asynccontextmanager
async def websocket(port: int, target: str, *protocols: str) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    async with asyncio.timeout(SECONDS), aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{port}{target}"
        async with session.ws_connect(url, protocols=protocols, max_msg_size=0) as socket:
            yield socket


async def _collect(socket: aiohttp.ClientWebSocketResponse) -> dict[int, bytes]:
    """Everything by channel, to the end."""
    out: dict[int, bytes] = {}
    async for message in socket:
        if message.type is aiohttp.WSMsgType.BINARY:
            out[message.data[0]] = out.get(message.data[0], b"") + message.data[1:]
        else:
            channel = int(message.data[0])
            out[channel] = out.get(channel, b"") + base64.b64decode(message.data[1:])
    assert socket.close_code == 1000
    return out


@pytest.mark.usefixtures("main")
async def test_exec_over_v5(port: int) -> None:
    target = f"/exec?command=sh&command=-c&command=cat;echo+err>%262;exit+3&{ALL}"
    async with websocket(port, target, "other", V5, V4) as socket:
        assert socket.protocol == V5
        for _ in range(30):
            await socket.send_bytes(b"\0" + b"x" * 10_000)
        await socket.send_bytes(b"\xff\0")
        out = await _collect(socket)
    assert out[1] == b"x" * 300_000
    assert out[2] == b"err\n"
    assert json.loads(out[3])["details"]["causes"] == [{"reason": "ExitCode", "message": "3"}]


@pytest.mark.usefixtures("main")
async def test_exec_over_v4_and_base64(port: int) -> None:
    async with websocket(port, "/exec?command=head&command=-1&input=1&output=1", V4) as socket:
        first = await socket.receive()
        assert first.data == b"\x01", "the connection is established"
        await socket.send_bytes(b"\0line\nmore\n")
        out = await _collect(socket)
    assert (out[1], json.loads(out[3])["status"]) == (b"line\n", "Success")
    async with websocket(port, "/exec?command=cat&tty=1&input=1&output=1", BASE64) as socket:
        await socket.send_str("4" + base64.b64encode(b'{"Width":80,"Height":25}').decode())
        await socket.send_str("nonsense")
        await socket.send_str("0" + base64.b64encode(b"typed\n\x04").decode())
        out = await _collect(socket)
    assert out[1].replace(b"\r", b"") == b"typed\ntyped\n"


@pytest.mark.usefixtures("main")
@pytest.mark.parametrize("protocol", [V5, "spdy"])
async def test_input_that_nobody_reads_does_not_cost_the_answer(port: int, protocol: str) -> None:
    target = "/exec?command=head&command=-1&input=1&output=1"
    if protocol == "spdy":
        _, _, pipe = await upgrade_to_spdy("127.0.0.1", port, target, protocol=V4)
        async with SpdyClient(pipe) as client, asyncio.TaskGroup() as group:
            error, stdin, out = [
                await client.opened({"streamType": name}) for name in ("error", "stdin", "stdout")
            ]

            async def type_on() -> None:
                while True:
                    await client.write(stdin, b"line\n" * 8_000)

            typing = group.create_task(type_on())
            assert await client.all_of(out) == b"line\n"
            assert json.loads(await client.all_of(error))["status"] == "Success"
            typing.cancel()
        return
    async with websocket(port, target, protocol) as socket, asyncio.TaskGroup() as group:

        async def send_on() -> None:
            try:
                while True:
                    await socket.send_bytes(b"\0" + b"line\n" * 20)
                    await asyncio.sleep(0)
            except ConnectionError:
                return

        sending = group.create_task(send_on())
        collected = await _collect(socket)
        sending.cancel()
    assert (collected[1], json.loads(collected[3])["status"]) == (b"line\n", "Success")


@pytest.mark.usefixtures("main")
async def test_exec_over_spdy(port: int) -> None:
    target = f"/exec?command=sh&command=-c&command=cat;echo+err>%262;exit+5&{ALL}"
    status, head, pipe = await upgrade_to_spdy("127.0.0.1", port, target, protocol=V4)
    assert status == 101
    assert b"X-Stream-Protocol-Version: v4.channel.k8s.io\r\n" in head
    async with SpdyClient(pipe) as client:
        error, stdin, out, err = [
            await client.opened({"streamType": name}) for name in ("error", "stdin", "stdout", "stderr")
        ]
        await client.write(stdin, b"y" * 300_000, last=True)
        assert await client.all_of(out) == b"y" * 300_000
        assert await client.all_of(err) == b"err\n"
        answer = json.loads(await client.all_of(error))
        assert answer["details"]["causes"] == [{"reason": "ExitCode", "message": "5"}]


@pytest.mark.usefixtures("main")
async def test_a_terminal_over_spdy_has_the_client_s_size(port: int) -> None:
    target = "/exec?command=sh&command=-c&command=read+x;stty+size&tty=1&input=1&output=1&error=1"
    status, _, pipe = await upgrade_to_spdy("127.0.0.1", port, target, protocol=V4)
    assert status == 101
    async with SpdyClient(pipe) as client:
        error, resize, stdin, out = [
            await client.opened({"streamType": name}) for name in ("error", "resize", "stdin", "stdout")
        ]
        await client.write(resize, b'{"Width":99,"Hei')
        await client.write(resize, b'ght":33}\n')
        await client.write(stdin, b"\n")
        assert b"33 99" in await client.all_of(out)
        assert json.loads(await client.all_of(error))["status"] == "Success"


@pytest.mark.usefixtures("main")
async def test_a_client_that_goes_takes_its_program_with_it(kubelet: Kubelet, port: int, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    script = f"echo $$ > {mark}.new; mv {mark}.new {mark}; exec sleep 1000"
    target = f"/exec?command=sh&command=-c&command={script.replace(' ', '+')}&output=1"
    async with websocket(port, target, V5):
        async with asyncio.timeout(SECONDS):
            while not mark.exists():
                await asyncio.sleep(0.01)
    async with asyncio.timeout(SECONDS):
        await kubelet.ended.wait()
        pid = int(mark.read_text())
        while Path(f"/proc/{pid}").exists():
            await asyncio.sleep(0.01)


async def _type(client: SpdyClient, stdin: int) -> None:
    for _ in range(1000):
        await client.write(stdin, bytes(64 * 1024))


@pytest.mark.usefixtures("main")
async def test_a_client_that_dies_while_its_program_reads_nothing(kubelet: Kubelet) -> None:
    target = "/exec?command=sleep&command=1000&input=1&output=1"
    _, _, pipe = await upgrade_to_spdy("127.0.0.1", kubelet.relay_port, target, protocol=V4)
    async with SpdyClient(pipe) as client:
        stdin = [await client.opened({"streamType": name}) for name in ("error", "stdin", "stdout")][1]
        typing = asyncio.create_task(_type(client, stdin))
        await asyncio.wait([typing], timeout=1)
        assert not typing.done(), "nobody takes any more"
        typing.cancel()
        pipe.abort()
    async with asyncio.timeout(SECONDS):
        await kubelet.ended.wait()


@pytest.mark.usefixtures("main")
async def test_what_cannot_be_executed(port: int) -> None:
    async with websocket(port, "/exec?command=nothing&output=1", V5) as socket:
        out = await _collect(socket)
    answer = json.loads(out[3])
    assert answer["reason"] == "InternalError"
    assert answer["message"].startswith(
        'Internal error occurred: error executing command in container: exec: "nothing"'
    )


async def test_attach(sandbox: Sandbox, port: int, tmp_path: Path) -> None:
    container = support.shell(tmp_path, "read x; echo got $x", rootfs=support.machine_root(), stdin=True)
    await sandbox.start_container(container)
    async with websocket(port, "/attach?input=1&output=1&error=1", V5) as socket:
        await socket.send_bytes(b"\0word\n")
        out = await _collect(socket)
    assert (out[1], json.loads(out[3])["status"]) == (b"got word\n", "Success")


@pytest.mark.usefixtures("main")
async def test_refusals(port: int) -> None:
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await session.ws_connect(f"http://127.0.0.1:{port}/exec?command=ls&output=1", protocols=["v9.k8s.io"])
        assert refused.value.status == 400
    status, head, pipe = await upgrade_to_spdy(
        "127.0.0.1", port, "/exec?command=ls&output=1", protocol="v9.k8s.io"
    )
    await pipe.close()
    assert status == 403
    assert b"X-Accepted-Stream-Protocol-Versions: v4.channel.k8s.io" in head


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers when the question has ended, which a half-closed connection shows."""
    writer.write(b"echo " + await reader.read(-1))
    await writer.drain()
    writer.close()


@pytest.mark.parametrize("tunnelled", [False, True])
async def test_forwarding_ports(kubelet: Kubelet, port: int, tunnelled: bool) -> None:
    server = await asyncio.start_server(_echo, "127.0.0.1", 0)
    target = server.sockets[0].getsockname()[1]
    async with server, aiohttp.ClientSession() as session:
        if tunnelled:
            url = f"http://127.0.0.1:{port}/portForward"
            socket = await session.ws_connect(url, protocols=[upgrade.TUNNEL], max_msg_size=0)
            client = SpdyClient(TunnelPipe(socket))
        else:
            _, _, pipe = await upgrade_to_spdy("127.0.0.1", port, "/portForward", protocol="portforward.k8s.io")
            client = SpdyClient(pipe)
        async with client:
            pairs = []
            for number in range(3):
                headers = {"port": str(target), "requestID": str(number)}
                error = await client.open({"streamType": "error", **headers}, last=True)
                pairs.append((await client.opened({"streamType": "data", **headers}), error))
            for number, (data, _) in enumerate(pairs):
                await client.write(data, b"%d" % number * 50_000, last=True)
            for number, (data, error) in enumerate(pairs):
                assert await client.all_of(data) == b"echo " + b"%d" % number * 50_000
                assert await client.all_of(error) == b""
            nobody = {"port": "1", "requestID": "9"}
            error = await client.open({"streamType": "error", **nobody})
            await client.opened({"streamType": "data", **nobody})
            text = await client.all_of(error)
            assert text == b"failed to connect to localhost:1 inside the pod: connection refused"
            bad = await client.open({"streamType": "data", "port": "http", "requestID": "10"})
            async with asyncio.timeout(SECONDS):
                await client[bad].refused.wait()


async def test_forwarding_ports_over_channels(kubelet: Kubelet, port: int) -> None:
    server = await asyncio.start_server(_greet, "127.0.0.1", 0)
    target = server.sockets[0].getsockname()[1]
    async with server, websocket(port, f"/portForward?port={target}&port=1", V4) as socket:
        await socket.send_bytes(b"\0you")
        out = await _collect(socket)
    assert out[0] == target.to_bytes(2, "little") + b"hello you"
    assert out[1] == target.to_bytes(2, "little")
    assert out[3] == b"\1\0failed to connect to localhost:1 inside the pod: connection refused"


async def _greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"hello " + await reader.read(100))
    await writer.drain()
    writer.close()


async def test_a_relay_to_nobody_and_to_what_is_no_server(kubelet: Kubelet) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        async def dial() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            return await asyncio.open_connection("127.0.0.1", int(request.query["port"]))

        try:
            return await relay(request, "/exec", dial, {"Host": "x"})
        except RelayError as error:
            return web.Response(status=502, text=str(error))

    async def nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"220 smtp.example ready\r\n\r\n")
        writer.close()

    runners: list[web.AppRunner] = []
    port = await _serve([web.route("*", "/", handler)], runners)
    server = await asyncio.start_server(nonsense, "127.0.0.1", 0)
    other = server.sockets[0].getsockname()[1]
    try:
        async with server, aiohttp.ClientSession() as session:
            for target, message in ((1, "onnect"), (other, "not an answer in HTTP/1")):
                async with session.get(f"http://127.0.0.1:{port}/?port={target}") as answer:
                    assert (answer.status, message in await answer.text()) == (502, True)
    finally:
        await runners[0].cleanup()


@pytest.mark.parametrize(
    ("text", "port"),
    [("80", 80), ("65535", 65535), ("0", None), ("65536", None), ("", None), ("http", None), ("1" * 4000, None)],
)
def test_ports(text: str, port: int | None) -> None:
    assert port_of(text) == port
