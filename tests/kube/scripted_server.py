"""A server that answers what a test says, for what the embedded API server never does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

from serving.kube.client import KubeClient
from serving.kube.connection import over_unix_socket

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def answering(directory: Path, handler: Handler) -> AsyncIterator[KubeClient]:
    """A client of a server whose every request goes to `handler`."""
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.UnixSite(runner, str(directory / "api.sock")).start()
    try:
        async with KubeClient(over_unix_socket(directory / "api.sock", token="t")) as client:
            yield client
    finally:
        await runner.cleanup()
