"""Sends probes: http, tcp, exec and gRPC, each over a fresh connection to the pod's own address.

The `host` of an HTTP probe only becomes its Host header: a pod must not make the node agent call other machines.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Final
from urllib.parse import urljoin, urlsplit

import aiohttp
import msgspec

from serving.api.pod import Container, GrpcAction, HttpGetAction, Pod, Probe
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
from serving.local.sandbox.protocol import Sandbox, SandboxError

_BODY_LIMIT: Final = 10 * 1024
_MAX_REDIRECTS: Final = 10
_USER_AGENT: Final = "kube-probe/1.34"
_GRPC_SERVING: Final = 1


class ProbeResult(msgspec.Struct, frozen=True):
    ok: bool
    message: str = ""


class Prober:
    """Shared by all pods of a node. Use as an async context manager."""

    def __init__(self) -> None:
        self.starting = 0
        """Containers that wait for their first success."""
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def run(
        self,
        kind: ProbeKind,
        probe: Probe,
        *,
        container: Container,
        pod: Pod,
        sandbox: Sandbox,
        started_for: float,
        passing: bool,
        changed: Callable[[ProbeState, ProbeResult], None],
    ) -> None:
        """Probe until cancelled or over. `changed` hears each result that counts. `started_for`: seconds since
        the container started."""
        loop = asyncio.get_running_loop()
        settings = probe_settings(kind, probe)
        state = first_state(settings, passing=passing)
        if over(state, settings):
            return
        await asyncio.sleep(max(0.0, settings.initial_delay - started_for))
        begun = loop.time()
        waiting = kind is not ProbeKind.LIVENESS and not state.answered
        self.starting += waiting
        try:
            while True:
                result = await self.probe(probe, container=container, pod=pod, sandbox=sandbox)
                state = observe(state, settings, ok=result.ok, now=loop.time())
                if state.answered and waiting:
                    self.starting -= 1
                    waiting = False
                changed(state, result)
                if over(state, settings) or exhausted(state, settings):
                    return
                await asyncio.sleep(
                    next_delay(state, settings, elapsed=loop.time() - begun, probing=self.starting)
                )
        finally:
            self.starting -= waiting

    async def probe(self, probe: Probe, *, container: Container, pod: Pod, sandbox: Sandbox) -> ProbeResult:
        """One probe; never raises but for cancellation."""
        timeout = float(probe.timeout_seconds or 1)
        try:
            if probe.exec is not None:
                done = await sandbox.exec(container.name, probe.exec.command, timeout_seconds=timeout)
                text = (done.stdout + done.stderr)[:_BODY_LIMIT].decode(errors="replace")
                return ProbeResult(done.exit_code == 0, text)
            async with asyncio.timeout(timeout):
                return await self._network(probe, container, pod, sandbox)
        except TimeoutError:
            return ProbeResult(False, f"probe timed out after {timeout:g}s")
        except (OSError, ValueError, SandboxError, aiohttp.ClientError) as error:
            return ProbeResult(False, str(error) or type(error).__name__)

    async def _network(self, probe: Probe, container: Container, pod: Pod, sandbox: Sandbox) -> ProbeResult:
        address = sandbox.address
        action = probe.http_get or probe.tcp_socket or probe.grpc
        if action is None:
            return ProbeResult(False, "the probe has no handler")
        port = target_port(action, container, pod, address)
        if isinstance(action, HttpGetAction):
            return await self._http(action, address.ip, port)
        if isinstance(action, GrpcAction):
            return await _grpc(action, address.ip, port)
        return await _tcp(address.ip, port)

    async def _http(self, action: HttpGetAction, ip: str, port: int) -> ProbeResult:
        headers = {"User-Agent": _USER_AGENT, "Accept": "*/*"}
        if action.host:
            headers["Host"] = action.host
        for header in action.http_headers:
            headers = {name: value for name, value in headers.items() if name.lower() != header.name.lower()}
            headers[header.name] = header.value
        path = action.path if action.path.startswith("/") else f"/{action.path}"
        bracketed = f"[{ip}]" if ":" in ip else ip
        url = f"{action.scheme.lower()}://{bracketed}:{port}{path}"
        for _ in range(_MAX_REDIRECTS):
            async with self._client().get(url, headers=headers, allow_redirects=False, ssl=False) as response:
                await response.content.read(_BODY_LIMIT)
                status, location = response.status, response.headers.get("Location", "")
            target = urljoin(url, location)
            if not (300 <= status < 400 and location) or urlsplit(target).hostname != ip:
                ok = 200 <= status < 400
                return ProbeResult(ok, "" if ok else f"HTTP probe failed with statuscode: {status}")
            url = target
        return ProbeResult(False, f"stopped after {_MAX_REDIRECTS} redirects")

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(force_close=True, limit=0, use_dns_cache=False)
            self._session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
        return self._session


async def _tcp(ip: str, port: int) -> ProbeResult:
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_STREAM) as connection:
        connection.setblocking(False)
        await loop.sock_connect(connection, (ip, port))
    return ProbeResult(True)


async def _grpc(action: GrpcAction, ip: str, port: int) -> ProbeResult:
    """`grpc.health.v1.Health/Check`. Both messages have one field, so they are coded by hand."""
    grpc = _grpc_library()
    service = (action.service or "").encode()
    request = (b"\x0a" + _varint(len(service)) + service) if service else b""
    target = f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"
    options = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0))
    async with grpc.aio.insecure_channel(target, options=options) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check", request_serializer=bytes, response_deserializer=bytes
        )
        try:
            answer = await check(request, metadata=(("user-agent", _USER_AGENT),))
        except grpc.aio.AioRpcError as error:
            return ProbeResult(False, f"gRPC probe failed: {error.code().name}: {error.details()}")
    status = answer[1] if len(answer) >= 2 and answer[0] == 0x08 else 0
    return ProbeResult(status == _GRPC_SERVING, f"gRPC health status {status}")


@cache
def _grpc_library() -> ModuleType:
    """Heavy, and only pods with gRPC probes need it. Its poller thread is kept: without this the end of the last
    channel would stop it, and wait for that in the event loop."""
    import grpc

    grpc.aio.init_grpc_aio()
    return grpc


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])
