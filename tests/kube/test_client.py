"""Errors of the client: everything that a server can do wrong is a KubeError, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import pytest
from aiohttp import web
from kubernetes_asyncio.client import Configuration

from serving.api.resources import CONFIG_MAPS, PODS
from serving.kube.client import KubeClient
from serving.kube.connection import _Tokens, over_unix_socket
from serving.kube.errors import ServerError, TooManyRequests, Unreachable
from tests.kube.scripted_server import answering
from tests.local.apiserver.harness import running_apiserver


async def test_retry_after_is_read_from_the_header_too(tmp_path: Path) -> None:
    async def busy(_: web.Request) -> web.Response:
        return web.Response(status=429, text="Too many requests", headers={"Retry-After": "3"})

    async with answering(tmp_path, busy) as client:
        with pytest.raises(TooManyRequests) as caught:
            await client.get(PODS, "a", "default")
    assert caught.value.retry_after_seconds == 3
    assert caught.value.transient


async def test_what_is_written_belongs_to_the_agent(tmp_path: Path) -> None:
    async with running_apiserver(tmp_path) as server:
        connection = over_unix_socket(server.socket, token=server.token)
        body = {"metadata": {"name": "a", "namespace": "default"}, "data": {"k": "v"}}
        async with KubeClient(connection, agent="nodeless-controller") as client:
            made = await client.create(CONFIG_MAPS, body)
    assert [entry["manager"] for entry in made["metadata"]["managedFields"]] == ["nodeless-controller"]


@pytest.mark.parametrize("body", ["<html>login</html>", "[]", ""])
async def test_an_answer_that_is_no_object_is_unreachable(tmp_path: Path, body: str) -> None:
    async def proxy(_: web.Request) -> web.Response:
        return web.Response(text=body)

    async with answering(tmp_path, proxy) as client:
        with pytest.raises(Unreachable):
            await client.get(PODS, "a", "default")


async def test_an_error_without_a_status_object_keeps_its_text(tmp_path: Path) -> None:
    async def broken(_: web.Request) -> web.Response:
        return web.Response(status=502, text="bad gateway")

    async with answering(tmp_path, broken) as client:
        with pytest.raises(ServerError, match="bad gateway"):
            await client.get(PODS, "a", "default")


async def test_a_garbled_watch_is_unreachable(tmp_path: Path) -> None:
    async def garbled(_: web.Request) -> web.Response:
        return web.Response(text='{"type": "ADDED"}\nnot json\n')

    async with answering(tmp_path, garbled) as client:
        with pytest.raises(Unreachable):
            async for _ in client.watch(PODS, resource_version="1", timeout_seconds=5):
                pass


async def test_what_a_caller_raises_inside_a_response_stays_what_it_is(tmp_path: Path) -> None:
    async def fine(_: web.Request) -> web.Response:
        return web.Response(text="chunk")

    async with answering(tmp_path, fine) as client:
        stream = client.stream("/log", params={})
        await anext(stream)
        with pytest.raises(OSError, match="disk full"):
            await stream.athrow(OSError("disk full"))


async def test_the_token_of_a_kubeconfig_is_sent_and_renewed() -> None:
    def configured(token: str) -> Configuration:
        made = Configuration()
        made.api_key["BearerToken"] = f"Bearer {token}"
        return made

    async def load() -> Configuration:
        return configured("second")

    tokens = _Tokens(configured("first"), load)
    assert await tokens() == "Bearer first"
    tokens._loaded_at -= 301
    assert await tokens() == "Bearer second"


async def test_credentials_that_cannot_be_renewed_are_unreachable() -> None:
    async def load() -> Configuration:
        raise RuntimeError("the plug-in is gone")

    tokens = _Tokens(Configuration(), load)
    assert await tokens() is None
    tokens._loaded_at -= 301
    with pytest.raises(Unreachable, match="the plug-in is gone"):
        await tokens()
