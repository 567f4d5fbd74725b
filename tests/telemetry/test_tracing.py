"""Spans reach a collector over OTLP/HTTP, and without one nothing of the SDK is loaded."""

from __future__ import annotations

import asyncio
import os
import sys

import pytest
from aiohttp import web

from serving.api.meta import JsonObject
from serving.telemetry.otlp import OtlpJsonExporter, parse_headers
from serving.telemetry.tracing import traces_url

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


async def traced(**environment: str) -> str:
    """What a process with this environment prints."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.telemetry.traced_process",
        env=clean | environment,
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 0
    return output.decode().strip()


async def test_a_cold_start_is_a_span_with_its_stages() -> None:
    received: list[JsonObject] = []

    async def collect(request: web.Request) -> web.Response:
        assert request.headers["x-tenant"] == "a b"
        received.append(await request.json())
        return web.json_response({})

    application = web.Application()
    application.router.add_post("/v1/traces", collect)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        port = runner.addresses[0][1]
        headers = {"OTEL_EXPORTER_OTLP_HEADERS": "x-tenant=a%20b"}
        assert await traced(**{ENDPOINT: f"http://127.0.0.1:{port}/"}, **headers) == "True"
    finally:
        await runner.cleanup()
    (resource,) = received[0]["resourceSpans"]
    attributes = {entry["key"]: entry["value"] for entry in resource["resource"]["attributes"]}
    assert attributes["service.name"] == {"stringValue": "nodeless-gateway"}
    (scope,) = resource["scopeSpans"]
    assert scope["scope"] == {"name": "nodeless.activator"}
    spans = {span["name"]: span for span in scope["spans"]}
    whole, create = spans["cold start"], spans["create"]
    assert create["parentSpanId"] == whole["spanId"]
    assert create["traceId"] == whole["traceId"]
    assert len(whole["traceId"]) == 32
    assert "parentSpanId" not in whole
    assert (whole["startTimeUnixNano"], create["endTimeUnixNano"]) == ("1000000000000", "1000250000000")
    assert {"key": "k8s.pod.name", "value": {"stringValue": "hello-p"}} in whole["attributes"]


async def test_without_a_collector_nothing_is_loaded() -> None:
    assert await traced() == "False"


async def test_a_collector_that_is_away_only_costs_the_spans() -> None:
    assert await traced(**{ENDPOINT: "http://127.0.0.1:9"}) == "True"


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({ENDPOINT: ""}, None),
        ({ENDPOINT: "http://c/x/"}, "http://c/x/v1/traces"),
        ({ENDPOINT: "http://c", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://d/t"}, "http://d/t"),
        ({ENDPOINT: "http://c", "OTEL_SDK_DISABLED": "true"}, None),
        ({ENDPOINT: "http://c", "OTEL_TRACES_EXPORTER": "none"}, None),
    ],
)
def test_where_spans_go(environment: dict[str, str], expected: str | None) -> None:
    assert traces_url(environment) == expected


def test_an_endpoint_must_be_a_url() -> None:
    with pytest.raises(ValueError, match="'collector:4318': must be an http or https URL"):
        OtlpJsonExporter("collector:4318", headers={})


def test_headers() -> None:
    assert parse_headers("a=1, b=x%3Dy,,=z,c") == {"a": "1", "b": "x=y", "c": ""}
