"""Sends the cases to an API server and tells what came back."""

from __future__ import annotations

import asyncio
import copy
import json
import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp

from serving.api.meta import JsonObject
from tests.bad_input.cases import NAMESPACE, Case, changed

RECORDED: Final = Path(__file__).parent / "recorded.jsonl"
_GENERATED: Final = re.compile(r"\b(svc|Bad)-[bcdfghjklmnpqrstvwxz2456789]{5}\b")
ACCEPTED: Final = "accepted"
"""What was pruned away by the schema before anybody could object."""
Configure = Callable[[dict[str, dict[str, str]]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Outcome:
    code: int
    message: str

    def __str__(self) -> str:
        return f"{self.code} {self.message}"


class Asker:
    """Holds what is stored between cases: an accepted object is deleted again."""

    def __init__(self, client: aiohttp.ClientSession, configure: Configure) -> None:
        self._client = client
        self._configure = configure
        self._config: Any = None
        self._stored: dict[str, JsonObject] = {}
        self._objects: dict[str, JsonObject] = {}

    async def prepare(self) -> None:
        await self._send("POST", "/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})

    async def all(self, cases: Iterable[Case]) -> dict[str, Outcome]:
        return {str(case): await self.one(case) for case in cases}

    async def one(self, case: Case) -> Outcome:
        if case.before is None:
            if self._stored.pop(path := f"{case.collection}/{_name(case.body)}", None) is not None:
                await self._delete(path)
            await self._use(case.config)
            status, body = await self._send("POST", case.collection, _placed(case.body))
        else:
            # Stored under the configuration that is usual: only the change is judged by the case's own.
            path = f"{case.collection}/{case.before['metadata']['name']}"
            if self._stored.get(path) != case.before:
                await self._delete(path)
                await self._use({})
                status, self._objects[path] = await self._send("POST", case.collection, _placed(case.before))
                assert status == 201, (case, self._objects[path])
                self._stored[path] = case.before
            await self._use(case.config)
            status, body = await self._send("PUT", path, changed(self._objects[path], _placed(case.body)))
        if status >= 400:
            return Outcome(status, _without_chance(body["message"]))
        path = f"{case.collection}/{body['metadata']['name']}"
        self._stored.pop(path, None)
        await self._delete(path)
        return Outcome(status, ACCEPTED)

    async def config_map(self, name: str, data: dict[str, str], *, update: bool) -> Outcome:
        """Tries the data as that ConfigMap of the system namespace; nothing is stored."""
        collection = "/api/v1/namespaces/knative-serving/configmaps"
        body = {"metadata": {"name": name}, "data": data}
        if update:
            good = {"queue-sidecar-image": "x"} if name == "config-deployment" else {}
            await self._send("POST", collection, {"metadata": {"name": name}, "data": good})
            status, answer = await self._send("PUT", f"{collection}/{name}?dryRun=All", body)
        else:
            await self._delete(f"{collection}/{name}")
            status, answer = await self._send("POST", f"{collection}?dryRun=All", body)
        return Outcome(status, answer["message"] if status >= 400 else ACCEPTED)

    async def _use(self, config: dict[str, dict[str, str]]) -> None:
        if config != self._config:
            await self._configure(config)
            self._config = config

    async def _send(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        data = None if body is None else json.dumps(body)
        async with self._client.request(method, path, data=data, headers=headers) as response:
            return response.status, await response.json()

    async def _delete(self, path: str) -> None:
        await self._send("DELETE", path)
        async with asyncio.timeout(10):
            while (await self._send("GET", path))[0] != 404:
                await asyncio.sleep(0.02)


def _placed(body: JsonObject) -> JsonObject:
    placed = copy.deepcopy(body)
    if isinstance(placed["metadata"], dict) and placed["metadata"].get("namespace", "default") == "default":
        placed["metadata"]["namespace"] = NAMESPACE
    return placed


def _without_chance(message: str) -> str:
    """A refusal without generated names and without the values of a difference, which Go prints as addresses."""
    lines = [line for line in message.split("\n") if not line.startswith("\t")]
    return _GENERATED.sub(r"\1-<generated>", "\n".join(lines))


def _name(body: JsonObject) -> Any:
    return body["metadata"].get("name") if isinstance(body["metadata"], dict) else None


def load() -> dict[str, Outcome]:
    lines = map(json.loads, RECORDED.read_text().splitlines())
    return {line["case"]: Outcome(line["code"], line["message"]) for line in lines}


def save(outcomes: dict[str, Outcome]) -> None:
    lines = [
        json.dumps({"case": case, "code": outcome.code, "message": outcome.message}, ensure_ascii=False)
        for case, outcome in sorted(outcomes.items())
    ]
    RECORDED.write_text("".join(f"{line}\n" for line in lines))
