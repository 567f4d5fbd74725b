"""Everybody ends up with one token, whoever makes it."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path

import pytest
from aiohttp import web

from serving.api.meta import JsonObject
from serving.kube.errors import Forbidden
from serving.kube.shared_token import shared_token
from tests.kube.scripted_server import answering


class Secrets:
    """One Secret, with versions; `present`: an installer made it, empty."""

    def __init__(self, *, present: bool) -> None:
        self.secret: JsonObject | None = {"metadata": {"resourceVersion": "1"}} if present else None
        self.refused = 0
        self.unavailable = 0
        self.together = asyncio.Barrier(1)
        """As many must have read before anybody writes."""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if self.unavailable:
            self.unavailable -= 1
            return _status(503, "ServiceUnavailable")
        if request.method == "GET":
            answer = _status(404, "NotFound") if self.secret is None else web.json_response(self.secret)
            if "data" not in (self.secret or {}):
                await self.together.wait()
            return answer
        body = await request.json()
        if request.method == "POST":
            if self.secret is not None:
                self.refused += 1
                return _status(409, "AlreadyExists")
            self.secret = {"metadata": {"resourceVersion": "1"}, "data": body["data"]}
            return web.json_response(self.secret, status=201)
        assert self.secret is not None
        version = self.secret["metadata"]["resourceVersion"]
        if body["metadata"]["resourceVersion"] != version:
            self.refused += 1
            return _status(409, "Conflict")
        self.secret = {"metadata": {"resourceVersion": str(int(version) + 1)}, "data": body["data"]}
        return web.json_response(self.secret)


def _status(code: int, reason: str) -> web.Response:
    return web.json_response({"kind": "Status", "reason": reason, "message": reason, "code": code}, status=code)


@pytest.mark.parametrize("present", [True, False])
async def test_all_agree_on_the_first_one(tmp_path: Path, present: bool) -> None:
    secrets = Secrets(present=present)
    secrets.together = asyncio.Barrier(4)
    async with answering(tmp_path, secrets.handle) as client:
        tokens = await asyncio.gather(*(shared_token(client) for _ in range(4)))
        assert len(set(tokens)) == 1
        assert len(tokens[0]) >= 32
        assert secrets.refused == 3
        assert secrets.secret is not None
        assert base64.b64decode(secrets.secret["data"]["token"]).decode() == tokens[0]
        assert await shared_token(client) == tokens[0]


async def test_it_waits_for_an_api_server_that_is_not_there_yet(tmp_path: Path) -> None:
    secrets = Secrets(present=True)
    secrets.unavailable = 1
    async with answering(tmp_path, secrets.handle) as client:
        assert await shared_token(client)


async def test_what_is_not_allowed_is_told(tmp_path: Path) -> None:
    async def forbid(_: web.Request) -> web.StreamResponse:
        return _status(403, "Forbidden")

    async with answering(tmp_path, forbid) as client:
        with pytest.raises(Forbidden):
            await shared_token(client)
