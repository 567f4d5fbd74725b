"""A small API server on a Unix socket: lists, watches, and Leases that can be written."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from serving.api.meta import JsonObject
from serving.api.resources import (
    CONFIG_MAPS,
    DOMAIN_MAPPINGS,
    LEASES,
    NODES,
    PODS,
    REVISIONS,
    ROUTES,
    Resource,
)
from serving.kube.client import KubeClient
from serving.kube.connection import over_unix_socket

RESOURCES = {
    resource.plural: resource
    for resource in (CONFIG_MAPS, DOMAIN_MAPPINGS, LEASES, NODES, PODS, REVISIONS, ROUTES)
}


class FakeApi:
    """State by plural and key. `available = False` makes every request fail with 503."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self.available = True
        self.objects: dict[str, dict[str, JsonObject]] = {plural: {} for plural in RESOURCES}
        self._version = 100
        self._watchers: dict[str, set[asyncio.Queue[JsonObject]]] = {plural: set() for plural in RESOURCES}

    def put(self, resource: Resource, body: JsonObject) -> None:
        meta = body["metadata"]
        self._version += 1
        meta["resourceVersion"] = str(self._version)
        key = f"{meta.get('namespace', '')}/{meta['name']}"
        known = self.objects[resource.plural]
        kind = "MODIFIED" if key in known else "ADDED"
        known[key] = json.loads(json.dumps(body))
        self._notify(resource.plural, kind, known[key])

    def delete(self, resource: Resource, namespace: str, name: str) -> None:
        body = self.objects[resource.plural].pop(f"{namespace}/{name}")
        self._version += 1
        body["metadata"]["resourceVersion"] = str(self._version)
        self._notify(resource.plural, "DELETED", body)

    def get(self, resource: Resource, namespace: str, name: str) -> JsonObject | None:
        return self.objects[resource.plural].get(f"{namespace}/{name}")

    def _notify(self, plural: str, kind: str, body: JsonObject) -> None:
        for queue in self._watchers[plural]:
            queue.put_nowait({"type": kind, "object": json.loads(json.dumps(body))})

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[KubeClient]:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.UnixSite(runner, str(self.socket)).start()
        try:
            async with KubeClient(over_unix_socket(self.socket, token="t")) as client:
                yield client
        finally:
            for queues in self._watchers.values():
                for queue in queues:
                    queue.put_nowait({})
            await runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if not self.available:
            return web.json_response({"kind": "Status", "code": 503, "reason": "ServiceUnavailable"}, status=503)
        parts = request.path.strip("/").split("/")
        parts = parts[3:] if parts[0] == "apis" else parts[2:]
        namespace = ""
        if parts[0] == "namespaces" and len(parts) > 2:
            namespace, parts = parts[1], parts[2:]
        plural, name = parts[0], parts[1] if len(parts) > 1 else ""
        if request.method == "GET" and not name:
            if request.query.get("watch"):
                return await self._watch(request, plural)
            items = [body for body in self.objects[plural].values() if _selected(request, body)]
            return web.json_response({"metadata": {"resourceVersion": str(self._version)}, "items": items})
        return await self._one(request, plural, namespace, name)

    async def _one(self, request: web.Request, plural: str, namespace: str, name: str) -> web.StreamResponse:
        resource = RESOURCES[plural]
        if request.method == "POST":
            body = await request.json()
            body["metadata"].setdefault("namespace", namespace)
            self.put(resource, body)
            return web.json_response(body, status=201)
        known = self.get(resource, namespace, name)
        if known is None:
            return web.json_response({"kind": "Status", "code": 404, "reason": "NotFound"}, status=404)
        if request.method == "PATCH":
            known = _merge(known, await request.json())
            self.put(resource, known)
        return web.json_response(known)

    async def _watch(self, request: web.Request, plural: str) -> web.StreamResponse:
        queue: asyncio.Queue[JsonObject] = asyncio.Queue()
        self._watchers[plural].add(queue)
        response = web.StreamResponse()
        try:
            await response.prepare(request)
            while event := await queue.get():
                if _selected(request, event["object"]):
                    await response.write(json.dumps(event).encode() + b"\n")
        except ConnectionError:
            pass
        finally:
            self._watchers[plural].discard(queue)
        return response


def _selected(request: web.Request, body: JsonObject) -> bool:
    field = request.query.get("fieldSelector", "")
    if field and body["metadata"]["name"] != field.partition("=")[2]:
        return False
    label = request.query.get("labelSelector", "")
    return not label or label in body["metadata"].get("labels", {})


def _merge(target: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merge(merged.get(key), value)
    return merged
