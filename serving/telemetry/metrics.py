"""The Prometheus endpoint of a process: `/metrics` and `/healthz`, on TCP or a Unix socket."""

from __future__ import annotations

import asyncio

from aiohttp import web
from prometheus_client import REGISTRY, CollectorRegistry, exposition


async def serve_metrics(address: str, *, registry: CollectorRegistry = REGISTRY) -> None:
    """Serve on `unix:/path` or `host:port` until cancelled. Raises OSError when the address is taken."""

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(
            body=exposition.generate_latest(registry),
            headers={"Content-Type": exposition.CONTENT_TYPE_LATEST},
        )

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok")

    application = web.Application()
    application.add_routes([web.get("/metrics", metrics), web.get("/healthz", healthz)])
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        site: web.BaseSite
        if address.startswith("unix:"):
            site = web.UnixSite(runner, address.removeprefix("unix:"))
        else:
            host, _, port = address.rpartition(":")
            site = web.TCPSite(runner, host, int(port))
        await site.start()
        await asyncio.get_running_loop().create_future()
    finally:
        await runner.cleanup()
