"""Fixtures of the API server's tests: a running server, plain HTTP to it, and a watch on blocking calls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest
from blockbuster import blockbuster_ctx
from hypothesis import HealthCheck, settings

from serving.local.apiserver.service import Running
from tests.local.apiserver.harness import http_session, running_apiserver
from tests.local.apiserver.objects import widget_definition
from tests.local.apiserver.requests import Api

settings.register_profile("busy-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy-machine")


def pytest_configure() -> None:
    # Else pytest-asyncio asks Python 3.11 for the current loop, which makes one that nobody closes.
    asyncio.set_event_loop(None)


@pytest.fixture(autouse=True)
def no_blocking_in_the_loop() -> Iterator[None]:
    """A call from the server's own code that blocks the event loop fails the test."""
    with blockbuster_ctx(scanned_modules=["serving.local.apiserver"]):
        yield


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Running]:
    async with running_apiserver(tmp_path / "data") as running:
        yield running


@pytest.fixture
async def session(server: Running) -> AsyncIterator[aiohttp.ClientSession]:
    async with http_session(server) as made:
        yield made


@pytest.fixture
def api(session: aiohttp.ClientSession) -> Api:
    return Api(session)


@pytest.fixture
async def widgets(api: Api) -> Api:
    """The same, with the Widget definition served."""
    await api.create("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", widget_definition())
    return api
