"""A node agent as the API server sees it: a kubelet-style log endpoint on a Unix socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

from serving.api.meta import JsonObject


class NodeAgent:
    """`log` is what was written so far; `write` adds to it and reaches followers."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.following = asyncio.Event()
        self._log = b""
        self._followers: list[asyncio.Queue[bytes]] = []

    def node(self, name: str) -> JsonObject:
        annotations = {"nodeless.dev/kubelet": f"unix:{self.path}"}
        return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "annotations": annotations}}

    def write(self, text: bytes) -> None:
        self._log += text
        for follower in self._followers:
            follower.put_nowait(text)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append((request.path, dict(request.query)))
        if request.query.get("previous") == "true":
            return web.Response(status=400, text='previous terminated container "c" in pod "p" not found')
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        await response.write(self._log)
        if request.query.get("follow") == "true":
            queue: asyncio.Queue[bytes] = asyncio.Queue()
            self._followers.append(queue)
            self.following.set()
            while text := await queue.get():
                await response.write(text)
        return response

    def close_streams(self) -> None:
        for follower in self._followers:
            follower.put_nowait(b"")


@asynccontextmanager
async def running_node_agent(path: Path) -> AsyncIterator[NodeAgent]:
    agent = NodeAgent(path)
    app = web.Application()
    app.router.add_get("/containerLogs/{namespace}/{pod}/{container}", agent.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.UnixSite(runner, str(path)).start()
        yield agent
    finally:
        agent.close_streams()
        await runner.cleanup()
