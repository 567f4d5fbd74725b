"""A gateway with a real Envoy, a fake API server and a fake controller, all on loopback."""

from __future__ import annotations

import asyncio
import io
import json
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from prometheus_client import CollectorRegistry

from serving.api.meta import JsonObject
from serving.api.reports import GatewayMessage, Settings
from serving.api.resources import PODS, REVISIONS, ROUTES
from serving.controller.reports_server import ReportsServer
from serving.gateway.service import Gateway, GatewaySettings
from serving.gateway.xds.snapshot import ENDPOINT_TYPE
from serving.kube.client import KubeClient
from serving.telemetry.budget import BudgetRecorder
from tests.gateway import objects
from tests.gateway.apps import App
from tests.gateway.fake_api import FakeApi


class World:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.api = FakeApi(directory / "api.sock")
        self.client: KubeClient
        self.session: aiohttp.ClientSession
        self.messages: list[GatewayMessage] = []
        self.gateway: Gateway
        self.port = self.local_port = 0
        self.settings = GatewaySettings(
            name="g1",
            data_dir=directory / "gateway",
            run_dir=directory,
            token="secret",
            port=0,
            local_port=0,
            controller=f"unix:{directory / 'reports.sock'}",
            drain_seconds=0.2,
            stored_after_seconds=0.3,
        )
        self._serving: asyncio.Task[None] | None = None

    # The gateway

    async def start(self) -> None:
        ready = asyncio.Event()

        def listening(*, port: int, local_port: int) -> None:
            self.port, self.local_port = port, local_port
            ready.set()

        recorder = BudgetRecorder(registry=CollectorRegistry())
        self.gateway = Gateway(self.settings, client=self.client, recorder=recorder)
        self._serving = asyncio.create_task(self.gateway.run(ready=listening))
        waiting = asyncio.create_task(ready.wait())
        await asyncio.wait((waiting, self._serving), return_when=asyncio.FIRST_COMPLETED, timeout=20)
        waiting.cancel()
        if not ready.is_set():
            await self._serving
            raise AssertionError("the gateway did not become ready")

    async def stop(self) -> None:
        if self._serving is not None:
            task, self._serving = self._serving, None
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    # Objects

    def revision(self, name: str, **fields: Any) -> None:
        self.api.put(REVISIONS, objects.revision(name, **fields))

    def route(self, name: str, traffic: dict[str, int], **fields: Any) -> None:
        self.api.put(ROUTES, objects.route(name, traffic, **fields))

    def pod(self, app: App | int, revision: str, *, name: str = "", **fields: Any) -> None:
        port = app if isinstance(app, int) else app.port
        label = name or (f"pod-{port}" if isinstance(app, int) else app.name)
        self.api.put(PODS, objects.pod(label, revision, port=port, **fields))

    def remove_pod(self, name: str) -> None:
        self.api.delete(PODS, objects.NAMESPACE, name)

    # Requests

    async def get(
        self,
        name: str,
        path: str = "/",
        *,
        host: str | None = None,
        local: bool = False,
        headers: dict[str, str] | None = None,
        method: str = "GET",
        data: bytes | None = None,
        seconds: float = 15,
    ) -> tuple[int, str, JsonObject]:
        """Status, pod and body of one request."""
        target = host or f"{name}.{objects.NAMESPACE}.{objects.DOMAIN}"
        url = f"http://127.0.0.1:{self.local_port if local else self.port}{path}"
        async with self.session.request(
            method,
            url,
            headers={"host": target, **(headers or {})},
            data=io.BytesIO(data) if data is not None else None,
            timeout=aiohttp.ClientTimeout(total=seconds),
        ) as response:
            json_ = "json" in response.content_type
            text = await response.text()
            body: JsonObject = json.loads(text) if json_ else {"text": text}
            body = {key.lower(): value for key, value in body.items()}
            body["response-headers"] = {key.lower(): value for key, value in response.headers.items()}
            return response.status, response.headers.get("x-pod", ""), body

    async def until(self, condition: Callable[[], Any], *, seconds: float = 10, what: str = "") -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {seconds} s: {what or condition}")
            await asyncio.sleep(0.01)

    async def until_served(self, name: str, *, status: int = 200) -> None:
        """Until the Route is programmed."""
        key = f"{objects.NAMESPACE}/{name}"
        await self.until(lambda: key in self.gateway.programming.programmed().routes, what=f"{key} programmed")

    async def until_warm(self, revision: str, pods: int = 1) -> None:
        key = f"{objects.NAMESPACE}/{revision}"

        def warm() -> bool:
            item = self.gateway.programming.control.endpoints.known.get(key)
            return item is not None and len(getattr(item.source, "healthy", ())) == pods

        await self.until(warm, what=f"{key} with {pods} pods")

    def last(self, kind: type[GatewayMessage]) -> Any:
        return next((message for message in reversed(self.messages) if isinstance(message, kind)), None)

    @property
    def endpoint_pushes(self) -> int:
        return self.gateway.xds.sent.get(ENDPOINT_TYPE, 0)


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    """Everything but the gateway is running; it is stopped at the end, Envoy too."""
    directory = Path(tempfile.mkdtemp(prefix="ndl-gw-"))
    it = World(directory)
    reports = ReportsServer(
        token="secret",
        settings=Settings(report_interval_seconds=0.2),
        on_message=lambda _gateway, message: it.messages.append(message),
    )
    started = asyncio.Event()
    serving = asyncio.create_task(reports.run(it.settings.controller, started=started.set))
    await started.wait()
    try:
        async with it.api.serve() as client, aiohttp.ClientSession() as session:
            it.client, it.session = client, session
            try:
                yield it
            finally:
                await it.stop()
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        shutil.rmtree(directory, ignore_errors=True)
