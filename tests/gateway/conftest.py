from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.gateway.apps import App, http_app
from tests.gateway.world import World, world


@pytest.fixture
async def gw() -> AsyncIterator[World]:
    """A gateway that serves, with nothing to serve yet."""
    async with world() as it:
        await it.start()
        yield it


@pytest.fixture
async def app() -> AsyncIterator[App]:
    async with http_app("p1") as it:
        yield it


@pytest.fixture
async def other() -> AsyncIterator[App]:
    async with http_app("p2") as it:
        yield it
