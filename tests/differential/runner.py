"""Sends a scenario's steps to one server and keeps the answers as they came."""

from __future__ import annotations

import asyncio
import io
import re
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
import msgspec

from serving.api.meta import JsonObject
from tests.differential.model import AnyStep, OpenWatch, ReadWatch, Scenario, Step, View

WAIT_SECONDS: Final = 20.0
POLL_SECONDS: Final = 0.05
USER_AGENT: Final = "differential/1.0"
_REFERENCE: Final = re.compile(r"\$\{([^}]+)\}")


@asynccontextmanager
async def session(
    base_url: str, *, token: str, socket: str | None = None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[aiohttp.ClientSession]:
    """To a server at a URL, or behind a Unix socket."""
    connector: aiohttp.BaseConnector = (
        aiohttp.TCPConnector(ssl=tls or True, limit=0)
        if socket is None
        else aiohttp.UnixConnector(path=socket, limit=0)
    )
    async with aiohttp.ClientSession(
        base_url=base_url,
        connector=connector,
        headers={"Authorization": f"Bearer {token}", "User-Agent": USER_AGENT},
        timeout=aiohttp.ClientTimeout(total=60),
        skip_auto_headers=("Content-Type",),
        max_line_size=65536,
    ) as made:
        yield made


async def run(scenario: Scenario, client: aiohttp.ClientSession, *, namespace: str) -> list[JsonObject]:
    """The answers, in order. The namespace is made, and filled by the server, before, and deleted after."""
    body = {"metadata": {"name": namespace}}
    async with client.post("/api/v1/namespaces", data=msgspec.json.encode(body), headers=_JSON) as response:
        assert response.status == 201, await response.text()
    running = _Running(client, namespace)
    for path in ("serviceaccounts/default", "configmaps/kube-root-ca.crt"):
        await running.step(Step(id="", method="GET", path=f"/api/v1/namespaces/{{ns}}/{path}", until=200))
    try:
        return [await running.step(step) for step in scenario.steps]
    finally:
        await running.close()
        async with client.delete(f"/api/v1/namespaces/{namespace}") as response:
            await response.read()


_JSON: Final = {"Content-Type": "application/json"}


@dataclass(slots=True)
class _Running:
    client: aiohttp.ClientSession
    namespace: str
    kept: dict[str, Any] = field(default_factory=dict)
    watches: dict[str, aiohttp.ClientResponse] = field(default_factory=dict)

    async def step(self, step: AnyStep) -> JsonObject:
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                if isinstance(step, OpenWatch):
                    return {"id": step.id, **await self.open(step)}
                if isinstance(step, ReadWatch):
                    return {"id": step.id, **await self.read(step)}
                return {"id": step.id, **await self.send(step)}
        except TimeoutError:
            return {"id": step.id, "status": 0, "body": "no answer in time"}

    async def send(self, step: Step) -> JsonObject:
        while True:
            answer = await self._ask(step)
            if step.until in (0, answer["status"]):
                return answer
            await asyncio.sleep(POLL_SECONDS)

    async def _ask(self, step: Step) -> JsonObject:
        headers = {"Accept": step.accept}
        body = self.filled(step.body)
        data = None
        if body is not None:
            # A stream, because aiohttp warns of large bodies that are none.
            data = io.BytesIO(body.encode() if isinstance(body, str) else msgspec.json.encode(body))
            if step.media is not None:
                headers["Content-Type"] = step.media
        async with self.client.request(
            step.method,
            self.filled(step.path),
            params=self.filled(dict(step.query)),
            data=data,
            headers=headers,
            allow_redirects=False,
        ) as response:
            raw = await response.read()
            answer = _described(response, raw)
        if step.save:
            self.kept[step.save] = answer["body"]
        if step.view is not None and answer["status"] < 300:
            answer["body"] = _seen(step.view, answer["body"])
        if step.terse and answer["status"] >= 400:
            answer["body"] = answer["body"]["reason"]
        return answer

    async def open(self, step: OpenWatch) -> JsonObject:
        response = await self.client.get(
            self.filled(step.path),
            params={"watch": "true", **self.filled(dict(step.query))},
            headers={"Accept": step.accept},
        )
        if response.status != 200:
            return _described(response, await response.read())
        self.watches[step.name] = response
        return {"status": 200, "type": response.headers.get("Content-Type", "")}

    async def read(self, step: ReadWatch) -> JsonObject:
        response = self.watches.get(step.name)
        if response is None:
            return {"status": 0, "body": "the watch was not opened"}
        events: list[Any] = []
        try:
            async with asyncio.timeout(WAIT_SECONDS / 4):
                while step.count is None or len(events) < step.count:
                    line = await response.content.readline()
                    if not line:
                        break
                    event = msgspec.json.decode(line)
                    if not _is_unasked(event):
                        events.append(event)
        except TimeoutError:
            events.append("nothing more came")
        if not step.ordered:
            events.sort(key=lambda event: str(event.get("object", {}).get("metadata", {}).get("name", "~")))
        return {"status": 200, "body": events}

    async def close(self) -> None:
        for response in self.watches.values():
            response.close()

    def filled(self, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {self.filled(key): self.filled(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self.filled(inner) for inner in value]
        if isinstance(value, str):
            return _REFERENCE.sub(self._referred, value.replace("{ns}", self.namespace))
        return value

    def _referred(self, match: re.Match[str]) -> str:
        found: Any = self.kept
        for part in match[1].split("."):
            found = (
                found[int(part)]
                if isinstance(found, list)
                else found.get(part)
                if isinstance(found, dict)
                else None
            )
        return "missing" if found is None else str(found)


def _is_unasked(event: JsonObject) -> bool:
    """A bookmark that a server sends when it likes, unlike the one that ends the initial events."""
    return event.get("type") == "BOOKMARK" and "annotations" not in event["object"].get("metadata", {})


def _seen(view: View, body: Any) -> Any:
    try:
        return view(body)
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        return {"not of the form that was expected": f"{type(error).__name__}: {error}", "body": body}


def _described(response: aiohttp.ClientResponse, raw: bytes) -> JsonObject:
    media = response.headers.get("Content-Type", "")
    body: Any = raw.decode(errors="replace")
    if "json" in media or raw.startswith(b'{"'):
        try:
            body = msgspec.json.decode(raw)
        except msgspec.DecodeError:
            body = raw.decode(errors="replace")
    answer: JsonObject = {"status": response.status, "type": media}
    warnings = response.headers.getall("Warning", [])
    if warnings:
        answer["warnings"] = sorted(warnings)
    if "Retry-After" in response.headers:
        answer["retryAfter"] = response.headers["Retry-After"]
    return {**answer, "body": body}
