"""The request log of config-observability: off by default, shaped by its template, refused when impossible."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from serving.api.meta import JsonObject
from serving.api.resources import CONFIG_MAPS
from serving.kube.errors import ApiError
from tests.e2e.cluster import Cluster
from tests.e2e.http import Gateway
from tests.e2e.manifests import service
from tests.e2e.stack import Stack

ENABLE, TEMPLATE = "logging.enable-request-log", "logging.request-log-template"
TRACE = "0af7651916cd43dd8448eb211c80319c"


async def _configure(cluster: Cluster, **data: str | None) -> None:
    names = {"enable": ENABLE, "template": TEMPLATE}
    patch: JsonObject = {"data": {names[key]: value for key, value in data.items()}}
    await cluster.client.patch(CONFIG_MAPS, "config-observability", patch, "knative-serving")


@pytest.fixture
async def restored(cluster: Cluster) -> AsyncIterator[None]:
    yield
    await _configure(cluster, enable=None, template=None)


def _lines(stack: Stack, mark: str) -> list[str]:
    log = Path(stack.data_dir) / "logs" / "requests.log"
    return [line for line in log.read_text().splitlines() if mark in line] if log.exists() else []


async def _logged(stack: Stack, gateway: Gateway, name: str, mark: str, *, begins: str = "{") -> str:
    """One line of a request to `mark`, which is repeated until the log is on and its lines begin as the template
    says. Envoy writes every ten seconds."""
    async with asyncio.timeout(60):
        while not any(line.startswith(begins) for line in _lines(stack, mark)):
            headers = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01", "User-Agent": 'a"b'}
            assert (await gateway.get(name, mark, headers=headers)).status == 200
            await asyncio.sleep(0.5)
    return _lines(stack, mark)[-1]


@pytest.mark.usefixtures("restored")
async def test_lines_follow_the_template(cluster: Cluster, gateway: Gateway, stack: Stack, name: str) -> None:
    await cluster.deploy(service(name))
    assert (await gateway.get(name, "/?before")).status == 200
    await _configure(cluster, enable="true")
    line = json.loads(await _logged(stack, gateway, name, "/?default"))
    request = line["httpRequest"]
    assert line["traceId"] == TRACE
    assert request["requestMethod"] == "GET"
    assert request["userAgent"] == 'a"b'
    assert request["status"] == 200
    assert request["protocol"] == "HTTP/1.1"
    assert request["responseSize"] == "13"
    assert 0 < float(request["latency"].removesuffix("s")) < 60
    assert request["serverIp"].count(".") == 3
    assert _lines(stack, "/?before") == []

    template = "{{.Request.Method}} {{.Request.RequestURI}} {{.Revision.Service}} {{.Revision.Name}} 100%"
    await _configure(cluster, template=template)
    text = await _logged(stack, gateway, name, "/?text", begins="GET ")
    assert text == f"GET /?text {name} {name}-00001 100%"


@pytest.mark.usefixtures("restored")
async def test_a_held_request_is_logged_once_with_its_pod(
    cluster: Cluster, gateway: Gateway, stack: Stack, name: str
) -> None:
    await cluster.deploy(service(name))
    await _configure(cluster, enable="true")
    await _logged(stack, gateway, name, f"/?{name}-warm")
    await cluster.at_zero(name)
    assert "x-nodeless-pod-ip" not in (await gateway.get(name, f"/?{name}-cold")).headers
    async with asyncio.timeout(30):
        while not _lines(stack, f"/?{name}-cold"):
            await asyncio.sleep(0.5)
    (line,) = _lines(stack, f"/?{name}-cold")
    assert json.loads(line)["httpRequest"]["serverIp"].count(".") == 3


async def test_a_template_that_envoy_cannot_write_is_refused(cluster: Cluster) -> None:
    with pytest.raises(ApiError, match=r"requestLog:1: action .* cannot be logged by Envoy; possible are"):
        await _configure(cluster, enable="true", template="{{if .Request.Method}}x{{end}}")
    await _configure(cluster, template="{{if .Request.Method}}x{{end}}")
    await _configure(cluster, template=None)
