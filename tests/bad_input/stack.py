"""The webhook, in the test's own loop, before an API server: nothing else is needed to judge objects."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

from serving.api.keys import SYSTEM_NAMESPACE
from serving.api.resources import CONFIG_MAPS
from serving.api.v1 import ConfigMap
from serving.kube.client import KubeClient
from serving.kube.connection import over_unix_socket
from serving.kube.errors import NotFound
from serving.kube.informer import Informer
from serving.local.apiserver.service import Running
from serving.webhook.registration import register
from serving.webhook.service import Webhook
from tests.bad_input.asking import Configure
from tests.local.apiserver.harness import running_apiserver, shipped_manifests

__all__ = ["embedded_stack", "webhook_before"]


@asynccontextmanager
async def embedded_stack(directory: Path) -> AsyncIterator[tuple[Running, Configure]]:
    async with (
        running_apiserver(directory, manifests=shipped_manifests()) as server,
        KubeClient(over_unix_socket(server.socket, token=server.token)) as client,
        webhook_before(client) as configure,
    ):
        yield server, configure


@asynccontextmanager
async def webhook_before(
    client: KubeClient, *, tls: ssl.SSLContext | None = None, authority: str = ""
) -> AsyncIterator[Configure]:
    """The webhook of the API server that `client` talks to, registered there. The value sets the ConfigMaps and
    returns when the webhook knows them. `authority`: PEM of what signed its certificate."""
    informer = Informer(client, CONFIG_MAPS, ConfigMap, namespace=SYSTEM_NAMESPACE)
    seen: dict[str, str] = {}
    changed = asyncio.Event()

    def observe(key: str, old: ConfigMap | None, new: ConfigMap | None) -> None:
        seen[key.rpartition("/")[2]] = "" if new is None else new.metadata.resource_version
        changed.set()

    webhook = Webhook(client, informer)
    informer.subscribe(observe)
    runner = web.AppRunner(webhook.app(), access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        url = f"{'https' if tls else 'http'}://127.0.0.1:{runner.addresses[0][1]}"
        bundle = base64.b64encode(authority.encode()).decode() if authority else None
        await register(client, url=url, ca_bundle=bundle)
        async with asyncio.TaskGroup() as group:
            running = group.create_task(informer.run())
            await informer.synced.wait()

            async def configure(config: dict[str, dict[str, str]]) -> None:
                for name in ("config-autoscaler", "config-defaults", "config-features"):
                    version = await _write(client, name, config.get(name, {}))
                    async with asyncio.timeout(10):
                        while seen.get(name) != version:
                            changed.clear()
                            await changed.wait()

            yield configure
            running.cancel()
    finally:
        # An API server keeps its connections, and says no TLS good-bye before the test's loop ends.
        for connection in runner.server.connections if runner.server is not None else ():
            if connection.transport is not None:
                connection.transport.abort()
        await runner.cleanup()


async def _write(client: KubeClient, name: str, data: dict[str, str]) -> str:
    """Returns the version that was written."""
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}
    try:
        stored = await client.get(CONFIG_MAPS, name, SYSTEM_NAMESPACE)
    except NotFound:
        written = await client.create(CONFIG_MAPS, body, SYSTEM_NAMESPACE)
    else:
        change = {"data": {**dict.fromkeys(stored.get("data") or {}), **data} or None}
        written = await client.patch(CONFIG_MAPS, name, change, SYSTEM_NAMESPACE)
    version: str = written["metadata"]["resourceVersion"]
    return version
