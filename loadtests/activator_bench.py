"""What holding costs, behind a real Envoy with the smallest configuration (`tests.activator.envoy`).

    python -m loadtests.activator_bench [--rounds 200] [--held 2000] [--held 10000]

Prints two tables. *Wake*: Check received → poke called; the pod's probe answered → first byte at the client,
for a new pod in every round (connection set-up included) and for one that Envoy knows already (pooled
connection); and the time until a fresh port was found open. *Held*: N requests on one cold service, released
when its pod comes, with the CPU of the agent's process (gRPC, Check, release and access log all in) for each.
The last line is the part of it that is our own code: the same requests without gRPC in between.

Client, agent and the pods' application are processes of their own, so that no part measures another; on few
cores they still compete. Figures are for comparing two states of the code on one machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from rich.table import Table

from loadtests.common import CONSOLE, new_table, times_row, times_table
from serving.activator.accesslog import read_entries
from tests.activator.agent import Agent, serving_agent
from tests.activator.client import check_request, log_message
from tests.activator.envoy import free_port, running_envoy
from tests.activator.values import KEY, config, pod

NO_CONTEXT: Any = None
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"


# The application and the client, each `python -m loadtests.activator_bench --role …`


class Hello(asyncio.Protocol):
    """Answers every request at once, so that the application is not what is measured."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._transport.write(ANSWER * data.count(b"\r\n\r\n"))


async def application() -> None:
    """Opens one more port for every line on stdin, printing when it did."""
    stdin = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)
    servers = []
    while line := await stdin.readline():
        servers.append(await loop.create_server(Hello, "127.0.0.1", int(line), backlog=4096, reuse_address=True))
        print(time.time(), flush=True)


def one_client(url: str) -> tuple[int, float]:
    """One request over a connection of its own; status and time of the first byte. Plain blocking calls: a full
    client's own milliseconds would be in the figure."""
    host, _, port = url.removeprefix("http://").rstrip("/").partition(":")
    with socket.create_connection((host, int(port)), timeout=300) as connection:
        connection.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        answer = connection.recv(65536)
        return int(answer.split(b" ", 2)[1]), time.time()


async def client(url: str) -> None:
    """For every line `N` on stdin sends N requests at once and prints statuses and times of first bytes."""
    stdin = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)
    timeout = aiohttp.ClientTimeout(300)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:

        async def one() -> tuple[int, float]:
            async with session.get(url) as response:
                first = time.time()
                await response.read()
                return response.status, first

        while line := await stdin.readline():
            count = int(line)
            if count == 1:
                answers = [one_client(url)]
            else:
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(one()) for _ in range(count)]
                answers = [task.result() for task in tasks]
            print(json.dumps(answers), flush=True)


