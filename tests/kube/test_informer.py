"""Informers against the embedded API server: always a state that the server had, whatever breaks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

import pytest
from aiohttp import web

from serving.api.meta import Model, ObjectMeta
from serving.api.resources import CONFIG_MAPS
from serving.api.v1 import ConfigMap
from serving.kube.client import KubeClient
from serving.kube.connection import over_unix_socket
from serving.kube.informer import Informer
from tests.kube.scripted_server import answering
from tests.local.apiserver.harness import running_apiserver

OWN = "metadata.name!=kube-root-ca.crt"
"""All but the ConfigMap that the server puts into every namespace."""


def config_map(name: str, **data: str) -> dict[str, object]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


class Changes:
    """Every change that an informer reports, and a way to wait for a state."""

    def __init__(self, informer: Informer[ConfigMap]) -> None:
        self.seen: list[tuple[str, str]] = []
        self._informer = informer
        self._changed = asyncio.Condition()
        informer.subscribe(self._on_change)

    def _on_change(self, key: str, old: ConfigMap | None, new: ConfigMap | None) -> None:
        kind = "added" if old is None else "deleted" if new is None else "changed"
        self.seen.append((kind, key.split("/")[1]))

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.005)


@asynccontextmanager
async def following(client: KubeClient) -> AsyncIterator[tuple[Informer[ConfigMap], Changes]]:
    informer = Informer(client, CONFIG_MAPS, ConfigMap, namespace="default", field_selector=OWN)
    changes = Changes(informer)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(informer.run())
        async with asyncio.timeout(10):
            await informer.synced.wait()
        yield informer, changes
        task.cancel()


def client_of(directory: Path) -> KubeClient:
    token = (directory / "token").read_text().strip()
    return KubeClient(over_unix_socket(directory / "api.sock", token=token))


async def test_list_then_watch(tmp_path: Path) -> None:
    async with running_apiserver(tmp_path), client_of(tmp_path) as client:
        await client.create(CONFIG_MAPS, config_map("a"), "default")
        async with following(client) as (informer, changes):
            await client.create(CONFIG_MAPS, config_map("b", key="1"), "default")
            await client.patch(CONFIG_MAPS, "b", {"data": {"key": "2"}}, "default")
            await client.delete(CONFIG_MAPS, "a", "default")
            await changes.until(lambda: ("deleted", "a") in changes.seen)
            assert changes.seen == [("added", "a"), ("added", "b"), ("changed", "b"), ("deleted", "a")]
            found = informer.get("default/b")
            assert found is not None
            assert found.data == {"key": "2"}
            assert informer.get("default/a") is None


async def test_a_restarted_server_leads_to_differences_only(tmp_path: Path) -> None:
    async with running_apiserver(tmp_path), client_of(tmp_path) as client:
        for name in ("kept", "edited", "removed"):
            await client.create(CONFIG_MAPS, config_map(name), "default")
    seen: list[tuple[str, str]] = []
    token = (tmp_path / "token").read_text().strip()
    async with (
        KubeClient(over_unix_socket(tmp_path / "api.sock", token=token)) as client,
        asyncio.TaskGroup() as group,
    ):
        informer = Informer(client, CONFIG_MAPS, ConfigMap, namespace="default", field_selector=OWN)
        changes = Changes(informer)
        task = group.create_task(informer.run())
        async with running_apiserver(tmp_path):
            await changes.until(lambda: len(changes.seen) == 3)
        changes.seen.clear()
        async with running_apiserver(tmp_path), client_of(tmp_path) as other:
            await other.patch(CONFIG_MAPS, "edited", {"data": {"key": "new"}}, "default")
            await other.delete(CONFIG_MAPS, "removed", "default")
            await changes.until(lambda: len(changes.seen) >= 2)
            seen = sorted(changes.seen)
        task.cancel()
    assert seen == [("changed", "edited"), ("deleted", "removed")]


async def test_an_expired_watch_lists_again(tmp_path: Path) -> None:
    """With a history of 8 events a watch from an old version is 410 after more of them."""
    async with running_apiserver(tmp_path, history=8), client_of(tmp_path) as client:
        informer = Informer(client, CONFIG_MAPS, ConfigMap, namespace="default", field_selector=OWN)
        changes = Changes(informer)
        first = asyncio.ensure_future(informer.run())
        await informer.synced.wait()
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        for number in range(30):
            await client.create(CONFIG_MAPS, config_map(f"m{number}"), "default")
        second = asyncio.ensure_future(informer.run())
        await changes.until(lambda: len(informer.all()) >= 30)
        assert sorted(changes.seen) == sorted(("added", f"m{number}") for number in range(30))
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)


async def test_a_subscriber_that_fails_costs_nobody_else_a_change(tmp_path: Path) -> None:
    async with running_apiserver(tmp_path), client_of(tmp_path) as client:
        informer = Informer(client, CONFIG_MAPS, ConfigMap, namespace="default", field_selector=OWN)

        def failing(key: str, old: ConfigMap | None, new: ConfigMap | None) -> None:
            raise ValueError(f"no idea what {key} is")

        informer.subscribe(failing)
        changes = Changes(informer)
        task = asyncio.ensure_future(informer.run())
        await informer.synced.wait()
        await client.create(CONFIG_MAPS, config_map("a"), "default")
        await client.create(CONFIG_MAPS, config_map("b"), "default")
        await changes.until(lambda: ("added", "b") in changes.seen)
        assert changes.seen == [("added", "a"), ("added", "b")]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


LIST = '{"metadata": {"resourceVersion": "1"}, "items": []}'


@pytest.mark.parametrize(
    "answers",
    [
        pytest.param([(200, "<html>"), (200, LIST)], id="not JSON"),
        pytest.param([(200, "{}"), (200, LIST)], id="not a list"),
        pytest.param([(503, ""), (200, LIST)], id="unavailable"),
        pytest.param([(403, ""), (200, LIST)], id="forbidden"),
    ],
)
async def test_a_list_that_fails_is_tried_again(tmp_path: Path, answers: list[tuple[int, str]]) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        if "watch" in request.query:
            await asyncio.sleep(60)
        code, text = answers.pop(0)
        return web.Response(status=code, text=text)

    async with answering(tmp_path, handler) as client:
        informer = Informer(client, CONFIG_MAPS, ConfigMap)
        task = asyncio.ensure_future(informer.run())
        async with asyncio.timeout(5):
            await informer.synced.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize(
    "line",
    [
        pytest.param("", id="ends at once"),
        pytest.param('{"type": "ERROR", "object": {"code": 410}}', id="always expired"),
        pytest.param('{"type": "ADDED", "object": {"metadata": 7}}', id="an object without metadata"),
        pytest.param('{"type": "ERROR", "object": null}', id="an error without a status"),
    ],
)
async def test_a_watch_that_always_fails_is_not_hammered(tmp_path: Path, line: str) -> None:
    calls = 0

    async def handler(request: web.Request) -> web.StreamResponse:
        nonlocal calls
        calls += 1
        return web.Response(text=f"{line}\n" if "watch" in request.query else LIST)

    async with answering(tmp_path, handler) as client:
        informer = Informer(client, CONFIG_MAPS, ConfigMap)
        task = asyncio.ensure_future(informer.run())
        await asyncio.sleep(0.5)
        assert not task.done()
        assert 2 <= calls <= 20
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_broken_object_that_is_gone_is_forgotten_by_the_next_list(tmp_path: Path) -> None:
    item = '{"metadata": {"name": "bad", "resourceVersion": "1"}, "data": {"state": "perhaps"}}'
    lists = [LIST.replace("[]", f"[{item}]"), LIST]

    async def handler(request: web.Request) -> web.StreamResponse:
        if "watch" not in request.query:
            return web.Response(text=lists.pop(0))
        if lists:
            return web.Response(text='{"type": "ERROR", "object": {"code": 410}}\n')
        await asyncio.sleep(60)
        raise AssertionError

    async with answering(tmp_path, handler) as client:
        informer = Informer(client, CONFIG_MAPS, Switch)
        task = asyncio.ensure_future(informer.run())
        await informer.synced.wait()
        assert set(informer.undecodable) == {"bad"}
        async with asyncio.timeout(5):
            while informer.undecodable:
                await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class Switch(Model, frozen=True, kw_only=True):
    metadata: ObjectMeta = ObjectMeta()
    data: dict[str, Literal["on", "off"]] = {}


async def test_an_object_that_cannot_be_understood_stops_nobody(tmp_path: Path) -> None:
    async with running_apiserver(tmp_path), client_of(tmp_path) as client:
        await client.create(CONFIG_MAPS, config_map("good", state="on"), "default")
        await client.create(CONFIG_MAPS, config_map("bad", state="perhaps"), "default")
        informer = Informer(client, CONFIG_MAPS, Switch, namespace="default", field_selector=OWN)
        task = asyncio.ensure_future(informer.run())
        await informer.synced.wait()
        assert informer.get("default/good") is not None
        assert informer.get("default/bad") is None
        assert "perhaps" in informer.undecodable["default/bad"]
        mended = asyncio.Event()
        informer.subscribe(lambda key, old, new: mended.set() if key == "default/bad" else None)
        await client.patch(CONFIG_MAPS, "bad", {"data": {"state": "off"}}, "default")
        async with asyncio.timeout(5):
            await mended.wait()
        assert informer.undecodable == {}
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
