"""Fixtures of the API server's tests: a running server, plain HTTP to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from serving.local.apiserver.service import Running
from tests.local.apiserver.harness import http_session, running_apiserver
from tests.local.apiserver.objects import widget_definition
from tests.local.apiserver.requests import Api


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