class Helper:
    """One of the two, as a process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    def tell(self, line: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())

    async def answer(self) -> str:
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError("helper process ended")
        return line.decode()


@asynccontextmanager
async def helper(*arguments: str) -> AsyncIterator[Helper]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "loadtests.activator_bench", *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=64 * 1024 * 1024,
    )
    try:
        yield Helper(process)
    finally:
        process.kill()
        await process.wait()


class Bench:
    def __init__(self, *, agent: Agent, app: Helper, client: Helper) -> None:
        self.agent = agent
        self.app = app
        self.client = client
        self.config = config(timeout_seconds=300.0, queue_depth=100_000)
        self.poked_at = 0.0
        self.checked_at = 0.0
        self.answered_at = 0.0
        self._watch()

    def _watch(self) -> None:
        """Time stamps at the seams, taken where the product calls out or is called."""
        activator = self.agent.activator
        now, told = activator._now, activator._prober._told

        def poke(key: str, held: int) -> None:
            self.poked_at = time.perf_counter()
            self.agent.poked.set()

        def clock() -> float:
            # The first thing that a Check does is to look at the clock.
            self.checked_at = self.checked_at or time.perf_counter()
            return now()

        def probed(key: str, uid: str, answered: bool) -> None:
            if answered:
                self.answered_at = time.time()
            told(key, uid, answered)

        activator._poke = poke
        activator._now = clock
        activator._prober._told = probed

    async def port(self) -> tuple[int, float]:
        port = free_port()
        self.app.tell(port)
        return port, float(await self.app.answer())

    async def wake(self, rounds: int) -> None:
        poke: list[float] = []
        found: list[float] = []
        fresh: list[float] = []
        for number in range(rounds):
            await self._begin()
            poke.append(self.poked_at - self.checked_at)
            port = free_port()
            self.agent.activator.update(self.config, [pod(f"p{number}", f"127.0.0.1:{port}")])
            await asyncio.sleep(0.02 + 0.0013 * (number % 40))
            self.app.tell(port)
            opened = float(await self.app.answer())
            ((status, first),) = json.loads(await self.client.answer())
            assert status == 200
            found.append(max(0.0, self.answered_at - opened))
            fresh.append(first - self.answered_at)
        pooled: list[float] = []
        port, _ = await self.port()
        for number in range(rounds):
            await self._begin()
            self.agent.activator.update(self.config, [pod(f"q{number}", f"127.0.0.1:{port}")])
            ((status, first),) = json.loads(await self.client.answer())
            assert status == 200
            pooled.append(first - self.answered_at)
        table = times_table("Wake")
        times_row(table, "Check received → poke", poke)
        times_row(table, "port open → probe answered (waiting 20-70 ms before)", found)
        times_row(table, "probe answered → first byte, fresh pod", fresh)
        times_row(table, "probe answered → first byte, pooled connection", pooled[1:])
        CONSOLE.print(table)

    async def _begin(self) -> None:
        self.agent.activator.update(self.config, [])
        self.agent.poked.clear()
        self.checked_at = 0.0
        self.client.tell(1)
        await self.agent.poked.wait()

    async def held(self, table: Table, count: int) -> None:
        port, _ = await self.port()
        self.agent.activator.update(self.config, [])
        before, began = resource.getrusage(resource.RUSAGE_SELF), time.time()
        self.client.tell(count)
        while self.agent.activator.held(KEY) < count:
            await asyncio.sleep(0.01)
        absorbed = time.time()
        self.agent.activator.update(self.config, [pod(f"held-{port}", f"127.0.0.1:{port}")])
        answers = json.loads(await self.client.answer())
        after = resource.getrusage(resource.RUSAGE_SELF)
        good = sum(status == 200 for status, _ in answers)
        last = max(first for _, first in answers)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        table.add_row(
            str(count),
            str(good),
            f"{absorbed - began:.2f}",
            f"{last - absorbed:.2f}",
            f"{cpu / count * 1e3:.3f}",
            f"{after.ru_maxrss / 1024:.0f}",
        )


async def bench(rounds: int, counts: list[int]) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        socket = directory / "agent.sock"
        async with (
            serving_agent(socket, state_dir=directory / "state") as agent,
            running_envoy(directory, agent_socket=socket, revision=KEY) as url,
            helper("--role", "application") as app,
            helper("--role", "client", "--url", url) as requests,
        ):
            made = Bench(agent=agent, app=app, client=requests)
            await made.wake(rounds)
            table = new_table(
                "Held on one cold service",
                "held",
                "answered 200",
                "absorbed s",
                "released s",
                "agent CPU ms/request",
                "agent RSS MiB",
            )
            for count in counts:
                await made.held(table, count)
            CONSOLE.print(table)
    CONSOLE.print(f"own code of a held request, without gRPC: {await own_code(5000) * 1e6:.0f} µs")


async def own_code(count: int) -> float:
    """Seconds of Python for each request from its Check to the end in the access log, called directly."""
    with tempfile.TemporaryDirectory() as name:
        agent = Agent(Path(name))
        wanted = config(timeout_seconds=300.0, queue_depth=count, max_in_flight_per_pod=count)
        agent.activator.update(wanted, [])
        requests = [check_request() for _ in range(count)]
        began = time.perf_counter()
        tasks = [asyncio.create_task(agent.activator._check(request, NO_CONTEXT)) for request in requests]
        await asyncio.sleep(0)
        agent.activator.update(wanted, [pod("a", "127.0.0.1:1", kube_ready=True)])
        answers = [await task for task in tasks]
        spent = time.perf_counter() - began
        messages = [log_message(request, answer) for request, answer in zip(requests, answers, strict=True)]
        began = time.perf_counter()
        for message in messages:
            for ended in read_entries(message):
                agent.activator._ended(ended)
        spent += time.perf_counter() - began
        assert agent.activator.in_flight("a") == 0
        agent.activator.close()
        return spent / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--held", type=int, action="append")
    parser.add_argument("--role", choices=["application", "client"])
    parser.add_argument("--url", default="")
    given = parser.parse_args()
    if given.role == "application":
        asyncio.run(application())
    elif given.role == "client":
        asyncio.run(client(given.url))
    else:
        asyncio.run(bench(given.rounds, given.held or [2000]))


if __name__ == "__main__":
    main()
