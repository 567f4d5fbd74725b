"""exec, attach and portForward of the kubelet's API."""

from __future__ import annotations

import asyncio
import functools
import logging
import socket
from collections.abc import Sequence
from typing import Final

from aiohttp import web

from serving.api.pod import Container
from serving.local.node.agent import NodeAgent
from serving.local.node.pod_runner import PodRunner
from serving.local.node.port_channels import PROTOCOLS, forward_channels
from serving.local.node.port_forward import Forwarder, port_of
from serving.local.node.remote_command import attach, execute, serve
from serving.local.node.state import Phase
from serving.local.sandbox.protocol import Sandbox, SandboxError
from serving.local.streaming import upgrade
from serving.local.streaming.session import Wanted
from serving.local.streaming.upgrade import UpgradeRefused

log = logging.getLogger(__name__)

_CONNECT_SECONDS: Final = 10.0
_LOOPBACK: Final = "127.0.0.1"


class StreamingApi:
    def __init__(self, agent: NodeAgent) -> None:
        self._agent = agent

    def routes(self) -> Sequence[web.RouteDef]:
        routes = []
        for method in ("GET", "POST"):
            for uid in ("", "/{uid}"):
                pod = "{namespace}/{pod}" + uid
                routes += [
                    web.route(method, f"/exec/{pod}/{{container}}", self._exec),
                    web.route(method, f"/attach/{pod}/{{container}}", self._attach),
                    web.route(method, f"/portForward/{pod}", self._port_forward),
                ]
        return routes

    async def _exec(self, request: web.Request) -> web.StreamResponse:
        try:
            name, sandbox, _ = self._container(request)
            wanted = wanted_streams(request)
            command = request.query.getall("command", [])
            if not command:
                raise UpgradeRefused(400, "you must specify at least 1 word of a command")
            async with upgrade.remote_command(request, wanted) as session:
                start = functools.partial(
                    sandbox.execute,
                    name,
                    command,
                    stdin=wanted.stdin,
                    stdout=wanted.stdout,
                    stderr=wanted.stderr,
                    tty=wanted.tty,
                )
                await serve(session, lambda: execute(session, start))
                return session.response
        except UpgradeRefused as refused:
            return refused.response()

    async def _attach(self, request: web.Request) -> web.StreamResponse:
        try:
            name, sandbox, container = self._container(request)
            wanted = wanted_streams(request)
            async with upgrade.remote_command(request, wanted) as session:
                work = functools.partial(
                    attach, session, sandbox, name, stdin=container.stdin, once=container.stdin_once
                )
                await serve(session, work)
                return session.response
        except UpgradeRefused as refused:
            return refused.response()

    async def _port_forward(self, request: web.Request) -> web.StreamResponse:
        try:
            runner = self._runner(request)
            connect = functools.partial(self._connect, runner)
            if upgrade.asks_for_websocket(request) and not upgrade.offers(request, upgrade.TUNNEL):
                ports = _ports(request)
                socket = await upgrade.websocket(request, PROTOCOLS)
                await forward_channels(socket, ports, connect)
                return socket
            async with upgrade.port_streams(request) as (connection, response):
                await Forwarder(connection, connect).run()
                return response
        except UpgradeRefused as refused:
            return refused.response()

    def _runner(self, request: web.Request) -> PodRunner:
        """Raises UpgradeRefused."""
        runner = self._agent.find(request.match_info["namespace"], request.match_info["pod"])
        uid = request.match_info.get("uid")
        if runner is None or (uid and runner.pod.metadata.uid != uid):
            raise UpgradeRefused(404, "pod does not exist")
        if runner.sandbox is None:
            raise UpgradeRefused(500, f"pod {runner.pod.metadata.key} has no sandbox yet")
        return runner

    def _container(self, request: web.Request) -> tuple[str, Sandbox, Container]:
        """Raises UpgradeRefused."""
        runner, name = self._runner(request), request.match_info["container"]
        record = runner.record.containers.get(name)
        if record is None or record.phase is not Phase.RUNNING or runner.sandbox is None:
            raise UpgradeRefused(500, f'container not found ("{name}")')
        spec = runner.pod.spec
        container = next(one for one in (*spec.init_containers, *spec.containers) if one.name == name)
        return name, runner.sandbox, container

    async def _connect(self, runner: PodRunner, port: int) -> socket.socket:
        """Raises OSError."""
        sandbox = runner.sandbox
        if sandbox is None:
            raise ConnectionRefusedError("the pod has ended")
        own = sandbox.address.port
        if own is not None:
            # A plain process shares the machine's network. Only its own port is the pod's.
            declared = {item.container_port for one in runner.pod.spec.containers for item in one.ports}
            if port != own and port not in declared:
                raise ConnectionRefusedError(f"port {port} is not a containerPort of the pod")
            port = own
        try:
            made = await sandbox.tcp_socket()
        except SandboxError as error:
            raise ConnectionRefusedError(str(error)) from error
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                await asyncio.get_running_loop().sock_connect(made, (_LOOPBACK, port))
        except BaseException:
            made.close()
            raise
        return made


def wanted_streams(request: web.Request) -> Wanted:
    """Of the kubelet's query. Raises UpgradeRefused."""
    asked = {name: request.query.get(name) in ("1", "true") for name in ("input", "output", "error", "tty")}
    if not (asked["input"] or asked["output"] or asked["error"]):
        raise UpgradeRefused(400, "you must specify at least 1 of stdin, stdout, stderr")
    return Wanted(
        stdin=asked["input"],
        stdout=asked["output"],
        stderr=asked["error"] and not asked["tty"],
        tty=asked["tty"],
    )


def _ports(request: web.Request) -> list[int]:
    texts = [part for text in request.query.getall("port", []) for part in text.split(",")]
    ports = [port for text in texts if (port := port_of(text)) is not None]
    if not ports or len(ports) != len(texts):
        raise UpgradeRefused(400, f'query parameter "port": {",".join(texts)!r} must be numbers from 1 to 65535')
    return ports
