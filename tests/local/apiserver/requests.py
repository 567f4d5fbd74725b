"""Short forms of requests, for tests."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec

from serving.api.meta import JsonObject

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
WIDGETS = "/apis/example.dev/v1/namespaces/default/widgets"
CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
PODS = "/api/v1/namespaces/default/pods"
WAIT_SECONDS = 10.0

OWN = {"fieldSelector": "metadata.name!=kube-root-ca.crt"}
"""ConfigMaps but for the one that the server puts into every namespace."""


class Answer:
    def __init__(self, status: int, headers: Any, body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    @property
    def message(self) -> str:
        return str(self.json["message"])

    @property
    def warnings(self) -> list[str]:
        return list(self.headers.getall("Warning", []))


class Api:
    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.session = session

    async def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        media: str = "application/json",
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        **query: str,
    ) -> Answer:
        data: Any = body if body is None or isinstance(body, bytes) else msgspec.json.encode(body)
        if data is not None and len(data) > 500_000:
            data = io.BytesIO(data)  # aiohttp sends it in pieces
        sent = {"Content-Type": media, **(headers or {})}
        async with self.session.request(
            method, path, data=data, headers=sent, params={**(params or {}), **query}
        ) as response:
            return Answer(response.status, response.headers, await response.read())

    async def create(self, path: str, body: JsonObject, **query: str) -> JsonObject:
        answer = await self.send("POST", path, body, params=query)
        assert answer.status == 201, answer.body
        made: JsonObject = answer.json
        return made

    async def get(self, path: str, params: Mapping[str, str] | None = None, **query: str) -> JsonObject:
        answer = await self.send("GET", path, params={**(params or {}), **query})
        assert answer.status == 200, answer.body
        found: JsonObject = answer.json
        return found

    async def patch(self, path: str, change: Any, *, media: str = MERGE_PATCH, **query: str) -> JsonObject:
        answer = await self.send("PATCH", path, change, media=media, params=query)
        assert answer.status == 200, answer.body
        patched: JsonObject = answer.json
        return patched

    async def delete(self, path: str, body: JsonObject | None = None, **query: str) -> JsonObject:
        answer = await self.send("DELETE", path, body, params=query)
        assert answer.status == 200, answer.body
        left: JsonObject = answer.json
        return left

    @asynccontextmanager
    async def watch(
        self,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        **query: str,
    ) -> AsyncIterator[Events]:
        async with self.session.get(
            path, params={"watch": "true", **(params or {}), **query}, headers=headers or {}
        ) as response:
            assert response.status == 200, await response.read()
            yield Events(response)

    async def gone(self, path: str) -> None:
        """Wait until the object at a path is deleted; told by a watch, not by polling."""
        collection, name = path.rsplit("/", 1)
        async with self.watch(collection, fieldSelector=f"metadata.name={name}") as events:
            if (await self.send("GET", path)).status == 404:
                return
            while (await events.next())["type"] != "DELETED":
                pass


class Events:
    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    async def next(self) -> JsonObject:
        async with asyncio.timeout(WAIT_SECONDS):
            line = await self._response.content.readline()
        assert line, "the watch ended"
        event: JsonObject = msgspec.json.decode(line)
        return event

    async def until(self, type_: str, name: str = "") -> JsonObject:
        """The object of the next event of that type."""
        while True:
            event = await self.next()
            if event["type"] == type_ and name in ("", event["object"]["metadata"].get("name")):
                found: JsonObject = event["object"]
                return found

    async def rest(self) -> list[JsonObject]:
        """Everything until the stream ends cleanly."""
        async with asyncio.timeout(WAIT_SECONDS):
            data = await self._response.content.read()
        return [msgspec.json.decode(line) for line in data.splitlines()]
