"""What happens when the agent, Envoy or the API server goes away, and when Envoy refuses something."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.route.v3.route_components_pb2 import VirtualHost

from serving.api.resources import PODS
from serving.gateway.envoy import adopted_ports, alive, read_boot
from serving.gateway.ir import Endpoints
from serving.gateway.translate import names
from serving.gateway.translate.endpoints import load_assignment
from serving.gateway.xds.snapshot import CLUSTER_TYPE, ROUTE_TYPE, Item, item
from tests.gateway.apps import App
from tests.gateway.world import World, world

pytestmark = pytest.mark.envoy


class Agent:
    """An agent process of a world."""

    def __init__(self, gw: World) -> None:
        self._gw = gw
        self._process: Process | None = None

    async def start(self) -> None:
        settings = msgspec.json.encode(self._gw.settings, enc_hook=str).decode()
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.gateway.agent_process", str(self._gw.api.socket), settings,
            stdin=PIPE, stdout=PIPE, cwd=Path(__file__).parents[2],
        )  # fmt: skip
        words = await self._line("READY")
        self._gw.port, self._gw.local_port = int(words[1]), int(words[2])

    async def sent(self) -> int:
        """Resources that this process has sent to Envoy."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        words = await self._line("SENT")
        assert words[2] == "True"
        return int(words[1])

    async def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        await self._process.wait()

    async def terminate(self) -> None:
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.terminate()
            if self._process.stdin is not None:
                self._process.stdin.close()
            await self._process.wait()

    async def _line(self, word: str) -> list[str]:
        assert self._process is not None
        assert self._process.stdout is not None
        async with asyncio.timeout(15):
            while line := (await self._process.stdout.readline()).decode():
                if line.startswith(word):
                    return line.split()
        raise AssertionError("the agent ended")


async def test_a_killed_agent_is_replaced_without_a_trace(app: App, other: App) -> None:
    """Envoy goes on serving, is adopted, gets nothing again, and requests held meanwhile are answered once."""
    async with world() as gw:
        for name in ("r1", "r2"):
            gw.revision(name)
            gw.route(name, {name: 100})
        gw.pod(app, "r1")
        agent = Agent(gw)
        await agent.start()
        try:
            assert (await gw.get("r1"))[:2] == (200, "p1")
            boot = read_boot(gw.settings.data_dir)
            held = [asyncio.create_task(gw.get("r2", method="POST", data=b"x" * 100_000)) for _ in range(10)]
            await asyncio.sleep(0.3)
            await agent.kill()
            assert (await gw.get("r1"))[:2] == (200, "p1"), "without any agent"
            assert adopted_ports(gw.settings.data_dir) == {gw.port, gw.local_port}
            await agent.start()
            assert read_boot(gw.settings.data_dir) == boot
            assert await agent.sent() == 0
            assert not any(task.done() for task in held)
            gw.pod(other, "r2")
            assert Counter([status for status, _, _ in await asyncio.gather(*held)]) == {200: 10}
            assert other.requests == 10
        finally:
            await agent.terminate()
        assert boot is not None
        assert not alive(boot), "an orderly stop ends Envoy"


async def test_a_killed_envoy_is_started_again(gw: World, app: App) -> None:
    gw.revision("r1")
    gw.route("hello", {"r1": 100})
    gw.pod(app, "r1")
    await gw.until_served("hello")
    before = gw.gateway.envoy.boot
    os.kill(before.pid, signal.SIGKILL)
    await gw.until(lambda: gw.gateway.envoy.boot.pid != before.pid)
    await gw.until(lambda: gw.gateway.xds.connected)
    await gw.until_served("hello")
    await gw.until(lambda: gw.gateway.programming.listening())
    assert (await gw.get("hello"))[:2] == (200, "p1")
    assert gw.gateway.envoy.boot.nonce == before.nonce


async def test_the_stored_snapshot_is_served_while_the_api_server_is_away(app: App) -> None:
    async with world() as gw:
        await gw.start()
        gw.revision("r1")
        gw.route("hello", {"r1": 100})
        gw.pod(app, "r1")
        await gw.until_served("hello")
        await gw.until_warm("r1")
        await gw.stop()
        gw.api.available = False
        await gw.start()
        assert (await gw.get("hello"))[:2] == (200, "p1")
        gw.api.delete(PODS, "default", "p1")
        gw.api.available = True
        await gw.until(lambda: gw.gateway.programming.ir.routes, seconds=15)
        await gw.until_warm("r1", 0)
        waiting = asyncio.create_task(gw.get("hello"))
        await gw.until(lambda: gw.gateway.activator.held("default/r1") == 1)
        gw.pod(app, "r1")
        assert (await waiting)[:2] == (200, "p1")


async def test_a_refused_virtual_host_is_left_out(gw: World, app: App) -> None:
    """Domains that Envoy cannot have together take nobody else with them."""
    gw.revision("r1")
    gw.pod(app, "r1")
    for number in range(6):
        gw.route(f"good-{number}", {"r1": 100})
        await gw.until_served(f"good-{number}")
    control = gw.gateway.programming.control
    hosts = control.hosts[names.PUBLIC]
    for name, domain in (("fine-1", "f1"), ("twin", "good-3.default.example.test"), ("fine-2", "f2")):
        host = _decoded(hosts.wanted["default/good-3"])
        host.name = name
        host.domains[:] = [domain]
        hosts.want(name, item(host, refs=["default/r1"]))
    gw.gateway.xds.wake()
    await gw.until(lambda: (ROUTE_TYPE, "twin") in control.refusals())
    await gw.until(lambda: "fine-1" in hosts.applier.acked and "fine-2" in hosts.applier.acked)
    assert set(control.refusals()) == {(ROUTE_TYPE, "twin")}
    assert "domain" in control.refusals()[ROUTE_TYPE, "twin"].error
    assert (await gw.get("", host="f2"))[0] == 200
    gw.route("later", {"r1": 100})
    await gw.until_served("later")
    for name in ("good-3", "good-5", "later"):
        assert (await gw.get(name))[0] == 200


async def test_a_refused_cluster_holds_back_only_its_own_route(gw: World, app: App) -> None:
    gw.revision("r1")
    gw.pod(app, "r1")
    gw.route("good", {"r1": 100})
    await gw.until_served("good")
    control = gw.gateway.programming.control
    for number in range(4):
        name = f"default/x{number}"
        cluster = _decoded(control.clusters.wanted["default/r1"], kind="cluster")
        cluster.name = name
        if number == 2:
            cluster.connect_timeout.Clear()
        control.clusters.want(name, item(cluster))
        control.want_endpoints(name, item(load_assignment(Endpoints(revision=name, h2c=False))))
    gw.gateway.xds.wake()
    await gw.until(lambda: (CLUSTER_TYPE, "default/x2") in control.refusals())
    await gw.until(lambda: control.ready("default/x3"))
    assert set(control.refusals()) == {(CLUSTER_TYPE, "default/x2")}
    assert (await gw.get("good"))[0] == 200


def _decoded(of: Item, *, kind: str = "virtual host") -> Any:
    return (Cluster if kind == "cluster" else VirtualHost).FromString(of.data)
