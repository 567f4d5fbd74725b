"""An activator with a gRPC server, in the test's loop or as a process of its own that can be killed.

As a process: `python -m tests.activator.agent SOCKET STATE_DIR`, one JSON line `{"revision": …, "pods": […]}`
on stdin for each update; prints `serving` once the socket is there.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import msgspec
from prometheus_client import CollectorRegistry

from serving.activator.model import PodEndpoint, RevisionConfig
from serving.activator.rpc import SERVER_OPTIONS
from serving.activator.service import Activator
from serving.api.reports import Budget
from serving.telemetry.budget import BudgetRecorder

KEY = "default/hello-00001"


class Update(msgspec.Struct):
    revision: RevisionConfig
    pods: list[PodEndpoint]


class Agent:
    """An activator and what it told the gateway."""

    def __init__(self, state_dir: Path | None = None) -> None:
        self.pokes: list[tuple[str, int]] = []
        self.changes: list[str] = []
        self.budgets: list[Budget] = []
        self.registry = CollectorRegistry()
        self.poked = asyncio.Event()
        self.changed = asyncio.Event()
        self.activator = Activator(
            poke=self._poke,
            changed=self._changed,
            budget=self.budgets.append,
            recorder=BudgetRecorder(registry=self.registry),
            state_dir=state_dir,
        )

    def _poke(self, key: str, held: int) -> None:
        self.pokes.append((key, held))
        self.poked.set()

    def _changed(self, key: str) -> None:
        self.changes.append(key)
        self.changed.set()


@asynccontextmanager
async def serving_agent(socket: Path, *, state_dir: Path | None = None) -> AsyncIterator[Agent]:
    agent = Agent(state_dir)
    server = grpc.aio.server(options=SERVER_OPTIONS)
    agent.activator.add_to_server(server)
    assert server.add_insecure_port(f"unix:{socket}")
    await server.start()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(agent.activator.run())
        try:
            yield agent
        finally:
            await server.stop(0)
            running.cancel()
            agent.activator.close()


async def main(socket: Path, state_dir: Path) -> None:
    stdin = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)
    first = msgspec.json.decode(await stdin.readline(), type=Update)
    agent = Agent(state_dir)
    agent.activator.update(first.revision, first.pods)
    server = grpc.aio.server(options=SERVER_OPTIONS)
    agent.activator.add_to_server(server)
    server.add_insecure_port(f"unix:{socket}")
    await server.start()
    sys.stdout.write("serving\n")
    sys.stdout.flush()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(agent.activator.run())
        while line := await stdin.readline():
            update = msgspec.json.decode(line, type=Update)
            agent.activator.update(update.revision, update.pods)
        await server.stop(0)
        running.cancel()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2])))
