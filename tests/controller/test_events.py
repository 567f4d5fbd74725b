"""Events against the embedded API server: written, counted, dropped when there are too many."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from serving.api.meta import ObjectMeta
from serving.api.resources import DOMAIN_CLAIMS, EVENTS, KSERVICES
from serving.controller.events import Recorder
from serving.kube.client import KubeClient
from serving.kube.connection import over_unix_socket
from tests.local.apiserver.harness import running_apiserver

META = ObjectMeta(name="hello", namespace="default", uid="u1")


async def _events(client: KubeClient, count: int) -> list[dict[str, Any]]:
    async with asyncio.timeout(10):
        while True:
            items = (await client.list(EVENTS, "default"))["items"]
            found = [item for item in items if item["source"].get("component") == "test"]
            if len(found) == count and sum(item["count"] for item in found) >= count:
                return found
            await asyncio.sleep(0.05)


async def test_what_happens_again_is_counted_until_its_event_is_gone(tmp_path: Path) -> None:
    async with running_apiserver(tmp_path) as server:
        connection = over_unix_socket(server.socket, token=server.token)
        async with KubeClient(connection) as client, KubeClient(connection) as mine:
            recorder = Recorder(mine, component="test", now=time.time)
            running = asyncio.ensure_future(recorder.run())
            try:
                for _ in range(3):
                    recorder.normal(KSERVICES, META, reason="Created", message="Created it")
                recorder.warning(DOMAIN_CLAIMS, ObjectMeta(name="c"), reason="Odd", message="Odd thing")
                found = {item["reason"]: item for item in await _events(client, 2)}
                assert (found["Created"]["type"], found["Created"]["count"]) == ("Normal", 3)
                assert found["Created"]["involvedObject"] == {
                    "apiVersion": "serving.knative.dev/v1",
                    "kind": "Service",
                    "namespace": "default",
                    "name": "hello",
                    "uid": "u1",
                }
                assert found["Odd"]["type"] == "Warning"
                recorder.normal(KSERVICES, META, reason="Created", message="Created it")
                async with asyncio.timeout(10):
                    while True:
                        again = await client.get(EVENTS, found["Created"]["metadata"]["name"], "default")
                        if again["count"] == 4:
                            break
                        await asyncio.sleep(0.05)
                await client.delete(EVENTS, found["Created"]["metadata"]["name"], "default")
                recorder.normal(KSERVICES, META, reason="Created", message="Created it")
                anew = {item["reason"]: item for item in await _events(client, 2)}
                assert anew["Created"]["count"] == 1
            finally:
                running.cancel()
                await asyncio.wait([running])
