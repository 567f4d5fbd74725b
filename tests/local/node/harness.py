"""A node agent on fakes, as a process would run it, that can be killed and started again."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from serving.api.meta import JsonObject
from serving.api.resources import PODS
from serving.local.node.service import NodeSettings, run
from tests.local.node.fakes import FakeImages, FakeKube, FakeRuntime, FakeSandbox
from tests.local.node.pods import NODE


class Node:
    """The pieces of one test. `start` and `stop` the agent at will; the rest outlives it."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        self.kube = FakeKube()
        self.runtime = FakeRuntime()
        self.images = FakeImages()
        self.settings = NodeSettings(
            name=NODE, data_dir=directory / "node", instance="test", memory_dir=directory / "memory", **settings
        )
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(
            run(self.settings, client=self.kube, runtime=self.runtime, images=self.images)
        )
        await self.kube.until(lambda: self.settings.socket.is_socket())

    async def stop(self) -> None:
        """As abrupt as a task can be ended."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        # The killed agent's consumer of exits died with it.
        for sandbox in self.runtime.sandboxes.values():
            sandbox.abandon()

    def add(self, pod: JsonObject) -> None:
        self.kube.put(PODS, pod)

    async def phase(self, phase: str, name: str = "p") -> None:
        await self.kube.until(lambda: self.kube.pod(name).status.phase == phase)

    async def ready(self, name: str = "p") -> None:
        await self.kube.until(lambda: self.kube.pod(name).ready)

    def sandbox(self, name: str = "p") -> FakeSandbox:
        return self.runtime.sandboxes[f"uid-{name}"]


@asynccontextmanager
async def node(**settings: Any) -> AsyncIterator[Node]:
    with tempfile.TemporaryDirectory() as directory:
        it = Node(Path(directory), **settings)
        try:
            await it.start()
            yield it
        finally:
            await it.stop()
