"""The whole gateway with a real Envoy: routing, protocols, warm and cold."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.gateway.apps import App, http_app
from tests.gateway.world import World, world

pytestmark = pytest.mark.envoy


@pytest.fixture
async def gw() -> AsyncIterator[World]:
    async with world() as it:
        await it.start()
        yield it


@pytest.fixture
async def app() -> AsyncIterator[App]:
    async with http_app("p1") as it:
        yield it


async def test_warm_request(gw: World, app: App) -> None:
    gw.revision("r1")
    gw.route("hello", {"r1": 100})
    gw.pod(app, "r1")
    await gw.until_served("hello")
    status, pod, body = await gw.get("hello")
    assert (status, pod) == (200, "p1")
    assert body["knative-serving-revision"] == "r1"


async def test_cold_request_waits_for_a_pod(gw: World, app: App) -> None:
    gw.revision("r1")
    gw.route("hello", {"r1": 100})
    await gw.until_served("hello")
    waiting = asyncio.create_task(gw.get("hello"))
    await gw.until(lambda: gw.gateway.activator.held("default/r1") == 1)
    gw.pod(app, "r1")
    status, pod, _ = await waiting
    assert (status, pod) == (200, "p1")
